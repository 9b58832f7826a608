"""Pictures that are made anew, as whoever runs the job is told of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from PIL import Image

JOB = """
version: 1
jobs:
  - name: captions
    provider: simulator/model-studio-singapore
    model: qwen3-vl-plus
    inputs: {images: pictures}
    prompt: "Describe {{ filename }}."
    media: {oversize: shrink}
"""


def printed(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "batchrun", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, encoding="utf-8", check=True).stdout


def test_the_summary_and_the_results_say_what_was_shrunk(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    Image.linear_gradient("L").resize((8_000, 100)).save(tmp_path / "pictures" / "wide.png")
    (tmp_path / "jobs.yaml").write_text(JOB, encoding="utf-8")
    summary = printed(tmp_path, "run", "jobs.yaml")
    assert "1 call with pictures made anew: `batchrun results JOB --full` says how" in summary
    assert "('wide.png': sent as JPEG of quality 90, 7680×96 pixels, instead of PNG of 8000×100 pixels, " in printed(
        tmp_path, "results", "captions", "--full"
    )
    (item,) = json.loads(printed(tmp_path, "results", "captions", "--json"))["items"]
    assert item["attempts"][0]["note"].startswith("'wide.png': sent as JPEG")

"""Runs that bring their workers along, and leave nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

JOB = """
version: 1
jobs:
  - name: lines
    provider: simulator/model-studio-singapore
    model: qwen3-vl-plus
    inputs: {rows: rows.jsonl}
    prompt: "Say something about {{ text }}."
    params: {max_tokens: 200}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "jobs.yaml").write_text(JOB, encoding="utf-8")
    rows = [json.dumps({"id": f"r{number}", "text": f"thing {number}"}) for number in range(40)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows), encoding="utf-8")
    (tmp_path / "tmp").mkdir()
    return tmp_path


def started(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "batchrun", "run", "jobs.yaml", "--workers", "2", *words],
        cwd=folder, env={**os.environ, "TMPDIR": str(folder / "tmp")}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip


def left_behind(folder: Path) -> list[str]:
    """Processes that were started with this folder for their temporary files, and what they left there."""
    marker = f"TMPDIR={folder / 'tmp'}".encode()
    found = [str(path.name) for path in (folder / "tmp").glob("batchrun-*")]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if marker in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue  # it has ended meanwhile, or is somebody else's
    return found


def gone(folder: Path) -> bool:
    last = time.monotonic() + 60
    while left_behind(folder) and time.monotonic() < last:
        time.sleep(0.2)
    return left_behind(folder) == []


def test_two_processes_do_the_work_and_are_gone_then(folder: Path) -> None:
    process = started(folder, "--json")
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    summary = json.loads(out)
    assert (summary["jobs"][0]["states"], summary["calls"]) == ({"done": 40}, 40)
    assert gone(folder)


def test_ctrl_c_stops_them(folder: Path) -> None:
    process = started(folder)
    wait_for_calls(folder)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode in (0, 130), err
    assert gone(folder)


def test_a_run_that_is_killed_leaves_nothing(folder: Path) -> None:
    process = started(folder)
    wait_for_calls(folder)
    process.kill()
    process.communicate(timeout=60)
    assert gone(folder)


def wait_for_calls(folder: Path) -> None:
    last = time.monotonic() + 60
    while not any("ForkPool" in line or "batchrun worker" in line for line in left_behind(folder)):
        assert time.monotonic() < last
        time.sleep(0.2)
    time.sleep(1.0)  # long enough for the pool to be made; what is asserted holds at any moment

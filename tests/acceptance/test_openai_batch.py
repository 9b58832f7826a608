"""A batch file of a vendor's, run and given back on the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BATCHRUN = [sys.executable, "-m", "batchrun"]
JOBS = """\
version: 1
jobs:
  - name: moved
    provider: simulator/model-studio-singapore
    model: qwen3-vl-plus
    inputs: {requests: batch.jsonl}
"""

WATCH = [
    {
        "role": "user",
        "content": [
            {"type": "video_url", "video_url": {"url": "https://example.com/a.mp4"}, "fps": 0.5},
            {"type": "video", "video": ["https://example.com/a.jpg"] * 4},
            {"type": "text", "text": "What happens?"},
        ],
    }
]


def line(custom_id: str, **body: object) -> str:
    asked = {"model": "qwen3-vl-plus", "messages": [{"role": "user", "content": f"Hello {custom_id}"}], **body}
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": asked})


def run(folder: Path, *arguments: str) -> tuple[int, str, str]:
    done = subprocess.run([*BATCHRUN, *arguments], cwd=folder, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a job of four lines has run, one of which the vendor refuses."""
    home = tmp_path_factory.mktemp("moved")
    (home / "jobs.yaml").write_text(JOBS)
    lines = [line("a"), line("b", max_tokens=2), line("c", temperature=9), line("d", messages=WATCH)]
    (home / "batch.jsonl").write_text("\n".join(lines) + "\n")
    status, out, err = run(home, "run", "jobs.yaml")
    assert (status, "2 done, 1 truncated, 1 failed of 4" in out) == (1, True), out + err
    return home


def test_answers_and_errors_go_into_two_files(folder: Path) -> None:
    status, out, err = run(folder, "export", "moved", "--format", "openai", "--out", "out.jsonl")
    assert (status, out) == (0, "")
    notes = [note.partition(", sha256")[0] for note in err.splitlines()]
    assert notes == ["rows written to out.jsonl: 3", "items without an answer written to out.errors.jsonl: 1"]
    assert [json.loads(text)["custom_id"] for text in (folder / "out.jsonl").read_text().splitlines()] == [
        "a",
        "b",
        "d",
    ]
    (error,) = (folder / "out.errors.jsonl").read_text().splitlines()
    assert (json.loads(error)["custom_id"], json.loads(error)["response"]["status_code"]) == ("c", 400)


def test_on_standard_output_are_answers_alone_and_a_note_tells_of_the_others(folder: Path) -> None:
    status, out, err = run(folder, "export", "moved", "--format", "openai")
    assert status == 0
    assert [json.loads(text)["error"] for text in out.splitlines()] == [None] * 3
    assert "items without an answer left out: 1; --errors FILE writes them" in err


def test_a_file_of_errors_belongs_to_this_form_alone(folder: Path) -> None:
    status, out, err = run(folder, "export", "moved", "--errors", "e.jsonl")
    assert (status, out) == (2, "")
    assert "--errors belongs to --format openai" in err


def test_what_failed_can_be_sent_elsewhere_as_it_was_written(folder: Path) -> None:
    status, out, _ = run(folder, "export", "moved", "--format", "openai-requests", "--state", "failed")
    assert (status, json.loads(out)) == (0, json.loads(line("c", temperature=9)))


def test_what_was_not_called_yet_comes_with_a_warning(folder: Path, tmp_path: Path) -> None:
    for name in ("jobs.yaml", "batch.jsonl"):
        (tmp_path / name).write_text((folder / name).read_text())
    run(tmp_path, "load", "jobs.yaml")
    nothing = run(tmp_path, "export", "moved", "--format", "markdown", "--out", "documents")[2]
    assert "no item has an answer to write" in nothing
    status, out, err = run(tmp_path, "export", "moved", "--format", "openai-requests")
    assert (status, [json.loads(text) for text in out.splitlines()]) == (
        0,
        [json.loads(text) for text in (folder / "batch.jsonl").read_text().splitlines()],
    )
    assert "these items are still due here" in err

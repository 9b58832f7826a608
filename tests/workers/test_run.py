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


def processes(folder: Path) -> list[tuple[int, list[str]]]:
    """Those that were started with this folder for their temporary files: number and command."""
    marker = f"TMPDIR={folder / 'tmp'}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if marker in (process / "environ").read_bytes().split(b"\0"):
                found.append((int(process.name), (process / "cmdline").read_text().split("\0")))
        except OSError:
            continue  # it has ended meanwhile, or is somebody else's
    return found


def left_behind(folder: Path) -> list[str]:
    """These processes, and what they left in the folder."""
    files = [path.name for path in (folder / "tmp").glob("batchrun-*")]
    return [*files, *(" ".join(command) for _, command in processes(folder))]


def gone(folder: Path) -> bool:
    last = time.monotonic() + 40
    while left_behind(folder) and time.monotonic() < last:
        time.sleep(0.2)
    assert left_behind(folder) == []
    return True


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


@pytest.mark.parametrize("everybody", [False, True], ids=["the one between", "every Python"])
def test_a_kill_of_what_owns_the_workers_leaves_nothing(folder: Path, everybody: bool) -> None:
    process = started(folder)
    wait_for_calls(folder)
    for number, command in processes(folder):
        if command[1:3] == ["-m", "batchrun.worker.local"] or (everybody and command[0] == sys.executable):
            os.kill(number, signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == (-signal.SIGKILL if everybody else 4), err
    assert gone(folder)


def test_nothing_but_the_brokers_own_folder_is_removed(tmp_path: Path) -> None:
    """Also where the first line of its name is that of another one. The broker itself doesn't take such names."""
    other, odd = tmp_path / "other", tmp_path / "other\nfolder"
    for folder in (other, odd):
        folder.mkdir()
    words = [sys.executable, "-m", "batchrun.worker.local", sys.executable, "-c", "print()"]
    environment = {**os.environ, "TMPDIR": str(odd)}
    ended = subprocess.run(words, env=environment, stdin=subprocess.PIPE, capture_output=True, timeout=60, check=False)
    assert (ended.returncode, other.is_dir(), list(odd.iterdir())) == (1, True, []), ended.stderr


def test_workers_that_end_too_early_end_the_run_with_an_error(folder: Path) -> None:
    process = started(folder)
    wait_for_calls(folder)
    for number, command in processes(folder):
        if command[1:4] == ["-m", "batchrun", "worker"]:
            os.kill(number, signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 4, err
    assert "error[workers-ended]" in err
    assert gone(folder)


def wait_for_calls(folder: Path) -> None:
    last = time.monotonic() + 60
    while not any(command[1:4] == ["-m", "batchrun", "worker"] for _, command in processes(folder)):
        assert time.monotonic() < last
        time.sleep(0.2)
    time.sleep(1.0)  # long enough for the pool to be made; what is asserted holds at any moment

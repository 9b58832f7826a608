"""`watch`, and the progress of `run`, while a real run works on the same database."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchrun import simulator
from batchrun.simulator import Options, Running

BATCHRUN = [sys.executable, "-m", "batchrun"]
KEY = "sk-sim-canary-1b7d09"
JOB = """
version: 1
jobs:
  - name: words
    provider: simulator/model-studio-singapore
    model: qwen3-vl-plus
    inputs: {{items: [{items}]}}
    prompt: "{{{{ text }}}} {tag}"
    params: {{max_tokens: 200}}
    thinking: {{enabled: false}}
    limits: {{concurrency: 4}}
    timeouts: {{first_token: {first_token}}}
    budget: {{max_cost: 5 USD}}
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    options = Options(ttft=0.4, tokens_per_second=150, limits=False)
    with simulator.start(options, environment={**os.environ, "BATCHRUN_SIMULATOR_KEY": KEY}) as running:
        yield running


def prepared(folder: Path, server: Running, *, fault: str = "", items: int = 16, first_token: str = "60s") -> Path:
    (folder / "catalogue.yaml").write_text(
        f"endpoints:\n  simulator/model-studio-singapore:\n    base_url: {server.base_url('singapore', fault)}\n"
    )
    rows = ", ".join(f"{{id: i{number}, text: word {number}}}" for number in range(items))
    (folder / "jobs.yaml").write_text(JOB.format(items=rows, tag=folder.name, first_token=first_token))
    return folder


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "BATCHRUN_CATALOGUE": "catalogue.yaml", "BATCHRUN_SIMULATOR_KEY": KEY, **more}


def started(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*BATCHRUN, *words],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def loaded(folder: Path) -> None:
    subprocess.run([*BATCHRUN, "load", "jobs.yaml"], cwd=folder, env=environment(), capture_output=True, check=True)


def test_watch_follows_a_run_of_another_process_to_its_end(tmp_path: Path, server: Running) -> None:
    folder = prepared(tmp_path, server)
    loaded(folder)
    with started(folder, "watch", "--json", "--interval", "1s") as watching, started(folder, "run", "jobs.yaml", "-q"):
        out, err = watching.communicate(timeout=60)
    looks = [json.loads(line)["jobs"][0] for line in out.splitlines()]
    assert (watching.returncode, err) == (0, "")
    done = [look["items"]["done"] for look in looks]
    assert done == sorted(done)
    assert (done[-1], looks[-1]["state"], looks[-1]["brake"]) == (16, "done", None)
    kinds = {look["brake"]["kind"] for look in looks[:-1]}
    assert kinds & {"job concurrency", "provider"}
    assert any(look["rate"] for look in looks)


def test_watch_tells_that_nobody_works_and_stops_by_ctrl_c(tmp_path: Path, server: Running) -> None:
    folder = prepared(tmp_path, server)
    loaded(folder)
    with started(folder, "watch", "--interval", "1s", "--alarm", "1s") as watching:
        assert watching.stdout is not None
        assert watching.stderr is not None
        assert "held back by nobody working on it" in watching.stdout.readline()
        assert watching.stderr.readline().startswith("ALARM: nothing has finished for ")
        watching.send_signal(2)
        _, err = watching.communicate(timeout=30)
    assert (watching.returncode, "Traceback" in err) == (130, False)


def test_a_provider_that_hangs_is_an_alarm_with_its_reason_and_then_it_goes_on(tmp_path: Path, server: Running) -> None:
    folder = prepared(tmp_path, server, fault="stall-headers-first=4", items=8, first_token="4s")
    with started(folder, "run", "jobs.yaml", "--alarm", "2s", "-q") as run:
        _, err = run.communicate(timeout=60)
    assert run.returncode == 0, err
    first, *_, last = err.splitlines()
    assert re.match(r"ALARM: nothing has finished for \d s: all 4 calls wait for their first token, the oldest", first)
    assert last.startswith("work goes on after ")


@pytest.mark.parametrize("columns", [40, 80])
def test_the_live_block_fits_a_narrow_terminal(tmp_path: Path, server: Running, columns: int) -> None:
    folder = prepared(tmp_path, server, items=8)
    screen = on_terminal(folder, ["run", "jobs.yaml"], columns)
    screen, _, _ = screen.partition("8 done of 8")  # the summary is for people and files of any width
    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in screen.split("\n")]
    drawn = [line.strip("\r") for line in lines if "━" in line or "items" in line or "in flight" in line]
    assert drawn
    assert max(len(line) for text in drawn for line in text.split("\r")) <= columns


def on_terminal(folder: Path, words: list[str], columns: int) -> str:
    """All that the command writes to a terminal of this width."""
    leader, follower = pty.openpty()
    os.set_blocking(leader, False)
    size = {"COLUMNS": str(columns), "LINES": "24", "TERM": "xterm"}
    with subprocess.Popen(
        [*BATCHRUN, *words], cwd=folder, env=environment(**size), stdin=follower, stdout=follower, stderr=follower
    ) as process:
        os.close(follower)
        seen = b""
        last = time.monotonic() + 60
        while time.monotonic() < last:
            if select.select([leader], [], [], 0.2)[0]:
                try:
                    part = os.read(leader, 65_536)
                except OSError:  # so Linux says that nobody holds the other end any more
                    break
                if not part:
                    break
                seen += part
        assert process.wait(30) == 0
    os.close(leader)
    return seen.decode()

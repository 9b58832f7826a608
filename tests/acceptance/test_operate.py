"""The commands that steer jobs, as a person types them while `run` is at work in another process."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import batchrun
from batchrun import simulator
from batchrun.cli import carry_out
from batchrun.errors import BatchrunError
from batchrun.simulator import Options, Running

BATCHRUN = [sys.executable, "-m", "batchrun"]
KEY = "sk-sim-canary-5e1f7a90cc"
ROWS = 40
OWN = {"BATCHRUN_CATALOGUE": "catalogue.yaml", "BATCHRUN_SIMULATOR_KEY": KEY, "COLUMNS": "80"}
SLOW = "ttft=2+tps=0"
"""Calls of two seconds: a run of all rows lasts twenty, so that a command finds it at work on any machine."""

JOB = """
version: 1
jobs:
  - name: lines
    provider: simulator/model-studio-singapore
    model: qwen3-vl-plus
    inputs: {rows: rows.jsonl}
    prompt: "Say something about {{ text }}."
    params: {max_tokens: 60}
    limits: {concurrency: 4}
    retry: {attempts: 1}
"""


@pytest.fixture(scope="module")
def vendor() -> Iterator[Running]:
    options = Options(ttft=0, tokens_per_second=0, limits=False)
    with simulator.start(options, environment={**os.environ, "BATCHRUN_SIMULATOR_KEY": KEY}) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path, vendor: Running) -> Path:
    """A folder with a job of 40 rows at a simulator that answers at once."""
    (tmp_path / "jobs.yaml").write_text(JOB, encoding="utf-8")
    lines = [json.dumps({"id": f"r{number:02}", "text": f"{tmp_path.name} {number}"}) for number in range(ROWS)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    call_at(tmp_path, vendor.base_url())
    return tmp_path


def call_at(folder: Path, address: str) -> None:
    (folder / "catalogue.yaml").write_text(
        f"endpoints:\n  simulator/model-studio-singapore:\n    base_url: {address}\n", encoding="utf-8"
    )


def environment() -> dict[str, str]:
    return {**os.environ, **OWN}


def type_in(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*BATCHRUN, *arguments],
        cwd=folder, env=environment(), capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip


def done(folder: Path, *arguments: str) -> str:
    """What a command that succeeds prints."""
    ended = type_in(folder, *arguments)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@dataclass(frozen=True, kw_only=True)
class Shell:
    """Commands that are typed into this process: as much is tested, and nothing is imported again."""

    folder: Path
    capture: pytest.CaptureFixture[str]

    def type_in(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        self.capture.readouterr()
        code = carry_out(arguments)
        said = self.capture.readouterr()
        return code, said.out, said.err

    def document(self, *arguments: str) -> dict[str, list[dict[str, Any]]]:
        code, out, err = self.type_in(*arguments, "--json")
        assert code == 0, err
        found: dict[str, list[dict[str, Any]]] = json.loads(out)
        return found


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Shell:
    monkeypatch.chdir(tmp_path)
    for name, value in OWN.items():
        monkeypatch.setenv(name, value)
    return Shell(folder=tmp_path, capture=capfd)


def started(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*BATCHRUN, "run", "jobs.yaml"],
        cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def rows(folder: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(folder / ".batchrun" / "batchrun.db")) as connection:
        return connection.execute(query).fetchall()


def states(folder: Path) -> dict[str, int]:
    return {
        str(state): int(str(count)) for state, count in rows(folder, "SELECT state, count(*) FROM items GROUP BY 1")
    }


def wait_for(folder: Path, condition: Callable[[dict[str, int]], bool]) -> None:
    last = time.monotonic() + 30
    while time.monotonic() < last:
        try:
            if condition(states(folder)):
                return
        except sqlite3.OperationalError:
            pass  # the database isn't there yet
        time.sleep(0.02)
    pytest.fail(f"never reached: {states(folder)}")


def under_way(found: dict[str, int]) -> bool:
    return found.get("done", 0) >= 1 and found.get("claimed", 0) >= 2


def test_a_pause_in_another_process_ends_the_run_with_3_and_resume_lets_it_go_on(
    folder: Path, vendor: Running, shell: Shell
) -> None:
    call_at(folder, vendor.base_url(fault=SLOW))
    process = started(folder)
    wait_for(folder, under_way)
    said = done(folder, "pause", "lines", "--reason", "lunch")
    assert re.match(r"lines \(simulated\): paused with \d+ items? left, \d calls? in flight finish\n", said), said
    out, err = process.communicate(timeout=30)
    assert process.returncode == 3, err
    assert re.search(r"stopped \(user\): paused by \S+@\S+ at .*Z: lunch", out)
    assert "to go on: batchrun resume lines --simulated" in out
    assert rows(folder, "SELECT count(*) FROM attempts WHERE outcome <> 'complete'") == [(0,)]
    assert states(folder)["pending"] > 0
    assert "it goes on after: batchrun resume lines --simulated" in shell.type_in("status")[1]
    call_at(folder, vendor.base_url())
    assert shell.type_in("run", "jobs.yaml")[0] == 3
    assert "resumed" in shell.type_in("resume", "lines")[1]
    assert shell.type_in("run", "jobs.yaml")[0] == 0
    assert states(folder) == {"done": ROWS}
    assert rows(folder, "SELECT count(*) FROM attempts") == [(ROWS,)]


def test_answers_in_flight_of_a_cancelled_job_are_kept_and_it_can_be_taken_up_again(
    folder: Path, vendor: Running, shell: Shell
) -> None:
    call_at(folder, vendor.base_url(fault=SLOW))
    process = started(folder)
    wait_for(folder, under_way)
    said = done(folder, "cancel", "lines")
    found = re.search(r"calls still in flight: (\d); an answer that arrives whole is kept", said)
    assert found is not None, said
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    after = states(folder)
    assert after.keys() == {"done", "cancelled"}
    assert after["done"] >= 1 + int(found[1])
    assert rows(folder, "SELECT count(*) FROM attempts WHERE outcome = 'complete'") == [(after["done"],)]
    assert f"{after['done']} done, {after['cancelled']} cancelled of {ROWS}" in out
    call_at(folder, vendor.base_url())
    code, said, _ = shell.type_in("run", "jobs.yaml")
    assert (code, "nothing to do" in said) == (0, True)
    goes = "goes" if after["cancelled"] == 1 else "go"
    assert f"{after['cancelled']} {goes} back to pending" in shell.type_in("retry", "lines", "--state", "cancelled")[1]
    assert shell.type_in("run", "jobs.yaml")[0] == 0
    assert rows(folder, "SELECT count(*) FROM attempts WHERE outcome = 'complete'") == [(ROWS,)]


def test_a_limit_that_is_set_while_it_runs_holds_and_survives_the_next_run(
    folder: Path, vendor: Running, shell: Shell
) -> None:
    (folder / "jobs.yaml").write_text(JOB.replace("concurrency: 4", "concurrency: 1"), encoding="utf-8")
    call_at(folder, vendor.base_url(fault=SLOW))
    process = started(folder)
    wait_for(folder, lambda found: found.get("claimed", 0) == 1)
    assert "  concurrency: 1 → 30\n" in done(folder, "set", "lines", "concurrency=30")
    wait_for(folder, lambda found: found.get("claimed", 0) >= 20)
    assert process.wait(timeout=30) == 0
    process.communicate()
    noted = shell.type_in("run", "jobs.yaml")[2]
    assert "note: concurrency is 30, set by hand; the job file says 1" in noted
    assert rows(folder, "SELECT concurrency FROM jobs") == [(30,)]


def test_a_bill_makes_the_report_equal_the_simulators_book(folder: Path, vendor: Running, shell: Shell) -> None:
    call_at(folder, vendor.base_url(fault="truncate=5-every=2+ttft=0+tps=0"))
    assert shell.type_in("run", "jobs.yaml")[0] == 1
    [(broken,)] = rows(folder, "SELECT count(*) FROM usage WHERE cost_low <> cost_high")
    assert int(str(broken)) > 0
    ours = {str(name) for (name,) in rows(folder, "SELECT request_id FROM attempts")}
    book = [(name, row.amount) for row in vendor.book() for name in {row.request_id, row.chat_id} & ours]
    lines = "".join(f"{name};{amount:f}\n" for name, amount in book if amount is not None)
    (folder / "bill.csv").write_text(f"Request ID;Amount\n{lines}another;1.00\n;total\n", encoding="utf-8-sig")
    settle = ("settle", "lines", "--bill", "bill.csv")
    assert f"{broken} call{'s' * (broken != 1)} would be settled" in shell.type_in(*settle, "--dry-run")[1]
    _, said, _ = shell.type_in(*settle)
    assert f"{broken} call{'s' * (broken != 1)} settled" in said
    assert "1 of them not of these jobs, 1 line without a request id left out" in said
    [line] = shell.document("report", "cost")["lines"]
    billed = sum((amount for _, amount in book if amount is not None), Decimal(0))
    assert (Decimal(str(line["cost_low"])), Decimal(str(line["cost_high"]))) == (billed, billed)
    assert line["settled"] == broken
    assert f"calls whose cost was settled by hand: {broken}" in shell.type_in("report", "cost")[1]
    assert f"calls whose cost was settled by hand: {broken}" in shell.type_in("export", "lines")[2]


def test_a_failed_job_is_steered_by_json(folder: Path, vendor: Running, shell: Shell) -> None:
    """Every command on one job whose calls all broke, as a script would read it."""
    call_at(folder, vendor.base_url(fault="truncate=5+ttft=0+tps=0"))
    assert shell.type_in("run", "jobs.yaml")[0] == 3
    [retried] = shell.document("retry", "lines", "--dry-run")["jobs"]
    assert (retried["counts"], retried["paused"]) == (
        [{"state": "failed", "kind": "incomplete", "items": retried["items"]}], "errors",
    )  # fmt: skip
    [resumed] = shell.document("resume", "--all")["jobs"]
    assert [lifted["reason"] for lifted in resumed["lifted"]] == ["errors"]
    [paused] = shell.document("pause", "--all")["jobs"]
    assert paused["items_left"] == ROWS - int(str(retried["items"]))
    [cancelled] = shell.document("cancel", "lines")["jobs"]
    assert cancelled["cancelled"] == paused["items_left"]
    [changed] = shell.document("set", "lines", "budget=5.00 USD", "concurrency=none")["changed"]
    assert changed["changes"] == [
        {"key": "budget", "old": None, "new": {"amount": "5.00", "currency": "USD"}},
        {"key": "concurrency", "old": 4, "new": None},
    ]
    [current] = shell.document("set", "lines")["current"]
    assert current["values"]["concurrency"] is None
    [settled] = shell.document("settle", "lines", "--as", "zero")["jobs"]
    assert (settled["settled"], settled["cost"]) == (retried["items"], "0.00")
    audit = [action for (action,) in rows(folder, "SELECT action FROM audit ORDER BY id")]
    assert audit == ["resume", "pause", "cancel", "set", "settle"]


@pytest.mark.parametrize("command", ["retry", "cancel", "pause", "resume", "set", "settle"])
def test_every_command_explains_itself_with_an_example(shell: Shell, command: str) -> None:
    code, said, _ = shell.type_in(command, "--help")
    assert (code, f"Example: batchrun {command}" in said) == (0, True)


@pytest.mark.parametrize(
    "arguments", ["pause", "resume", "pause a --all", "settle a", "settle a --as zero --bill b", "set a concurrency"]
)
def test_half_a_command_is_wrong_use(shell: Shell, arguments: str) -> None:
    code, _, err = shell.type_in(*arguments.split())
    assert (code, "error[usage]" in err) == (2, True)


def test_the_commands_are_functions_of_python_too(folder: Path) -> None:
    place = folder / "own.db"
    batchrun.load(folder / "jobs.yaml", database=place)
    [changed] = batchrun.set("lines", {"concurrency": 8}, database=place)
    assert [(change.key, change.new) for change in changed.changes] == [("concurrency", 8)]
    assert [job.left for job in batchrun.pause("lines", database=place)] == [ROWS]
    assert [job.lifted[0][0] for job in batchrun.resume(["lines"], database=place)] == ["user"]
    assert [job.total for job in batchrun.cancel("lines", database=place)] == [ROWS]
    assert [job.total for job in batchrun.retry("lines", database=place)] == [0]
    assert [job.calls for job in batchrun.settle("lines", rule="zero", database=place).jobs] == [0]
    with pytest.raises(BatchrunError, match=r"no job `line`; did you mean lines\?"):
        batchrun.cancel("line", database=place)


# Windows


def test_run_waits_for_the_window_of_a_job_and_says_when_it_opens_unless_it_is_told_not_to(
    folder: Path, vendor: Running
) -> None:
    opens = datetime.now(UTC) + timedelta(hours=3)
    window = f"    window: {{start: '{opens:%H:%M}', end: '{opens + timedelta(hours=1):%H:%M}', timezone: UTC}}\n"
    (folder / "jobs.yaml").write_text(JOB + window, encoding="utf-8")
    with subprocess.Popen(
        [*BATCHRUN, "run", "jobs.yaml"], cwd=folder, env=environment(), stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "held back by" in line:
                process.send_signal(signal.SIGINT)
                break
        process.stderr.read()
    assert process.returncode == 130
    assert f"opens at {opens:%H:%M}:00Z" in line
    assert states(folder) == {"pending": ROWS}
    assert f"held back by its window of {opens:%H:%M} to" in done(folder, "status")
    done(folder, "run", "jobs.yaml", "--now")
    assert states(folder) == {"done": ROWS}

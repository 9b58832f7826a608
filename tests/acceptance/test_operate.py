"""The commands that steer jobs, as a person types them while `run` is at work in another process."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest

import batchrun
from batchrun import simulator
from batchrun.errors import BatchrunError
from batchrun.simulator import Options, Running

BATCHRUN = [sys.executable, "-m", "batchrun"]
KEY = "sk-sim-canary-5e1f7a90cc"
ROWS = 12

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
def slow() -> Iterator[Running]:
    options = Options(ttft=0.4, tokens_per_second=150, limits=False)
    with simulator.start(options, environment={**os.environ, "BATCHRUN_SIMULATOR_KEY": KEY}) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path, slow: Running) -> Path:
    """A folder with a job of 12 rows at a simulator that takes most of a second for each."""
    (tmp_path / "jobs.yaml").write_text(JOB, encoding="utf-8")
    lines = [json.dumps({"id": f"r{number:02}", "text": f"{tmp_path.name} {number}"}) for number in range(ROWS)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    call_at(tmp_path, slow.base_url())
    return tmp_path


def call_at(folder: Path, address: str) -> None:
    (folder / "catalogue.yaml").write_text(
        f"endpoints:\n  simulator/model-studio-singapore:\n    base_url: {address}\n", encoding="utf-8"
    )


def environment() -> dict[str, str]:
    return {**os.environ, "BATCHRUN_CATALOGUE": "catalogue.yaml", "BATCHRUN_SIMULATOR_KEY": KEY, "COLUMNS": "80"}


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


def document(folder: Path, *arguments: str) -> dict[str, list[dict[str, object]]]:
    found: dict[str, list[dict[str, object]]] = json.loads(done(folder, *arguments, "--json"))
    return found


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


def test_a_pause_in_another_process_ends_the_run_with_3_and_resume_lets_it_go_on(folder: Path) -> None:
    process = started(folder)
    wait_for(folder, under_way)
    said = done(folder, "pause", "lines", "--reason", "lunch")
    assert re.match(r"lines \(simulated\): paused with \d+ items left, \d calls in flight finish\n", said)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 3, err
    assert re.search(r"stopped \(user\): paused by \S+@\S+ at .*Z: lunch", out)
    assert "to go on: batchrun resume lines --simulated" in out
    assert rows(folder, "SELECT count(*) FROM attempts WHERE outcome <> 'complete'") == [(0,)]
    assert states(folder)["pending"] > 0
    assert "it goes on after: batchrun resume lines --simulated" in done(folder, "status")
    assert type_in(folder, "run", "jobs.yaml").returncode == 3
    assert "resumed" in done(folder, "resume", "lines")
    assert type_in(folder, "run", "jobs.yaml").returncode == 0
    assert states(folder) == {"done": ROWS}
    assert rows(folder, "SELECT count(*) FROM attempts") == [(ROWS,)]


def test_answers_in_flight_of_a_cancelled_job_are_kept_and_it_can_be_taken_up_again(folder: Path) -> None:
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
    again = type_in(folder, "run", "jobs.yaml")
    assert (again.returncode, "nothing to do" in again.stdout) == (0, True)
    assert f"{after['cancelled']} go back to pending" in done(folder, "retry", "lines", "--state", "cancelled")
    assert type_in(folder, "run", "jobs.yaml").returncode == 0
    assert rows(folder, "SELECT count(*) FROM attempts WHERE outcome = 'complete'") == [(ROWS,)]


def test_a_limit_that_is_set_while_it_runs_holds_and_survives_the_next_run(folder: Path) -> None:
    (folder / "jobs.yaml").write_text(JOB.replace("concurrency: 4", "concurrency: 1"), encoding="utf-8")
    process = started(folder)
    wait_for(folder, lambda found: found.get("claimed", 0) == 1)
    assert "  concurrency: 1 → 12\n" in done(folder, "set", "lines", "concurrency=12")
    wait_for(folder, lambda found: found.get("claimed", 0) >= 8)
    assert process.wait(timeout=30) == 0
    process.communicate()
    again = type_in(folder, "run", "jobs.yaml")
    assert "note: concurrency is 12, set by hand; the job file says 1" in again.stderr
    assert rows(folder, "SELECT concurrency FROM jobs") == [(12,)]


def test_a_bill_makes_the_report_equal_the_simulators_book(folder: Path, slow: Running) -> None:
    call_at(folder, slow.base_url(fault="truncate=5-every=2+ttft=0+tps=0"))
    assert type_in(folder, "run", "jobs.yaml").returncode == 1
    [(broken,)] = rows(folder, "SELECT count(*) FROM usage WHERE cost_low <> cost_high")
    assert int(str(broken)) > 0
    ours = {str(name) for (name,) in rows(folder, "SELECT request_id FROM attempts")}
    book = [(name, row.amount) for row in slow.book() for name in {row.request_id, row.chat_id} & ours]
    lines = "".join(f"{name};{amount:f}\n" for name, amount in book if amount is not None)
    (folder / "bill.csv").write_text(f"Request ID;Amount\n{lines}another;1.00\n;total\n", encoding="utf-8-sig")
    settle = ("settle", "lines", "--bill", "bill.csv")
    assert f"{broken} calls would be settled" in done(folder, *settle, "--dry-run")
    said = done(folder, *settle)
    assert f"{broken} calls settled" in said
    assert "1 of them not of these jobs, 1 lines without a request id left out" in said
    [line] = document(folder, "report", "cost")["lines"]
    billed = sum((amount for _, amount in book if amount is not None), Decimal(0))
    assert (Decimal(str(line["cost_low"])), Decimal(str(line["cost_high"]))) == (billed, billed)
    assert line["settled"] == broken
    assert f"calls whose cost was settled by hand: {broken}" in done(folder, "report", "cost")
    assert f"calls whose cost was settled by hand: {broken}" in type_in(folder, "export", "lines").stderr


def test_a_failed_job_is_steered_by_json(folder: Path, slow: Running) -> None:
    """Every command on one job whose calls all broke, as a script would read it."""
    call_at(folder, slow.base_url(fault="truncate=5+ttft=0+tps=0"))
    assert type_in(folder, "run", "jobs.yaml").returncode == 3
    [retried] = document(folder, "retry", "lines", "--dry-run")["jobs"]
    assert (retried["counts"], retried["paused"]) == (
        [{"state": "failed", "kind": "incomplete", "items": retried["items"]}], "errors",
    )  # fmt: skip
    [resumed] = document(folder, "resume", "--all")["jobs"]
    assert [lifted["reason"] for lifted in resumed["lifted"]] == ["errors"]  # type: ignore[attr-defined]
    [paused] = document(folder, "pause", "--all")["jobs"]
    assert paused["items_left"] == ROWS - int(str(retried["items"]))
    [cancelled] = document(folder, "cancel", "lines")["jobs"]
    assert cancelled["cancelled"] == paused["items_left"]
    [changed] = document(folder, "set", "lines", "budget=5.00 USD", "concurrency=none")["changed"]
    assert changed["changes"] == [
        {"key": "budget", "old": None, "new": {"amount": "5.00", "currency": "USD"}},
        {"key": "concurrency", "old": 4, "new": None},
    ]
    [current] = document(folder, "set", "lines")["current"]
    assert current["values"]["concurrency"] is None  # type: ignore[index]
    [settled] = document(folder, "settle", "lines", "--as", "zero")["jobs"]
    assert (settled["settled"], settled["cost"]) == (retried["items"], "0.00")
    audit = [action for (action,) in rows(folder, "SELECT action FROM audit ORDER BY id")]
    assert audit == ["resume", "pause", "cancel", "set", "settle"]


@pytest.mark.parametrize("command", ["retry", "cancel", "pause", "resume", "set", "settle"])
def test_every_command_explains_itself_with_an_example(tmp_path: Path, command: str) -> None:
    said = done(tmp_path, command, "--help")
    assert f"Example: batchrun {command}" in said


@pytest.mark.parametrize(
    "arguments",
    [["pause"], ["resume"], ["pause", "a", "--all"], ["settle", "a"], ["settle", "a", "--as", "zero", "--bill", "b"]],
)
def test_half_a_command_is_wrong_use(tmp_path: Path, arguments: str) -> None:
    ended = type_in(tmp_path, *arguments.split())
    assert (ended.returncode, "error[usage]" in ended.stderr) == (2, True)


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

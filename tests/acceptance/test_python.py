"""`import batchrun` as people use it: in scripts, inside a running event loop, with pandas, type-checked."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import get_args

import pandas
import pytest

import batchrun
from batchrun import api, simulator
from batchrun.cli import COMMANDS
from batchrun.database import connect
from batchrun.reports.cost import By
from batchrun.running import RunEnd
from batchrun.simulator import Options, Running
from batchrun.states import State
from tests.filling import Filling

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "batchrun" / "demo" / "pictures"
SIMULATED = "simulator/model-studio-singapore"


def jobs(**more: object) -> dict[str, object]:
    """A job file as a mapping, with three rows."""
    job = {
        "name": "lines",
        "provider": SIMULATED,
        "model": "qwen3-vl-plus",
        "inputs": {"items": [{"id": name, "word": name} for name in ("one", "two", "three")]},
        "prompt": "Say {{ word }}.",
        "params": {"max_tokens": 200},
        "thinking": {"enabled": False},
    }
    return {"version": 1, "jobs": [{**job, **more}]}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database in which three items were called through the simulator, from a mapping."""
    database = tmp_path_factory.mktemp("python") / "results.db"
    end = batchrun.run(jobs(), database=database)
    assert (end.exit_code, end.jobs[0].states) == (0, {"done": 3})
    return database


@pytest.fixture
def filled(sqlite_url: str) -> Path:
    """A job whose four items cost an exact amount, an interval, nobody knows what, and nothing yet; the first of them a
    sum that no float can hold. And a simulated job."""
    engine = connect(sqlite_url)
    with engine.connect() as connection:
        filling = Filling(connection)
        job = filling.job("captions")
        filling.call(job, low="1000000.000000000001")
        filling.call(job, low="0.1", high="0.3")
        unknown = filling.item(job, "unknown", state=State.DONE)
        filling.usage(filling.attempt(unknown, text="x"), low=None, input_tokens=None, output_tokens=None)
        filling.item(job, "later")
        filling.call(filling.job("captions", simulated=True), low="7")
        connection.commit()
    engine.dispose()
    return Path(sqlite_url.removeprefix("sqlite:///"))


# Names


def test_every_command_has_a_function_of_its_name() -> None:
    # A worker is a process, not a call; Celery knows its module by that name.
    names = {entry.name for entry in COMMANDS} - {"db", "worker"} | {"db_status", "db_upgrade"}
    assert [name for name in sorted(names) if not callable(getattr(batchrun, name, None))] == []


def test_importing_batchrun_imports_nothing_heavy() -> None:
    script = "import batchrun, sys; print(sorted({'sqlalchemy', 'pydantic', 'httpx', 'rich'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_wrong_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'rum'"):
        _ = batchrun.rum  # type: ignore[attr-defined]


def test_strict_type_checks_pass_on_code_that_uses_it_and_find_mistakes(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text(
        "import batchrun\n"
        "from decimal import Decimal\n"
        "end = batchrun.run({'version': 1, 'jobs': []}, progress=True)\n"
        "code: int = end.exit_code\n"
        "costs: list[Decimal | None] = [item.cost_high for item in batchrun.results('a', states={'failed'})]\n"
        "calls: int = sum(line.calls for line in batchrun.report(by='model'))\n"
        "with batchrun.simulate(fault='429-every=5') as running:\n"
        "    url: str = running.base_url('singapore')\n",
        encoding="utf-8",
    )
    (tmp_path / "bad.py").write_text(
        "import batchrun\nbatchrun.report(by='colour')\nbatchrun.run(5)\n", encoding="utf-8"
    )
    cache = ROOT / ".mypy_cache" / "snippets"
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(cache), "good.py", "bad.py"]
    checked = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "MYPYPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    found = [line.partition(" ")[0] for line in checked.stdout.splitlines() if ": error: " in line]
    assert found == ["bad.py:2:", "bad.py:3:"], checked.stdout


def test_the_wheel_says_that_it_is_typed() -> None:
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]
    assert packages["targets"]["wheel"]["packages"] == ["batchrun"]
    assert (ROOT / "batchrun" / "py.typed").read_bytes() == b""


# Job files as mappings


def test_what_is_wrong_with_a_mapping_is_said_as_for_a_file(tmp_path: Path) -> None:
    mistaken = jobs(budgett={"max_cost": "1 USD"}, priority="high")
    (tmp_path / "jobs.yaml").write_text(json.dumps(mistaken), encoding="utf-8")
    said = []
    for source in (mistaken, tmp_path / "jobs.yaml"):
        with pytest.raises(batchrun.BatchrunError) as raised:
            batchrun.load(source, database=tmp_path / "x.db")
        problems = getattr(raised.value, "problems", [])
        said.append([replace(problem, file=None, line=None, column=None) for problem in problems])
    assert said[0] == said[1]
    assert [problem.field for problem in said[0]] == ["jobs[0].budgett", "jobs[0].priority"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), "jobs[0].params.temperature: `nan` is not a number that can be used"),
        ({1, 2}, "jobs[0].params.temperature: a value of the type set can't stand in a job file"),
        ({1: 2}, "jobs[0].params.temperature: the key 1 is not text"),
        (["\x00"], "jobs[0].params.temperature[0]: holds a NUL"),
    ],
)
def test_a_value_that_no_file_could_hold_is_refused(value: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(batchrun.BatchrunError) as raised:
        batchrun.load(jobs(params={"temperature": value}), database=tmp_path / "x.db")
    assert message in raised.value.message


def test_a_key_in_a_mapping_is_refused_and_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(batchrun.BatchrunError, match="this looks like a key") as raised:
        batchrun.load(jobs(system="sk-0123456789abcdef0123"), database=tmp_path / "x.db")
    assert "0123456789abcdef" not in str(raised.value)


def test_paths_of_a_mapping_are_relative_to_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    shutil.copyfile(PICTURES / "receipt.jpg", tmp_path / "photos" / "a.jpg")
    monkeypatch.chdir(tmp_path)
    [loaded] = batchrun.load(jobs(inputs={"images": Path("photos")}, prompt="Say {{ filename }}."))
    assert (loaded.added, (tmp_path / ".batchrun" / "batchrun.db").exists()) == (1, True)


def test_the_same_mapping_again_does_nothing_twice(ran: Path) -> None:
    end = batchrun.run(jobs(), database=ran)
    assert (end.tally.calls, end.jobs[0].states) == (0, {"done": 3})


# Errors


def test_a_traceback_shows_what_to_do(tmp_path: Path) -> None:
    script = f"import batchrun, pathlib; batchrun.status(database=pathlib.Path({str(tmp_path / 'none.db')!r}))"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.stderr.splitlines()[-2:] == [
        f"batchrun.errors.DatabaseError: there is no database at {tmp_path / 'none.db'}",
        "→ go to the folder where you ran `batchrun run`, or set DATABASE_URL",
    ]


@pytest.mark.parametrize(
    "call",
    [
        lambda: batchrun.report("colour"),  # type: ignore[arg-type]
        lambda: batchrun.results("lines", states={"finished"}),
        lambda: batchrun.retry("lines", states={"finished"}),
        lambda: batchrun.export("lines", "xlsx", "x"),  # type: ignore[arg-type]
        lambda: batchrun.export("lines"),
    ],
)
def test_a_wrong_argument_is_told_before_the_database_is_looked_for(call: object, tmp_path: Path) -> None:
    assert callable(call)
    with pytest.raises(batchrun.BatchrunError) as raised:
        call()
    assert (raised.value.code, bool(raised.value.remedy)) == ("usage", True)


# Tables


def test_items_become_columns(ran: Path) -> None:
    table = pandas.DataFrame(batchrun.results("lines", database=ran))
    assert list(table["custom_id"]) == ["one", "two", "three"]
    assert list(table.columns[:9]) == [
        *("custom_id", "state", "text", "reasoning", "finish_reason"),
        *("parsed", "tool_calls", "error_kind", "error"),
    ]
    assert {
        *("cost_low", "cost_high", "currency", "input_tokens", "output_tokens", "variables", "media", "finished_at"),
    } <= set(table.columns)
    assert len(table[table["state"] == "done"]) == 3
    assert table["input_tokens"].dtype == "int64"
    assert table["finished_at"].notna().all()


def test_a_sum_of_costs_is_exact(filled: Path) -> None:
    table = pandas.DataFrame(batchrun.results("captions", database=filled))
    assert table["cost_low"].sum() == Decimal("1000000.100000000001")
    assert table["cost_high"].sum() == Decimal("1000000.300000000001")


def test_what_is_not_known_is_missing_and_never_zero(filled: Path) -> None:
    table = pandas.DataFrame(batchrun.results("captions", database=filled)).set_index("custom_id")
    assert bool(table["cost_high"].isna()["unknown"])
    assert bool(table["input_tokens"].isna()["unknown"])
    assert table["unknown_cost"]["unknown"] == 1
    assert bool(table["cost_high"].isna()["later"])


def test_a_cost_report_becomes_columns(filled: Path) -> None:
    table = pandas.DataFrame(batchrun.report(by="job", database=filled))
    real = table[~table["simulated"]].iloc[0]
    assert (real["key"], real["items"], real["unknown_cost"], real["exact"]) == ("captions", 3, 1, False)
    assert real["cost_high"] == Decimal("1000000.300000000001")
    assert list(table[table["simulated"]]["cost_high"]) == [Decimal(7)]


def test_the_status_becomes_columns(filled: Path) -> None:
    table = pandas.DataFrame(batchrun.status(database=filled))
    assert table[["name", "simulated", "total", "done", "left"]].values.tolist() == [
        ["captions", False, 4, 3, 1],
        ["captions", True, 1, 1, 0],
    ]


def test_models_and_prices_become_columns() -> None:
    models = pandas.DataFrame(batchrun.models("model-studio/singapore")).set_index("model")
    prices = pandas.DataFrame(batchrun.prices("qwen3-vl-plus"))
    first = prices[(prices["provider"] == "model-studio/singapore") & (prices["from_tokens"] == 0)].iloc[0]
    assert first["input"] == models["input_price"]["qwen3-vl-plus"]
    assert isinstance(first["input"], Decimal)


def test_the_states_of_results_may_be_words(filled: Path) -> None:
    assert [item.custom_id for item in batchrun.results("captions", states={"pending"}, database=filled)] == ["later"]


@pytest.mark.parametrize("by", get_args(By))
def test_a_report_adds_up_however_it_is_grouped(by: By, filled: Path) -> None:
    lines = [line for line in batchrun.report(by, database=filled) if not line.simulated]
    assert sum((line.cost_high or Decimal(0) for line in lines), Decimal(0)) == Decimal("1000000.300000000001")


# The simulator and the database


def test_a_simulator_for_tests_of_ones_own(tmp_path: Path) -> None:
    catalogue = tmp_path / "catalogue.yaml"
    with batchrun.simulate(fault="500-first=1") as running:
        catalogue.write_text(f"endpoints:\n  {SIMULATED}:\n    base_url: {running.base_url()}\n", encoding="utf-8")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("BATCHRUN_SIMULATOR_KEY", running.keys["singapore"])
            end = batchrun.run(jobs(), database=tmp_path / "x.db", catalogue=catalogue)
        assert (end.exit_code, end.tally.errors) == (0, {"server": 1})
        assert len(running.book()) == 4
        address = running.url
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(address)


def test_a_fault_that_is_none_is_refused() -> None:
    with pytest.raises(batchrun.BatchrunError) as raised, batchrun.simulate(fault="nosuch"):
        pass
    assert (raised.value.code, raised.value.remedy) == (
        "simulator",
        "see the faults with: batchrun simulate --list-faults",
    )


def test_the_database_is_made_and_looked_at(tmp_path: Path) -> None:
    database = tmp_path / "new.db"
    before, after = batchrun.db_upgrade(database=database)
    found = batchrun.db_status(database=database)
    assert (before, after, found.schema, found.current) == (None, found.needed, found.needed, True)
    assert found.rows == {"jobs": 0, "items": 0, "attempts": 0, "usage": 0}
    assert batchrun.db_upgrade(database=database) == (after, after)


def test_the_demo_runs_from_python(tmp_path: Path) -> None:
    end = batchrun.demo(tmp_path / "demo")
    assert (end.exit_code, end.jobs[0].states) == (0, {"done": 12})
    assert len(list((tmp_path / "demo" / "captions").rglob("*.txt"))) == 12


def test_the_schema_is_that_of_the_command() -> None:
    assert batchrun.schema() == json.loads((ROOT / "schema" / "batchrun-jobs.schema.json").read_text(encoding="utf-8"))


# Loops and Ctrl-C


def test_it_works_inside_a_running_event_loop(tmp_path: Path) -> None:
    import asyncio

    async def notebook() -> RunEnd:
        return api.run(jobs(), database=tmp_path / "x.db")

    assert asyncio.run(notebook()).jobs[0].states == {"done": 3}


SLOW_SCRIPT = """
import asyncio, sys, pathlib, batchrun
jobs = {jobs!r}
database = pathlib.Path("x.db")
def call():
    batchrun.run(jobs, database=database, catalogue="catalogue.yaml")
async def notebook():
    call()
try:
    {how}
except KeyboardInterrupt:
    print("interrupted", [job.counts for job in batchrun.status(database=database)])
    sys.exit(5)
"""


@pytest.fixture(scope="module")
def slow() -> Iterator[Running]:
    with simulator.start(Options(ttft=0.4, tokens_per_second=50, limits=False)) as running:
        yield running


@pytest.mark.parametrize("how", ["call()", "asyncio.run(notebook())"])
def test_ctrl_c_waits_for_the_calls_in_flight_and_raises(how: str, slow: Running, tmp_path: Path) -> None:
    rows = [{"id": f"r{number}", "word": f"w{number}"} for number in range(40)]
    mapping = jobs(inputs={"items": rows}, limits={"concurrency": 4})
    (tmp_path / "catalogue.yaml").write_text(
        f"endpoints:\n  {SIMULATED}:\n    base_url: {slow.base_url()}\n", encoding="utf-8"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_SCRIPT.format(jobs=mapping, how=how)],
        cwd=tmp_path,
        env={**os.environ, "BATCHRUN_SIMULATOR_KEY": slow.keys["singapore"]},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for_done(tmp_path / "x.db")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out[:11]) == (5, "interrupted"), err
    outcomes = dict(read(tmp_path / "x.db", "SELECT outcome, count(*) FROM attempts GROUP BY outcome"))
    states = dict(read(tmp_path / "x.db", "SELECT state, count(*) FROM items GROUP BY state"))
    assert set(outcomes) <= {"complete", "unsent"}
    assert states == {"done": outcomes["complete"], "pending": 40 - outcomes["complete"]}


def wait_for_done(database: Path) -> None:
    """Until an item is done; fails after 30 s."""
    last = time.monotonic() + 30
    while time.monotonic() < last:
        try:
            if read(database, "SELECT state, count(*) FROM items WHERE state = 'done' GROUP BY state"):
                return
        except sqlite3.OperationalError:
            pass  # the database isn't there yet
        time.sleep(0.05)
    pytest.fail("no item was ever done")


def read(database: Path, query: str) -> list[tuple[str, int]]:
    with closing(sqlite3.connect(database)) as connection:
        rows: list[tuple[str, int]] = connection.execute(query).fetchall()
    return rows

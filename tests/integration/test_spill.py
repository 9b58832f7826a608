"""A database that goes away in the middle of a run: the answers that were under way are kept, and stored later."""

from __future__ import annotations

import resource
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from psycopg import sql
from sqlalchemy import Engine
from sqlalchemy.engine import make_url

from batchrun.database import reading, writing
from batchrun.drain import Stop
from batchrun.errors import DatabaseError
from batchrun.messages import JsonValue
from batchrun.simulator import Running
from batchrun.spill import restore, spill
from batchrun.store.finish import Result
from batchrun.tables import answers
from batchrun.writer import Writer
from tests.integration.rows import add_job, add_worker, answered, opened, take
from tests.integration.running import Bench, check, job, opened_bench, wait_until
from tests.servers import Postgres

SLOW = "ttft=1.5+tps=0"
ITEMS = 6


def start_slow_calls(bench: Bench) -> list[int]:
    bench.at(SLOW)
    return bench.load(job("late", ITEMS, fault=SLOW, limits={"concurrency": ITEMS}))


def all_in_flight(bench: Bench, ids: list[int]) -> None:
    wait_until(lambda: len(bench.attempts_of(ids[0])) == ITEMS, "all calls were in flight")


def check_kept(bench: Bench, ids: list[int], error: DatabaseError, folder: Path) -> None:
    """The file is named, only its owner can read it, and another run stores it without buying anything again."""
    [path] = folder.glob("unstored-*.jsonl")
    assert f"{ITEMS} results that it didn't take are kept in {path}" in error.message
    assert path.stat().st_mode & 0o777 == 0o600
    end = bench.run(ids)
    assert end.tally.calls == 0
    assert len(bench.book()) == ITEMS
    assert bench.states(ids[0]) == Counter(done=ITEMS)
    assert not path.exists()
    check(bench, *ids)


def test_a_database_file_that_is_moved_away_ends_the_run_and_costs_no_answer(sqlite_bench: Bench) -> None:
    bench, path = sqlite_bench, Path(str(sqlite_bench.engine.url.database))
    ids = start_slow_calls(bench)
    files = [path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")]
    with bench.running(ids, Stop(), grace=10) as run:
        all_in_flight(bench, ids)
        for file in files:
            file.rename(file.with_name(f"moved-{file.name}"))
        with pytest.raises(DatabaseError) as raised:
            run.result(timeout=30)
    assert raised.value.code == "database-gone"
    bench.engine.dispose()
    for file in files:
        moved = file.with_name(f"moved-{file.name}")
        if moved.exists():
            moved.rename(file)
    check_kept(bench, ids, raised.value, path.parent)


def test_answers_for_a_database_file_that_was_replaced_are_not_stored_in_the_new_one(
    sqlite_bench: Bench, migrated_sqlite: Path
) -> None:
    bench, path = sqlite_bench, Path(str(sqlite_bench.engine.url.database))
    ids = start_slow_calls(bench)
    with bench.running(ids, Stop(), grace=10) as run:
        all_in_flight(bench, ids)
        for file in path.parent.glob(f"{path.name}*"):
            file.unlink()
        path.write_bytes(migrated_sqlite.read_bytes())
        with pytest.raises(DatabaseError):
            run.result(timeout=30)
    bench.engine.dispose()
    [kept] = path.parent.glob("unstored-*.jsonl")
    before = kept.read_bytes()
    other = bench.load(job("other", 1))
    assert bench.run(other).tally.calls == 1
    assert kept.read_bytes() == before


def test_a_postgresql_that_goes_away_costs_no_answer(
    postgres: Postgres, postgres_url: str, tmp_path: Path, simulator: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = make_url(postgres_url).database or ""
    away = sql.SQL("ALTER DATABASE {} RENAME TO {}")
    names = sql.Identifier(name), sql.Identifier(f"{name}_away")
    stop = Stop()
    with opened_bench(postgres_url, tmp_path, simulator) as bench:
        ids = start_slow_calls(bench)
        with bench.running(ids, stop, grace=4) as run:
            all_in_flight(bench, ids)
            postgres.execute(
                sql.SQL("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = {}").format(name)
            )
            postgres.execute(away.format(*names))
            stop.ask()
            with pytest.raises(DatabaseError) as raised:
                run.result(timeout=40)
        postgres.execute(away.format(*reversed(names)))
        assert raised.value.code == "database-unreachable"
        check_kept(bench, ids, raised.value, tmp_path / ".batchrun")


def test_calls_to_tools_are_kept_too(sqlite_url: str, tmp_path: Path) -> None:
    calls: tuple[dict[str, JsonValue], ...] = (
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}},
    )
    with opened(sqlite_url) as engine:
        with writing(engine) as connection:
            add_job(connection, size=1)
        worker = add_worker(engine)
        result = answered(take(engine, worker).calls[0], reason="tool_calls")
        assert result.answer is not None
        spill(engine, tmp_path, worker, [replace(result, answer=replace(result.answer, tool_calls=calls))])
        assert restore(engine, tmp_path) == 1
        with reading(engine) as connection:
            assert connection.execute(sa.select(answers.c.tool_calls)).scalars().all() == [list(calls)]


def one_result(engine: Engine) -> Result:
    with writing(engine) as connection:
        add_job(connection, size=1)
    return answered(take(engine, add_worker(engine)).calls[0])


@contextmanager
def small_files(size: int) -> Iterator[None]:
    """No file may grow beyond so many bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_is_full_gets_no_half_file(sqlite_url: str, tmp_path: Path) -> None:
    with opened(sqlite_url) as engine:
        result = one_result(engine)
        with small_files(20), pytest.raises(OSError, match="too large"):
            spill(engine, tmp_path / "kept", "w", [result])
    assert list((tmp_path / "kept").iterdir()) == []


@pytest.mark.parametrize("text", [b'{"version":1,"data', b"7\n{}\n", b"\n"])
def test_a_file_that_was_cut_or_is_another_ones_stops_no_run(sqlite_url: str, tmp_path: Path, text: bytes) -> None:
    file = tmp_path / "unstored-x.jsonl"
    file.write_bytes(text)
    with opened(sqlite_url) as engine:
        assert restore(engine, tmp_path) == 0
    assert file.read_bytes() == text


@pytest.mark.parametrize("broken", [b"not json", b"{}"])
def test_a_line_in_the_middle_that_can_not_be_read_keeps_the_file_and_no_other_answer_from_its_place(
    sqlite_url: str, tmp_path: Path, broken: bytes
) -> None:
    with opened(sqlite_url) as engine:
        file = spill(engine, tmp_path, "w", [one_result(engine)])
        head, line = file.read_bytes().splitlines()
        file.write_bytes(b"\n".join([head, broken, line, b'{"cut']) + b"\n")
        assert restore(engine, tmp_path) == 1
        assert file.exists()
        with reading(engine) as connection:
            assert connection.execute(sa.select(sa.func.count()).select_from(answers)).scalar_one() == 1


def test_runs_that_start_together_store_the_same_file_once(sqlite_url: str, tmp_path: Path) -> None:
    with opened(sqlite_url) as engine:
        spill(engine, tmp_path, "w", [one_result(engine)])
        with ThreadPoolExecutor(8) as pool:
            restored = [pool.submit(restore, engine, tmp_path) for _ in range(8)]
        assert max(one.result() for one in restored) == 1
        assert list(tmp_path.glob("unstored-*")) == []


def test_where_no_file_can_be_written_beside_the_database_answers_go_elsewhere(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "elsewhere"))
    (tmp_path / "full").write_bytes(b"no folder")
    with opened(sqlite_url) as engine:
        writer = Writer(engine)
        writer.folder = tmp_path / "full"
        writer.results = [one_result(engine)]
        kept = writer.kept(DatabaseError("it is full", code="database-unreachable", remedy="free some space"))
        [file] = (tmp_path / "elsewhere").iterdir()
        assert str(kept) == (
            f"it is full; 1 results that it didn't take are kept in {file}; "
            f"move it into {tmp_path / 'full'}, and the next run on this database stores them"
        )
        assert restore(engine, file.parent) == 1

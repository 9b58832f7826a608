"""One simulator for the session, and a bench on each database for each test."""

from __future__ import annotations

import gc
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchrun.simulator import Running
from tests.integration.running import Bench, opened_bench, running_simulator
from tests.servers import Postgres


@pytest.fixture(scope="session")
def simulator() -> Iterator[Running]:
    """Answers as fast as possible and without limits. Tests tell their calls apart by the names of their jobs."""
    with running_simulator() as started:
        yield started


@pytest.fixture
def bench(database_url: str, tmp_path: Path, simulator: Running) -> Iterator[Bench]:
    """On SQLite and on PostgreSQL, with the session's simulator."""
    with opened_bench(database_url, tmp_path, simulator) as made:
        yield made


@pytest.fixture
def sqlite_bench(sqlite_url: str, tmp_path: Path, simulator: Running) -> Iterator[Bench]:
    """On SQLite alone, for what the database has no part in."""
    with opened_bench(sqlite_url, tmp_path, simulator) as made:
        yield made


@pytest.fixture(scope="session")
def frozen() -> None:
    """What stands in memory before the first run, libraries above all, is not looked through after each test."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def nothing_left_behind(frozen: None, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No task was destroyed while it was pending, and no exception was never retrieved."""
    with caplog.at_level(logging.WARNING, logger="asyncio"):
        yield
        gc.collect()
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []


@pytest.fixture(scope="module")
def module_database_url(
    request: pytest.FixtureRequest, database_kind: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """One database for all tests of a module, which runs on both: for tests that only read what one run has left.

    The module gives `database_kind` the scope of the module.
    """
    if database_kind == "sqlite":
        path = tmp_path_factory.mktemp("database") / "batchrun.db"
        shutil.copyfile(request.getfixturevalue("migrated_sqlite"), path)
        yield f"sqlite:///{path}"
        return
    server: Postgres = request.getfixturevalue("postgres")
    made = server.create(template=request.getfixturevalue("migrated_postgres"))
    yield made
    server.drop(made)

"""Many rows in one statement, on both databases."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy import Engine

from batchrun.database import reading, writing
from batchrun.store.bulk import PARAMETERS, Bulk, Given, insert
from batchrun.tables import EPOCH, workers
from tests.integration.rows import add_job, add_worker, answered, opened, store_results, take

COLUMNS = ("id", "host", "pid", "pid_started", "started_at")
ADD = insert(workers, COLUMNS, returning=("id", "beat"))
MANY = PARAMETERS // len(COLUMNS) + 1
"""Rows that don't go into one statement."""


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    with opened(database_url) as engine:
        yield engine


def row(name: str) -> dict[str, object]:
    return {"id": name, "host": "it's 100 %", "pid": 7, "pid_started": None, "started_at": EPOCH}


def test_rows_beyond_one_statement_are_all_stored_and_returned(engine: Engine) -> None:
    names = {f"w{number}" for number in range(MANY)}
    with writing(engine) as connection:
        returned = {found.id for found in ADD.run(connection, [row(name) for name in sorted(names)])}
        stored = set(connection.execute(sa.select(workers.c.id)).scalars())
    assert (returned, stored) == (names, names)


def test_values_come_back_as_they_were_and_columns_without_one_get_their_default(engine: Engine) -> None:
    with writing(engine) as connection:
        ADD.run(connection, [row("a")])
        found = connection.execute(sa.select(workers)).one()._asdict()
    assert found == row("a") | {"beat": 0, "ended_at": None, "unable": None, "lease": 60.0}


def test_an_update_gives_each_row_its_own_values(engine: Engine) -> None:
    given = Given({name: workers.c[name].type for name in ("id", "pid", "pid_started")})
    changed = sa.update(workers).where(workers.c.id == given.c["id"])
    update = Bulk(given=given, statement=changed.values(pid=given.c["pid"], pid_started=given.c["pid_started"]))
    with writing(engine) as connection:
        ADD.run(connection, [row(name) for name in "abc"])
        update.run(connection, [{"id": "a", "pid": 1, "pid_started": "x"}, {"id": "b", "pid": 2, "pid_started": None}])
        found = connection.execute(sa.select(workers.c.pid, workers.c.pid_started).order_by(workers.c.id))
        assert [tuple(worker) for worker in found] == [(1, "x"), (2, None), (7, None)]


def test_no_rows_need_no_statement(engine: Engine) -> None:
    with reading(engine) as connection:
        assert ADD.run(connection, []) == []


def test_an_answer_without_calls_to_tools_has_none_in_the_database(engine: Engine) -> None:
    with writing(engine) as connection:
        add_job(connection, size=1)
    (call,) = take(engine, add_worker(engine)).calls
    store_results(engine, answered(call))
    with reading(engine) as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM answers WHERE tool_calls IS NULL")) == 1

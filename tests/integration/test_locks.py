"""Whoever locks several rows does it in one order: jobs by their ids, then the rest. On PostgreSQL, where rows have
locks, anything else ends in deadlocks as soon as somebody steers jobs that run.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError

from batchrun.beat import Beat
from batchrun.database import writing
from batchrun.jobfile.spec import JobFile
from batchrun.loading.loader import load
from batchrun.store.claim import Claimed, claim
from batchrun.store.jobs import lift_pauses
from batchrun.tables import jobs, workers
from batchrun.writer import Writer
from tests.integration.rows import (
    add_job,
    add_worker,
    answered,
    attempt_of,
    opened,
    reserving,
    take,
    wait_for_a_lock,
)
from tests.integration.running import catalogue_at, job


@pytest.fixture
def engine(postgres_url: str) -> Iterator[Engine]:
    with opened(postgres_url) as engine:
        yield engine


def hold(connection: Connection, job_id: int) -> None:
    """Lock a job as claims do; fails at once where somebody else holds it."""
    lock = sa.select(jobs.c.id).where(jobs.c.id == job_id)
    connection.execute(lock.with_for_update(key_share=True, nowait=True)).one()


def two_jobs(engine: Engine) -> tuple[int, int]:
    with writing(engine) as connection:
        return add_job(connection, "first"), add_job(connection, "second")


def test_a_claim_that_waits_for_a_job_holds_none_of_the_results_before_it(engine: Engine) -> None:
    first, second = two_jobs(engine)
    worker = add_worker(engine)
    [call] = take(engine, worker, 1, only=frozenset({second})).calls
    writer = Writer(engine)

    async def store_and_claim() -> Claimed:
        writer.put(answered(call))
        claiming = asyncio.create_task(
            writer.do(lambda connection: claim(connection, worker=worker, room=9, only=None, reserve=reserving()))
        )
        await asyncio.sleep(0)
        with writer:
            return await claiming

    with ThreadPoolExecutor(1) as pool:
        with writing(engine) as connection:
            hold(connection, first)
            working = pool.submit(asyncio.run, store_and_claim())
            wait_for_a_lock(engine)
            hold(connection, second)
        assert {claimed.job_id for claimed in working.result(timeout=30).calls} == {first, second}
    assert attempt_of(engine, call.attempt_id).outcome == "complete"


def test_jobs_are_loaded_in_the_order_of_their_ids_whatever_the_file_says(engine: Engine, tmp_path: Path) -> None:
    catalogue = catalogue_at(lambda _: "http://127.0.0.1:9", [])
    specs = job("second", 1), job("first", 1)
    loaded = load(engine, JobFile(version=1, jobs=specs[::-1], path=None), catalogue, base=tmp_path)
    first, second = (one.job_id for one in loaded)
    file = JobFile(version=1, jobs=specs, path=None)
    with ThreadPoolExecutor(1) as pool:
        with writing(engine) as connection:
            hold(connection, first)
            again = pool.submit(load, engine, file, catalogue, base=tmp_path)
            wait_for_a_lock(engine)
            hold(connection, second)
        assert [one.unchanged for one in again.result(timeout=30)] == [1, 1]


def test_who_lifts_pauses_locks_the_jobs_before_their_items(engine: Engine) -> None:
    first, second = two_jobs(engine)
    with writing(engine) as holder:
        hold(holder, second)
        with writing(engine) as connection:
            connection.execute(sa.text("SET LOCAL lock_timeout = '100ms'"))
            with pytest.raises(OperationalError, match="lock timeout"):
                lift_pauses(connection, [first, second])
            connection.rollback()


def test_who_waits_for_the_jobs_of_a_dead_worker_does_not_hold_its_own_row(engine: Engine) -> None:
    first, _ = two_jobs(engine)
    dead = add_worker(engine)
    take(engine, dead, 1, only=frozenset({first}))
    beat = Beat(engine, lambda _: None, lease=60.0)
    beat.worker = add_worker(engine)
    beat.pulse.seen[dead] = (0, time.monotonic() - 3_600)
    with ThreadPoolExecutor(1) as pool:
        with writing(engine) as connection:
            hold(connection, first)
            reaping = pool.submit(beat.turn)
            wait_for_a_lock(engine)
            mine = sa.select(workers.c.id).where(workers.c.id == beat.worker)
            connection.execute(mine.with_for_update(nowait=True)).one()
        assert reaping.result(timeout=30).calls == 1

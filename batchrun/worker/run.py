"""A run whose calls are made by workers that it brings along: it watches them, and counts what they do."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping

from sqlalchemy import Connection, Engine

from batchrun.database import reading, writing
from batchrun.drain import Stop, Tally
from batchrun.errors import DatabaseError, WorkerError
from batchrun.reports.cost import last_attempt, made_since
from batchrun.reports.facts import facts
from batchrun.running import RunEnd, ends
from batchrun.settings import Settings
from batchrun.states import State
from batchrun.store import jobs as store
from batchrun.store.workers import dead_here, reap
from batchrun.worker.local import LocalWorkers

CALLED = frozenset({State.DONE, State.TRUNCATED, State.FAILED})
"""States that a call leads to."""
LOOK = 0.25
READ_SHARE = 20
"""Reading the database takes no more than one part in so many of the time."""


def run_with_workers(
    engine: Engine,
    job_ids: frozenset[int],
    settings: Settings,
    *,
    processes: int,
    stop: Stop,
    tally: Tally,
    grace: float,
) -> RunEnd:
    """Let so many processes on this machine drain these jobs, until nothing is left to do or `stop` is asked for.

    Pauses that an error caused are lifted first, as in any run. Raises WorkerError where the workers end by themselves,
    DatabaseError where the database stays away.
    """
    began = time.monotonic()
    with writing(engine) as connection:
        store.lift_pauses(connection, job_ids)
        before = last_attempt(connection)
        started_with = ended(connection, job_ids)
    with LocalWorkers(processes, only=job_ids, grace=grace, environment=environment_of(settings)) as workers:
        told = 0
        while not workers.ended:
            while told < min(stop.level, 2):
                workers.stop()
                told += 1
            looked = time.monotonic()
            try:
                with reading(engine) as connection:
                    count(connection, job_ids, before, tally)
                    over = not store.has_open_items(connection, job_ids)
            except DatabaseError as error:  # the workers wait for it too, and say more when they give up
                tally.trouble, over = error.message, False
            else:
                tally.trouble = ""
            if over:
                break
            time.sleep(max(LOOK, READ_SHARE * (time.monotonic() - looked)))
    with writing(engine) as connection:
        reap(connection, dead_here(connection))
        count(connection, job_ids, before, tally)
        tally.states.update(ended(connection, job_ids) - started_with)
        left = store.has_open_items(connection, job_ids)
    if left and not stop.level:
        raise WorkerError(
            f"the workers ended before the work did; their messages stand above ({workers.exit_code})",
            code="workers-ended",
            remedy="nothing is lost: run the same command again, or without --workers",
        )
    return RunEnd(jobs=ends(engine, job_ids), tally=tally, seconds=time.monotonic() - began, interrupted=stop.level > 0)


def ended(connection: Connection, job_ids: frozenset[int]) -> Counter[str]:
    """Items that have ended, by state."""
    states: Counter[str] = Counter()
    for job_id in job_ids:
        states.update(store.count_states(connection, job_id))
    return Counter({state: number for state, number in states.items() if state in CALLED})


def count(connection: Connection, job_ids: frozenset[int], before: int, tally: Tally) -> None:
    """What the calls since the attempt `before` came to."""
    made = made_since(connection, job_ids, before)
    tally.calls, tally.unpriced, tally.cost = made.calls, made.unpriced, made.cost
    tally.input_tokens, tally.output_tokens = made.input_tokens, made.output_tokens
    tally.in_flight = sum(job.in_flight for job in facts(connection, sorted(job_ids)).values())


def environment_of(settings: Settings) -> Mapping[str, str]:
    """What the workers are told: all that this process knows of where things are."""
    known = {
        "DATABASE_URL": settings.database_url,
        "BATCHRUN_CATALOGUE": None if settings.catalogue is None else str(settings.catalogue.resolve()),
        "BATCHRUN_SIMULATOR_URL": settings.simulator_url,
    }
    return {**settings.environment, **{name: value for name, value in known.items() if value is not None}}

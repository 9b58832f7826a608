"""Running jobs in this process: plans, keys, the drain, and what came of it."""

from __future__ import annotations

import asyncio
import resource
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial

from sqlalchemy import Connection, Engine

from batchrun.catalogue import Catalogue
from batchrun.database import clock, lock_loading, on_rollback, reading, writing
from batchrun.drain import GRACE, STREAMS, Stop, Tally, drain
from batchrun.errors import (
    EXIT_DONE,
    EXIT_INTERRUPTED,
    EXIT_ITEMS_FAILED,
    EXIT_STOPPED,
    EXIT_UNREACHABLE,
    BatchrunError,
    CatalogueError,
    UsageError,
)
from batchrun.output.sidecar import Sidecars
from batchrun.plan import Plan
from batchrun.reports.facts import unfit
from batchrun.roster import LOOK_EVERY, Roster, plan_for_calls
from batchrun.settings import Settings
from batchrun.spill import restore, spill_folder
from batchrun.states import OPEN, State
from batchrun.store import jobs as store
from batchrun.store.sample import Sample, count_sample
from batchrun.tables import Record
from batchrun.telemetry import telemetry

FILES = 65_536
FILES_OF_A_CALL = 4
"""A connection, a picture and the folder it is found through, and room for the database."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEnd:
    """Where a job stands when the run ends."""

    job_id: int
    name: str
    simulated: bool
    states: dict[str, int]
    """Of all items, or of those in the sample."""
    paused: str | None
    pause_message: str | None
    cap: Decimal | None
    spent: Decimal
    """The high bound of what its calls have cost so far, in `currency`."""
    currency: str | None
    unfit: int = 0
    """Done items whose answer doesn't fit the job's schema; in a run of a sample, those outside of it too."""
    outside_sample: dict[str, int] = field(default_factory=dict)
    """By state, the items that a run of a sample has nothing to do with."""

    @property
    def total(self) -> int:
        return sum(self.states.values())

    @property
    def bad(self) -> int:
        """Items that failed or were truncated."""
        return self.states.get(State.FAILED, 0) + self.states.get(State.TRUNCATED, 0)

    @property
    def left(self) -> int:
        return sum(self.states.get(state, 0) for state in OPEN)

    @property
    def stopped(self) -> bool:
        """Whether a pause ended its run. One by a person stops nothing where nothing is left to do."""
        return self.paused is not None and (self.left > 0 or self.paused != store.BY_USER)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnd:
    jobs: Sequence[JobEnd]
    tally: Tally
    seconds: float
    interrupted: bool
    files: Mapping[int, Sidecars] = field(default_factory=dict)
    """Answers that were written as files, by job."""

    @property
    def unwritten(self) -> int:
        """Answers that could not be written as files."""
        return sum(made.problems for made in self.files.values())

    @property
    def exit_code(self) -> int:
        if self.interrupted and any(job.left for job in self.jobs):
            return EXIT_INTERRUPTED
        if any(job.stopped and job.paused != "unreachable" for job in self.jobs):
            return EXIT_STOPPED
        if any(job.stopped for job in self.jobs):
            return EXIT_UNREACHABLE
        return EXIT_ITEMS_FAILED if self.unwritten or any(job.bad for job in self.jobs) else EXIT_DONE


def run(
    engine: Engine,
    job_ids: Iterable[int],
    catalogue: Catalogue,
    settings: Settings,
    *,
    sample: Sample | None = None,
    stop: Stop | None = None,
    tally: Tally | None = None,
    grace: float = GRACE,
    at_any_time: bool = False,
) -> RunEnd:
    """Drain these jobs, or a `sample` of each, in this process until nothing is left to do or `stop` is asked for.

    Jobs whose window is closed are waited for, unless `at_any_time`. A pause that an error caused is lifted first:
    whoever runs a job again has mended its cause. Raises UsageError where a key is missing, DatabaseError where the
    database stays away.
    """
    only = frozenset(job_ids)
    stop, tally = stop or Stop(), tally or Tally()
    plans = make_plans(engine, only, catalogue, settings)
    looked_at = time.monotonic()
    unplanned: BatchrunError | None = None

    def chosen(connection: Connection, _worker: str) -> frozenset[int]:
        """The jobs, with another plan where somebody changed the mode of one meanwhile. Where that can't be made here,
        the run stops as if it were asked to: calls in flight are paid for."""
        nonlocal looked_at, unplanned
        if time.monotonic() - looked_at >= LOOK_EVERY:
            looked_at = time.monotonic()
            places = store.regions_of(connection, only)
            if moved := [job_id for job_id, region in places.items() if plans[job_id].region != region]:
                try:
                    on_rollback(connection, partial(plans.update, {job_id: plans[job_id] for job_id in moved}))
                    plans.update(planned(connection, moved, catalogue, settings))
                except (CatalogueError, UsageError) as error:
                    unplanned = error
                    stop.ask()
        return only

    def reserve(job_id: int, input_bound: int | None, output_bound: int | None) -> Decimal | None:
        return plans[job_id].most(input_bound, output_bound)

    began = time.monotonic()
    restore(engine, spill_folder(engine))
    with writing(engine) as connection:
        store.lift_pauses(connection, only)
    with telemetry(settings.environment) as record:
        draining = drain(
            engine,
            plans.__getitem__,
            reserve=reserve,
            only=chosen,
            lease=settings.lease,
            sample=sample,
            stop=stop,
            tally=tally,
            streams=min(STREAMS, open_files() // FILES_OF_A_CALL),
            grace=grace,
            at_any_time=at_any_time,
            on_result=record,
        )
        finished(draining, stop)
    if unplanned is not None:
        raise unplanned
    return RunEnd(
        jobs=ends(engine, only, sample), tally=tally, seconds=time.monotonic() - began, interrupted=stop.level > 0
    )


def finished(draining: Coroutine[object, object, Tally], stop: Stop) -> None:
    """Run it to its end: here, or on a thread of its own where a loop runs in this one already, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(draining)
        return
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batchrun-drain") as pool:
        running = pool.submit(asyncio.run, draining)
        try:
            running.result()
        except KeyboardInterrupt:
            stop.ask()
            raise


def open_files() -> int:
    """How many files this process may have open, after asking for as many as it may ask for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return FILES if soft == resource.RLIM_INFINITY else soft


def make_plans(engine: Engine, job_ids: frozenset[int], catalogue: Catalogue, settings: Settings) -> dict[int, Plan]:
    with writing(engine) as connection:
        return planned(connection, job_ids, catalogue, settings)


def planned(
    connection: Connection, job_ids: Iterable[int], catalogue: Catalogue, settings: Settings
) -> dict[int, Plan]:
    """The plans of these jobs as they stand now, by id. Raises as `plan_for_calls` does."""
    lock_loading(connection)  # two runs at once must not both append a price
    now = clock(connection)
    return {
        job.id: plan_for_calls(connection, job, catalogue, settings, now=now)
        for job in store.job_rows(connection, job_ids)
    }


def work(
    engine: Engine, catalogue: Catalogue, settings: Settings, *, only: frozenset[int] | None, stop: Stop, grace: float
) -> Tally:
    """Drain whatever is due in the database, or in the jobs `only`, as far as this machine can do it: what a worker's
    process does when it is told to look. Raises DatabaseError where the database stays away."""
    roster = Roster(catalogue=catalogue, settings=settings, only=only)
    restore(engine, spill_folder(engine))
    with telemetry(settings.environment) as record:
        draining = drain(
            engine,
            roster.plan,
            reserve=roster.most,
            only=roster.choose,
            lease=settings.lease,
            stop=stop,
            streams=min(STREAMS, open_files() // FILES_OF_A_CALL),
            grace=grace,
            lingers=False,
            on_result=record,
        )
        return asyncio.run(draining)


def ends(engine: Engine, job_ids: frozenset[int], sample: Sample | None = None) -> list[JobEnd]:
    with reading(engine) as connection:
        found: list[JobEnd] = []
        not_fitting = unfit(connection, list(job_ids))
        for job in store.job_rows(connection, job_ids):
            states = store.count_states(connection, job.id)
            sampled = states if sample is None else count_sample(connection, sample[job.id])
            outside = dict(Counter(states) - Counter(sampled))
            found.append(end_of(job, sampled, outside=outside, not_fitting=not_fitting.get(job.id, 0)))
        return found


def end_of(job: Record, states: dict[str, int], *, outside: dict[str, int], not_fitting: int) -> JobEnd:
    return JobEnd(
        job_id=job.id,
        name=job.name,
        simulated=job.simulated,
        states=states,
        unfit=not_fitting,
        outside_sample=outside,
        paused=job.paused or job.profile_paused,
        pause_message=job.pause_message if job.paused else job.profile_pause_message,
        cap=job.cap,
        spent=job.spent,
        currency=job.currency,
    )


@contextmanager
def signals(on_signal: Callable[[], None]) -> Iterator[None]:
    """SIGINT and SIGTERM call `on_signal`, which may only set a flag; what stood before is put back. On another thread
    than the main one, where Python lets nobody listen to signals, nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(_number: int, _frame: object) -> None:
        on_signal()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

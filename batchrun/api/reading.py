"""Functions that read what came of jobs, and what they cost."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import date, timedelta
from typing import get_args

from batchrun.api.opening import Place, one_of, opened, settings_for, states_of
from batchrun.database import reading
from batchrun.reports.cost import By, CostLine, cost_by
from batchrun.reports.jobs import find_jobs, one_job
from batchrun.reports.results import ItemResult
from batchrun.reports.results import results as read_results
from batchrun.reports.status import JobStatus
from batchrun.reports.status import status as read_status
from batchrun.states import State
from batchrun.store.workers import dead_here
from batchrun.watching import follow


def status(jobs: Iterable[str] | None = None, *, database: Place = None) -> list[JobStatus]:
    """How far the jobs of these names are, or all; what holds them, and what they have cost so far."""
    with opened(database) as engine, reading(engine) as connection:
        return read_status(connection, None if jobs is None else list(jobs), dead=dead_here(connection))


def watch(
    jobs: Iterable[str] | None = None,
    *,
    interval: timedelta = timedelta(seconds=2),
    alarm: timedelta | None = None,
    on_alarm: Callable[[str], None] = lambda _: None,
    database: Place = None,
) -> Iterator[list[JobStatus]]:
    """Follow the jobs of these names, or all, whoever works on them: a `status` every `interval`, with rates and the
    time that is left, until nothing is left that anybody could do.

    `on_alarm` hears a line when nothing has ended for as long as `alarm`, and one when work goes on.
    """
    with opened(database) as engine:
        names = None if jobs is None else list(jobs)
        lease = settings_for(database).lease
        yield from follow(engine, names, interval=interval, lease=lease, alarm=alarm, on_alarm=on_alarm)


def results(
    job: str,
    *,
    states: Collection[State | str] | None = None,
    limit: int | None = None,
    simulated: bool = False,
    database: Place = None,
) -> list[ItemResult]:
    """What came of each item of a job, in the order of its source; `pandas.DataFrame` takes the list as it is.

    `states` are those to take, such as `{"failed"}`; None means all. `simulated` takes the simulated job of that name
    where a real one has it too.
    """
    wanted = None if states is None else states_of(states)
    with opened(database) as engine, reading(engine) as connection:
        row = one_job(connection, job, simulated=simulated)
        return list(read_results(connection, row, states=wanted, limit=limit))


def report(
    by: By = "job",
    *,
    jobs: Iterable[str] | None = None,
    since: date | None = None,
    until: date | None = None,
    database: Place = None,
) -> list[CostLine]:
    """What the calls cost, failed ones included, from `since` to `until`, days of UTC, both inclusive.

    `pandas.DataFrame` takes the list as it is. Simulated money stands in lines of its own; leave them out of sums.
    """
    one_of("by", by, get_args(By))
    with opened(database) as engine, reading(engine) as connection:
        ids = None if jobs is None else [row.id for row in find_jobs(connection, list(jobs))]
        return cost_by(connection, by, job_ids=ids, since=since, until=until)

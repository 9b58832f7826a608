"""Following jobs through the database, whoever works on them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from batchrun.database import UNREACHABLE, reading
from batchrun.errors import EXIT_DONE, EXIT_ITEMS_FAILED, EXIT_STOPPED, EXIT_UNREACHABLE, DatabaseError
from batchrun.pacing.alarms import Sign, Standstill, alarm_of, is_patient, standstill_text
from batchrun.pacing.brakes import STANDSTILL, Brake, BrakeKind, seconds_left, span_of
from batchrun.pacing.pace import HOLE, Pace
from batchrun.reports.status import JobStatus, status
from batchrun.states import OPEN, State
from batchrun.store.workers import Pulse, beats, dead_here

if TYPE_CHECKING:
    from sqlalchemy import Engine

READ_SHARE = 10
"""Looking takes no more than one part in so many of the time."""


@dataclass(slots=True, kw_only=True)
class Follower:
    """Looks at the same jobs again and again. The first look raises what `status` raises; later ones wait for a
    database that doesn't answer."""

    engine: Engine
    names: Sequence[str] | None
    interval: float
    pulse: Pulse
    paces: dict[tuple[str, bool], Pace] = field(default_factory=dict)
    last: list[JobStatus] = field(default_factory=list)

    @property
    def hole(self) -> float:
        return max(HOLE, 5 * self.interval)

    def look(self) -> list[JobStatus]:
        try:
            self.last = self.read()
        except DatabaseError as error:
            if error.code != UNREACHABLE or not self.last:
                raise
            return [unreachable(job, error) for job in self.last]
        return self.last

    def read(self) -> list[JobStatus]:
        with reading(self.engine) as connection:
            silent = self.pulse.silent(beats(connection), time.monotonic())
            found = status(connection, self.names, dead={*dead_here(connection), *silent})
        return [self.paced(job, time.monotonic()) for job in found]

    def paced(self, job: JobStatus, at: float) -> JobStatus:
        """With rate and time left, from the differences to the looks before."""
        pace = self.paces.setdefault((job.name, job.simulated), Pace(hole=self.hole))
        stands = job.brake is not None and job.brake.kind in STANDSTILL
        if stands:
            pace.forget()
        pace.look(at, job.facts.ended)
        rate, _ = pace.rates()
        left = None if job.brake is None else seconds_left([job.facts], [job.brake], pace, job.facts.open)
        return replace(
            job,
            rate=rate if len(pace.samples) > 1 else None,
            time_left=None if left is None else timedelta(seconds=round(left)),
        )


def unreachable(job: JobStatus, error: DatabaseError) -> JobStatus:
    """As it was seen last, with what keeps it from being seen now."""
    brake = Brake(kind=BrakeKind.DATABASE, text=f"the database: {error.message}")
    return job if job.brake is None else replace(job, brake=brake, rate=None, time_left=None)


def follow(
    engine: Engine,
    names: Sequence[str] | None,
    *,
    interval: timedelta,
    lease: float,
    alarm: timedelta | None,
    on_alarm: Callable[[str], None],
) -> Iterator[list[JobStatus]]:
    """Looks at the jobs until nothing is left that anybody could do. `on_alarm` hears a line when nothing has ended for
    as long as `alarm`, and when work goes on. A worker that is silent for `lease` seconds is dead. Raises UsageError
    for unknown names, DatabaseError."""
    follower = Follower(engine=engine, names=names, interval=interval.total_seconds(), pulse=Pulse(lease))
    standstill = Standstill(
        after=0.0 if alarm is None else alarm.total_seconds(), since=time.monotonic(), hole=follower.hole
    )
    while True:
        began = time.monotonic()
        found = follower.look()
        expected = goes_on([job for job in found if not is_patient(job.facts)])
        sign = standstill.look(began, sum(job.facts.ended for job in found), is_open=expected)
        if sign is Sign.ALARM:
            on_alarm(f"ALARM: {reasons(found, standstill.quiet(began))}")
        elif sign is Sign.GOES_ON:
            on_alarm(f"work goes on after {span_of(standstill.stood)}")
        yield found
        if not goes_on(found):
            return
        took = time.monotonic() - began
        time.sleep(max(interval.total_seconds() - took, READ_SHARE * took))


def reasons(jobs: Sequence[JobStatus], quiet: float) -> str:
    alarms = {job.name: alarm_of(job.facts) for job in jobs}
    return standstill_text({name: alarm for name, alarm in alarms.items() if alarm is not None}, quiet)


def goes_on(jobs: Sequence[JobStatus]) -> bool:
    """Whether anything can still happen: an item is in flight, or left in a job that isn't paused."""
    return any(
        job.counts.get(State.CLAIMED) or (job.paused is None and any(job.counts.get(state) for state in OPEN))
        for job in jobs
    )


def exit_code(jobs: Sequence[JobStatus]) -> int:
    """As `run` ends: 3 for a pause, 4 where the provider was never reached, 1 where items failed or were cut."""
    pauses = {job.paused for job in jobs if job.paused is not None and job.facts.open}
    if pauses:
        return EXIT_UNREACHABLE if pauses == {"unreachable"} else EXIT_STOPPED
    bad = any(job.counts.get(state) for job in jobs for state in (State.FAILED, State.TRUNCATED))
    return EXIT_ITEMS_FAILED if bad else EXIT_DONE

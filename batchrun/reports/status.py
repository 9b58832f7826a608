"""How far each job is, what holds it, and what it has cost so far. Fast enough to be asked every second."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum

import sqlalchemy as sa
from sqlalchemy import Connection

from batchrun.pacing.brakes import Brake, JobFacts, brake_of
from batchrun.reports.facts import error_kinds, facts, unfit
from batchrun.reports.jobs import find_jobs
from batchrun.states import OPEN, State
from batchrun.tables import Record, attempts, items, usage


class JobState(StrEnum):
    """Derived from the items; nothing stores it."""

    EMPTY = "empty"
    RUNNING = "running"
    """A live worker holds some of its items."""
    PAUSED = "paused"
    WAITING = "waiting"
    """Something is left to do, and no live worker does it at the moment."""
    DONE = "done"
    DONE_WITH_FAILURES = "done with failures"
    """Nothing is left to do, and some items failed or were cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    name: str
    simulated: bool
    provider: str
    """With its region, such as `model-studio/singapore`."""
    model: str
    state: JobState
    counts: Mapping[State, int]
    """Items by state; states without items are absent."""
    paused: str | None
    """Why, in a word, such as `budget` or `arrears`: the job itself, or its profile."""
    pause_message: str | None
    spent_low: Decimal | None
    """At least this was spent; None where nothing of it is known."""
    spent_high: Decimal | None
    unknown_cost: int
    """Calls whose cost isn't known, and isn't in `spent`."""
    reserved: Decimal
    """Upper bound of what the calls in flight will cost."""
    cap: Decimal | None
    currency: str | None
    errors: Mapping[State, Mapping[str, int]]
    """Failed and waiting items by the kind of their last error."""
    unfit: int
    """Done items whose answer doesn't fit the job's schema; failed ones count among `errors`."""
    next_at: datetime | None
    """When the first of the waiting items may be tried again."""
    last_activity: datetime | None
    """When the last call that may have cost money began or ended."""
    facts: JobFacts
    """What holds it, in figures."""
    brake: Brake | None
    """What holds it, in words; None where nothing is left to do."""
    rate: float | None = None
    """Items that ended per second, from the differences between looks; None for a single look."""
    time_left: timedelta | None = None
    """About how long the rest will take; None where that can't be told."""
    total: int = field(init=False)
    """Items of the job."""
    done: int = field(init=False)
    failed: int = field(init=False)
    truncated: int = field(init=False)
    left: int = field(init=False)
    """Items that haven't ended."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "total", sum(self.counts.values()))
        for state in (State.DONE, State.FAILED, State.TRUNCATED):
            object.__setattr__(self, state.value, self.counts.get(state, 0))
        object.__setattr__(self, "left", sum(self.counts.get(state, 0) for state in OPEN))

    @property
    def ended(self) -> int:
        return self.facts.ended


def status(
    connection: Connection, names: Iterable[str] | None = None, *, dead: Collection[str] = ()
) -> list[JobStatus]:
    """The jobs of these names, or all, in the order in which they were loaded. Raises UsageError for unknown names.

    `dead` names workers that are known to be gone (see `store.workers.dead_here`), though their rows still say
    otherwise: what they hold isn't running.
    """
    rows = find_jobs(connection, names)
    ids = [row.id for row in rows]
    known = facts(connection, ids, dead=dead)
    inexact = _inexact(connection, None if names is None else ids)
    failed = error_kinds(connection, ids, [State.FAILED])
    not_fitting = unfit(connection, ids)
    waiting = _next_at(connection, ids)
    activity = _last_activity(connection, ids)
    return [
        _status(
            row,
            known[row.id],
            inexact=inexact.get(row.id, (Decimal(0), 0)),
            failed=failed.get(row.id, {}),
            not_fitting=not_fitting.get(row.id, 0),
            next_at=waiting.get(row.id),
            last_activity=activity.get(row.id),
        )
        for row in rows
    ]


def _status(
    row: Record,
    known: JobFacts,
    *,
    inexact: tuple[Decimal, int],
    failed: Mapping[State, Mapping[str, int]],
    not_fitting: int,
    next_at: datetime | None,
    last_activity: datetime | None,
) -> JobStatus:
    slack, unknown = inexact
    nothing_known = row.currency is None or (unknown > 0 and not row.spent)
    return JobStatus(
        name=row.name,
        simulated=row.simulated,
        provider=f"{row.provider}/{row.region}" if row.region else row.provider,
        model=row.model,
        state=_derive(known.counts, running=known.workers > 0, paused=known.paused is not None),
        counts=known.counts,
        paused=known.paused,
        pause_message=known.pause_message,
        spent_low=None if nothing_known else row.spent - slack,
        spent_high=None if nothing_known else row.spent,
        unknown_cost=unknown,
        reserved=row.reserved,
        cap=row.cap,
        currency=row.currency,
        errors={**failed, State.WAITING: known.waiting_kinds} if known.waiting_kinds else failed,
        unfit=not_fitting,
        next_at=next_at,
        last_activity=last_activity,
        facts=known,
        brake=brake_of(known),
    )


def _derive(counts: Mapping[State, int], *, running: bool, paused: bool) -> JobState:
    if not counts:
        return JobState.EMPTY
    if not any(state in OPEN for state in counts):
        failed = State.FAILED in counts or State.TRUNCATED in counts
        return JobState.DONE_WITH_FAILURES if failed else JobState.DONE
    if running:
        return JobState.RUNNING
    return JobState.PAUSED if paused else JobState.WAITING


def _inexact(connection: Connection, ids: Sequence[int] | None) -> dict[int, tuple[Decimal, int]]:
    """How far apart the ends of the costs are, and how many costs aren't known at all; of all jobs for None."""
    wanted = (
        sa.select(
            usage.c.job_id,
            sa.func.coalesce(sa.func.sum(usage.c.cost_high - usage.c.cost_low, type_=usage.c.cost_low.type), 0),
            sa.func.sum(sa.case((usage.c.cost_high.is_(None), 1), else_=0)),
        )
        .where(sa.or_(usage.c.cost_high.is_(None), usage.c.cost_low != usage.c.cost_high))
        .group_by(usage.c.job_id)
    )
    rows = connection.execute(wanted if ids is None else wanted.where(usage.c.job_id.in_(ids)))
    return {job_id: (slack, int(unknown)) for job_id, slack, unknown in rows}


def _next_at(connection: Connection, ids: Sequence[int]) -> dict[int, datetime]:
    rows = connection.execute(
        sa.select(items.c.job_id, sa.func.min(items.c.next_at))
        .where(items.c.job_id.in_(ids), items.c.state == State.WAITING.value)
        .group_by(items.c.job_id)
    )
    return {row[0]: row[1] for row in rows}


def _last_activity(connection: Connection, ids: Sequence[int]) -> dict[int, datetime]:
    """By the newest usage row, as it is the one table of calls that has an index by job, and by the open calls."""
    newest = (
        sa.select(usage.c.job_id, sa.func.max(usage.c.attempt_id).label("attempt_id"))
        .where(usage.c.job_id.in_(ids))
        .group_by(usage.c.job_id)
        .subquery()
    )
    ended = sa.func.coalesce(attempts.c.ended_at, attempts.c.claimed_at)
    closed = sa.select(newest.c.job_id, ended).join(attempts, attempts.c.id == newest.c.attempt_id)
    flying = (
        sa.select(attempts.c.job_id, sa.func.max(attempts.c.claimed_at))
        .where(sa.literal_column("outcome = 'open'"), attempts.c.job_id.in_(ids))
        .group_by(attempts.c.job_id)
    )
    found: dict[int, datetime] = {}
    for job_id, moment in [*connection.execute(closed), *connection.execute(flying)]:
        found[job_id] = max(moment, found.get(job_id, moment))
    return found

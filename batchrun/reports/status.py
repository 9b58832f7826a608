"""How far each job is, what holds it, and what it has cost so far. Fast enough to be asked every second."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

import sqlalchemy as sa
from sqlalchemy import Connection

from batchrun.reports.jobs import find_jobs
from batchrun.states import OPEN, State
from batchrun.tables import Record, attempts, items, profiles, usage


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
    next_at: datetime | None
    """When the first of the waiting items may be tried again."""
    last_activity: datetime | None
    """When the last call that may have cost money began or ended."""
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


def status(
    connection: Connection, names: Iterable[str] | None = None, *, dead: Collection[str] = ()
) -> list[JobStatus]:
    """The jobs of these names, or all, in the order in which they were loaded. Raises UsageError for unknown names.

    `dead` names workers that are known to be gone (see `store.workers.dead_here`), though their rows still say
    otherwise: what they hold isn't running.
    """
    rows = find_jobs(connection, names)
    ids = [row.id for row in rows]
    counts = _counts(connection, ids)
    running = _running(connection, ids, dead)
    inexact = _inexact(connection, None if names is None else ids)
    errors = _errors(connection, ids)
    waiting = _next_at(connection, ids)
    activity = _last_activity(connection, ids)
    pauses = _pauses(connection, rows)
    return [
        _status(
            row,
            counts=counts.get(row.id, {}),
            running=row.id in running,
            pause=pauses[row.id],
            inexact=inexact.get(row.id, (Decimal(0), 0)),
            errors=errors.get(row.id, {}),
            next_at=waiting.get(row.id),
            last_activity=activity.get(row.id),
        )
        for row in rows
    ]


def _status(
    row: Record,
    *,
    counts: Mapping[State, int],
    running: bool,
    pause: tuple[str | None, str | None],
    inexact: tuple[Decimal, int],
    errors: Mapping[State, Mapping[str, int]],
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
        state=_derive(counts, running=running, paused=pause[0] is not None),
        counts=counts,
        paused=pause[0],
        pause_message=pause[1],
        spent_low=None if nothing_known else row.spent - slack,
        spent_high=None if nothing_known else row.spent,
        unknown_cost=unknown,
        reserved=row.reserved,
        cap=row.cap,
        currency=row.currency,
        errors=errors,
        next_at=next_at,
        last_activity=last_activity,
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


def _counts(connection: Connection, ids: Sequence[int]) -> dict[int, dict[State, int]]:
    """Read from the claim's index alone."""
    rows = connection.execute(
        sa.select(items.c.job_id, items.c.state, sa.func.count())
        .where(items.c.job_id.in_(ids))
        .group_by(items.c.job_id, items.c.state)
    )
    found: dict[int, dict[State, int]] = defaultdict(dict)
    for job_id, state, count in rows:
        found[job_id][State(state)] = count
    return found


def _running(connection: Connection, ids: Sequence[int], dead: Collection[str]) -> set[int]:
    """Jobs of which a worker that isn't known to be dead holds an item."""
    rows = connection.execute(
        sa.select(items.c.job_id, items.c.owner)
        .where(items.c.job_id.in_(ids), items.c.state == State.CLAIMED.value)
        .distinct()
    )
    return {job_id for job_id, owner in rows if owner is not None and owner not in dead}


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


def _errors(connection: Connection, ids: Sequence[int]) -> dict[int, dict[State, dict[str, int]]]:
    rows = connection.execute(
        sa.select(items.c.job_id, items.c.state, items.c.error_kind, sa.func.count())
        .where(
            items.c.job_id.in_(ids),
            items.c.state.in_([State.FAILED.value, State.WAITING.value]),
            items.c.error_kind.is_not(None),
        )
        .group_by(items.c.job_id, items.c.state, items.c.error_kind)
        .order_by(sa.func.count().desc(), items.c.error_kind)
    )
    found: dict[int, dict[State, dict[str, int]]] = {}
    for job_id, state, kind, count in rows:
        found.setdefault(job_id, {}).setdefault(State(state), {})[kind] = count
    return found


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


def _pauses(connection: Connection, rows: Sequence[Record]) -> dict[int, tuple[str | None, str | None]]:
    """The job's own pause, else that of the profile it shares with others."""
    shared = {
        row.id: (row.paused, row.pause_message)
        for row in connection.execute(
            sa.select(profiles.c.id, profiles.c.paused, profiles.c.pause_message).where(
                profiles.c.id.in_({row.profile_id for row in rows})
            )
        )
    }
    return {
        row.id: (row.paused, row.pause_message) if row.paused is not None else shared[row.profile_id] for row in rows
    }

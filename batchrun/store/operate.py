"""What an operator does to the items and the pauses of a job. Every function expects the job's row locked, by `locked`.

Jobs are locked first and in the order of their ids, as claims and finishes do, so that none waits in a circle.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection

from batchrun.errors import ErrorKind
from batchrun.states import OPEN, State, sources
from batchrun.store import sharing
from batchrun.store.jobs import BY_USER, MENDED, lift_pauses, lock
from batchrun.store.release import block_again
from batchrun.tables import EPOCH, Record, attempts, items, jobs, profiles

PART = 500
"""Names in one statement."""
IN_FLIGHT: ColumnElement[bool] = sa.literal_column("outcome = 'open'")
"""Spelt out: SQLite uses a partial index only where its condition stands in the statement."""


def locked(connection: Connection, ids: Iterable[int]) -> dict[int, Record]:
    """The rows of these jobs, with the pauses of their profiles, as they are now and stay until the transaction ends.
    Raises nothing for an id that doesn't exist: it is left out."""
    wanted = sorted(ids)
    lock(connection, wanted)
    rows = connection.execute(
        sa.select(jobs, profiles.c.paused.label("profile_paused"), profiles.c.pause_message.label("profile_message"))
        .join(profiles, profiles.c.id == jobs.c.profile_id)
        .where(jobs.c.id.in_(wanted))
        .order_by(jobs.c.id)
    )
    return {row.id: row for row in rows}


def states_by_name(connection: Connection, job_id: int, names: Collection[str]) -> dict[str, State]:
    """The states of the items of these names; a name that no item has is absent."""
    found: dict[str, State] = {}
    ordered = sorted(names)
    for start in range(0, len(ordered), PART):
        rows = connection.execute(
            sa.select(items.c.custom_id, items.c.state).where(
                items.c.job_id == job_id, items.c.custom_id.in_(ordered[start : start + PART])
            )
        )
        found |= {row.custom_id: State(row.state) for row in rows}
    return found


def bounds_of(connection: Connection, job_id: int, states: Collection[State]) -> dict[int | None, int]:
    """How many items in these states have which bound of their input tokens."""
    return _counted(connection, items.c.input_bound, [items.c.job_id == job_id, items.c.state.in_(sorted(states))])


def _counted(connection: Connection, key: ColumnElement[Any], where: Iterable[ColumnElement[bool]]) -> dict[Any, int]:
    """How many items there are of each `key`. Its type isn't known to a checker."""
    rows = connection.execute(sa.select(key, sa.func.count()).select_from(items).where(*where).group_by(key))
    return {row[0]: row[1] for row in rows}


def _parts(names: Collection[str] | None) -> Iterator[list[ColumnElement[bool]]]:
    """Conditions for the items of these names, a part of them at a time; one that holds for all items for None."""
    if names is None:
        yield []
        return
    ordered = sorted(names)
    for start in range(0, len(ordered), PART):
        yield [items.c.custom_id.in_(ordered[start : start + PART])]


# retry


@dataclass(frozen=True, slots=True, kw_only=True)
class Retaken:
    """Items that are taken up again."""

    counts: Mapping[tuple[State, str | None], int]
    """By the state that they leave and the kind of their last error."""
    bounds: Mapping[int | None, int]
    """By the bound of their input tokens."""
    in_flight: int
    """Items that were left alone, as a call for them is still in flight: its answer would be bought twice."""


MAY_BE_ASKED_AGAIN = sa.or_(items.c.state != State.DONE.value, items.c.error_kind == ErrorKind.INVALID_ANSWER.value)
"""A good answer is never bought twice."""


def retry(
    connection: Connection,
    job_id: int,
    *,
    states: Collection[State],
    kinds: Collection[str] | None,
    names: Collection[str] | None,
    now: datetime,
) -> Retaken:
    """Items in one of `states`, of these kinds of error and names, become pending as if they had never been tried;
    waiting ones stay so and are due at once. Of done ones only those whose answer doesn't fit the job's schema.

    An item that merges any of them waits for its parts again."""
    where = [items.c.job_id == job_id, items.c.state.in_(sorted(states)), MAY_BE_ASKED_AGAIN]
    if kinds is not None:
        where.append(items.c.error_kind.in_(sorted(kinds)))
    counts: Counter[tuple[State, str | None]] = Counter()
    bounds: Counter[int | None] = Counter()
    in_flight = 0
    for named in _parts(names):
        taken = _retry_part(connection, job_id, [*where, *named], now)
        counts.update(taken.counts)
        bounds.update(taken.bounds)
        in_flight += taken.in_flight
    sharing.block(connection, job_id, takes={State.DONE})  # an answer that was asked for again isn't shared again
    block_again(connection, job_id)
    return Retaken(counts=counts, bounds=bounds, in_flight=in_flight)


def _retry_part(connection: Connection, job_id: int, where: Collection[ColumnElement[bool]], now: datetime) -> Retaken:
    flying = sa.exists().where(attempts.c.item_id == items.c.id, IN_FLIGHT)
    where_free = [*where, sa.not_(flying)]
    by_kind = connection.execute(
        sa.select(items.c.state, items.c.error_kind, sa.func.count())
        .where(*where_free)
        .group_by(items.c.state, items.c.error_kind)
        .order_by(items.c.state, sa.func.count().desc(), items.c.error_kind)
    )
    taken = Retaken(
        counts={(State(state), kind): count for state, kind, count in by_kind},
        bounds=_counted(connection, items.c.input_bound, where_free),
        in_flight=connection.execute(sa.select(sa.func.count()).select_from(items).where(*where, flying)).scalar_one(),
    )
    _take_again(connection, job_id, where_free, now)
    return taken


def _take_again(connection: Connection, job_id: int, where: Collection[ColumnElement[bool]], now: datetime) -> None:
    connection.execute(
        sa.update(items).where(*where, items.c.state == State.WAITING.value).values(next_at=now, free_since=None)
    )
    connection.execute(
        sa.update(items)
        .where(*where, items.c.state.in_(_retryable()))
        .values(
            state=State.PENDING.value,
            owner=None,
            next_at=EPOCH,
            free_since=None,
            free_tries=0,
            paid_tries=0,
            error_kind=None,
            error=None,
            # Its old answer becomes a spare of its attempt, which reports look for where there was a second claim.
            fence=sa.case((items.c.answer_id.is_not(None), items.c.fence + 1), else_=items.c.fence),
            answer_id=None,
            waits_for=None,
        )
    )
    connection.execute(sa.update(jobs).where(jobs.c.id == job_id, jobs.c.errors_in_row > 0).values(errors_in_row=0))


def _retryable() -> list[str]:
    """States from which only a person brings an item back."""
    return [state for state in sources(State.PENDING) if State(state) not in OPEN]


def error_kinds(connection: Connection, job_id: int, states: Collection[State]) -> dict[str, int]:
    """The kinds of the last errors of items in these states."""
    found = _counted(
        connection,
        items.c.error_kind,
        [items.c.job_id == job_id, items.c.state.in_(sorted(states)), items.c.error_kind.is_not(None)],
    )
    return dict(sorted(found.items(), key=lambda pair: (-pair[1], pair[0])))


# cancel


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawn:
    """Items that were cancelled."""

    counts: Mapping[State, int]
    """By the state that they had."""
    in_flight: int
    """Calls for cancelled items that are still in flight, those of an earlier cancel included."""


def cancel(connection: Connection, job: Record, *, names: Collection[str] | None) -> Withdrawn:
    """Cancel all items that haven't ended, or those of these names. Calls in flight stay open and end by themselves."""
    counts: Counter[State] = Counter()
    in_flight = 0
    for named in _parts(names):
        where = [items.c.job_id == job.id, items.c.state.in_(sources(State.CANCELLED)), *named]
        counts.update({State(state): count for state, count in _counted(connection, items.c.state, where).items()})
        connection.execute(sa.update(items).where(*where).values(state=State.CANCELLED.value, owner=None))
        flying = (
            sa.select(sa.func.count())
            .select_from(attempts.join(items, items.c.id == attempts.c.item_id))
            .where(
                IN_FLIGHT,
                attempts.c.profile_id == job.profile_id,
                attempts.c.job_id == job.id,
                items.c.state == State.CANCELLED.value,
                *named,
            )
        )
        in_flight += connection.execute(flying).scalar_one()
    return Withdrawn(counts=counts, in_flight=in_flight)


# pause and resume


def pause(connection: Connection, ids: Iterable[int], message: str) -> None:
    """Nothing more is claimed of these jobs until somebody resumes them. Takes the place of any other pause."""
    connection.execute(sa.update(jobs).where(jobs.c.id.in_(sorted(ids))).values(paused=BY_USER, pause_message=message))


def resume(connection: Connection, ids: Iterable[int]) -> None:
    """Lift every pause of these jobs and of their profiles, and let an open breaker look again at once."""
    lift_pauses(connection, ids, reasons={*MENDED, BY_USER})


def calls_in_flight(connection: Connection, job: Record) -> int:
    wanted = sa.select(sa.func.count()).where(
        IN_FLIGHT, attempts.c.profile_id == job.profile_id, attempts.c.job_id == job.id
    )
    return connection.execute(wanted).scalar_one()


def jobs_with_open_items(connection: Connection) -> list[int]:
    """Jobs of which something is left to do."""
    left = sa.exists().where(items.c.job_id == jobs.c.id, items.c.state.in_(sorted(OPEN)))
    return list(connection.execute(sa.select(jobs.c.id).where(left).order_by(jobs.c.id)).scalars())

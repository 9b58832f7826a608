"""Items with the same request: the first one is called, the others wait for it and share its answer.

A duplicate is `blocked` and `waits_for` the first, which itself waits for none. It shares the answer only while both
have the same name (`items.request_hash`): the first one's is that of the bytes that were really sent. An item that
shares an answer, or the error of a request that nobody needs to make again, keeps `waits_for`, and has no attempt and
no usage of its own.

Every function expects the job's row locked, except those that only read.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection

from batchrun.alike import KEY_LENGTH, READ, UNREAD, Reference
from batchrun.errors import ErrorKind
from batchrun.states import State
from batchrun.store.bulk import Bulk, Given
from batchrun.store.jobs import lock
from batchrun.tables import EPOCH, Record, attempts, items, jobs

PAGE = 2_000
"""Items in one look: with their media they are small, and other work of the same thread waits meanwhile."""
IN_FLIGHT = (State.CLAIMED.value, State.WAITING.value)
UNDER_WAY = (State.PENDING.value, *IN_FLIGHT)
ANSWERED = (State.DONE.value, State.TRUNCATED.value)
GAVE_UP = (State.FAILED.value, State.CANCELLED.value)

OF_THE_REQUEST = frozenset({ErrorKind.INVALID, ErrorKind.MODERATED, ErrorKind.TEMPLATE, ErrorKind.MEDIA})
"""What a request fails for whenever it is made. Of all other failures one more item makes sure."""

first = items.alias("first")
other = items.alias("other")
key_of: ColumnElement[str] = sa.func.substr(items.c.request_hash, 1, KEY_LENGTH)
waits: ColumnElement[bool] = sa.and_(items.c.state == State.BLOCKED.value, items.c.waits_for.is_not(None))
is_read: ColumnElement[bool] = sa.and_(
    items.c.request_hash.is_not(None), sa.not_(items.c.request_hash.endswith(UNREAD))
)


# found


def alike_unread(connection: Connection, job_id: int) -> array[int]:
    """The ids of items to be called whose files nobody has read, and for which there is another one with the same key.
    Eight bytes for each."""
    has_files = sa.or_(items.c.request_hash.endswith(UNREAD), items.c.request_hash.contains(READ))
    repeated = sa.select(key_of).where(items.c.job_id == job_id, has_files).group_by(key_of).having(sa.func.count() > 1)
    wanted = sa.select(items.c.id).where(
        items.c.job_id == job_id,
        items.c.request_hash.endswith(UNREAD),
        items.c.state.in_(UNDER_WAY),
        key_of.in_(repeated),
    )
    return array("q", connection.execute(wanted.order_by(items.c.id)).scalars())


def media_of(connection: Connection, ids: Sequence[int]) -> Sequence[Record]:
    """`id`, `media` and `request_hash` of these items."""
    wanted = sa.select(items.c.id, items.c.media, items.c.request_hash).where(items.c.id.in_(ids))
    return connection.execute(wanted.order_by(items.c.id)).all()


def _name_statement() -> Bulk:
    given = Given({name: items.c[name].type for name in ("id", "request_hash", "media")} | {"before": sa.Text()})
    # A call that ended meanwhile has told what it really sent.
    unread = sa.and_(items.c.id == given.c["id"], items.c.request_hash == given.c["before"])
    changes = {"request_hash": given.c["request_hash"], "media": given.c["media"]}
    return Bulk(statement=sa.update(items).where(unread).values(changes), given=given)


NAME = _name_statement()


def name(connection: Connection, rows: Sequence[Mapping[str, object]]) -> None:
    """Give items the name that their files' content makes: `id`, `before`, `request_hash`, `media`."""
    NAME.run(connection, rows)


def block(connection: Connection, job_id: int, *, takes: Collection[State]) -> int:
    """Let pending items wait for the first item that has the same name and is called, or has ended in one of the states
    `takes` (`done` counts only where the answer fits). Returns how many wait now."""
    # An answer that is there is best, then one that is under way.
    answered = sa.and_(
        items.c.state.in_(sorted(takes)),
        items.c.answer_id.is_not(None),
        *([] if State.TRUNCATED in takes else [items.c.error_kind.is_(None)]),
    )
    firsts = (
        sa.select(
            items.c.request_hash,
            sa.func.coalesce(
                sa.func.min(sa.case((answered, items.c.id))),
                sa.func.min(sa.case((items.c.state.in_(IN_FLIGHT), items.c.id))),
                sa.func.min(items.c.id),
            ).label("id"),
        )
        .where(
            items.c.job_id == job_id,
            is_read,
            items.c.waits_for.is_(None),
            sa.or_(items.c.state.in_(UNDER_WAY), answered),
        )
        .group_by(items.c.request_hash)
        .having(sa.func.count() > 1)
        .subquery("firsts")
    )
    waiting = (
        sa.update(items)
        .where(
            items.c.job_id == job_id,
            items.c.state == State.PENDING.value,
            items.c.request_hash == firsts.c.request_hash,
            items.c.id != firsts.c.id,
        )
        .values(state=State.BLOCKED.value, waits_for=firsts.c.id)
    )
    return connection.execute(waiting).rowcount


def forget(connection: Connection, job_id: int) -> None:
    """Let every item be called for itself from now on; answers that were shared stay."""
    connection.execute(
        sa.update(items).where(items.c.job_id == job_id, waits).values(state=State.PENDING.value, waits_for=None)
    )
    connection.execute(
        sa.update(items).where(items.c.job_id == job_id, items.c.request_hash.is_not(None)).values(request_hash=None)
    )


# released


@dataclass(slots=True, kw_only=True)
class Shared:
    """What one look has changed."""

    states: Counter[str] = field(default_factory=Counter)
    """Items that have the answer or the error of another one now, by their state."""
    called: int = 0
    """Items that are to be called for themselves."""
    more: bool = False
    """Whether another look would find more at once."""

    @property
    def changed(self) -> bool:
        return bool(self.states or self.called)


AsItWas = Callable[[int, Sequence[Reference]], bool | None]
"""Whether the files of an item of this job are as they were when it was loaded; None where that can't be told here."""


def share(connection: Connection, *, only: frozenset[int] | None, as_it_was: AsItWas) -> Shared:
    """Hand on the answers that are there, and the errors that others would get too; let the next one be called where
    the first has failed otherwise, was cancelled, or turned out to ask something else. Locks the jobs in which that is
    so; carrying it out twice changes nothing."""
    made = Shared()
    due = [job_id for job_id in _jobs_that_wait(connection, only) if _has_work(connection, job_id)]
    if not due:
        return made
    lock(connection, due)
    for job_id in due:
        others = _hand_on(connection, job_id, as_it_was, made)
        _let_next(connection, job_id, others, made)
    return made


def _jobs_that_wait(connection: Connection, only: frozenset[int] | None) -> list[int]:
    wanted = sa.select(jobs.c.id).where(sa.exists().where(items.c.job_id == jobs.c.id, waits)).order_by(jobs.c.id)
    if only is not None:
        wanted = wanted.where(jobs.c.id.in_(sorted(only)))
    return list(connection.execute(wanted).scalars())


_has_answer = sa.and_(
    first.c.state.in_(ANSWERED), first.c.answer_id.is_not(None), first.c.request_hash == items.c.request_hash
)
# A call in flight of an item that was cancelled may still bring its answer.
_ended = sa.not_(sa.exists().where(attempts.c.item_id == first.c.id, sa.literal_column("outcome = 'open'")))
_is_over = sa.or_(
    first.c.request_hash.is_distinct_from(items.c.request_hash), sa.and_(first.c.state.in_(GAVE_UP), _ended)
)


def _fails_again(job_id: int) -> ColumnElement[bool]:
    """Whether the first one has failed, and nobody needs to try it again."""
    failed_twice = (
        sa.select(other.c.request_hash)
        .where(
            other.c.job_id == job_id,
            other.c.state == State.FAILED.value,
            other.c.waits_for.is_(None),
            other.c.request_hash.is_not(None),
        )
        .group_by(other.c.request_hash)
        .having(sa.func.count() > 1)
    )
    again = sa.and_(
        first.c.request_hash == items.c.request_hash,
        first.c.state == State.FAILED.value,
        _ended,
        sa.or_(first.c.error_kind.in_(sorted(OF_THE_REQUEST)), first.c.request_hash.in_(failed_twice)),
    )
    return sa.func.coalesce(again, sa.false())  # names may be missing, and what isn't known would select no row at all


def _joined(*columns: ColumnElement[int] | ColumnElement[str]) -> sa.Select[*tuple[object, ...]]:
    return sa.select(*columns).select_from(items.join(first, first.c.id == items.c.waits_for))


def _has_work(connection: Connection, job_id: int) -> bool:
    wanted = _joined(items.c.id).where(items.c.job_id == job_id, waits, sa.or_(_has_answer, _is_over)).limit(1)
    return connection.execute(wanted).first() is not None


def _share_statement() -> Bulk:
    given = Given({column: items.c[column].type for column in ("id", "state", "answer_id", "error_kind", "error")})
    changes = {column: given.c[column] for column in ("state", "answer_id", "error_kind", "error")}
    return Bulk(
        statement=sa.update(items)
        .where(items.c.id == given.c["id"], items.c.state == State.BLOCKED.value)
        .values(owner=sa.null(), **changes),
        given=given,
    )


def _turn_statement() -> Bulk:
    """The next one of those that wait for `old` takes its place."""
    given = Given({"old": items.c.id.type, "request_hash": sa.Text(), "new": items.c.id.type})
    is_new = items.c.id == given.c["new"]
    alike = items.c.request_hash.is_not_distinct_from(given.c["request_hash"])
    return Bulk(
        statement=sa.update(items)
        .where(items.c.waits_for == given.c["old"], alike, waits)
        .values(
            state=sa.case((is_new, State.PENDING.value), else_=items.c.state),
            waits_for=sa.case((is_new, sa.null()), else_=given.c["new"]),
        ),
        given=given,
    )


SHARE = _share_statement()
TURN = _turn_statement()


def _hand_on(connection: Connection, job_id: int, as_it_was: AsItWas, made: Shared) -> set[int]:
    """Returns the first items whose error may be theirs alone: their files aren't as they were when they were loaded,
    or that can't be told here, and others would wait for it for ever."""
    ready = connection.execute(
        _joined(
            items.c.id,
            items.c.media,
            items.c.waits_for,
            first.c.state,
            first.c.answer_id,
            first.c.error_kind,
            first.c.error,
            first.c.custom_id,
            first.c.media.label("first_media"),
        )
        .where(items.c.job_id == job_id, waits, sa.or_(_has_answer, _fails_again(job_id)))
        .order_by(items.c.next_at, items.c.id)
        .limit(PAGE)
    ).all()
    failed = {row.waits_for: row.first_media for row in ready if row.state == State.FAILED.value}
    alone = {item_id for item_id, media in failed.items() if not as_it_was(job_id, media)}
    looked = [(row, as_it_was(job_id, row.media)) for row in ready if row.waits_for not in alone]
    shared = [row for row, same in looked if same]
    SHARE.run(connection, [_given(row) for row in shared])
    _call(connection, [row.id for row, same in looked if same is False])
    made.states.update(row.state for row in shared)
    made.called += sum(same is False for _, same in looked)
    made.more |= len(ready) == PAGE and (bool(alone) or any(same is not None for _, same in looked))
    return alone


def _given(row: Record) -> dict[str, object]:
    """What an item gets of the first one."""
    values = row._asdict()
    if row.state != State.FAILED.value:
        return values
    return {**values, "answer_id": None, "error": f"{row.error} (tried as item {row.custom_id}, which asks the same)"}


def _call(connection: Connection, ids: Iterable[int]) -> None:
    """Items whose files have changed since they were loaded: what is in them now, nobody knows before it is sent."""
    wanted = list(ids)
    if wanted:
        connection.execute(
            sa.update(items)
            .where(items.c.id.in_(wanted), waits)
            .values(state=State.PENDING.value, waits_for=None, next_at=EPOCH, request_hash=key_of.concat(UNREAD))
        )


def _let_next(connection: Connection, job_id: int, alone: Collection[int], made: Shared) -> None:
    over = connection.execute(
        _joined(items.c.waits_for.label("old"), items.c.request_hash, sa.func.min(items.c.id).label("new"))
        .where(items.c.job_id == job_id, waits, _is_over, sa.or_(sa.not_(_fails_again(job_id)), first.c.id.in_(alone)))
        .group_by(items.c.waits_for, items.c.request_hash)
        .limit(PAGE)
    ).all()
    TURN.run(connection, [row._asdict() for row in over])
    made.called += len(over)
    made.more |= len(over) == PAGE

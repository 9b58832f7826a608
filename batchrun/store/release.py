"""Items that merge the answers of their parts: each is `blocked` until the last of its parts has ended.

Nobody is told that a part has ended: a drain looks about once a second, and carrying out the same look twice, or in two
processes at once, changes nothing. So no item can be left behind, whatever dies in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection

from batchrun.errors import ErrorKind
from batchrun.states import TERMINAL, State
from batchrun.store.bulk import Bulk, Given
from batchrun.store.jobs import lock
from batchrun.tables import EPOCH, Record, items, jobs

PAGE = 500
"""Items that fail in one look: the reasons of each are read."""
NAMED = 5
"""Parts that a message lists."""
ANSWERED = (State.DONE.value, State.TRUNCATED.value)
ENDED = tuple(sorted(state.value for state in TERMINAL))

part = items.alias("part")
_of_it: ColumnElement[bool] = part.c.part_of == items.c.id
merges: ColumnElement[bool] = sa.exists().where(_of_it)
"""Whether an item has parts."""
_waits: ColumnElement[bool] = sa.and_(items.c.state == State.BLOCKED.value, items.c.waits_for.is_(None), merges)
_in_vain: ColumnElement[bool] = sa.and_(
    items.c.state == State.FAILED.value, items.c.error_kind == ErrorKind.PARTS.value
)
_all_ended: ColumnElement[bool] = sa.not_(sa.exists().where(_of_it, part.c.state.not_in(ENDED)))
_all_answered: ColumnElement[bool] = sa.not_(sa.exists().where(_of_it, part.c.state.not_in(ANSWERED)))
# Each a question of its own, answered by one look into the index; with OR, all items of the job would be read.
MAY_BE_CALLED = (sa.and_(_waits, _all_answered), sa.and_(_in_vain, _all_answered))
HAS_FAILED: ColumnElement[bool] = sa.and_(_waits, _all_ended, sa.not_(_all_answered))


@dataclass(slots=True, kw_only=True)
class Released:
    """What one look has changed."""

    called: int = 0
    """Items that are to be called now."""
    failed: int = 0
    """Items that are not called, as some of their parts have no answer."""
    more: bool = False
    """Whether another look would find more at once."""

    @property
    def changed(self) -> bool:
        return bool(self.called or self.failed)


def release(connection: Connection, *, only: frozenset[int] | None) -> Released:
    """Let items be called whose parts all have an answer, and fail those of which a part has ended without one.

    An item that failed for that reason is called after all where a late answer has come since. Locks the jobs in which
    there is something to do.
    """
    made = Released()
    due = _jobs_with_work(connection, only)
    if not due:
        return made
    lock(connection, due)
    mine = items.c.job_id.in_(due)
    free = {"state": State.PENDING.value, "error_kind": None, "error": None, "next_at": EPOCH}
    for condition in MAY_BE_CALLED:
        made.called += connection.execute(sa.update(items).where(mine, condition).values(free)).rowcount
    failed = connection.execute(sa.select(items.c.id).where(mine, HAS_FAILED).order_by(items.c.id).limit(PAGE))
    reasons = _reasons(connection, [row.id for row in failed])
    FAIL.run(connection, [{"id": item_id, "error": error} for item_id, error in reasons.items()])
    made.failed, made.more = len(reasons), len(reasons) == PAGE
    return made


def block_again(connection: Connection, job_id: int) -> int:
    """Let items wait again whose parts are asked for again: those that failed or were to be called, and those that
    merged what their parts said before. One whose call is under way is left alone.

    Expects the job's row locked. Returns how many wait now."""
    open_part = sa.exists().where(_of_it, part.c.state.not_in(ENDED))
    again = (State.PENDING, State.WAITING, State.FAILED, State.DONE, State.TRUNCATED)
    blocked = (
        sa.update(items)
        .where(items.c.job_id == job_id, items.c.state.in_([state.value for state in again]), open_part)
        .values(
            state=State.BLOCKED.value,
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
        )
    )
    return connection.execute(blocked).rowcount


def _jobs_with_work(connection: Connection, only: frozenset[int] | None) -> list[int]:
    has_work = [sa.exists().where(items.c.job_id == jobs.c.id, what) for what in (*MAY_BE_CALLED, HAS_FAILED)]
    wanted = sa.select(jobs.c.id).where(sa.or_(*has_work)).order_by(jobs.c.id)
    if only is not None:
        wanted = wanted.where(jobs.c.id.in_(sorted(only)))
    return list(connection.execute(wanted).scalars())


def _reasons(connection: Connection, ids: Sequence[int]) -> dict[int, str]:
    """Why these items aren't called."""
    rows = connection.execute(
        sa.select(items.c.part_of, items.c.custom_id, items.c.state, items.c.error_kind)
        .where(items.c.part_of.in_(ids))
        .order_by(items.c.part_of, items.c.id)
    )
    parts: dict[int, list[Record]] = {item_id: [] for item_id in ids}
    for row in rows:
        parts[row.part_of].append(row)
    return {item_id: reason(found) for item_id, found in parts.items()}


def reason(parts: Iterable[Record]) -> str:
    """What is told of an item whose parts these are."""
    every = list(parts)
    lost = [one for one in every if one.state not in ANSWERED]
    names = [f"{one.custom_id} ({one.error_kind or one.state})" for one in lost[:NAMED]]
    rest = f" and {len(lost) - NAMED} more" if len(lost) > NAMED else ""
    return (
        f"{len(lost)} of its {len(every)} parts {'has' if len(lost) == 1 else 'have'} no answer: "
        f"{', '.join(names)}{rest}; nothing was merged. `batchrun retry` asks for them again, and merges then"
    )


def _fail_statement() -> Bulk:
    given = Given({name: items.c[name].type for name in ("id", "error")})
    return Bulk(
        statement=sa.update(items)
        .where(items.c.id == given.c["id"], items.c.state == State.BLOCKED.value)
        .values(state=State.FAILED.value, error_kind=ErrorKind.PARTS.value, error=given.c["error"]),
        given=given,
    )


FAIL = _fail_statement()

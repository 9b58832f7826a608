"""A sample of each job: the items whose rows have the smallest hashes.

That is as good as drawing lots, and it draws the same lots every time: the same sample is never bought twice, a larger
one contains it, and rows that are added later change it only by their own small hashes. Items that have ended are part
of it; cancelled ones aren't, nor are those that share the answer of another one. A video that is split counts as one,
and all its parts come with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy import Connection

from batchrun.states import State
from batchrun.tables import items, jobs, profiles

Sample = Mapping[int, Sequence[int]]
"""The items of the sample by job. Nothing else may be called."""

PAGE = 1_000
"""Ids in one statement: the databases bound them, and a statement with more takes long to write down."""

DRAW = (
    sa.select(items.c.id)
    .where(
        items.c.job_id == sa.bindparam("job"),
        items.c.state != State.CANCELLED,
        items.c.waits_for.is_(None),
        items.c.part_of.is_(None),
    )
    .order_by(items.c.row_hash, items.c.id)
    .limit(sa.bindparam("size"))
)
PARTS = sa.select(items.c.id).where(
    items.c.part_of.in_(sa.bindparam("ids", expanding=True)), items.c.state != State.CANCELLED
)
FIRSTS = sa.select(items.c.waits_for).where(
    items.c.id.in_(sa.bindparam("ids", expanding=True)), items.c.waits_for.is_not(None)
)
NAMED = items.c.id.in_(sa.bindparam("ids", expanding=True))
COUNT_STATES = sa.select(items.c.state, sa.func.count().label("number")).where(NAMED).group_by(items.c.state)
GOES_ON = sa.and_(jobs.c.paused.is_(None), profiles.c.paused.is_(None))
SELECT_OPEN = (
    sa.select(items.c.id)
    .join(jobs, jobs.c.id == items.c.job_id)
    .join(profiles, profiles.c.id == jobs.c.profile_id)
    .where(
        NAMED,
        sa.or_(
            items.c.state == State.CLAIMED,
            # What is blocked waits for an item that may not be in the sample; when that ends it is blocked no longer.
            sa.and_(GOES_ON, items.c.state.in_([State.PENDING.value, State.WAITING.value])),
        ),
    )
    .limit(1)
)


def draw(connection: Connection, job_ids: Iterable[int], size: int) -> dict[int, list[int]]:
    """The sample of `size` items of each job with the parts of those that have any, and with the items whose answers
    these share; all items of a job that has no more."""
    drawn = {job_id: list(connection.execute(DRAW, {"job": job_id, "size": size}).scalars()) for job_id in job_ids}
    return {job_id: with_parts(connection, ids) for job_id, ids in sorted(drawn.items())}


def with_parts(connection: Connection, ids: Sequence[int]) -> list[int]:
    """A part that shares the answer of an item outside would keep its video from ever being merged."""
    parts = found(connection, PARTS, ids)
    return list(dict.fromkeys([*ids, *parts, *found(connection, FIRSTS, parts)]))


def found(connection: Connection, wanted: sa.Select[int], ids: Sequence[int]) -> list[int]:
    return [one for page in pages(ids) for one in connection.execute(wanted, {"ids": page}).scalars()]


def pages(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    return (ids[start : start + PAGE] for start in range(0, len(ids), PAGE))


def count_sample(connection: Connection, ids: Sequence[int]) -> dict[str, int]:
    """The items of a sample by state."""
    counts: Counter[str] = Counter()
    for part in pages(ids):
        counts.update({row.state: row.number for row in connection.execute(COUNT_STATES, {"ids": part})})
    return dict(counts)


def is_open(connection: Connection, sample: Sample) -> bool:
    """Whether any item of the sample is claimed, due, or will become due, in jobs that aren't paused."""
    return any(
        connection.execute(SELECT_OPEN, {"ids": part}).first() is not None
        for ids in sample.values()
        for part in pages(ids)
    )

"""What the parts of a video say, for the call that merges it: read in the claim, from the answers that are stored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import sqlalchemy as sa
from sqlalchemy import Connection

from batchrun.segments.merging import Part
from batchrun.states import State
from batchrun.tables import Record, answers, items, usage

Merges: TypeAlias = Callable[[int, Record], bool]
"""From a job's id and an item with its `variables` to whether it merges others."""

SELECT_PARTS = (
    sa.select(
        items.c.part_of,
        items.c.custom_id,
        items.c.media,
        answers.c.text,
        answers.c.parsed,
        (usage.c.output_tokens - sa.func.coalesce(usage.c.reasoning_tokens, 0)).label("tokens"),
        answers.c.continues,
    )
    .select_from(
        items.outerjoin(
            answers,
            sa.and_(
                answers.c.attempt_id == items.c.answer_id,
                items.c.state.in_([State.DONE.value, State.TRUNCATED.value]),
            ),
        ).outerjoin(usage, usage.c.attempt_id == answers.c.attempt_id)
    )
    .where(items.c.part_of.in_(sa.bindparam("ids", expanding=True)))
    .order_by(items.c.part_of, items.c.id)
)


def parts_of(connection: Connection, job_id: int, due: Iterable[Record], merges: Merges) -> dict[int, list[Part]]:
    """The parts of each of these items that merges, in their order. Jobs that split nothing cost no query."""
    wanted = [item.id for item in due if merges(job_id, item)]
    found: dict[int, list[Part]] = {item_id: [] for item_id in wanted}
    if wanted:
        for row in connection.execute(SELECT_PARTS, {"ids": wanted}):
            found[row.part_of].append(part_of(row))
    return found


def part_of(row: Record) -> Part:
    start, end = span_of(row.media)
    return Part(
        custom_id=row.custom_id,
        start=start,
        end=end,
        text=row.text,
        parsed=row.parsed,
        tokens=None if row.continues is not None else row.tokens,
    )


def span_of(media: Sequence[dict[str, float]]) -> tuple[float, float]:
    """Where the part of a video that these references name begins and ends, in seconds."""
    return next(((one["start"], one["end"]) for one in media if "start" in one and "end" in one), (0.0, 0.0))

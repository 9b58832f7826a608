"""The texts that calls are to continue: they are in the answers of earlier attempts, so they outlive any crash."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import sqlalchemy as sa
from sqlalchemy import Connection

from batchrun.stream.continuing import Continuing, Prefix, Stopped, may_continue
from batchrun.tables import Record, answers, attempts

Rule: TypeAlias = Callable[[int, Record], Continuing | None]
"""From a job's id and an item with its `variables` to what of it may be continued; None for nothing."""

SELECT_STOPPED = (
    sa.select(
        attempts.c.id,
        attempts.c.item_id,
        attempts.c.error_kind,
        answers.c.text,
        answers.c.finish_reason,
        answers.c.complete,
        sa.and_(answers.c.reasoning == "", answers.c.tool_calls.is_(None)).label("plain"),
    )
    .join(answers, answers.c.attempt_id == attempts.c.id)
    .where(attempts.c.item_id.in_(sa.bindparam("ids", expanding=True)))
    .order_by(attempts.c.item_id, attempts.c.fence)
)


def prefixes_of(connection: Connection, job_id: int, due: Sequence[Record], rule: Rule) -> dict[int, Prefix]:
    """By item. The latest text alone counts: one that was continued already has the earlier ones at its beginning, and
    where it can't be continued the item is asked for anew.

    Jobs that continue nothing, and items that were never tried, cost no query.
    """
    rules = {item.id: found for item in due if item.fence and (found := rule(job_id, item)) is not None}
    if not rules:
        return {}
    latest = {row.item_id: row for row in connection.execute(SELECT_STOPPED, {"ids": sorted(rules)})}
    return {
        item_id: Prefix(attempt_id=row.id, text=row.text)
        for item_id, row in latest.items()
        if may_continue(stopped(row), rules[item_id])
    }


def stopped(row: Record) -> Stopped:
    return Stopped(
        text=row.text,
        finish_reason=row.finish_reason,
        complete=row.complete,
        error_kind=row.error_kind,
        plain=bool(row.plain),
    )

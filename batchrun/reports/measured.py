"""What the calls of a job have used so far, item by item: what an estimate of the others is measured on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

import sqlalchemy as sa
from sqlalchemy import BigInteger, Connection

from batchrun.pacing.limits import Limits
from batchrun.states import OPEN, State
from batchrun.tables import MONEY_DIGITS, Record, attempts, items, jobs, profiles, usage

PAGE = 500

MICROSECONDS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One item and all its calls that may have cost money, failed ones included. Unknown is None.

    The tokens of failed calls are often not known; then they lie between nothing and what the item's other calls used.
    """

    id: int
    state: State
    shares: bool
    """It has the answer of another one that asks the same, or waits for it."""
    calls: int
    input_tokens: tuple[int, int] | None
    output_tokens: tuple[int, int] | None
    cost_low: Decimal | None
    cost_high: Decimal | None
    currency: str | None
    seconds: Decimal | None
    """From sending to the end of its complete answer."""


def _units(column: sa.ColumnElement[object]) -> sa.ColumnElement[int]:
    return sa.func.sum(sa.type_coerce(column, BigInteger))


_TOOK = sa.type_coerce(attempts.c.ended_at, BigInteger) - sa.type_coerce(attempts.c.sent_at, BigInteger)
SELECT_MEASURED = (
    sa.select(
        items.c.custom_id,
        items.c.id,
        items.c.state,
        items.c.waits_for,
        sa.func.count(usage.c.attempt_id).label("calls"),
        sa.func.count(usage.c.input_tokens).label("counted"),
        sa.func.sum(usage.c.input_tokens).label("input_tokens"),
        sa.func.sum(usage.c.output_tokens).label("output_tokens"),
        sa.func.count(usage.c.cost_high).label("priced"),
        _units(usage.c.cost_low).label("cost_low"),
        _units(usage.c.cost_high).label("cost_high"),
        sa.func.max(usage.c.currency).label("currency"),
        sa.func.max(sa.case((attempts.c.outcome == "complete", _TOOK))).label("took"),
    )
    .outerjoin(attempts, attempts.c.item_id == items.c.id)
    .outerjoin(usage, usage.c.attempt_id == attempts.c.id)
    .where(items.c.job_id == sa.bindparam("job"), items.c.custom_id.in_(sa.bindparam("names", expanding=True)))
    .group_by(items.c.id, items.c.custom_id, items.c.state, items.c.waits_for)
)
SELECT_LIMITS = sa.select(
    *(profiles.c[name] for name in ("requests_per_minute", "tokens_per_minute", "tokens_per_day", "concurrency"))
).join(jobs, jobs.c.profile_id == profiles.c.id)
SELECT_OPEN = (
    sa.select(items.c.id, items.c.variables, items.c.media, items.c.input_bound, items.c.waits_for)
    .where(items.c.job_id == sa.bindparam("job"), items.c.id > sa.bindparam("last"), items.c.state.in_(sorted(OPEN)))
    .order_by(items.c.id)
    .limit(PAGE)
)


def measured(connection: Connection, job_id: int, names: Sequence[str]) -> dict[str, Measured]:
    """The items of these names that the job has, by name."""
    rows = connection.execute(SELECT_MEASURED, {"job": job_id, "names": list(names)})
    return {row.custom_id: _measured(row) for row in rows}


def _measured(row: Record) -> Measured:
    priced = row.priced == row.calls
    return Measured(
        id=row.id,
        state=State(row.state),
        shares=row.waits_for is not None,
        calls=row.calls,
        input_tokens=_tokens(row.input_tokens, row),
        output_tokens=_tokens(row.output_tokens, row),
        cost_low=_money(row.cost_low) if priced else None,
        cost_high=_money(row.cost_high) if priced else None,
        currency=row.currency,
        seconds=None if row.took is None else Decimal(int(row.took)) / MICROSECONDS,
    )


def _tokens(known: int | None, row: Record) -> tuple[int, int] | None:
    if not row.counted:
        return None if row.calls else (0, 0)
    return int(known or 0), -(-int(known or 0) * row.calls // row.counted)


def _money(units: int | None) -> Decimal:
    """None is the sum of no calls at all."""
    return Decimal(int(units or 0)).scaleb(-MONEY_DIGITS)


def limits_of(connection: Connection, job_id: int) -> Limits:
    """The limits of the job's profile, as they stand there now."""
    row = connection.execute(SELECT_LIMITS.where(jobs.c.id == job_id)).one()
    return Limits(**row._mapping)


def open_items(connection: Connection, job_id: int, after: int) -> Sequence[Record]:
    """A page of the items that haven't ended, by rising id, behind the item `after`."""
    return connection.execute(SELECT_OPEN, {"job": job_id, "last": after}).all()

"""Settling costs that their calls left open: by an assumption, or by the vendor's bill.

`jobs.spent`, the sum of the high ends, changes by the same difference in the same transaction. What is exact already
is never changed. Every function expects the job's row locked (`store.operate.locked`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection

from batchrun.tables import MOST_MONEY, Money, Record, attempts, jobs, usage

Rule = Literal["zero", "high"]
ZERO = Decimal(0)
SHOWN = 20
"""Differences between a bill and what was booked that are listed; all are counted."""
PART = 500
INEXACT: ColumnElement[bool] = sa.or_(usage.c.cost_high.is_(None), usage.c.cost_low != usage.c.cost_high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """The costs of a job that aren't exact, together."""

    calls: int
    low: Decimal
    """Sums of what is known."""
    high: Decimal
    unknown: int
    """Calls among them of which no cost is known at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A call whose exact cost isn't what the bill says."""

    request_id: str
    booked: Decimal
    billed: Decimal


@dataclass(slots=True, kw_only=True)
class Compared:
    """What a bill says about the calls of one job."""

    settled: int = 0
    low: Decimal = ZERO
    """What the settled calls cost before, at least and at most."""
    high: Decimal = ZERO
    billed: Decimal = ZERO
    """What they cost by the bill."""
    outside: int = 0
    """Settled calls of which the bill lies outside of the bounds that were known."""
    equal: int = 0
    """Calls that were exact, and are billed so."""
    different: int = 0
    differences: list[Difference] = field(default_factory=list)
    flying: int = 0
    """Calls on the bill that are still in flight."""
    ambiguous: int = 0
    """Calls that share their request id with another one: which of them was billed can't be told."""


def open_costs(connection: Connection, job_id: int) -> Open:
    unknown = sa.case((usage.c.cost_high.is_(None), 1), else_=0)
    row = connection.execute(
        sa.select(
            sa.func.count(),
            sa.func.coalesce(sa.func.sum(usage.c.cost_low, type_=Money()), 0),
            sa.func.coalesce(sa.func.sum(usage.c.cost_high, type_=Money()), 0),
            sa.func.coalesce(sa.func.sum(unknown), 0),
        ).where(usage.c.job_id == job_id, INEXACT)
    ).one()
    return Open(calls=row[0], low=row[1], high=row[2], unknown=int(row[3]))


def settle_as(connection: Connection, job: Record, rule: Rule, *, currency: str | None) -> None:
    """Make the open costs of a job exact: nothing, or their high end; calls without one stay as they are. Without a
    currency, calls of unknown cost stay as they are too."""
    before = open_costs(connection, job.id)
    cost: ColumnElement[Decimal] = usage.c.cost_high if rule == "high" else sa.literal(ZERO, Money())
    wanted = [usage.c.job_id == job.id, INEXACT]
    if rule == "high" or currency is None:
        wanted.append(usage.c.cost_high.is_not(None))
    connection.execute(
        sa.update(usage)
        .where(*wanted)
        .values(cost_low=cost, cost_high=cost, currency=sa.func.coalesce(usage.c.currency, currency), settled=str(rule))
    )
    spend(connection, job, ZERO if rule == "high" else -before.high, currency)


def spend(connection: Connection, job: Record, difference: Decimal, currency: str | None) -> None:
    """Book a difference to what the job has spent."""
    spent = min(max(job.spent + difference, ZERO), MOST_MONEY)
    connection.execute(
        sa.update(jobs).where(jobs.c.id == job.id).values(spent=spent, currency=job.currency or currency)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Billed:
    """A call whose open cost the bill tells."""

    attempt_id: int
    job_id: int
    amount: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    jobs: Mapping[int, Compared]
    settled: Sequence[Billed]
    foreign: int
    """Request ids of the bill that no call of these jobs has."""


def compare(connection: Connection, job_ids: Sequence[int], bill: Mapping[str, Decimal]) -> Comparison:
    """Hold the calls of these jobs against `bill`, amounts by request id, without changing anything."""
    compared = {job_id: Compared() for job_id in job_ids}
    found: dict[str, list[Record]] = {}
    for call in calls_with_ids(connection, job_ids):
        if call.request_id in bill:
            found.setdefault(call.request_id, []).append(call)
    settled = []
    for name, calls in found.items():
        for call in calls:
            if len(calls) > 1:
                compared[call.job_id].ambiguous += 1
            elif was_open(compared[call.job_id], call, bill[name]):
                settled.append(Billed(attempt_id=call.id, job_id=call.job_id, amount=bill[name]))
    return Comparison(jobs=compared, settled=settled, foreign=len(bill) - len(found))


def was_open(compared: Compared, call: Record, billed: Decimal) -> bool:
    """Count a call that the bill names; whether its cost was open. A call without a usage row was taken to be free."""
    if call.outcome == "open":
        compared.flying += 1
        return False
    booked = call.cost_high if call.booked else ZERO
    low = call.cost_low if call.booked else ZERO
    if booked is not None and low == booked:
        compared.equal += booked == billed
        compared.different += booked != billed
        if booked != billed and len(compared.differences) < SHOWN:
            compared.differences.append(Difference(request_id=call.request_id, booked=booked, billed=billed))
        return False
    compared.settled += 1
    compared.billed += billed
    compared.low += low or ZERO
    compared.high += booked or ZERO
    compared.outside += booked is not None and not low <= billed <= booked
    return True


def calls_with_ids(connection: Connection, job_ids: Sequence[int]) -> Iterator[Record]:
    wanted = (
        sa.select(
            attempts.c.id,
            attempts.c.job_id,
            attempts.c.outcome,
            attempts.c.request_id,
            usage.c.attempt_id.is_not(None).label("booked"),
            usage.c.cost_low,
            usage.c.cost_high,
        )
        .select_from(attempts.outerjoin(usage, usage.c.attempt_id == attempts.c.id))
        .where(attempts.c.job_id.in_(job_ids), attempts.c.request_id.is_not(None))
    )
    yield from connection.execute(wanted.execution_options(yield_per=PART))


SETTLE_ONE = (
    sa.update(usage)
    .where(usage.c.attempt_id == sa.bindparam("attempt"))
    .values(
        cost_low=sa.bindparam("amount", type_=Money()),
        cost_high=sa.bindparam("amount", type_=Money()),
        currency=sa.func.coalesce(usage.c.currency, sa.bindparam("in_currency", type_=sa.Text())),
        settled="bill",
    )
)


def settle_by_bill(
    connection: Connection, rows: Mapping[int, Record], comparison: Comparison, *, currencies: Mapping[int, str]
) -> None:
    """Write what `compare` found to these jobs. `currencies` names the currency of the bill for each of them."""
    if comparison.settled:
        connection.execute(
            SETTLE_ONE,
            [
                {"attempt": call.attempt_id, "amount": call.amount, "in_currency": currencies[call.job_id]}
                for call in comparison.settled
            ],
        )
    for job_id, compared in comparison.jobs.items():
        if compared.settled:
            spend(connection, rows[job_id], compared.billed - compared.high, currencies[job_id])

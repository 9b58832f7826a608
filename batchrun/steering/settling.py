"""Settling open costs: by an assumption or by the vendor's bill, with what that changes told before and after."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from sqlalchemy import Connection, Engine

from batchrun.database import clock, writing
from batchrun.errors import UsageError
from batchrun.messages import JsonValue
from batchrun.showing import clean
from batchrun.steering.affording import Known, Short, short_of
from batchrun.steering.bill import Bill
from batchrun.steering.operating import named_jobs, note
from batchrun.store import operate
from batchrun.store import settle as store
from batchrun.store.settle import Compared, Comparison, Open, Rule
from batchrun.tables import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What became of the open costs of one job."""

    job: str
    simulated: bool
    currency: str | None
    calls: int
    """Calls whose cost is exact now."""
    low: Decimal
    """What they cost before: at least, and at most; the sums of what was known."""
    high: Decimal
    cost: Decimal
    """What they cost now."""
    left: Open
    """Costs that stay open."""
    in_flight: int
    """Calls of which nothing is booked yet."""
    spent_before: Decimal
    spent: Decimal
    freed: bool
    """Whether the job is paused for its budget, and that has room again."""
    short: Short | None
    """Where it is paused for its budget, and that has no room for all that."""
    compared: Compared | None
    """What the bill says besides; None where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    jobs: Sequence[Settled]
    dry_run: bool
    bill: Bill | None = None
    foreign: int = 0
    """Request ids of the bill that no call of these jobs has."""


def settle_as(
    engine: Engine,
    names: Iterable[str],
    rule: Rule,
    known: Known,
    *,
    currency: str | None,
    dry_run: bool,
    simulated: bool,
    actor: str,
) -> Settlement:
    """Settle all open costs of these jobs by a rule. Raises UsageError; then nothing was changed."""
    with writing(engine) as connection:
        rows = named_jobs(connection, names, simulated=simulated)
        currencies = {row.id: currency_of(row, currency, None) for row in rows.values()}
        before = {job_id: store.open_costs(connection, job_id) for job_id in rows}
        for row in rows.values():
            store.settle_as(connection, row, rule, currency=currencies[row.id])
        settled = [settled_job(connection, row, before[row.id], known) for row in rows.values()]
        note_all(connection, rows, settled, actor, rule)
        if dry_run:
            connection.rollback()
    return Settlement(jobs=settled, dry_run=dry_run)


def settle_by_bill(
    engine: Engine,
    names: Iterable[str],
    bill: Bill,
    known: Known,
    *,
    currency: str | None,
    dry_run: bool,
    simulated: bool,
    actor: str,
) -> Settlement:
    """Settle the open costs of these jobs that the bill tells. Raises UsageError; then nothing was changed."""
    with writing(engine) as connection:
        rows = named_jobs(connection, names, simulated=simulated)
        currencies = {row.id: require_currency(row, currency, bill) for row in rows.values()}
        before = {job_id: store.open_costs(connection, job_id) for job_id in rows}
        comparison: Comparison = store.compare(connection, sorted(rows), bill.amounts)
        store.settle_by_bill(connection, rows, comparison, currencies=currencies)
        settled = [
            settled_job(connection, row, before[row.id], known, compared=comparison.jobs[row.id])
            for row in rows.values()
        ]
        note_all(connection, rows, settled, actor, "bill")
        if dry_run:
            connection.rollback()
    return Settlement(jobs=settled, dry_run=dry_run, bill=bill, foreign=comparison.foreign)


def currency_of(row: Record, named: str | None, told: str | None) -> str | None:
    """The currency of a job, else the one that was named, or that the bill tells. Raises UsageError where they
    differ."""
    if named is not None and not re.fullmatch(r"[A-Z]{3}", named):
        raise UsageError(
            f"`{clean(named)}` is not a currency", code="usage", remedy="write its three letters, such as USD"
        )
    for other, where in ((named, "--currency is"), (told, "the bill is in")):
        if other is not None and other != (row.currency or named or other):
            raise UsageError(
                f"{where} {clean(other)}, and the costs of {row.name} are in {row.currency or named}",
                code="currency",
                remedy="settle the jobs of each currency by themselves; batchrun knows no exchange rates",
            )
    currency: str | None = row.currency or named or told
    return currency


def require_currency(row: Record, named: str | None, bill: Bill) -> str:
    currency = currency_of(row, named, bill.currency)
    if currency is None:
        raise UsageError(
            f"the job {row.name} has no currency, as no price was known for its model, and the bill names none",
            code="currency",
            remedy="name the currency of the bill with --currency, such as --currency USD",
        )
    return currency


def settled_job(
    connection: Connection, old: Record, before: Open, known: Known, *, compared: Compared | None = None
) -> Settled:
    """What has changed of a job since its row and its open costs were `old` and `before`."""
    [new] = operate.locked(connection, [old.id]).values()
    left = store.open_costs(connection, new.id)
    waits = new.paused == "budget"
    short = short_of(connection, new, known) if waits else None
    high = before.high - left.high
    return Settled(
        job=new.name,
        simulated=new.simulated,
        currency=new.currency,
        calls=before.calls - left.calls,
        low=before.low - left.low,
        high=high,
        cost=high + new.spent - old.spent,
        left=left,
        in_flight=operate.calls_in_flight(connection, new),
        spent_before=old.spent,
        spent=new.spent,
        freed=waits and short is None,
        short=short,
        compared=compared,
    )


def note_all(connection: Connection, rows: Mapping[int, Record], jobs: Sequence[Settled], actor: str, how: str) -> None:
    now = clock(connection)
    for row, job in zip(rows.values(), jobs, strict=True):
        spent: list[JsonValue] = [f"{job.spent_before:f}", f"{job.spent:f}"]
        note(connection, row, now, actor, "settle", how=how, calls=job.calls, spent=spent)

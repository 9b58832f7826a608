"""What the calls cost, by job, model, provider or day.

A cost report is a sum over `usage`, failed attempts included. What is unknown stays unknown: it is counted beside the
sum, never taken as zero. Real and simulated money are never added, nor are two currencies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Literal, NamedTuple, TypeAlias, TypeVar

import sqlalchemy as sa
from sqlalchemy import BigInteger, ColumnElement, Connection

from batchrun.counting.foreseen import Foreseen, stored_foreseen
from batchrun.states import State
from batchrun.tables import EPOCH, MONEY_DIGITS, Record, answers, attempts, items, jobs, usage

By = Literal["job", "model", "provider", "day"]
Key: TypeAlias = ColumnElement[int] | ColumnElement[str]

_SORT_KIB = 65_536
"""SQLite groups by sorting. With its usual 2 MB of memory it sorts a million rows on disk, half as fast."""

Number = TypeVar("Number", int, Decimal)

_DAY = 86_400_000_000
"""Microseconds of a day of UTC."""
_SPLIT = 1_000_000
"""Costs are summed in two halves, as the sum of whole ones may not fit into the 64 bits that SQLite adds in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CostLine:
    """What the attempts of one group cost. Token counts are sums of what is known, None where nothing is known."""

    key: str
    simulated: bool
    currency: str | None
    """None where no attempt of the group has a known price."""
    calls: int
    """Attempts that may have cost money."""
    failed: int
    """Those among them that brought no complete answer."""
    spare: int
    """Complete answers of items that already had one."""
    input_tokens: int | None
    cached_tokens: int | None
    output_tokens: int | None
    reasoning_tokens: int | None
    image_tokens: int | None
    video_tokens: int | None
    cost_low: Decimal | None
    """Sum of the known costs; None where none is known."""
    cost_high: Decimal | None
    unknown_cost: int
    """Attempts whose cost isn't known, and isn't in the sums."""
    unknown_usage: int
    """Attempts whose tokens aren't known, and aren't in the sums."""
    continued: int = 0
    """Answers that `max_tokens` cut and that stand at the beginning of a later one."""
    settled: int = 0
    """Attempts whose cost was left open and settled by hand."""
    estimate: Foreseen | None = None
    """What the job was estimated at when its items were loaded. None where the line isn't all that a job has cost."""
    shared: int = 0
    """Items that share an answer of these calls, each of which would have been one more call."""
    saved_low: Decimal | None = None
    """What those calls would have cost, by the cost of the shared answers; None where nothing of it is known."""
    saved_high: Decimal | None = None
    unknown_saved: int = 0
    """Shared answers whose cost isn't known, and isn't in `saved`."""
    items: int = field(init=False)
    """Items that got their answer from these calls."""
    exact: bool = field(init=False)
    """Whether the bill is known to the last digit."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "items", self.calls - self.failed - self.spare - self.continued + self.shared)
        object.__setattr__(self, "exact", self.unknown_cost == 0 and self.cost_low == self.cost_high)


def cost_by(
    connection: Connection,
    by: By,
    *,
    job_ids: Iterable[int] | None = None,
    since: date | None = None,
    until: date | None = None,
) -> list[CostLine]:
    """Cost per job, model, provider or day of UTC, real lines first. `since` and `until` are days of UTC, inclusive.

    A group whose unpriced attempts stand beside priced ones of a single currency is one line.
    """
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(f"PRAGMA cache_size = -{_SORT_KIB}")
    scope = _scope(job_ids, since, until)
    grouping = _GROUPINGS[by]
    outcomes = _outcomes(connection, grouping.columns, scope)
    saved = _saved(connection, grouping.columns, scope)
    rows = connection.execute(_sums(grouping.columns, scope))
    name = grouping.namer(connection)
    width = len(grouping.columns)
    lines = [
        _line(name(row[:width]), row, outcomes.get(key, Odd()), saved.get(key, Saved()))
        for row in rows
        for key in [tuple(row[: width + 2])]
    ]
    merged = _merge_unpriced(lines)
    return _with_estimates(connection, merged) if by == "job" and since is None and until is None else merged


def _with_estimates(connection: Connection, lines: Sequence[CostLine]) -> list[CostLine]:
    known = {
        (row.name, row.simulated): stored_foreseen(row.estimate)
        for row in connection.execute(sa.select(jobs.c.name, jobs.c.simulated, jobs.c.estimate))
    }
    alone = Counter((line.key, line.simulated) for line in lines)
    # A job that was paid in two currencies has two lines, and neither is all of it.
    return [
        replace(line, estimate=known.get((line.key, line.simulated))) if alone[line.key, line.simulated] == 1 else line
        for line in lines
    ]


def totals(lines: Iterable[CostLine]) -> list[CostLine]:
    """One line per currency, real and simulated apart."""
    return _merge_unpriced([replace(line, key="total", estimate=None) for line in lines])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Grouping:
    columns: tuple[Key, ...]
    namer: Callable[[Connection], Callable[[Sequence[object]], str]]
    """Gives the text of a key; asked once per report."""


def _job_namer(connection: Connection) -> Callable[[Sequence[object]], str]:
    names = {row.id: row.name for row in connection.execute(sa.select(jobs.c.id, jobs.c.name))}
    return lambda key: str(names[key[0]])


_GROUPINGS: Mapping[By, _Grouping] = {
    # Plus zero keeps SQLite from walking through the table in the order of the index, page by random page.
    "job": _Grouping(columns=(usage.c.job_id + sa.literal_column("0", BigInteger),), namer=_job_namer),
    "model": _Grouping(columns=(usage.c.model,), namer=lambda _: lambda key: str(key[0])),
    "provider": _Grouping(
        columns=(usage.c.provider, usage.c.region), namer=lambda _: lambda key: "/".join(filter(None, map(str, key)))
    ),
    "day": _Grouping(
        columns=(sa.type_coerce(usage.c.at, BigInteger) // sa.literal_column(str(_DAY), BigInteger),),
        namer=lambda _: lambda key: (EPOCH + timedelta(days=int(str(key[0])))).date().isoformat(),
    ),
}


def _scope(job_ids: Iterable[int] | None, since: date | None, until: date | None) -> list[ColumnElement[bool]]:
    scope: list[ColumnElement[bool]] = []
    if job_ids is not None:
        scope.append(usage.c.job_id.in_(list(job_ids)))
    if since is not None:
        scope.append(usage.c.at >= datetime.combine(since, time(), UTC))
    if until is not None:
        scope.append(usage.c.at <= datetime.combine(until, time.max, UTC))
    return scope


_TOKENS = ("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens", "image_tokens", "video_tokens")


def _sums(columns: Sequence[Key], scope: Sequence[ColumnElement[bool]]) -> sa.Select[*tuple[object, ...]]:
    keys = (*columns, usage.c.simulated, usage.c.currency)
    return (
        sa.select(
            *keys,
            sa.func.count().label("calls"),
            *(sa.func.sum(usage.c[name]).label(name) for name in _TOKENS),
            *_halves("cost_low"),
            *_halves("cost_high"),
            sa.func.count(usage.c.cost_high).label("priced"),
            sa.func.count(usage.c.input_tokens).label("counted"),
            sa.func.count(usage.c.settled).label("settled"),
        )
        .where(*scope)
        .group_by(*keys)
    )


def _halves(name: str) -> tuple[ColumnElement[int], ColumnElement[int]]:
    units = sa.type_coerce(usage.c[name], BigInteger)
    split = sa.literal_column(str(_SPLIT), BigInteger)
    return sa.func.sum(units // split).label(f"{name}_upper"), sa.func.sum(units % split).label(f"{name}_lower")


class Made(NamedTuple):
    """What calls came to."""

    calls: int
    input_tokens: int
    output_tokens: int
    unpriced: int
    cost: dict[str, tuple[Decimal, Decimal]]
    """A low and a high end by currency."""


def last_attempt(connection: Connection) -> int:
    """The highest id of an attempt so far."""
    return int(connection.execute(sa.select(sa.func.max(attempts.c.id))).scalar() or 0)


def made_since(connection: Connection, job_ids: Iterable[int], attempt_id: int) -> Made:
    """The calls of these jobs after this attempt that have ended."""
    rows = connection.execute(
        sa.select(
            usage.c.currency,
            sa.func.count().label("calls"),
            sa.func.sum(usage.c.input_tokens).label("input"),
            sa.func.sum(usage.c.output_tokens).label("output"),
            sa.func.count(usage.c.cost_high).label("priced"),
            *_halves("cost_low"),
            *_halves("cost_high"),
        )
        .where(usage.c.job_id.in_(sorted(job_ids)), usage.c.attempt_id > attempt_id)
        .group_by(usage.c.currency)
    ).all()
    known = {row.currency: (_whole(row[5], row[6]), _whole(row[7], row[8])) for row in rows}
    return Made(
        calls=sum(row.calls for row in rows),
        input_tokens=sum(int(row.input or 0) for row in rows),
        output_tokens=sum(int(row.output or 0) for row in rows),
        unpriced=sum(row.calls - row.priced for row in rows),
        cost={key: (low, high) for key, (low, high) in known.items() if key and low is not None and high is not None},
    )


class Odd(NamedTuple):
    """Numbers of attempts that are no item's answer."""

    failed: int = 0
    spare: int = 0
    continued: int = 0


shares_answer = sa.and_(items.c.waits_for.is_not(None), items.c.state.in_([State.DONE.value, State.TRUNCATED.value]))
_continued = sa.exists().where(answers.c.continues == attempts.c.id)


def _counts(**given: int | ColumnElement[int]) -> list[ColumnElement[int]]:
    counts = (sa.type_coerce(given.get(name, sa.literal_column("0")), BigInteger) for name in Odd._fields)
    return [count.label(name) for name, count in zip(Odd._fields, counts, strict=True)]


def _outcomes(
    connection: Connection, columns: Sequence[Key], scope: Sequence[ColumnElement[bool]]
) -> dict[tuple[object, ...], Odd]:
    """Attempts by key that brought no answer of an item. They are few, so they are found first, and only they are
    grouped."""
    keys = (*columns, usage.c.simulated, usage.c.currency)
    failed = sa.select(attempts.c.id, *_counts(failed=1)).where(attempts.c.outcome != "complete")
    # A second answer needs a second claim, and most items have one.
    replaced = (
        sa.select(
            attempts.c.id,
            *_counts(spare=sa.case((_continued, 0), else_=1), continued=sa.case((_continued, 1), else_=0)),
        )
        .join(items, items.c.id == attempts.c.item_id)
        .where(items.c.fence > 1, attempts.c.outcome == "complete", items.c.answer_id.is_distinct_from(attempts.c.id))
    )
    odd = sa.union_all(failed, replaced).subquery()
    rows = connection.execute(
        sa.select(*keys, *(sa.func.sum(odd.c[name]) for name in Odd._fields))
        .join_from(odd, usage, usage.c.attempt_id == odd.c.id)
        .where(*scope)
        .group_by(*keys)
    )
    return {tuple(row[:-3]): Odd(*map(int, row[-3:])) for row in rows}


class Saved(NamedTuple):
    """What duplicates would have cost."""

    shared: int = 0
    low: Decimal | None = None
    high: Decimal | None = None
    unknown: int = 0


def _saved(
    connection: Connection, columns: Sequence[Key], scope: Sequence[ColumnElement[bool]]
) -> dict[tuple[object, ...], Saved]:
    """Items that share the answer of another one, by the keys of the call that brought it."""
    keys = (*columns, usage.c.simulated, usage.c.currency)
    rows = connection.execute(
        sa.select(*keys, sa.func.count(), *_halves("cost_low"), *_halves("cost_high"), sa.func.count(usage.c.cost_high))
        .select_from(
            items.join(attempts, attempts.c.id == items.c.answer_id).join(usage, usage.c.attempt_id == attempts.c.id)
        )
        .where(shares_answer, attempts.c.item_id != items.c.id, *scope)
        .group_by(*keys)
    )
    return {
        tuple(row[:-6]): Saved(
            shared=row[-6], low=_whole(*row[-5:-3]), high=_whole(*row[-3:-1]), unknown=row[-6] - row[-1]
        )
        for row in rows
    }


def _line(key: str, row: Record, odd: Odd, saved: Saved) -> CostLine:
    tokens = {name: None if (count := getattr(row, name)) is None else int(count) for name in _TOKENS}
    return CostLine(
        key=key,
        simulated=row.simulated,
        currency=row.currency,
        calls=row.calls,
        failed=odd.failed,
        spare=odd.spare,
        continued=odd.continued,
        cost_low=_whole(row.cost_low_upper, row.cost_low_lower),
        cost_high=_whole(row.cost_high_upper, row.cost_high_lower),
        unknown_cost=row.calls - row.priced,
        unknown_usage=row.calls - row.counted,
        settled=row.settled,
        input_tokens=tokens["input_tokens"],
        cached_tokens=tokens["cached_tokens"],
        output_tokens=tokens["output_tokens"],
        reasoning_tokens=tokens["reasoning_tokens"],
        image_tokens=tokens["image_tokens"],
        video_tokens=tokens["video_tokens"],
        shared=saved.shared,
        saved_low=saved.low,
        saved_high=saved.high,
        unknown_saved=saved.unknown,
    )


def _whole(upper: int | None, lower: int | None) -> Decimal | None:
    if upper is None or lower is None:
        return None
    units = int(upper) * _SPLIT + int(lower)
    return Decimal((units < 0, tuple(map(int, str(abs(units)))), -MONEY_DIGITS))


def _merge_unpriced(lines: Sequence[CostLine]) -> list[CostLine]:
    """One line per key, kind and currency; unpriced attempts go to the only currency that there is."""
    currencies: dict[tuple[str, bool], set[str]] = {}
    for line in lines:
        currencies.setdefault((line.key, line.simulated), set()).update([line.currency] if line.currency else [])
    merged: dict[tuple[bool, str, str], CostLine] = {}
    for line in lines:
        only = currencies[line.key, line.simulated]
        currency = next(iter(only)) if line.currency is None and len(only) == 1 else line.currency
        place = (line.simulated, line.key, currency or "")
        moved = replace(line, currency=currency)
        merged[place] = _added(merged[place], moved) if place in merged else moved
    return [merged[place] for place in sorted(merged)]


def _added(one: CostLine, other: CostLine) -> CostLine:
    return replace(
        one,
        calls=one.calls + other.calls,
        failed=one.failed + other.failed,
        spare=one.spare + other.spare,
        input_tokens=_plus(one.input_tokens, other.input_tokens),
        cached_tokens=_plus(one.cached_tokens, other.cached_tokens),
        output_tokens=_plus(one.output_tokens, other.output_tokens),
        reasoning_tokens=_plus(one.reasoning_tokens, other.reasoning_tokens),
        image_tokens=_plus(one.image_tokens, other.image_tokens),
        video_tokens=_plus(one.video_tokens, other.video_tokens),
        cost_low=_plus(one.cost_low, other.cost_low),
        cost_high=_plus(one.cost_high, other.cost_high),
        unknown_cost=one.unknown_cost + other.unknown_cost,
        unknown_usage=one.unknown_usage + other.unknown_usage,
        continued=one.continued + other.continued,
        settled=one.settled + other.settled,
        shared=one.shared + other.shared,
        saved_low=_plus(one.saved_low, other.saved_low),
        saved_high=_plus(one.saved_high, other.saved_high),
        unknown_saved=one.unknown_saved + other.unknown_saved,
    )


def _plus(one: Number | None, other: Number | None) -> Number | None:
    if one is None or other is None:
        return one if other is None else other
    return one + other

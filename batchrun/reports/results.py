"""What came of the items of a job: answers, errors, and every attempt with its tokens and cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection

from batchrun.answer import Usage
from batchrun.messages import JsonValue
from batchrun.states import State
from batchrun.tables import FACTS, Record, answers, attempts, items, usage

PAGE = 200
"""Items that are in memory at once. Their texts may be long."""
TOKENS = (
    "input_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
    "image_tokens",
    "video_tokens",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptResult:
    id: int
    outcome: str
    """`open`, `complete`, `failed`, `unsent` or `lost`."""
    claimed_at: datetime
    sent_at: datetime | None
    first_token_at: datetime | None
    ended_at: datetime | None
    http_status: int | None
    error_kind: str | None
    error: str | None
    vendor_code: str | None
    request_id: str | None
    note: str | None
    """What was done to the pictures before they were sent."""
    billed: bool
    """Whether it may have cost money; the fields below are None where it can't have."""
    usage: Usage | None
    cost_low: Decimal | None
    cost_high: Decimal | None
    currency: str | None
    settled: str | None
    """How the cost that the call left open was settled by hand: `zero`, `high` or `bill`."""
    text: str | None
    """Of an attempt that isn't the item's answer: what arrived before it broke, or a second answer."""
    reasoning: str | None
    item: str
    """The `custom_id` of the item that it was made for."""
    continues: int | None
    """The attempt whose text was sent along; what this one brought stands behind it in the answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemResult:
    """What came of an item. Every value is a field, so that `pandas.DataFrame` makes a column of each.

    Tokens and costs are sums over all attempts of what is known, None where nothing is known.
    """

    custom_id: str
    state: State
    text: str | None
    """None where there is no answer."""
    reasoning: str | None
    finish_reason: str | None
    parsed: JsonValue
    tool_calls: JsonValue
    error_kind: str | None
    error: str | None
    cost_low: Decimal | None = field(init=False)
    cost_high: Decimal | None = field(init=False)
    currency: str | None = field(init=False)
    """The one currency of all attempts; None where there is none, or more than one."""
    unknown_cost: int = field(init=False)
    """Attempts that may have cost money and whose cost isn't known."""
    settled_cost: int = field(init=False)
    """Attempts whose cost was settled by hand."""
    input_tokens: int | None = field(init=False)
    cached_tokens: int | None = field(init=False)
    cache_write_tokens: int | None = field(init=False)
    output_tokens: int | None = field(init=False)
    reasoning_tokens: int | None = field(init=False)
    image_tokens: int | None = field(init=False)
    video_tokens: int | None = field(init=False)
    unknown_usage: int = field(init=False)
    """Attempts that may have cost money and whose tokens aren't known."""
    variables: Mapping[str, JsonValue]
    media: Sequence[Mapping[str, JsonValue]]
    finished_at: datetime | None = field(init=False)
    """When the answer had arrived, or the last attempt had failed; None while there is more to come."""
    request_id: str | None = field(init=False)
    """The vendor's, of the attempt that brought the answer."""
    job: str
    simulated: bool
    provider: str
    """With its region: where the answer came from; without an answer, where the job stands by now."""
    model: str
    id: int
    """Grows in the order of the source; `after` of `results` takes it."""
    answer_id: int | None
    """The attempt that brought the answer."""
    part_of: str | None
    """The `custom_id` of the item that merges its answer with those of other parts of its video."""
    attempts: Sequence[AttemptResult]
    """Its own, and their tokens and cost; an item that shares an answer needed none."""
    shared: AttemptResult | None = None
    """The attempt of another item with the same request that brought this one its answer too. What it cost is that
    item's."""

    def __post_init__(self) -> None:
        answered = self.answered
        last = answered or (self.attempts[-1] if self.attempts else None)
        currencies = {attempt.currency for attempt in self.attempts if attempt.currency is not None}
        billed = [attempt for attempt in self.attempts if attempt.billed]
        counted = [attempt.usage for attempt in self.attempts if attempt.usage is not None]
        for name in TOKENS:
            self._derive(name, _known_sum(getattr(one, name) for one in counted))
        self._derive("currency", currencies.pop() if len(currencies) == 1 else None)
        self._derive("cost_low", self._cost(attempt.cost_low for attempt in billed))
        self._derive("cost_high", self._cost(attempt.cost_high for attempt in billed))
        self._derive("unknown_cost", sum(attempt.cost_high is None for attempt in billed))
        self._derive("settled_cost", sum(attempt.settled is not None for attempt in self.attempts))
        unknown = sum(attempt.usage is None or attempt.usage.input_tokens is None for attempt in billed)
        self._derive("unknown_usage", unknown)
        self._derive("finished_at", last.ended_at if last is not None and self.state in _ENDED else None)
        self._derive("request_id", None if answered is None else answered.request_id)

    def _derive(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)  # a frozen value is filled in once, here

    def _cost(self, amounts: Iterable[Decimal | None]) -> Decimal | None:
        known = [amount for amount in amounts if amount is not None]
        return sum(known, Decimal(0)) if known and self.currency is not None else None

    @property
    def answered(self) -> AttemptResult | None:
        """The attempt that brought the answer, of this item or of the one that it shares it with."""
        return self.shared or next((attempt for attempt in self.attempts if attempt.id == self.answer_id), None)

    @property
    def shared_with(self) -> str | None:
        """The `custom_id` of the item that was called for this one."""
        return None if self.shared is None else self.shared.item

    @property
    def tokens(self) -> dict[str, int | None]:
        return {name: getattr(self, name) for name in TOKENS}


_ENDED = frozenset({State.DONE, State.TRUNCATED, State.FAILED})


def _known_sum(counts: Iterable[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def results(
    connection: Connection,
    job: Record,
    *,
    states: Collection[State] | None = None,
    after: int | None = None,
    limit: int | None = None,
    wholes: bool = False,
) -> Iterator[ItemResult]:
    """The items of `job`, a row of `reports.jobs`, in the order of its source, as a stream.

    `states` None means all; `after` is the id of an item that was seen already; `wholes` leaves out the parts of split
    videos. To be used up inside of the
    transaction that `connection` is in.
    """
    wanted = sa.select(items.c.id).where(items.c.job_id == job.id).order_by(items.c.id).limit(limit)
    if states is not None:
        wanted = wanted.where(items.c.state.in_([state.value for state in states]))
    if after is not None:
        wanted = wanted.where(items.c.id > after)
    if wholes:
        wanted = wanted.where(items.c.part_of.is_(None))
    # Ids alone are sorted and streamed: texts in the sort would fill a disk, and pages by `id >` would sort each time.
    ids = connection.execute(wanted.execution_options(yield_per=PAGE)).scalars()
    for page in ids.partitions():
        yield from _page(connection, job, page)


def parts_of(connection: Connection, job: Record, whole: ItemResult) -> list[ItemResult]:
    """The parts that an item of `job` merges, in their order; none for any other item."""
    wanted = sa.select(items.c.id).where(items.c.part_of == whole.id).order_by(items.c.id)
    return list(_page(connection, job, list(connection.execute(wanted).scalars())))


def _page(connection: Connection, job: Record, ids: Sequence[int]) -> Iterator[ItemResult]:
    whole = items.alias("whole")
    rows = connection.execute(
        sa.select(
            items,
            answers.c.attempt_id,
            answers.c.text,
            answers.c.reasoning,
            answers.c.finish_reason,
            answers.c.parsed,
            answers.c.tool_calls,
            whole.c.custom_id.label("whole"),
            usage.c.provider,
            usage.c.region,
        )
        .select_from(
            items.outerjoin(answers, _is_answer(answers.c.attempt_id))
            .outerjoin(usage, usage.c.attempt_id == answers.c.attempt_id)
            .outerjoin(whole, whole.c.id == items.c.part_of)
        )
        .where(items.c.id.in_(ids))
        .order_by(items.c.id)
    ).all()
    tried = _attempts(connection, attempts.c.item_id.in_(ids))
    own = {(item_id, attempt.id) for item_id, made in tried.items() for attempt in made}
    foreign = {row.id: row.attempt_id for row in rows if row.attempt_id and (row.id, row.attempt_id) not in own}
    shared = {} if not foreign else _by_id(_attempts(connection, attempts.c.id.in_({*foreign.values()})))
    for row in rows:
        yield ItemResult(
            id=row.id,
            job=job.name,
            simulated=job.simulated,
            provider=_place(job if row.provider is None else row),
            model=job.model,
            custom_id=row.custom_id,
            state=State(row.state),
            text=row.text,
            reasoning=row.reasoning,
            finish_reason=row.finish_reason,
            parsed=row.parsed,
            tool_calls=row.tool_calls,
            error_kind=row.error_kind,
            error=row.error,
            variables=row.variables,
            media=[{name: reference[name] for name in reference if name != FACTS} for reference in row.media],
            answer_id=row.attempt_id,
            part_of=row.whole,
            attempts=tried.get(row.id, []),
            shared=shared.get(foreign.get(row.id, 0)),
        )


def _place(row: Record) -> str:
    return f"{row.provider}/{row.region}" if row.region else str(row.provider)


def _is_answer(attempt: ColumnElement[int]) -> ColumnElement[bool]:
    """Whether this attempt has the answer of its item. A cut answer isn't one while its rest is asked for."""
    return sa.and_(items.c.answer_id == attempt, items.c.state.in_([State.DONE.value, State.TRUNCATED.value]))


def _by_id(found: Mapping[int, Sequence[AttemptResult]]) -> dict[int, AttemptResult]:
    return {attempt.id: attempt for made in found.values() for attempt in made}


def _attempts(connection: Connection, which: ColumnElement[bool]) -> dict[int, list[AttemptResult]]:
    """Attempts in their order, by item."""
    prefix = answers.alias("prefix")
    is_answer = _is_answer(attempts.c.id)
    behind = sa.func.coalesce(sa.func.length(prefix.c.text), 0) + 1
    rows = connection.execute(
        sa.select(
            attempts,
            usage,
            items.c.custom_id,
            sa.case((is_answer, None), else_=sa.func.substr(answers.c.text, behind)).label("text"),
            sa.case((is_answer, None), else_=answers.c.reasoning).label("reasoning"),
            answers.c.continues,
        )
        .select_from(
            attempts.join(items, items.c.id == attempts.c.item_id)
            .outerjoin(usage, usage.c.attempt_id == attempts.c.id)
            .outerjoin(answers, answers.c.attempt_id == attempts.c.id)
            .outerjoin(prefix, prefix.c.attempt_id == answers.c.continues)
        )
        .where(which)
        .order_by(attempts.c.item_id, attempts.c.fence)
    )
    found: dict[int, list[AttemptResult]] = defaultdict(list)
    for row in rows:
        found[row.item_id].append(_attempt(row))
    return found


def _attempt(row: Record) -> AttemptResult:
    billed = row.attempt_id is not None
    counted = billed and (row.raw is not None or any(getattr(row, name) is not None for name in TOKENS))
    return AttemptResult(
        id=row.id,
        outcome=row.outcome,
        claimed_at=row.claimed_at,
        sent_at=row.sent_at,
        first_token_at=row.first_token_at,
        ended_at=row.ended_at,
        http_status=row.http_status,
        error_kind=row.error_kind,
        error=row.error,
        vendor_code=row.vendor_code,
        request_id=row.request_id,
        note=row.note,
        billed=billed,
        usage=Usage(**{name: getattr(row, name) for name in TOKENS}, raw=row.raw or {}) if counted else None,
        cost_low=row.cost_low,
        cost_high=row.cost_high,
        currency=row.currency,
        settled=row.settled,
        text=row.text,
        reasoning=row.reasoning,
        item=row.custom_id,
        continues=row.continues,
    )

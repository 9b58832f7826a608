"""What came of the items of a job: answers, errors, and every attempt with its tokens and cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

import sqlalchemy as sa
from sqlalchemy import Connection

from batchrun.answer import Usage
from batchrun.messages import JsonValue
from batchrun.states import State
from batchrun.tables import Record, answers, attempts, items, usage

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


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemResult:
    id: int
    """Grows in the order of the source; `after` of `results` takes it."""
    job: str
    simulated: bool
    provider: str
    """With its region."""
    model: str
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
    variables: Mapping[str, JsonValue]
    media: Sequence[Mapping[str, JsonValue]]
    answer_id: int | None
    """The attempt that brought the answer."""
    attempts: Sequence[AttemptResult]

    @property
    def answered(self) -> AttemptResult | None:
        return next((attempt for attempt in self.attempts if attempt.id == self.answer_id), None)

    @property
    def finished_at(self) -> datetime | None:
        """When the answer had arrived, or the last attempt had failed; None while there is more to come."""
        last = self.answered or (self.attempts[-1] if self.attempts else None)
        return last.ended_at if last is not None and self.state in _ENDED else None

    @property
    def tokens(self) -> dict[str, int | None]:
        """Sums over all attempts of what is known; None where nothing is known."""
        counted = [attempt.usage for attempt in self.attempts if attempt.usage is not None]
        return {name: _known_sum(getattr(one, name) for one in counted) for name in TOKENS}

    @property
    def unknown_usage(self) -> int:
        """Attempts that may have cost money and whose tokens aren't known."""
        return sum(
            attempt.billed and (attempt.usage is None or attempt.usage.input_tokens is None)
            for attempt in self.attempts
        )

    @property
    def currency(self) -> str | None:
        """The one currency of all attempts; None where there is none, or more than one."""
        found = {attempt.currency for attempt in self.attempts if attempt.currency is not None}
        return found.pop() if len(found) == 1 else None

    @property
    def cost_low(self) -> Decimal | None:
        """Sum over all attempts of what is known, in `currency`."""
        return self._cost(attempt.cost_low for attempt in self.attempts)

    @property
    def cost_high(self) -> Decimal | None:
        return self._cost(attempt.cost_high for attempt in self.attempts)

    @property
    def unknown_cost(self) -> int:
        """Attempts that may have cost money and whose cost isn't known."""
        return sum(attempt.billed and attempt.cost_high is None for attempt in self.attempts)

    @property
    def settled_cost(self) -> int:
        """Attempts whose cost was settled by hand."""
        return sum(attempt.settled is not None for attempt in self.attempts)

    def _cost(self, amounts: Iterable[Decimal | None]) -> Decimal | None:
        known = [amount for amount in amounts if amount is not None]
        return sum(known, Decimal(0)) if known and self.currency is not None else None


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
) -> Iterator[ItemResult]:
    """The items of `job`, a row of `reports.jobs`, in the order of its source, as a stream.

    `states` None means all; `after` is the id of an item that was seen already. To be used up inside of the
    transaction that `connection` is in.
    """
    wanted = sa.select(items.c.id).where(items.c.job_id == job.id).order_by(items.c.id).limit(limit)
    if states is not None:
        wanted = wanted.where(items.c.state.in_([state.value for state in states]))
    if after is not None:
        wanted = wanted.where(items.c.id > after)
    # Ids alone are sorted and streamed: texts in the sort would fill a disk, and pages by `id >` would sort each time.
    ids = connection.execute(wanted.execution_options(yield_per=PAGE)).scalars()
    for page in ids.partitions():
        yield from _page(connection, job, page)


def _page(connection: Connection, job: Record, ids: Sequence[int]) -> Iterator[ItemResult]:
    tried = _attempts(connection, ids)
    rows = connection.execute(
        sa.select(
            items,
            answers.c.text,
            answers.c.reasoning,
            answers.c.finish_reason,
            answers.c.parsed,
            answers.c.tool_calls,
        )
        .select_from(items.outerjoin(answers, answers.c.attempt_id == items.c.answer_id))
        .where(items.c.id.in_(ids))
        .order_by(items.c.id)
    )
    for row in rows:
        yield ItemResult(
            id=row.id,
            job=job.name,
            simulated=job.simulated,
            provider=f"{job.provider}/{job.region}" if job.region else job.provider,
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
            media=row.media,
            answer_id=row.answer_id,
            attempts=tried.get(row.id, []),
        )


def _attempts(connection: Connection, ids: Sequence[int]) -> dict[int, list[AttemptResult]]:
    """The attempts of these items in their order."""
    not_the_answer = sa.and_(answers.c.attempt_id == attempts.c.id, items.c.answer_id.is_distinct_from(attempts.c.id))
    rows = connection.execute(
        sa.select(attempts, usage, answers.c.text, answers.c.reasoning)
        .select_from(
            attempts.join(items, items.c.id == attempts.c.item_id)
            .outerjoin(usage, usage.c.attempt_id == attempts.c.id)
            .outerjoin(answers, not_the_answer)
        )
        .where(attempts.c.item_id.in_(ids))
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
        billed=billed,
        usage=Usage(**{name: getattr(row, name) for name in TOKENS}, raw=row.raw or {}) if counted else None,
        cost_low=row.cost_low,
        cost_high=row.cost_high,
        currency=row.currency,
        settled=row.settled,
        text=row.text,
        reasoning=row.reasoning,
    )

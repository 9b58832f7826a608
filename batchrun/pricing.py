"""What tokens cost: prices in tiers, the cost of one attempt, the most that a call can cost. Values, no I/O.

All arithmetic is exact `Decimal`; money is rounded once per attempt, half to even, at `MONEY_UNIT`. Prices
are per 1,000,000 tokens. The tier is chosen by the input tokens of the single request and applies to all of
it (provider contract 8.4).

A cost is an interval, `low ≤ bill ≤ high`. The ends are equal where the vendor's usage and the prices leave
nothing open. They differ where

* tokens were read from or written into a cache and the price of that is not known: they may be free, and cost
  the dearest known rate of input at most;
* the input is longer than the last tier: no price is published there, so the ends are the cheapest and the
  dearest tier, and `outside_tiers` is set;
* the usage contradicts itself, such as more cached tokens than input: the parts may have been counted beside
  the total instead of inside it, so the high end pays for both, at the dearest rate.

Without believable numbers of input and output tokens there is no cost, and the caller keeps the bounds that
it reserved.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Context, Decimal, localcontext

from batchrun.answer import Usage

MONEY_UNIT = Decimal("1e-12")
"""The smallest amount of money, in currency units."""
MAX_TOKENS = 1_000_000_000
"""A vendor that counts more tokens than this for one call is not believed: no context is that long."""

_PER_TOKEN = Decimal("1e-6")
_EXACT = Context(prec=80, rounding=ROUND_HALF_EVEN)
"""Wide enough that only the one rounding at `MONEY_UNIT` ever rounds, whatever context the caller has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """Rates for requests of a certain length, per 1,000,000 tokens."""

    up_to: int | None
    """Input tokens of the longest request of this tier, inclusive; None where the tier has no end."""
    input: Decimal
    output: Decimal
    cached_input: Decimal | None = None
    """For input tokens read from a cache; None where it is not known."""
    cache_write: Decimal | None = None
    """For input tokens written into a cache; None where it is not known."""
    thinking_output: Decimal | None = None
    """For all output of an answer that thought; None where it is the same as `output`."""

    @property
    def input_rates(self) -> tuple[Decimal, ...]:
        """The known rates that an input token can have."""
        return tuple(rate for rate in (self.input, self.cached_input, self.cache_write) if rate is not None)

    def output_rate(self, *, thought: bool) -> Decimal:
        return self.thinking_output if thought and self.thinking_output is not None else self.output


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceRow:
    """One tier of one price, flat, for storage that only ever appends. Rates are per 1,000,000 tokens."""

    provider: str
    region: str
    model: str
    currency: str
    valid_from: datetime
    source: str
    from_tokens: int
    up_to: int | None
    input: Decimal
    output: Decimal
    cached_input: Decimal | None
    cache_write: Decimal | None
    thinking_output: Decimal | None

    @property
    def digest(self) -> str:
        """SHA-256 in hex of all fields; `0.2` and `0.20` are one rate, 00:00Z and 08:00+08:00 one moment."""
        text = json.dumps(asdict(self), default=_canonical, sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(text.encode("ascii")).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What one model costs at one endpoint from a moment on, until a later price takes over."""

    provider: str
    region: str
    """Empty for a provider without regions."""
    model: str
    currency: str
    """ISO 4217 code, as the vendor's page prints the price."""
    valid_from: datetime
    """Carries a zone."""
    source: str
    tiers: tuple[Tier, ...]
    """At least one, by rising `up_to`; only the last may be without an end."""
    checked_on: date | None = None

    def tier_of(self, input_tokens: int) -> Tier:
        """The tier of a request with that many input tokens; the last one where the input is longer."""
        if input_tokens < 0:
            raise ValueError(f"input_tokens must not be negative: {input_tokens}")
        return next((tier for tier in self.tiers if _holds(tier, input_tokens)), self.tiers[-1])

    def row_of(self, tier: Tier) -> PriceRow:
        """The flat record of one of this price's tiers. Raises ValueError for a tier of another price."""
        position = self.tiers.index(tier)
        previous = self.tiers[position - 1].up_to if position else None
        return PriceRow(
            provider=self.provider,
            region=self.region,
            model=self.model,
            currency=self.currency,
            valid_from=self.valid_from,
            source=self.source,
            from_tokens=0 if previous is None else previous + 1,
            up_to=tier.up_to,
            input=tier.input,
            output=tier.output,
            cached_input=tier.cached_input,
            cache_write=tier.cache_write,
            thinking_output=tier.thinking_output,
        )

    def rows(self) -> tuple[PriceRow, ...]:
        """One flat record per tier, in the order of `tiers`."""
        return tuple(self.row_of(tier) for tier in self.tiers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one attempt cost, in units of `currency`: not less than `low`, not more than `high`."""

    low: Decimal
    high: Decimal
    currency: str
    tier: Tier
    """The tier of the input tokens as counted."""
    outside_tiers: bool = False
    """The input is longer than the last tier, where no price is published."""

    @property
    def exact(self) -> bool:
        return self.low == self.high


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counts:
    """Believable counts of one attempt, and how far its total may have been counted without its parts."""

    input: int
    output: int
    cached: int
    cache_write: int
    beside_input: int
    """Tokens that may have to be paid on top of `input`, as they can't lie inside it."""
    beside_output: int
    contradictory: bool


def cost_of(usage: Usage, price: Price, *, thought: bool) -> Cost | None:
    """The cost of one attempt; None where its input or output is unknown, or any count can't be believed.

    `thought` says whether thinking arrived. The vendor's own count of reasoning tokens, where there is one,
    decides instead: thinking that was switched on but not emitted is billed as an answer without thinking
    (contract O7). Cached tokens that the vendor doesn't mention are taken as ordinary input.
    """
    counts = _counts(usage)
    if counts is None:
        return None
    emitted = thought if usage.reasoning_tokens is None else usage.reasoning_tokens > 0
    with localcontext(_EXACT):
        low, high = _bounds(counts, price, thought=emitted)
        return Cost(
            low=(low * _PER_TOKEN).quantize(MONEY_UNIT),
            high=(high * _PER_TOKEN).quantize(MONEY_UNIT),
            currency=price.currency,
            tier=price.tier_of(counts.input),
            outside_tiers=not _holds(price.tiers[-1], counts.input),
        )


def upper_bound(price: Price, *, input_tokens: int, output_tokens: int) -> Decimal:
    """The most that a call of up to so many tokens can cost, rounded up at `MONEY_UNIT`.

    A shorter request may fall into a dearer tier, so every tier that the call can reach counts, and in each
    the dearest rate of input (plain, cached, written into a cache) and of output (with thinking or without).
    Raises ValueError for negative numbers.
    """
    if input_tokens < 0 or output_tokens < 0:
        raise ValueError(f"tokens must not be negative: {input_tokens} in, {output_tokens} out")
    with localcontext(_EXACT):
        amount = _dearest(price, 0, input_tokens, output_tokens)
        return (amount * _PER_TOKEN).quantize(MONEY_UNIT, rounding=ROUND_CEILING)


def _counts(usage: Usage) -> _Counts | None:
    if usage.input_tokens is None or usage.output_tokens is None:
        return None
    cached, cache_write, image, video, reasoning = (
        0 if part is None else part
        for part in (
            usage.cached_tokens,
            usage.cache_write_tokens,
            usage.image_tokens,
            usage.video_tokens,
            usage.reasoning_tokens,
        )
    )
    parts = (cached, cache_write, image, video, reasoning)
    totals = (usage.input_tokens, usage.output_tokens)
    if min(totals) < 0 or max(*totals, *parts) > MAX_TOKENS:
        return None
    beside_input = sum(part for part in (cached + cache_write, image + video) if part > usage.input_tokens)
    beside_output = reasoning if reasoning > usage.output_tokens else 0
    return _Counts(
        input=usage.input_tokens,
        output=usage.output_tokens,
        cached=cached,
        cache_write=cache_write,
        beside_input=beside_input,
        beside_output=beside_output,
        contradictory=bool(beside_input or beside_output) or min(parts) < 0,
    )


def _bounds(counts: _Counts, price: Price, *, thought: bool) -> tuple[Decimal, Decimal]:
    """Lowest and highest cost times 1,000,000, not rounded."""
    if counts.contradictory:
        most = counts.input + counts.beside_input
        low = min(
            counts.input * _cheapest_input(tier) + counts.output * _cheapest_output(tier)
            for tier in _reachable(price, counts.input, most)
        )
        return low, _dearest(price, counts.input, most, counts.output + counts.beside_output)
    tiers = _reachable(price, counts.input, counts.input)
    ends = [_tier_bounds(counts, tier, thought=thought) for tier in tiers]
    return min(low for low, _ in ends), max(high for _, high in ends)


def _tier_bounds(counts: _Counts, tier: Tier, *, thought: bool) -> tuple[Decimal, Decimal]:
    plain = counts.input - counts.cached - counts.cache_write
    low = high = plain * tier.input + counts.output * tier.output_rate(thought=thought)
    for tokens, rate in ((counts.cached, tier.cached_input), (counts.cache_write, tier.cache_write)):
        low += tokens * (Decimal(0) if rate is None else rate)
        high += tokens * (max(tier.input_rates) if rate is None else rate)
    return low, high


def _dearest(price: Price, fewest: int, most: int, output_tokens: int) -> Decimal:
    """Highest cost, times 1,000,000, of a call with `fewest` to `most` input tokens."""
    outside = not _holds(price.tiers[-1], most)
    return max(
        (most if outside or tier.up_to is None else min(tier.up_to, most)) * max(tier.input_rates)
        + output_tokens * max(tier.output_rate(thought=thought) for thought in (False, True))
        for tier in _reachable(price, fewest, most)
    )


def _cheapest_input(tier: Tier) -> Decimal:
    """Tokens of a cache whose price isn't known may be free."""
    return Decimal(0) if tier.cached_input is None or tier.cache_write is None else min(tier.input_rates)


def _cheapest_output(tier: Tier) -> Decimal:
    return min(tier.output_rate(thought=thought) for thought in (False, True))


def _reachable(price: Price, fewest: int, most: int) -> tuple[Tier, ...]:
    """The tiers that a request of that many input tokens can be in; all of them beyond the last one's end."""
    if not _holds(price.tiers[-1], most):
        return price.tiers
    ends = [tier for tier in price.tiers if tier.up_to is None or tier.up_to >= fewest]
    return tuple(ends[: ends.index(price.tier_of(most)) + 1])


def _holds(tier: Tier, input_tokens: int) -> bool:
    return tier.up_to is None or input_tokens <= tier.up_to


def _canonical(value: object) -> str:
    if isinstance(value, Decimal):
        return format(value.normalize(_EXACT), "f")
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    raise TypeError(f"a price row can't contain {type(value).__name__}")

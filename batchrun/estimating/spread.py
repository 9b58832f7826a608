"""From a few measured items to all that are left: sums with a low and a high end.

Each quantity (tokens in, tokens out, money) is known beforehand between two bounds for every item, from its size and
the limits of the answer. What is measured is by how much the items that have ended lay above their low bound. The mean
of these differences, times the items left, is what they will add; its range is three standard errors to either side,
widened for few observations as Student's t is. Differences from a bound that knows the size of each item vary less
than the amounts themselves, and stay right where the measured items are larger or smaller than the others.

Of a hundred such ranges about one misses, and about three where a few answers are many times as long as the others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

ENOUGH = 5
"""Measured items below which the bounds are left as they are."""
ERRORS = Decimal(3)
"""Standard errors to either side."""
LEAST_SPREAD = Decimal("0.05")
"""Standard deviation as a share of the mean amount, at least: that a few answers were alike proves little."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What something will amount to. `high` is None where no bound is known, `expected` where nothing was measured."""

    low: Decimal
    high: Decimal | None
    expected: Decimal | None = None

    def to(self, unit: Decimal) -> Outlook:
        """In whole units, rounded outwards."""
        return Outlook(
            low=self.low.quantize(unit, ROUND_FLOOR),
            high=None if self.high is None else self.high.quantize(unit, ROUND_CEILING),
            expected=None if self.expected is None else self.expected.quantize(unit),
        )

    def __add__(self, other: Outlook) -> Outlook:
        return Outlook(
            low=self.low + other.low, high=_plus(self.high, other.high), expected=_plus(self.expected, other.expected)
        )


def _plus(one: Decimal | None, other: Decimal | None) -> Decimal | None:
    return None if one is None or other is None else one + other


@dataclass(slots=True, kw_only=True)
class Spread:
    """Observations, as far as their mean and spread need them."""

    count: int = 0
    total: Decimal = Decimal(0)
    squares: Decimal = Decimal(0)
    amounts: Decimal = Decimal(0)

    def add(self, value: Decimal, amount: Decimal) -> None:
        """A value, and the whole amount that it is a part of."""
        self.count += 1
        self.total += value
        self.squares += value * value
        self.amounts += amount

    @property
    def mean(self) -> Decimal:
        return self.total / self.count

    def reach(self, number: int) -> Decimal:
        """How far the sum of `number` others like these may lie from as many times the mean. Needs two of them."""
        variance = max(Decimal(0), (self.squares - self.total * self.mean) / (self.count - 1))
        deviation = max(variance.sqrt(), LEAST_SPREAD * self.amounts / self.count)
        # The mean may be off, by its standard error for every item, and the others vary as these did.
        return quantile(self.count) * deviation * (Decimal(number) ** 2 / self.count + number).sqrt()


def quantile(count: int) -> Decimal:
    """As many standard errors as catch as much as three do where the spread is known: Student's t, by the expansion of
    Cornish and Fisher, which is within a thirtieth of it from five observations on."""
    z, free = ERRORS, Decimal(count - 1)
    return (
        z
        + (z**3 + z) / (4 * free)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * free**3)
    )


@dataclass(slots=True, kw_only=True)
class Quantity:
    """One quantity over the items of a job: bounds of what is left, and how the others turned out."""

    low: Decimal = Decimal(0)
    high: Decimal | None = Decimal(0)
    lows: Spread = field(default_factory=Spread)
    highs: Spread = field(default_factory=Spread)

    def expect(self, low: Decimal | int, high: Decimal | int | None) -> None:
        """An item that is left."""
        self.low += low
        self.high = None if high is None or self.high is None else self.high + high

    def observe(self, low: Decimal | int, high: Decimal | int, *, least: Decimal | int, charged: bool = True) -> None:
        """An item that has ended between `low` and `high`, and would have been expected to be at least `least`.

        One that failed for nothing says that others may too, not that they will: it lowers the low end alone.
        """
        self.lows.add(Decimal(low) - least, Decimal(low))
        if charged:
            self.highs.add(Decimal(high) - least, Decimal(high))

    def left(self, number: int, calls: Decimal) -> Outlook:
        """What the `number` items that are left will amount to, with so many calls for each item as were measured."""
        if not number:
            return Outlook(low=Decimal(0), high=Decimal(0), expected=Decimal(0))
        return Outlook(low=self.least(number), high=self.most(number, calls), expected=self.expected(number))

    # Where what was measured contradicts a bound, the bound was mistaken and isn't one any more: the mean lies outside
    # of it, or items failed for nothing though each was thought to be answered.

    def least(self, number: int) -> Decimal:
        if self.lows.count < ENOUGH:
            return self.low
        measured = max(Decimal(0), self.low + self.lows.mean * number - self.lows.reach(number))
        mistaken = self.lows.mean < 0 or self.lows.count > self.highs.count
        return measured if mistaken else max(self.low, measured)

    def most(self, number: int, calls: Decimal) -> Decimal | None:
        high = None if self.high is None else self.high * calls
        if self.highs.count < ENOUGH:
            return high
        mean = self.low + self.highs.mean * number
        measured = mean + self.highs.reach(number)
        return measured if high is None or mean > high else min(high, measured)

    def expected(self, number: int) -> Decimal | None:
        if not self.highs.count:
            return None
        return self.low + (self.lows.mean + self.highs.mean) / 2 * number

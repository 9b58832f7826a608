"""From a few measured items to all that are left: sums with a low and a high end.

Each quantity (tokens in, tokens out, money) is known beforehand between two bounds for every item, from its size and
the limits of the answer. What is measured is by how much the items that have ended lay above their low bound. The mean
of these differences, times the items left, is what they will add; its range is three standard errors to either side,
widened for few observations as Student's t is. Differences from a bound that knows the size of each item vary less
than the amounts themselves, and stay right where the measured items are larger or smaller than the others.
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

    def of_others(self, number: int) -> Outlook:
        """The sum of `number` others like these. Needs two observations for a range around the mean."""
        mean = self.total / self.count
        if self.count < 2:
            return Outlook(low=mean * number, high=mean * number, expected=mean * number)
        variance = max(Decimal(0), (self.squares - self.total * mean) / (self.count - 1))
        deviation = max(variance.sqrt(), LEAST_SPREAD * self.amounts / self.count)
        # The mean may be off, by its standard error for every item, and the others vary as these did.
        reach = quantile(self.count) * deviation * (Decimal(number) ** 2 / self.count + number).sqrt()
        return Outlook(low=mean * number - reach, high=mean * number + reach, expected=mean * number)


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

    def observe(self, low: Decimal | int, high: Decimal | int, *, least: Decimal | int) -> None:
        """An item that has ended between `low` and `high`, and would have been expected to be at least `least`."""
        self.lows.add(Decimal(low) - least, Decimal(low))
        self.highs.add(Decimal(high) - least, Decimal(high))

    def left(self, number: int, calls: Decimal) -> Outlook:
        """What the `number` items that are left will amount to, with so many calls for each item as were measured."""
        high = None if self.high is None else self.high * max(calls, Decimal(1))
        if not self.lows.count or not number:
            return Outlook(low=self.low, high=high, expected=None if number else Decimal(0))
        below, above = self.lows.of_others(number), self.highs.of_others(number)
        assert below.expected is not None  # noqa: S101 - observations have a mean
        assert above.expected is not None  # noqa: S101
        expected = self.low + (below.expected + above.expected) / 2
        if self.lows.count < ENOUGH:
            return Outlook(low=self.low, high=high, expected=expected)
        measured_low, measured_high = self.low + below.low, self.low + (above.high or 0)
        # What was measured counts more than what was thought before, such as that no item fails for nothing.
        if expected < self.low or (high is not None and expected > high):
            return Outlook(low=max(Decimal(0), measured_low), high=measured_high, expected=expected)
        return Outlook(
            low=max(self.low, measured_low),
            high=measured_high if high is None else min(high, measured_high),
            expected=expected,
        )

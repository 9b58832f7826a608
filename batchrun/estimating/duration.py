"""How long calls take under limits and in the hours of a window, and what is the brake."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from batchrun.estimating.spread import Outlook
from batchrun.pacing.limits import PACE, Limits
from batchrun.pacing.windows import Window

_PACE = Decimal(str(PACE))
MINUTE = 60
DAY = 86_400
MILLISECOND = Decimal("0.001")
WINDOW = "window"
"""How the name of that brake begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Calls that are still to be made. Loads that share limits are added."""

    calls: Decimal
    tokens: Outlook
    """In and out together."""
    busy: Outlook | None
    """Seconds of all calls one after the other; None where that wasn't measured."""

    def __add__(self, other: Load) -> Load:
        busy = None if self.busy is None or other.busy is None else self.busy + other.busy
        return Load(calls=self.calls + other.calls, tokens=self.tokens + other.tokens, busy=busy)


@dataclass(frozen=True, slots=True, kw_only=True)
class Duration:
    """Seconds, and what holds the calls back. `high` is None where how long an answer takes isn't known."""

    low: Decimal
    high: Decimal | None
    brake: str | None
    """Such as `600 requests/min`, or `window of 22:00 to 06:00 Asia/Tokyo` where that is closed meanwhile; None where
    nothing is left to do, or nothing is known."""
    answer: Decimal | None = None
    """Where answers weren't timed yet: seconds that one may take before the number of calls at once is the brake."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """One limit, and how long the calls take if nothing but it holds them back."""

    name: str
    low: Decimal
    high: Decimal | None
    by_date: bool = False
    """It is over at midnights, and goes on while a window is closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hours:
    """The hours in which calls may start, seen from `now`."""

    window: Window
    now: datetime

    def bound(self, bound: Bound) -> Bound:
        """How long the calls take that are held back so while the window is open."""
        if bound.by_date:
            return bound
        low, high = self.takes(bound.low), None if bound.high is None else self.takes(bound.high)
        waits = low > bound.low or (high is not None and bound.high is not None and high > bound.high)
        return replace(bound, name=f"{WINDOW} of {self.window}" if waits else bound.name, low=low, high=high)

    def takes(self, seconds: Decimal) -> Decimal:
        passed = Decimal(self.window.takes(self.now, float(seconds))).quantize(MILLISECOND)
        return passed if passed > seconds + MILLISECOND else seconds  # what a float can't say is no waiting


def duration(load: Load, limits: Iterable[Limits], concurrency: int, hours: Hours | None = None) -> Duration:
    """How long the load takes under all these limits with so many calls at once."""
    if not load.calls:
        return Duration(low=Decimal(0), high=Decimal(0), brake=None)
    timed = load.busy is not None
    bounds = [bound for each in limits for bound in rates(load, each)] + [in_parallel(load, concurrency)]
    fastest = max(bound.low for bound in bounds)
    if hours is not None:
        bounds = [hours.bound(bound) for bound in bounds]
    slowest = max(bounds, key=lambda bound: (bound.high if timed and bound.high else bound.low, bound.low))
    highs = [bound.high for bound in bounds]
    last = load.busy.expected / load.calls if load.busy is not None and load.busy.expected is not None else Decimal(0)
    low = max(bound.low for bound in bounds)
    return Duration(
        low=low + last,
        high=None if None in highs else max(end for end in highs if end is not None) + last,
        brake=slowest.name if slowest.low else None,
        answer=None if timed or not fastest else fastest * concurrency / load.calls,
    )


def rates(load: Load, limits: Limits) -> Iterator[Bound]:
    if limits.requests_per_minute is not None:
        seconds = load.calls * MINUTE / (limits.requests_per_minute * _PACE)
        yield Bound(name=f"{limits.requests_per_minute:,} requests/min", low=seconds, high=seconds)
    if limits.tokens_per_minute is not None:
        pace = limits.tokens_per_minute * _PACE / MINUTE
        high = None if load.tokens.high is None else load.tokens.high / pace
        yield Bound(name=f"{limits.tokens_per_minute:,} tokens/min", low=load.tokens.low / pace, high=high)
    if limits.tokens_per_day is not None:
        name = f"{limits.tokens_per_day:,} tokens/day"
        high = None if load.tokens.high is None else midnights(load.tokens.high, limits.tokens_per_day)
        yield Bound(name=name, low=midnights(load.tokens.low, limits.tokens_per_day), high=high, by_date=True)


def midnights(tokens: Decimal, per_day: int) -> Decimal:
    """Seconds of the days that have to pass until the last of the tokens is granted."""
    return tokens // per_day * DAY


def in_parallel(load: Load, concurrency: int) -> Bound:
    name = f"{concurrency:,} calls at once"
    if load.busy is None:
        return Bound(name=name, low=Decimal(0), high=None)
    high = None if load.busy.high is None else load.busy.high / concurrency
    return Bound(name=name, low=load.busy.low / concurrency, high=high)

"""Pacing, rate cuts and the circuit breaker, as plain arithmetic on the rows of `profiles` and `jobs`.

A limit is granted in the claim, before a call is made, and every process grants from the same row. Vendors count a
limit per minute also per second (contract 8.2), so a bucket never holds more than one call: calls get slots of their
own, one interval apart, at 95 % of the limit (GCRA with a burst of 1). A claim gives out the slots of the next second.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

PACE = 0.95
"""Share of a limit that is used: the server's second doesn't begin when ours does."""
LOOKAHEAD = timedelta(seconds=1)
SLACK = timedelta(milliseconds=50)
"""A job's own slot may lie this much later than its profile's and still be taken ahead."""
LONGEST_DEBT = timedelta(minutes=10)
"""Tokens push the next call no further ahead: an absurd count must not stop a profile for years."""
DEFAULT_CONCURRENCY = 64

CUT = 0.7
"""Factor on the rate when 429s are frequent."""
FLOOR = 0.05
"""The rate is never cut below this share, so that a recovery is noticed."""
FREQUENT = 0.15
"""Share of 429s among recent calls above which the limit is taken to be lower than we think."""
WINDOW = 80
"""Calls after which the counts of a window are halved."""
ENOUGH = 20
ENOUGH_LIMITED = 5
"""Calls, and 429s among them, that a window needs before it may cut: two 429s among ten calls are chance."""
RECOVERY = 1.003
"""Growth of the rate for each good call, up to the limit itself."""

BREAKER_FAILURES = 10
BREAKER_SHARE = 0.5
BREAKER_WINDOW = 40
"""The breaker opens after so many failures in a row, or when more than this share of so many recent calls failed."""
BREAKER_GOOD = 3
"""Good probes that close it."""
BREAKER_FIRST = timedelta(seconds=30)
BREAKER_LAST = timedelta(minutes=10)
REFUSALS = 3
"""Refused keys or unknown models in a row that pause a profile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a vendor grants per account and model (contract 8.2); None is not known."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None
    concurrency: int | None = None
    """Calls at once."""


@dataclass(slots=True, kw_only=True)
class Bucket:
    """The limits of a profile or a job, and how much of them is granted. Changed in place by `grant`."""

    requests_per_minute: int | None
    tokens_per_minute: int | None
    tokens_per_day: int | None
    next_slot_at: datetime
    tokens_at: datetime
    """When the tokens granted so far will have been earned back."""
    day: int
    """Days since 1970 in UTC that `day_tokens` counts."""
    day_tokens: int
    factor: float = 1.0

    @property
    def interval(self) -> timedelta:
        """Between two calls."""
        if self.requests_per_minute is None:
            return timedelta(0)
        return timedelta(seconds=60 / (self.requests_per_minute * PACE * self.factor))

    def free_at(self, now: datetime, tokens: int) -> datetime:
        """The earliest moment at which a call of `tokens` may be sent.

        What lies further ahead than can have been granted was written by a clock that has been set back since, or under
        a limit that was raised since; it holds nobody up.
        """
        slot = believed(self.next_slot_at, now, LOOKAHEAD + 2 * self.interval)
        at = max(now, slot, believed(self.tokens_at, now, LOOKAHEAD + LONGEST_DEBT))
        if self.tokens_per_day is not None:
            today = day_of(now)
            used = self.day_tokens if self.day == today else 0
            # The first call of a day goes out even if it alone is above the limit; else it would wait for ever.
            if used and used + tokens > self.tokens_per_day:
                at = max(at, datetime.fromtimestamp((today + 1) * 86_400, UTC))
        return at

    def take(self, at: datetime, tokens: int) -> None:
        """Book a call of `tokens` at `at`."""
        if self.requests_per_minute is not None:
            self.next_slot_at = at + self.interval
        self.settle(at, tokens)

    def settle(self, now: datetime, tokens: int) -> None:
        """Book tokens; a negative number gives back what a call didn't use."""
        if self.tokens_per_minute is not None:
            rate = self.tokens_per_minute * PACE * self.factor
            seconds = min(60 * abs(tokens) / rate, LONGEST_DEBT.total_seconds())
            owed = max(now, believed(self.tokens_at, now, LOOKAHEAD + LONGEST_DEBT))
            self.tokens_at = min(owed + timedelta(seconds=seconds if tokens > 0 else -seconds), now + LONGEST_DEBT)
        if self.tokens_per_day is not None:
            today = day_of(now)
            self.day_tokens = max(0, (self.day_tokens if self.day == today else 0) + tokens)
            self.day = today


def believed(moment: datetime, now: datetime, furthest: timedelta) -> datetime:
    """`moment`, or `now` where it lies further ahead than it can have been set."""
    return moment if moment <= now + furthest else now


def day_of(moment: datetime) -> int:
    return int(moment.timestamp() // 86_400)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    slots: list[datetime]
    """The moments before which the calls must not be sent."""
    next_at: datetime | None
    """When a further one may be granted; None if as many were granted as were wanted."""


def grant(pool: Bucket, job: Bucket, now: datetime, *, wanted: int, tokens: int) -> Grant:
    """Slots for up to `wanted` calls of one job within the next second.

    A job that is slower than its profile gets its slots when they come and not ahead of time: a slot that is taken
    ahead would keep the profile's other jobs from all that lies before it.
    """
    slots: list[datetime] = []
    while len(slots) < wanted:
        free, own = pool.free_at(now, tokens), job.free_at(now, tokens)
        at = max(free, own)
        if at >= now + LOOKAHEAD or own > max(free + max(pool.interval, SLACK), now + SLACK):
            return Grant(slots=slots, next_at=at)
        pool.take(at, tokens)
        job.take(at, tokens)
        slots.append(at)
    return Grant(slots=slots, next_at=None)


@dataclass(slots=True, kw_only=True)
class Health:
    """How a profile has been answering. Changed in place by `observe`."""

    factor: float
    cut_at: datetime
    window_calls: int
    window_limited: int
    window_down: int
    failures_in_row: int
    """Negative while probes succeed."""
    breaker_step: int
    breaker_until: datetime | None
    refused_in_row: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one call says about its profile."""

    sent_at: datetime
    limited: bool = False
    """A 429 of a rate limit."""
    down: bool = False
    """Not reached, no capacity, 5xx, broken or silent."""
    refused: bool = False
    """The key or the model was refused."""


def observe(health: Health, calls: Iterable[Seen], now: datetime) -> None:
    """Fold finished calls into the health of their profile: cut and recover the rate, open and close the breaker."""
    health.cut_at = min(health.cut_at, now)
    if health.breaker_until is not None and health.breaker_until > now + BREAKER_LAST:
        health.breaker_until = now - BREAKER_LAST  # the clock was set back: what was sent since is a probe
    for call in calls:
        health.refused_in_row = health.refused_in_row + 1 if call.refused else 0
        # 429s of calls that left before the last cut are the same congestion, not a new one.
        if call.refused or (call.limited and call.sent_at <= health.cut_at):
            continue
        health.window_calls += 1
        health.window_limited += call.limited
        health.window_down += call.down
        observe_rate(health, call, now)
        observe_breaker(health, call, now)
        if health.window_calls >= WINDOW:
            health.window_calls //= 2
            health.window_limited //= 2
            health.window_down //= 2


def observe_rate(health: Health, call: Seen, now: datetime) -> None:
    answered = health.window_calls - health.window_down
    if not call.down and not call.limited:
        health.factor = min(1.0, health.factor * RECOVERY)
    elif call.limited and answered >= ENOUGH and health.window_limited >= max(ENOUGH_LIMITED, FREQUENT * answered):
        health.factor = max(FLOOR, health.factor * CUT)
        health.cut_at = now
        health.window_calls = health.window_limited = health.window_down = 0


def observe_breaker(health: Health, call: Seen, now: datetime) -> None:
    if health.breaker_until is None:
        health.failures_in_row = health.failures_in_row + 1 if call.down else 0
        often = health.window_calls >= BREAKER_WINDOW and health.window_down > BREAKER_SHARE * health.window_calls
        if health.failures_in_row >= BREAKER_FAILURES or (call.down and often):
            open_breaker(health, now)
    elif call.sent_at < health.breaker_until:
        return  # it left before the breaker opened: the same outage; only probes tell whether it lasts
    elif call.down:
        open_breaker(health, now)
    else:
        health.failures_in_row = min(health.failures_in_row, 0) - 1
        health.breaker_until = call.sent_at  # the next probe may go at once
        if health.failures_in_row <= -BREAKER_GOOD:
            health.failures_in_row = health.breaker_step = health.window_calls = 0
            health.window_limited = health.window_down = 0
            health.breaker_until = None


def open_breaker(health: Health, now: datetime) -> None:
    health.failures_in_row = max(health.failures_in_row, 0)
    health.breaker_until = now + min(BREAKER_FIRST * 2**health.breaker_step, BREAKER_LAST)
    health.breaker_step = min(health.breaker_step + 1, 10)


def breaker_allows(health: Health, now: datetime, *, in_flight: int) -> int | None:
    """How many calls the breaker lets through: None for any number, 0 while it is open, 1 as a probe after that."""
    if health.breaker_until is None:
        return None
    until = believed(health.breaker_until, now, BREAKER_LAST)
    return 1 if now >= until and in_flight == 0 else 0

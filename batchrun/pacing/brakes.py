"""What holds a job back at a moment, in words. No I/O: facts in, words out.

A brake is looked for from the outside in: nobody may work (paused, window), nobody can (database, outage, no worker),
nothing is due (waiting items), a limit says so (calls at once, budget, rate), and where none of these holds, the
provider itself takes its time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum

from batchrun.pacing.limits import BREAKER_FIRST, BREAKER_LAST, Bucket
from batchrun.pacing.pace import Pace
from batchrun.pacing.windows import Window
from batchrun.showing import clean, counted
from batchrun.states import OPEN, TERMINAL, State

STOPPED_WORDS = 200
"""Characters of a foreign message that are repeated."""


class BrakeKind(StrEnum):
    PAUSE = "pause"
    DATABASE = "database"
    BREAKER = "breaker"
    WINDOW = "window"
    NO_WORKER = "no worker"
    WAITING = "waiting"
    JOB_CONCURRENCY = "job concurrency"
    CONCURRENCY = "concurrency"
    CAP = "cap"
    RATE = "rate"
    PROVIDER = "provider"
    """Nothing limits; the calls take as long as the provider takes."""


STANDSTILL = frozenset({BrakeKind.PAUSE, BrakeKind.DATABASE, BrakeKind.BREAKER, BrakeKind.WINDOW, BrakeKind.NO_WORKER})
"""Brakes under which no past rate says anything about the time that is left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Brake:
    kind: BrakeKind
    text: str
    """Such as `the rate limit of 600 requests a minute`; fits behind "held back by"."""

    @property
    def holds(self) -> bool:
        """Whether something of ours, or an outage, keeps the job from going faster."""
        return self.kind is not BrakeKind.PROVIDER


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """The limits of requests and tokens that a call has to pass: the profile's and the job's own."""

    bucket: Bucket
    of_job: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFacts:
    """What the database says about a job at one moment."""

    name: str
    now: datetime
    """By the database's clock, as all times here."""
    counts: Mapping[State, int]
    paused: str | None = None
    pause_message: str | None = None
    due_waiting: int = 0
    """Waiting items whose time has come."""
    next_at: datetime | None = None
    """When the first of the waiting items that aren't due may be tried again, and the last one."""
    last_at: datetime | None = None
    waiting_kinds: Mapping[str, int] = field(default_factory=dict)
    in_flight: int = 0
    profile_in_flight: int = 0
    oldest_call: datetime | None = None
    """When the longest call in flight was claimed."""
    workers: int = 0
    """Live workers that hold items of this job."""
    live_workers: int = 0
    """Live workers on this database."""
    unable: Sequence[str] = ()
    """Why machines that have workers can't do it, each as `host: reason`."""
    batch_chat: bool = False
    """Whether a vendor may take an hour for each of its calls."""
    held_by_dead: int = 0
    """Items whose worker is known to be gone."""
    window: Window | None = None
    """When its calls may start; None for at any time."""
    breaker_until: datetime | None = None
    breaker_step: int = 0
    concurrency: int | None = None
    """The job's own limit of calls at once."""
    profile_concurrency: int = 0
    """The profile's, after cuts."""
    rates: tuple[Rate, ...] = ()
    expected_tokens: int = 0
    cap: Decimal | None = None
    spent: Decimal = Decimal(0)
    reserved: Decimal = Decimal(0)
    currency: str | None = None

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def ended(self) -> int:
        return sum(count for state, count in self.counts.items() if state in TERMINAL)

    @property
    def open(self) -> int:
        return sum(count for state, count in self.counts.items() if state in OPEN)

    @property
    def waiting(self) -> int:
        """Items that may not be tried yet."""
        return self.counts.get(State.WAITING, 0) - self.due_waiting

    @property
    def due(self) -> int:
        return self.counts.get(State.PENDING, 0) + self.due_waiting


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """The calls of this process, which know more than the database. Times are seconds that have passed."""

    silent: int = 0
    """Sent, and waiting for their first token."""
    answering: int = 0
    longest_silence: float = 0.0
    trouble: str = ""
    """Why nothing is stored at the moment; empty when all is well."""
    at_any_time: bool = False
    """Whether this process passes over the windows of its jobs."""


def brake_of(job: JobFacts, *, claimed: str | None = None, calls: Calls | None = None) -> Brake | None:
    """What holds `job` back; None where nothing is left to do.

    `claimed` is what the newest claim of this process met: it knows better than the rows which limit came first.
    """
    if not job.open:
        return None
    return stopped_by(job, calls) or nothing_due(job) or limited_by(job, claimed) or at_full_speed(job, calls)


def stopped_by(job: JobFacts, calls: Calls | None) -> Brake | None:
    if calls is not None and calls.trouble:
        return Brake(kind=BrakeKind.DATABASE, text=f"the database: {clean(calls.trouble, STOPPED_WORDS)}")
    if job.paused is not None:
        return Brake(
            kind=BrakeKind.PAUSE, text=f"a pause ({job.paused}): {clean(job.pause_message or '', STOPPED_WORDS)}"
        )
    if job.window is not None and not job.window.is_open(job.now) and not (calls is not None and calls.at_any_time):
        return Brake(kind=BrakeKind.WINDOW, text=window_text(job.window, job))
    if job.breaker_until is not None:
        return Brake(kind=BrakeKind.BREAKER, text=outage_text(job.breaker_until, job))
    if calls is None and job.unable and not job.in_flight:
        return Brake(kind=BrakeKind.NO_WORKER, text=f"no worker that can do it: {clean('; '.join(job.unable), 400)}")
    if calls is None and not job.live_workers:
        held = f"; {job.held_by_dead:,} are held by a process that died" if job.held_by_dead else ""
        return Brake(kind=BrakeKind.NO_WORKER, text=f"nobody working on it{held}")
    return None


def window_text(window: Window, job: JobFacts) -> str:
    opens = window.opens_at(job.now)
    flying = f"; {job.in_flight:,} in flight finish" if job.in_flight else ""
    wait = span_of((opens - job.now).total_seconds())
    return f"its window of {window}, which opens at {clock_text(opens)}, in {wait}{flying}"


def outage_text(until: datetime, job: JobFacts) -> str:
    if not job.now < until <= job.now + BREAKER_LAST:
        return "an outage of the provider, which is being probed"
    lasted = sum((min(BREAKER_FIRST * 2**step, BREAKER_LAST) for step in range(job.breaker_step)), timedelta(0))
    return f"an outage of the provider since about {clock_text(until - lasted)}, tried again at {clock_text(until)}"


def nothing_due(job: JobFacts) -> Brake | None:
    if job.due:
        return None
    if job.waiting and job.next_at is not None and not job.in_flight:
        return Brake(kind=BrakeKind.WAITING, text=waiting_text(job))
    if job.in_flight:
        later = f", and then {waiting_text(job)}" if job.waiting and job.next_at is not None else ""
        blocked = job.counts.get(State.BLOCKED, 0)
        what = f"calls that {blocked:,} others wait for" if blocked else "the last calls"
        return Brake(kind=BrakeKind.PROVIDER, text=f"nothing: {what} are in flight{later}")
    return Brake(kind=BrakeKind.WAITING, text=f"{counted(job.open, 'item that waits', 'items that wait')} for others")


def waiting_text(job: JobFacts) -> str:
    what = counted(job.waiting, "item that waits", "items that wait")
    first, last = job.next_at, job.last_at
    if first is None or last is None:
        return f"{what} for another try"
    until = f"until {clock_text(first)}" if first == last else f"until {clock_text(first)} to {clock_text(last)}"
    return f"{what} for another try {until}"


def limited_by(job: JobFacts, claimed: str | None) -> Brake | None:
    kind = claimed if claimed is not None else limit_met(job)
    if kind == "job concurrency":
        return Brake(
            kind=BrakeKind.JOB_CONCURRENCY, text=f"the job's limit of {counted(job.concurrency or 0, 'call')} at once"
        )
    if kind == "concurrency":
        return Brake(
            kind=BrakeKind.CONCURRENCY,
            text=f"the provider's limit of {counted(job.profile_concurrency, 'call')} at once",
        )
    if kind == "cap":
        return Brake(kind=BrakeKind.CAP, text=cap_text(job))
    if kind == "rate":
        return Brake(kind=BrakeKind.RATE, text=rate_text(job))
    return None


def limit_met(job: JobFacts) -> str | None:
    """The limit that the next claim would meet, as far as the rows tell."""
    if job.concurrency is not None and job.in_flight >= job.concurrency:
        return "job concurrency"
    if job.profile_in_flight >= job.profile_concurrency:
        return "concurrency"
    if job.cap is not None and job.in_flight and job.cap - job.spent - job.reserved < job.reserved / job.in_flight:
        return "cap"
    if any(rate.bucket.free_at(job.now, job.expected_tokens) > job.now for rate in job.rates):
        return "rate"
    return None


def cap_text(job: JobFacts) -> str:
    spent, cap = f"{job.spent.normalize():f}", "?" if job.cap is None else f"{job.cap.normalize():f}"
    return (
        f"the budget of {cap} {job.currency}: {spent} spent, {job.reserved.normalize():f} reserved for calls in flight"
    )


def rate_text(job: JobFacts) -> str:
    """Names the limit that lets the next call through last."""
    if not job.rates:
        return "the rate limit"
    slowest = max(job.rates, key=lambda rate: rate.bucket.free_at(job.now, job.expected_tokens))
    bucket, whose = slowest.bucket, "the job's" if slowest.of_job else "the provider's"
    free = bucket.free_at(job.now, job.expected_tokens)
    today = bucket.day_tokens if bucket.day == job.now.timestamp() // 86_400 else 0
    if bucket.tokens_per_day is not None and today and today + job.expected_tokens > bucket.tokens_per_day:
        return f"{whose} limit of {bucket.tokens_per_day:,} tokens a day, until {clock_text(free)}"
    by_tokens = bucket.tokens_at > bucket.next_slot_at and bucket.tokens_per_minute is not None
    number, unit = (bucket.tokens_per_minute, "tokens") if by_tokens else (bucket.requests_per_minute, "requests")
    cut = f", cut to {bucket.factor:.0%} after refusals" if bucket.factor < 0.995 else ""
    text = f"{whose} rate limit" if number is None else f"{whose} limit of {number:,} {unit} a minute"
    return text + cut


def at_full_speed(job: JobFacts, calls: Calls | None) -> Brake:
    if job.in_flight or calls is not None:
        return Brake(kind=BrakeKind.PROVIDER, text="nothing but the provider's own speed")
    return Brake(kind=BrakeKind.NO_WORKER, text="workers that are busy with other jobs")


def seconds_left(jobs: Iterable[JobFacts], brakes: Iterable[Brake], pace: Pace, items: int) -> float | None:
    """About how long `items` that are left will take; None where that can't be told: at the beginning, under a pause or
    an outage, and after one. Nothing is over before the last of the waiting items may be tried."""
    kinds = {brake.kind for brake in brakes}
    waits = [(job.last_at - job.now).total_seconds() for job in jobs if job.last_at is not None]
    if kinds & STANDSTILL:
        return None
    if kinds == {BrakeKind.WAITING}:
        return max(waits, default=None)
    left = pace.left(items)
    return None if left is None else max([left, *waits])


def clock_text(moment: datetime) -> str:
    """The time of day in UTC, to the second."""
    return f"{moment:%H:%M:%S}Z"


def span_of(seconds: float) -> str:
    """`42 s`, `3 min`, `1 h 20 min`, `3 d 4 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h {minutes % 60} min" if hours < 72 else f"{hours // 24} d {hours % 24} h"

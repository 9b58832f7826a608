"""What happens to an item after a failed attempt. The only place that decides it.

Two counters: `paid_tries` bounds attempts that may have been billed; free failures are bounded by time alone, so that
a night of 429s or an outage costs nothing but the night.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from batchrun.errors import ErrorKind, ProviderError
from batchrun.states import State

FREE = frozenset(
    {
        ErrorKind.RATE_LIMITED,
        ErrorKind.UNAVAILABLE,
        ErrorKind.NOT_SENT,
        ErrorKind.LOCAL,
        ErrorKind.MEDIA_UNAVAILABLE,
    }
)
"""Tried again for as long as `max_elapsed` allows. A test holds that every kind is in exactly one of these classes."""
MAYBE_BILLED = frozenset({ErrorKind.SERVER, ErrorKind.NETWORK, ErrorKind.TIMEOUT, ErrorKind.INCOMPLETE, ErrorKind.LOST})
ITEM_IS_BAD = frozenset(
    {ErrorKind.INVALID, ErrorKind.MODERATED, ErrorKind.MEDIA, ErrorKind.TEMPLATE, ErrorKind.PARTS, ErrorKind.INTERNAL}
)
ANSWER_IS_BAD = frozenset({ErrorKind.INVALID_ANSWER})
"""Tried again, as one that may have been billed, only by jobs that ask for it."""
PROFILE_IS_REFUSED = frozenset({ErrorKind.ACCOUNT, ErrorKind.NOT_FOUND})
MONEY_IS_GONE = frozenset({ErrorKind.ARREARS})

DOWN = frozenset({ErrorKind.UNAVAILABLE, ErrorKind.NOT_SENT, ErrorKind.SERVER, ErrorKind.NETWORK, ErrorKind.TIMEOUT})
"""Failures that say the service itself is in trouble; the circuit breaker counts them."""

BASE = timedelta(seconds=1)
CAP = timedelta(minutes=5)
HINT_CAP = timedelta(minutes=15)
HINT_JITTER = 0.1
HINTS = 3
"""Free failures after which the server's hint alone doesn't decide the wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A job's `retry`."""

    attempts: int
    """Attempts that may have been billed, the first one included."""
    max_elapsed: timedelta
    """From the first free failure of an item, over all that follow."""
    asks_again: bool = False
    """Whether an answer that doesn't fit is asked for again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tries:
    free: int
    paid: int
    free_since: datetime | None
    """When the first of its free failures was; None before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    state: State
    """`waiting`, `pending` or `failed`; `truncated` where an answer that was cut can't be continued any more."""
    next_at: datetime
    tries: Tries
    pauses: str | None = None
    """Why the job's whole profile must stop: `arrears`. None for all else; refusals are counted by the profile."""


def decide(error: ProviderError, tries: Tries, policy: Policy, now: datetime, random: Callable[[], float]) -> Decision:
    """What to do after `error`. `random` gives numbers in [0, 1).

    The server's word on whether to try again decides about the item; what concerns the key or the money concerns all
    items, and isn't its to say. A request that is wrong and yet to be tried again counts as one that may be billed, as
    nothing else would bound it.
    """
    kind = error.kind
    if kind in ITEM_IS_BAD and not error.should_retry:
        return Decision(state=State.FAILED, next_at=now, tries=tries)
    if kind in MONEY_IS_GONE:
        return Decision(state=State.PENDING, next_at=now, tries=tries, pauses="arrears")
    if kind in MAYBE_BILLED or kind in ANSWER_IS_BAD or kind in ITEM_IS_BAD:
        tries = replace(tries, paid=tries.paid + 1)
        ended = tries.paid >= policy.attempts or (kind in ANSWER_IS_BAD and not policy.asks_again)
        wait = backoff(tries.paid - 1, random)
    else:
        since = tries.free_since or now
        tries = replace(tries, free=tries.free + 1, free_since=since)
        ended = now - since >= policy.max_elapsed
        wait = backoff(tries.free - 1, random)
    if ended or (error.should_retry is False and kind not in PROFILE_IS_REFUSED):
        return Decision(state=State.FAILED, next_at=now, tries=tries)
    # A hint of no wait at all is none: whoever obeyed it would ask again as fast as it can be refused.
    if error.retry_after is not None and error.retry_after > 0:
        hint = hinted(error.retry_after, random)
        # A hint that didn't help is a guess like ours: after a few, the longer wait counts.
        wait = hint if tries.free < HINTS else max(hint, wait)
    return Decision(state=State.WAITING, next_at=now + wait, tries=tries)


def after_cut(tries: Tries, policy: Policy, now: datetime) -> Decision:
    """What to do after an answer that `max_tokens` cut and that is to be continued: at once, as nothing went wrong, and
    while another try is left."""
    tries = replace(tries, paid=tries.paid + 1)
    ended = tries.paid >= policy.attempts
    return Decision(state=State.TRUNCATED if ended else State.WAITING, next_at=now, tries=tries)


def backoff(failures_before: int, random: Callable[[], float]) -> timedelta:
    """Exponential with full jitter: anything from 0 to 1 s, 2 s, 4 s … 5 min."""
    return min(BASE * (1 << min(failures_before, 20)), CAP) * random()


def hinted(seconds: float, random: Callable[[], float]) -> timedelta:
    """The server's wish, of which 15 minutes count at most; never less, a little more so that not all come at once."""
    wish = min(seconds, HINT_CAP.total_seconds())
    return timedelta(seconds=wish * (1 + HINT_JITTER * random()))

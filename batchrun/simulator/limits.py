"""Rate limits for each region and model, as contract 8.2 describes them.

Requests and tokens are counted over the last 60 seconds. Beside them holds a limit for the last second: RPM/60
rounded up, with a slack of a quarter. Refused requests do not count.
"""

import math
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from batchrun.simulator.refusals import too_many_requests, too_many_tokens

MINUTE: Final = 60.0
SECOND: Final = 1.0
SLACK: Final = 1.25


@dataclass(frozen=True, slots=True)
class Rate:
    requests_per_minute: int
    tokens_per_minute: int

    @property
    def requests_per_second(self) -> int:
        return math.ceil(math.ceil(self.requests_per_minute / 60) * SLACK)


COMMON: Final = Rate(1_200, 1_000_000)
KIMI: Final = Rate(500, 1_000_000)
RATES: Final = {
    ("beijing", "qwen3-vl-plus"): Rate(3_000, 5_000_000),
    ("beijing", "qwen3-vl-flash"): Rate(3_000, 5_000_000),
    ("virginia", "qwen3-vl-plus"): Rate(60, 1_000_000),
    ("virginia", "qwen3-vl-flash"): COMMON,
    ("virginia", "qwen3-vl-flash-us"): COMMON,
    ("singapore", "qwen3-vl-plus"): COMMON,
    ("singapore", "qwen3-vl-flash"): COMMON,
    ("beijing", "qwen-vl-max"): COMMON,
    ("beijing", "qwen-vl-plus"): COMMON,
    ("singapore", "qwen-vl-max"): COMMON,
    ("singapore", "qwen-vl-plus"): COMMON,
    ("beijing", "kimi-k2.5"): KIMI,
    ("beijing", "kimi-k2-thinking"): KIMI,
    ("beijing", "Moonshot-Kimi-K2-Instruct"): KIMI,
}
SNAPSHOT: Final = Rate(60, 100_000)
UNLISTED: Final = Rate(600, 1_000_000)
"""For models whose limits the contract does not name."""


def rate_of(region: str, model: str) -> Rate:
    if (region, model) in RATES:
        return RATES[region, model]
    return SNAPSHOT if re.search(r"-\d{4}-\d{2}-\d{2}$", model) else UNLISTED


class Window:
    """A sum over the last seconds."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.entries: deque[tuple[float, int]] = deque()
        self.sum = 0

    def at(self, now: float) -> int:
        while self.entries and self.entries[0][0] <= now - self.seconds:
            self.sum -= self.entries.popleft()[1]
        return self.sum

    def add(self, now: float, amount: int) -> int:
        """The sum with the amount in it."""
        self.entries.append((now, amount))
        self.sum += amount
        return self.at(now)


class Bucket:
    """What one region and model has used."""

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self.second = Window(SECOND)
        self.minute = Window(MINUTE)
        self.tokens = Window(MINUTE)

    def admit(self, now: float, tokens: int) -> None:
        if self.second.at(now) >= self.rate.requests_per_second:
            raise too_many_requests()
        if self.minute.at(now) >= self.rate.requests_per_minute:
            raise too_many_requests()
        if self.tokens.at(now) + tokens > self.rate.tokens_per_minute:
            raise too_many_tokens()
        self.second.add(now, 1)
        self.minute.add(now, 1)
        self.tokens.add(now, tokens)


class Limits:
    """`rpm` and `tpm` replace the limits of every model; `clock` gives seconds that only grow."""

    def __init__(self, *, enforced: bool, rpm: int | None, tpm: int | None, clock: Callable[[], float]) -> None:
        self.enforced = enforced
        self.rpm = rpm
        self.tpm = tpm
        self.clock = clock
        self.buckets: dict[tuple[str, str], Bucket] = {}

    def admit(self, region: str, model: str, tokens: int) -> None:
        """Count a request with its input tokens; raise the 429 refusal when that is too much."""
        if self.enforced:
            self.bucket(region, model).admit(self.clock(), tokens)

    def add_output(self, region: str, model: str, tokens: int) -> None:
        """Count tokens that were generated for an admitted request."""
        if self.enforced:
            self.bucket(region, model).tokens.add(self.clock(), tokens)

    def bucket(self, region: str, model: str) -> Bucket:
        key = (region, model)
        if key not in self.buckets:
            rate = rate_of(region, model)
            self.buckets[key] = Bucket(Rate(self.rpm or rate.requests_per_minute, self.tpm or rate.tokens_per_minute))
        return self.buckets[key]

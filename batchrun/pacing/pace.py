"""How fast it goes and how long it will take, from looks at two counters. No I/O: times come in as seconds."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

SPAN = 30.0
"""Seconds over which a rate is shown."""
MEMORY = 180.0
"""Seconds over which the time left is told: a rate that jumps would make it jump."""
HOLE = 30.0
"""So long between two looks, where no longer pause was meant, the process stood still; what was before says nothing."""
LEAST_SECONDS = 5.0
LEAST_ENDED = 3
"""Before so much was seen, nothing is said about the time that is left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    at: float
    ended: int
    tokens: int


@dataclass(slots=True, kw_only=True)
class Pace:
    """A window over the last looks; `look` is called now and then, the rest reads."""

    hole: float = HOLE
    samples: deque[Sample] = field(default_factory=deque)

    def look(self, at: float, ended: int, tokens: int = 0) -> None:
        """What had been done at the moment `at`. Counters that fell, as after a retry, begin a new window."""
        if self.samples:
            last = self.samples[-1]
            if at - last.at > self.hole or ended < last.ended or tokens < last.tokens:
                self.samples.clear()
        self.samples.append(Sample(at=at, ended=ended, tokens=tokens))
        while len(self.samples) > 1 and self.samples[1].at <= at - MEMORY:
            self.samples.popleft()

    def forget(self) -> None:
        """What was seen until now says nothing about what comes, as after a pause."""
        while len(self.samples) > 1:
            self.samples.popleft()

    def rates(self) -> tuple[float, float]:
        """Items and tokens per second over the last `SPAN` seconds; zeros where nothing is known."""
        return self.since(SPAN)

    def since(self, span: float) -> tuple[float, float]:
        if len(self.samples) < 2:
            return 0.0, 0.0
        last = self.samples[-1]
        first = next((sample for sample in self.samples if last.at > sample.at >= last.at - span), self.samples[-2])
        seconds = last.at - first.at
        if seconds <= 0:
            return 0.0, 0.0
        return (last.ended - first.ended) / seconds, (last.tokens - first.tokens) / seconds

    def left(self, items: int) -> float | None:
        """Seconds that `items` will take at the rate of the last minutes; None where it can't be told."""
        if len(self.samples) < 2 or items < 0:
            return None
        first, last = self.samples[0], self.samples[-1]
        recent, _ = self.since(SPAN)
        if last.at - first.at < LEAST_SECONDS or last.ended - first.ended < LEAST_ENDED:
            return None
        slow = (last.ended - first.ended) / (last.at - first.at)
        # A rate that has dropped to nothing is a standstill, and one long ago doesn't tell when it ends.
        return None if not recent and last.at - first.at > 2 * SPAN else items / slow

"""What is measured: answers of a certain kind, so many at once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    title: str
    chunks: int
    """Of a streamed answer; 0 for a plain one."""
    seconds: float
    """Over which an answer is spread."""
    streams: int
    """Calls at once."""
    calls: int
    sdk_calls: int
    """Of the `openai` SDK, which takes so much longer that fewer calls tell as much."""

    @property
    def stream(self) -> bool:
        return self.chunks > 0

    def number(self, contender: str, *, quick: bool) -> int:
        """How many calls a contender makes; a quick look makes a third of them, but fills its streams once."""
        calls = self.sdk_calls if contender == "openai" else self.calls
        return max(calls // 3, self.streams) if quick else calls


SCENARIOS = {
    "chunks": Scenario(
        title="answers of 100 chunks, as fast as they come, 64 streams",
        chunks=100,
        seconds=0,
        streams=64,
        calls=3000,
        sdk_calls=300,
    ),
    "streams": Scenario(
        title="answers of 100 chunks over 2 s, 1,000 streams",
        chunks=100,
        seconds=2,
        streams=1000,
        calls=6000,
        sdk_calls=1000,
    ),
    "plain": Scenario(
        title="plain answers after 200 ms, 100 at once",
        chunks=0,
        seconds=0.2,
        streams=100,
        calls=2000,
        sdk_calls=600,
    ),
}

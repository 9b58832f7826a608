"""Counts of the chat requests that the simulator has seen."""

from collections import Counter, deque
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class Stats:
    connections: int
    """Connections accepted, those of `/book` and `/stats` included."""
    requests: int
    by_status: dict[str, int] = field(default_factory=dict)
    """`none` counts requests that were broken before a status line."""
    max_in_one_second: int
    open: int
    """Requests that are being answered now."""
    max_open: int

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


class Counts:
    def __init__(self) -> None:
        self.connections = 0
        self.requests = 0
        self.statuses: Counter[str] = Counter()
        self.recent: deque[float] = deque()
        self.busiest = 0
        self.open = 0
        self.most_open = 0

    def begin(self, now: float) -> None:
        self.requests += 1
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        self.recent.append(now)
        while self.recent[0] <= now - 1.0:
            self.recent.popleft()
        self.busiest = max(self.busiest, len(self.recent))

    def end(self, status: int | None) -> None:
        self.open -= 1
        self.statuses["none" if status is None else str(status)] += 1

    def stats(self) -> Stats:
        return Stats(
            connections=self.connections,
            requests=self.requests,
            by_status=dict(self.statuses),
            max_in_one_second=self.busiest,
            open=self.open,
            max_open=self.most_open,
        )

"""What a running job shows on standard error: a live block on a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from batchrun.drain import Tally
from batchrun.output.visible import first_line
from batchrun.running import JobEnd

SPAN = 15.0
"""Seconds over which rates are taken."""
LINE_EVERY = 10.0
QUIET_ROUNDS = 30
"""A line that says what the line before said is written once in so many rounds."""
PER_SECOND = 4

BRAKES = {
    "rate": "the rate limit",
    "concurrency": "the limit of calls at once",
    "job concurrency": "the job's limit of calls at once",
    "cap": "the budget",
    "breaker": "the provider, which is down",
}


@dataclass(slots=True, kw_only=True)
class Progress:
    """What is known before the run, and a tally that the drain keeps up to date."""

    tally: Tally
    total: int
    ended_before: int
    cap: Mapping[str, Decimal]
    """Caps of the jobs by currency."""
    spent_before: Mapping[str, Decimal]
    """What the calls of earlier runs cost at most, by currency."""
    samples: deque[tuple[float, int, int]] = field(default_factory=deque)
    notes: list[str] = field(default_factory=list)

    @property
    def ended(self) -> int:
        return self.ended_before + sum(self.tally.states.values())

    def rates(self) -> tuple[float, float]:
        """Items and tokens per second over the last seconds."""
        now = time.monotonic()
        tokens = self.tally.input_tokens + self.tally.output_tokens
        self.samples.append((now, self.ended, tokens))
        while len(self.samples) > 1 and now - self.samples[0][0] > SPAN:
            self.samples.popleft()
        began, items, counted = self.samples[0]
        span = max(now - began, 1e-3)
        return (self.ended - items) / span, (tokens - counted) / span

    def counts(self) -> str:
        items, tokens = self.rates()
        parts = [f"{self.ended:,}/{self.total:,} items"]
        if items > 0:
            parts += [f"{items:.1f}/s", f"{tokens:,.0f} tokens/s", f"{span_of((self.total - self.ended) / items)} left"]
        return " · ".join(parts)

    def spent(self, currency: str) -> str:
        """This run's cost; against the budget, what was spent before counts too."""
        low, high = self.tally.cost[currency]
        if currency not in self.cap:
            return f"{amount_of((low, high))} {currency}"
        before = self.spent_before.get(currency, Decimal(0))
        cap = self.cap[currency]
        return f"{amount_of((before + low, before + high))} of {amount_of((cap, cap))} {currency}"

    def details(self) -> str:
        parts = [f"{self.tally.in_flight} in flight"]
        parts += [self.spent(currency) for currency in sorted(self.tally.cost)]
        if self.tally.unpriced:
            parts.append(f"{self.tally.unpriced} calls without a known price")
        if self.tally.errors:
            parts.append("errors: " + ", ".join(f"{kind} {count}" for kind, count in self.tally.errors.most_common(4)))
        brakes = sorted({BRAKES.get(brake, brake) for brake in self.tally.brakes.values()})
        if brakes:
            parts.append("held back by " + " and ".join(brakes))
        return " · ".join(parts)

    def __rich__(self) -> Group:
        table = Table.grid(padding=(0, 1), expand=True)
        table.add_column(width=24)
        table.add_column(ratio=1)
        table.add_row(ProgressBar(total=max(self.total, 1), completed=self.ended, width=24), Text(self.counts()))
        lines = [Text(self.details(), style="dim")]
        if self.tally.last_error:
            lines.append(Text(f"last error: {first_line(self.tally.last_error, 200)}", style="dim"))
        return Group(table, *lines, *(Text(note, style="yellow") for note in self.notes))


def progress_of(ends: Sequence[JobEnd]) -> Progress:
    """What is known before the calls begin."""
    caps: dict[str, Decimal] = {}
    spent: dict[str, Decimal] = {}
    for job in ends:
        if job.currency is not None:
            spent[job.currency] = spent.get(job.currency, Decimal(0)) + job.spent
            caps[job.currency] = caps.get(job.currency, Decimal(0)) + (job.cap or Decimal(0))
    for job in ends:
        if job.cap is None and job.currency in caps:
            del caps[job.currency]  # what has no cap can't be shown against one
    total, left = sum(job.total for job in ends), sum(job.left for job in ends)
    return Progress(tally=Tally(), total=total, ended_before=total - left, cap=caps, spent_before=spent)


def amount_of(cost: tuple[Decimal, Decimal]) -> str:
    """Money to its last digit, without zeros at the end; both ends where they differ."""
    low, high = (f"{bound.normalize():f}" for bound in cost)
    return low if low == high else f"{low}–{high}"


def span_of(seconds: float) -> str:
    """`42 s`, `3 min`, `1 h 20 min`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


@contextmanager
def showing(progress: Progress, *, quiet: bool) -> Iterator[None]:
    """Show `progress` on standard error while the block runs."""
    console = Console(stderr=True)
    if quiet:
        yield
    elif console.is_terminal:
        with Live(progress, console=console, refresh_per_second=PER_SECOND, transient=True):
            yield
    else:
        with printing_lines(progress):
            yield


@contextmanager
def printing_lines(progress: Progress) -> Iterator[None]:
    """For logs and pipes: one plain line now and then."""
    ended = threading.Event()

    def write() -> None:
        progress.rates()
        before = error = ""
        quiet_rounds = 0
        while not ended.wait(LINE_EVERY):
            line = f"{progress.counts()} · {progress.details()}"
            quiet_rounds = quiet_rounds + 1 if line == before else 0
            if quiet_rounds % QUIET_ROUNDS == 0:
                sys.stderr.write(f"{line}\n")
            if progress.tally.last_error != error:
                error = progress.tally.last_error
                sys.stderr.write(f"last error: {first_line(error, 400)}\n")
            sys.stderr.flush()
            before = line

    thread = threading.Thread(target=write, name="batchrun-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def reading_rows(*, quiet: bool) -> Iterator[Callable[[int], None]]:
    """Hears how many rows were read so far, and shows it on a terminal: a million rows take most of a minute."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda _: None
        return
    with console.status("reading rows") as status:
        yield lambda rows: status.update(f"reading rows: {rows:,}")

"""What a running job shows on standard error: a live block on a terminal, a line every ten seconds elsewhere.

The calls of this process are counted as they end; what holds the jobs back, and what other processes do for them, is
read from the database every other second, on a thread of its own: a database that doesn't answer must not silence
the display that says so.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from batchrun.database import reading
from batchrun.errors import DatabaseError
from batchrun.output.visible import amount_of, first_line, visible
from batchrun.pacing.alarms import Sign, Standstill, alarm_of, is_patient, standstill_text
from batchrun.pacing.brakes import STANDSTILL, Brake, Calls, JobFacts, brake_of, seconds_left, span_of
from batchrun.pacing.pace import Pace
from batchrun.reports.facts import facts
from batchrun.showing import clean
from batchrun.store.workers import dead_here

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from batchrun.drain import Tally
    from batchrun.running import JobEnd

TICK = 1.0
"""Seconds between two looks at the counters."""
LINE_EVERY = 10
"""Ticks between two lines of a log."""
QUIET_ROUNDS = 30
"""A line that says what the line before said is written once in so many rounds."""
PER_SECOND = 4
BAR = 24
NARROW = 72
"""On a narrower terminal the bar has a line of its own."""
READ_EVERY = 2.0
READ_SHARE = 50
"""Reading the database takes no more than one part in so many of the time."""
STALE = 30.0
"""Seconds after which the database is said not to answer."""
JOIN = 5.0
"""Seconds that a look which hangs may hold up the end."""


@dataclass(slots=True, kw_only=True)
class Progress:
    """What is known before the run, a tally that the drain keeps up to date, and what was read of the jobs since."""

    tally: Tally
    job_ids: Sequence[int]
    total_before: int
    ended_before: int
    whole: bool
    """Whether all items of the jobs are meant, not a sample."""
    cap: Mapping[str, Decimal]
    """Caps of the jobs by currency."""
    spent_before: Mapping[str, Decimal]
    """What the calls of earlier runs cost at most, by currency."""
    jobs: Mapping[int, JobFacts] = field(default_factory=dict)
    """As they were read last; empty before the first look."""
    read_at: float = field(default_factory=time.monotonic)
    unread: str = ""
    """Why the last look failed."""
    pace: Pace = field(default_factory=Pace)
    at_any_time: bool = False
    """Whether the run passes over the windows of its jobs."""
    alarm: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return sum(job.total for job in self.jobs.values()) if self.jobs and self.whole else self.total_before

    @property
    def ended(self) -> int:
        """Here and, as far as was read, elsewhere."""
        here = self.ended_before + sum(self.tally.states.values())
        return max(here, sum(job.ended for job in self.jobs.values())) if self.whole else here

    @property
    def is_expected(self) -> bool:
        """Whether something is left, and should end before long."""
        patient = bool(self.jobs) and all(is_patient(job) for job in self.jobs.values() if job.open)
        return self.ended < self.total and not patient

    @property
    def calls(self) -> Calls:
        stale = time.monotonic() - self.read_at > STALE
        silent = "it hasn't answered for " + span_of(time.monotonic() - self.read_at) if stale else ""
        return Calls(
            silent=self.tally.silent,
            answering=self.tally.answering,
            longest_silence=self.tally.longest_silence,
            trouble=self.tally.trouble or self.unread or silent,
            at_any_time=self.at_any_time,
        )

    def brakes(self) -> dict[int, Brake]:
        """What holds each job that isn't finished."""
        calls, claimed = self.calls, self.tally.brakes
        found = {key: brake_of(job, claimed=claimed.get(key), calls=calls) for key, job in self.jobs.items()}
        return {key: brake for key, brake in found.items() if brake is not None}

    def tick(self, at: float) -> None:
        """Count what has been done at `at`, in seconds of a monotonic clock."""
        if any(brake.kind in STANDSTILL for brake in self.brakes().values()):
            self.pace.forget()
        self.pace.look(at, self.ended, self.tally.input_tokens + self.tally.output_tokens)

    def time_left(self) -> float | None:
        """Seconds, about; None where it can't be told."""
        return seconds_left(self.jobs.values(), self.brakes().values(), self.pace, self.total - self.ended)

    def counts(self) -> str:
        items, tokens = self.pace.rates()
        parts = [f"{self.ended:,}/{self.total:,} items"]
        if items > 0:
            parts += [f"{items:.1f}/s", f"{tokens:,.0f} tokens/s"]
        left = self.time_left()
        if left is not None and self.ended < self.total:
            parts.append(f"about {span_of(left)} left")
        return " · ".join(parts)

    def spent(self, currency: str) -> str:
        """This run's cost; against the budget, what was spent before and what others spend meanwhile counts too."""
        low, high = self.tally.cost.get(currency, (Decimal(0), Decimal(0)))
        if currency not in self.cap:
            return f"{amount_of((low, high))} {currency}"
        before, cap = self.spent_before.get(currency, Decimal(0)), self.cap[currency]
        read = sum((job.spent for job in self.jobs.values() if job.currency == currency), Decimal(0))
        return f"{amount_of((before + low, max(before + high, read)))} of {amount_of((cap, cap))} {currency}"

    def details(self) -> str:
        parts = [f"{self.tally.in_flight} in flight"]
        parts += [self.spent(currency) for currency in sorted({*self.tally.cost, *self.cap})]
        if self.tally.unpriced:
            parts.append(f"{self.tally.unpriced} calls without a known price")
        if self.tally.errors:
            parts.append("errors: " + ", ".join(f"{kind} {count}" for kind, count in self.tally.errors.most_common(4)))
        if self.ended < self.total and (held := self.held_back()):
            parts.append(f"held back by {held}")
        return " · ".join(parts)

    def held_back(self) -> str:
        """The brakes of all jobs, each named once; with the names of its jobs where there are several brakes."""
        by_text: dict[str, list[str]] = {}
        for key, brake in self.brakes().items():
            by_text.setdefault(brake.text, []).append(clean(self.jobs[key].name, 40))
        if len(by_text) < 2:
            return next(iter(by_text), "")
        return ", ".join(f"{text} ({', '.join(names)})" for text, names in by_text.items())

    def standstill(self, quiet: float) -> str:
        """Why nothing ends, as far as it can be told."""
        calls, claimed = self.calls, self.tally.brakes
        found = {job.name: alarm_of(job, claimed=claimed.get(key), calls=calls) for key, job in self.jobs.items()}
        return standstill_text({name: alarm for name, alarm in found.items() if alarm is not None}, quiet)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        bar = ProgressBar(total=max(self.total, 1), completed=self.ended, width=min(BAR, options.max_width))
        if options.max_width < NARROW:
            yield Padding(bar, 0)  # alone it would end without a line break
            yield Text(self.counts())
        else:
            table = Table.grid(padding=(0, 1), expand=True)
            table.add_column(width=BAR)
            table.add_column(ratio=1)
            table.add_row(bar, Text(self.counts()))
            yield table
        yield Text(visible(self.details()), style="dim")
        if self.tally.last_error:
            yield Text(f"last error: {first_line(self.tally.last_error, 200)}", style="dim")
        for note in (self.alarm, *self.notes):
            if note:
                yield Text(visible(note), style="yellow")


def progress_of(ends: Sequence[JobEnd], *, at_any_time: bool = False) -> Progress:
    """What is known before the calls begin."""
    from batchrun.drain import Tally  # all that calls need, which who only loads can do without

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
    return Progress(
        tally=Tally(),
        job_ids=[job.job_id for job in ends],
        total_before=total,
        ended_before=total - left,
        whole=not any(job.outside_sample for job in ends),
        cap=caps,
        spent_before=spent,
        at_any_time=at_any_time,
    )


@contextmanager
def showing(progress: Progress, engine: Engine, *, quiet: bool, alarm: timedelta | None) -> Iterator[None]:
    """Show `progress` on standard error while the block runs. `alarm` is for how long nothing may end before a line
    says why, also where the rest is `quiet`; None for never."""
    console = Console(stderr=True)
    standstill = Standstill(after=0.0 if alarm is None else alarm.total_seconds(), since=time.monotonic())
    if quiet and alarm is None:
        yield
        return
    with reading_jobs(progress, engine):
        if quiet or not console.is_terminal:
            with ticking(Log(progress=progress, quiet=quiet), progress, standstill):
                yield
            return
        live = Live(progress, console=console, refresh_per_second=PER_SECOND, transient=True)
        with live, ticking(Block(console=live.console), progress, standstill):
            yield


@dataclass(slots=True, kw_only=True)
class Block:
    """A terminal: what is said scrolls by above the live block, which draws itself."""

    console: Console

    def say(self, line: str) -> None:
        self.console.print(Text(visible(line), style="yellow"))

    def tick(self) -> None:
        return


@dataclass(slots=True, kw_only=True)
class Log:
    """A file or a pipe: one plain line now and then."""

    progress: Progress
    quiet: bool
    ticks: int = 0
    before: str = ""
    error: str = ""
    quiet_rounds: int = 0

    def say(self, line: str) -> None:
        sys.stderr.write(f"{visible(line)}\n")
        sys.stderr.flush()

    def tick(self) -> None:
        self.ticks += 1
        if self.quiet or self.ticks % LINE_EVERY:
            return
        line = f"{self.progress.counts()} · {self.progress.details()}"
        self.quiet_rounds = self.quiet_rounds + 1 if line == self.before else 0
        self.before = line
        if self.quiet_rounds % QUIET_ROUNDS == 0:
            self.say(line)
        if self.progress.tally.last_error != self.error:
            self.error = self.progress.tally.last_error
            self.say(f"last error: {first_line(self.error, 400)}")


@contextmanager
def ticking(screen: Block | Log, progress: Progress, standstill: Standstill) -> Iterator[None]:
    """Every second: count, and say when nothing ends any more."""

    def tick() -> None:
        at = time.monotonic()
        progress.tick(at)
        sign = standstill.look(at, progress.ended, is_open=progress.is_expected)
        if sign is Sign.ALARM:
            progress.alarm = f"ALARM: {progress.standstill(standstill.quiet(at))}"
            screen.say(progress.alarm)
        elif sign is Sign.GOES_ON:
            progress.alarm = ""
            screen.say(f"work goes on after {span_of(standstill.stood)}")
        screen.tick()

    with every(TICK, tick, name="batchrun-progress"):
        yield


@contextmanager
def reading_jobs(progress: Progress, engine: Engine) -> Iterator[None]:
    """Read what holds the jobs, every other second, or less often where that takes long."""
    ids = progress.job_ids
    wait_until = 0.0

    def look() -> None:
        nonlocal wait_until
        began = time.monotonic()
        if began < wait_until:
            return
        try:
            with reading(engine) as connection:
                progress.jobs = facts(connection, ids, dead=dead_here(connection))
        except DatabaseError as error:
            progress.unread = error.message
        else:
            progress.unread, progress.read_at = "", time.monotonic()
        wait_until = began + READ_SHARE * (time.monotonic() - began)

    with every(READ_EVERY, look, name="batchrun-look"):
        yield


@contextmanager
def every(seconds: float, act: Callable[[], None], *, name: str) -> Iterator[None]:
    """Call `act` on a thread of its own, now and every so many seconds, while the block runs."""
    ended = threading.Event()

    def run() -> None:
        act()
        while not ended.wait(seconds):
            act()

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(JOIN)


@contextmanager
def reading_rows(*, quiet: bool) -> Iterator[Callable[[int], None]]:
    """Hears how many rows were read so far, and shows it on a terminal: a million rows take most of a minute."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda _: None
        return
    with console.status("reading rows") as status:
        yield lambda rows: status.update(f"reading rows: {rows:,}")

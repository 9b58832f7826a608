"""`batchrun watch`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from batchrun import api
from batchrun.cli.options import DEFAULT_ALARM, AlarmAfter, Database, Interval, JobsOrAll, alarm_after, duration
from batchrun.cli.render import Screen, cost_text, count_text, screen, title_text
from batchrun.cli.status import as_record, kinds_text
from batchrun.output.visible import json_text, money_text, visible
from batchrun.pacing.brakes import span_of
from batchrun.reports.status import JobState, JobStatus
from batchrun.states import State
from batchrun.watching import exit_code

if TYPE_CHECKING:
    from rich.console import Group

OVER = frozenset({JobState.EMPTY, JobState.DONE, JobState.DONE_WITH_FAILURES})
MOST_SHOWN = 8
"""Jobs in the live block; those that are over are left out first."""


def command(
    context: typer.Context,
    jobs: JobsOrAll = None,
    interval: Interval = "2s",
    alarm: AlarmAfter = DEFAULT_ALARM,
    once: Annotated[bool, typer.Option("--once", help="Look once, and don't wait for the end.")] = False,
    database: Database = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line for each look; money as text.")
    ] = False,
) -> int:
    """Follow jobs until nothing is left to do, whoever works on them.

    The exit code is that of `run`: 0 when all is done, 1 when items failed or were cut, 3 when a pause holds the rest.
    Ctrl-C stops watching and changes nothing.

    Example: batchrun watch caption-catalogue
    """
    shell = screen(context)
    every = duration(interval, "--interval")
    if not every:
        raise typer.BadParameter("must be at least 1s", param_hint="--interval")
    show = show_json if as_json else show_block if shell.out.is_terminal else show_lines
    looks = api.watch(
        jobs or None,
        interval=every,
        alarm=None if once else alarm_after(alarm),
        on_alarm=lambda line: shell.err.print(visible(line), style="yellow", soft_wrap=True),
        database=database,
    )
    last = show(shell, islice(looks, 1) if once else looks)
    if not last:
        shell.note("this database has no jobs yet; load some with: batchrun run jobs.yaml")
    return exit_code(last)


def show_json(shell: Screen, looks: Iterator[list[JobStatus]]) -> list[JobStatus]:
    found: list[JobStatus] = []
    for found in looks:
        at = datetime.now(UTC)
        shell.data((json_text({"at": at, "jobs": [as_record(job) for job in found]}) + "\n").encode())
        sys.stdout.flush()
    return found


def show_lines(shell: Screen, looks: Iterator[list[JobStatus]]) -> list[JobStatus]:
    """For logs and pipes: a line for each job, and again when it says something new."""
    found: list[JobStatus] = []
    said: dict[tuple[str, bool], str] = {}
    for found in looks:
        for job in found:
            line = f"{title_text(job.name, simulated=job.simulated)}: {counts_text(job)} · {details_text(job)}"
            if said.get((job.name, job.simulated)) != line:
                said[job.name, job.simulated] = line
                shell.line(line)
        sys.stdout.flush()
    return found


def show_block(shell: Screen, looks: Iterator[list[JobStatus]]) -> list[JobStatus]:
    """For a terminal: a block that is drawn anew; the last one stays."""
    from rich.live import Live

    found: list[JobStatus] = []
    with Live(console=shell.out, auto_refresh=False) as live:
        for found in looks:
            live.update(block(found), refresh=True)
    return found


def block(jobs: Sequence[JobStatus]) -> Group:
    from rich.console import Group, RenderableType
    from rich.padding import Padding
    from rich.progress_bar import ProgressBar
    from rich.text import Text

    lines: list[RenderableType] = []
    shown = sorted(jobs, key=lambda job: job.state in OVER)[:MOST_SHOWN]
    for job in shown:
        lines.append(Text(visible(title_text(job.name, simulated=job.simulated)), style="bold"))
        bar = ProgressBar(total=max(job.total, 1), completed=job.ended, width=24)
        lines.append(Padding(bar, (0, 0, 0, 2)))
        lines.append(Padding(Text(counts_text(job)), (0, 0, 0, 2)))
        lines.append(Padding(Text(visible(details_text(job)), style="dim"), (0, 0, 0, 2)))
    if len(shown) < len(jobs):
        lines.append(Text(f"and {len(jobs) - len(shown):,} more jobs: batchrun status"))
    return Group(*lines)


def counts_text(job: JobStatus) -> str:
    """State, items, rate and time left."""
    parts = [job.state.value, f"{count_text(job.ended)}/{count_text(job.total)} items"]
    if job.rate and job.state not in OVER:
        parts.append(f"{job.rate:.1f}/s")
    if job.time_left is not None:
        parts.append(f"about {span_of(job.time_left.total_seconds())} left")
    return " · ".join(parts)


def details_text(job: JobStatus) -> str:
    """Items by state, workers, money, errors, and what holds the rest."""
    parts = [", ".join(f"{count_text(job.counts[state])} {state.value}" for state in State if job.counts.get(state))]
    if job.facts.workers:
        parts.append(f"{job.facts.workers} {'worker' if job.facts.workers == 1 else 'workers'}")
    cost = cost_text(job.spent_low, job.spent_high, job.currency, unknown=job.unknown_cost)
    parts.append(cost if job.cap is None else f"{cost} of {money_text(job.cap)}")
    for state in (State.FAILED, State.WAITING):
        if kinds := job.errors.get(state):
            parts.append(f"{state.value}: {kinds_text(kinds)}")
    if job.brake is not None:
        parts.append(f"held back by {job.brake.text}")
    return " · ".join(part for part in parts if part)

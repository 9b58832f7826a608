"""`batchrun status`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import typer

from batchrun import api
from batchrun.cli.options import AsJson, Database, JobsOrAll
from batchrun.cli.render import (
    Column,
    between_text,
    command_text,
    cost_text,
    count_text,
    screen,
    title_text,
    when_text,
)
from batchrun.output.visible import money_text
from batchrun.reports.status import JobState, JobStatus
from batchrun.showing import clean
from batchrun.states import State
from batchrun.store.jobs import BY_USER


def command(
    context: typer.Context,
    jobs: JobsOrAll = None,
    database: Database = None,
    as_json: AsJson = False,
) -> None:
    """How far the jobs are, what holds them, and what they have cost so far.

    Example: batchrun status caption-catalogue
    """
    shell = screen(context)
    found = api.status(jobs or None, database=database)
    if as_json:
        shell.json({"jobs": [as_record(job) for job in found]})
        return
    if not found:
        shell.note("this database has no jobs yet; load some with: batchrun run jobs.yaml")
        return
    shell.table(COLUMNS, [row(job) for job in found])
    for job in found:
        for line in details(job):
            shell.line(line)


COLUMNS = (
    Column(title="JOB", shrinks=True),
    Column(title=""),
    Column(title="STATE"),
    Column(title="ENDED", justify="right"),
    Column(title="ITEMS", justify="right"),
    Column(title="SPENT", justify="right"),
)
ENDED = (State.DONE, State.TRUNCATED, State.FAILED, State.CANCELLED)


def row(job: JobStatus) -> Sequence[str]:
    return (
        job.name,
        "sim" if job.simulated else "",
        f"paused ({job.paused})" if job.state is JobState.PAUSED else job.state.value,
        count_text(sum(job.counts.get(state, 0) for state in ENDED)),
        count_text(job.total),
        cost_text(job.spent_low, job.spent_high, job.currency, unknown=job.unknown_cost),
    )


def details(job: JobStatus) -> list[str]:
    """What needs a sentence, for each job that has something of it."""
    lines = [
        f"{count_text(count)} {state.value}: {kinds_text(job.errors[state])}"
        for state in (State.FAILED, State.WAITING)
        if state in job.errors and (count := sum(job.errors[state].values()))
    ]
    if job.paused is not None:
        lines.append(f"paused ({job.paused}): {clean(job.pause_message or '', 400)}")
        if job.paused == BY_USER:
            lines.append(f"it goes on after: {command_text('resume', job.name, simulated=job.simulated)}")
    if job.unfit:
        lines.append(f"done, with answers that don't fit the schema: {count_text(job.unfit)}")
    if job.counts.get(State.TRUNCATED):
        lines.append(f"answers that were cut: {count_text(job.counts[State.TRUNCATED])}")
    if job.counts.get(State.CANCELLED):
        lines.append(f"cancelled items: {count_text(job.counts[State.CANCELLED])}")
    if job.next_at is not None:
        lines.append(
            f"waiting items: {count_text(job.counts.get(State.WAITING))}, the first until {when_text(job.next_at)}"
        )
    if between := between_text(job.spent_low, job.spent_high, job.currency):
        lines.append(between)
    if job.unknown_cost:
        lines.append(f"calls of unknown cost: {count_text(job.unknown_cost)}")
    if job.brake is not None and job.paused is None:
        lines.append(f"held back by {job.brake.text}")
    if job.cap is not None:
        reserved = f", {money_text(job.reserved)} reserved for calls in flight" if job.reserved else ""
        lines.append(f"budget {money_text(job.cap)} {job.currency}{reserved}")
    if job.last_activity is not None:
        lines.append(f"last activity {when_text(job.last_activity)}")
    heading = title_text(job.name, simulated=job.simulated)
    return ["", heading, *(f"  {line}" for line in lines)] if lines else []


def kinds_text(kinds: Mapping[str, int]) -> str:
    return ", ".join(f"{count_text(count)} {kind}" for kind, count in kinds.items())


def as_record(job: JobStatus) -> dict[str, object]:
    return {
        "name": job.name,
        "simulated": job.simulated,
        "provider": job.provider,
        "model": job.model,
        "state": job.state.value,
        "items": {"total": job.total, **{state.value: job.counts.get(state, 0) for state in State}},
        "paused": job.paused,
        "pause_message": job.pause_message,
        "spent": {
            "low": job.spent_low,
            "high": job.spent_high,
            "currency": job.currency,
            "unknown_calls": job.unknown_cost,
        },
        "brake": None if job.brake is None else {"kind": job.brake.kind.value, "text": job.brake.text},
        "in_flight": job.facts.in_flight,
        "workers": job.facts.workers,
        "reserved": job.reserved,
        "cap": job.cap,
        "unfit": job.unfit,
        "errors": {state.value: dict(kinds) for state, kinds in job.errors.items()},
        "rate": None if job.rate is None else round(job.rate, 3),
        "seconds_left": None if job.time_left is None else round(job.time_left.total_seconds()),
        "next_at": job.next_at,
        "last_activity": job.last_activity,
    }

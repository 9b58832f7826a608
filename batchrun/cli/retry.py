"""`batchrun retry`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from decimal import Decimal
from enum import StrEnum
from typing import Annotated

import typer

from batchrun import api
from batchrun.cli.known import CatalogueFile
from batchrun.cli.options import AsJson, Database, DryRun, ItemNames, JobNames, Simulated
from batchrun.cli.render import Screen, command_text, count_text, screen, title_text
from batchrun.output.visible import money_text
from batchrun.states import State
from batchrun.steering.operating import Retried
from batchrun.store.jobs import BY_USER


class Retryable(StrEnum):
    FAILED = "failed"
    TRUNCATED = "truncated"
    CANCELLED = "cancelled"
    WAITING = "waiting"
    DONE = "done"


def command(
    context: typer.Context,
    jobs: JobNames,
    kinds: Annotated[
        list[str] | None,
        typer.Option("--kind", metavar="KIND", help="Only this kind of error, such as timeout. May be given often."),
    ] = None,
    states: Annotated[
        list[Retryable] | None,
        typer.Option("--state", help="Items in this state. May be given several times. Default: failed."),
    ] = None,
    items: ItemNames = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    simulated: Simulated = False,
    catalogue: CatalogueFile = None,
    database: Database = None,
) -> None:
    """Let failed items be called again by the next run, with all their tries.

    Cut answers (--state truncated) and cancelled items (--state cancelled)
    only when named: they were paid for, or not wanted. --state waiting makes
    items due at once that wait for their next try. --state done takes those
    whose answer doesn't fit the job's response_schema, and no others.

    Example: batchrun retry caption-catalogue --kind timeout --kind server
    """
    shell = screen(context)
    done = api.retry(
        jobs,
        states=[State(state) for state in states or [Retryable.FAILED]],
        kinds=kinds or None,
        items=items or None,
        dry_run=dry_run,
        simulated=simulated,
        database=database,
        catalogue=catalogue,
    )
    if as_json:
        shell.json({"dry_run": dry_run, "jobs": [as_record(job) for job in done]})
        return
    for job in done:
        for line in lines(job, dry_run=dry_run):
            shell.line(line)
    advise(shell, done, dry_run=dry_run)


def lines(job: Retried, *, dry_run: bool) -> list[str]:
    name = title_text(job.job, simulated=job.simulated)
    again = job.total - sum(count for (state, _), count in job.counts.items() if state is State.WAITING)
    found = [f"{name}: nothing to retry"] if not job.total else []
    if again:
        found.append(
            f"{name}: {count_text(again)} {'would go' if dry_run else 'goes' if again == 1 else 'go'} back to pending"
        )
    found += [f"  {text}" for text in kinds_lines(job)]
    if job.most is not None and job.total:
        found.append(f"  their calls may cost up to {money_text(job.most)} {job.currency}")
    elif job.total:
        found.append("  what their calls may cost isn't known")
    if job.total and job.room is not None and (job.most is None or job.most > job.room):
        found.append(f"  of the budget is left: {money_text(max(job.room, Decimal(0)))} {job.currency}")
    if job.in_flight:
        found.append(f"  left alone, as a call for them is still in flight: {count_text(job.in_flight)}")
    found += [f"  left alone, as they are {state.value}: {count_text(n)}" for state, n in job.passed_over.items()]
    if job.waiting:
        found.append(f"  waiting for their next try by themselves: {count_text(job.waiting)} (--state waiting: now)")
    return found


def kinds_lines(job: Retried) -> list[str]:
    by_state: dict[State, list[str]] = defaultdict(list)
    for (state, kind), count in job.counts.items():
        by_state[state].append(f"{count_text(count)} {kind or 'without an error'}")
    words = {
        State.WAITING: "due at once",
        State.TRUNCATED: "cut answers, which stay stored",
        State.DONE: "answers that stay stored",
    }
    return [f"{words.get(state, state.value)}: {', '.join(parts)}" for state, parts in by_state.items()]


def advise(shell: Screen, done: Sequence[Retried], *, dry_run: bool) -> None:
    again = [job for job in done if job.total]
    for job in again:
        if job.paused == BY_USER:
            shell.note(f"  → first: {command_text('resume', job.job, simulated=job.simulated)}")
    if again and dry_run:
        shell.note("  → nothing was changed; do it without --dry-run")
    elif again:
        shell.note(f"  → make the calls: batchrun run JOBS.yaml, the job file in {again[0].folder}")


def as_record(job: Retried) -> dict[str, object]:
    return {
        "name": job.job,
        "simulated": job.simulated,
        "items": job.total,
        "counts": [{"state": state.value, "kind": kind, "items": count} for (state, kind), count in job.counts.items()],
        "cost_at_most": job.most,
        "budget_left": job.room,
        "currency": job.currency,
        "in_flight": job.in_flight,
        "left_alone": {state.value: count for state, count in job.passed_over.items()},
        "waiting": job.waiting,
        "paused": job.paused,
    }

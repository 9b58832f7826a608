"""`batchrun cancel`."""

from __future__ import annotations

import typer

from batchrun import api
from batchrun.cli.options import AsJson, Database, ItemNames, JobNames, Simulated
from batchrun.cli.render import command_text, count_text, screen, title_text
from batchrun.steering.operating import Cancelled


def command(
    context: typer.Context,
    jobs: JobNames,
    items: ItemNames = None,
    as_json: AsJson = False,
    simulated: Simulated = False,
    database: Database = None,
) -> None:
    """Cancel all items of a job that have not ended; no new call for them leaves, on any machine.

    Calls in flight are paid for, so they finish, and an answer that arrives
    whole is kept. Loading the job file again doesn't bring cancelled items
    back; `retry --state cancelled` does.

    Example: batchrun cancel caption-catalogue
    """
    shell = screen(context)
    done = api.cancel(jobs, items=items or None, simulated=simulated, database=database)
    if as_json:
        shell.json({"jobs": [as_record(job) for job in done]})
        return
    for job in done:
        for line in lines(job):
            shell.line(line)
        if job.total:
            again = command_text("retry", job.job, "--state", "cancelled", simulated=job.simulated)
            shell.note(f"  → to take them up again: {again}")


def lines(job: Cancelled) -> list[str]:
    name = title_text(job.job, simulated=job.simulated)
    parts = ", ".join(f"{count_text(count)} {state.value}" for state, count in job.counts.items())
    found = [f"{name}: {count_text(job.total)} cancelled (were {parts})" if job.total else f"{name}: nothing to cancel"]
    found += [f"  left alone, as they are {state.value}: {count_text(n)}" for state, n in job.passed_over.items()]
    if job.in_flight:
        found.append(f"  calls still in flight: {count_text(job.in_flight)}; an answer that arrives whole is kept")
    return found


def as_record(job: Cancelled) -> dict[str, object]:
    return {
        "name": job.job,
        "simulated": job.simulated,
        "cancelled": job.total,
        "were": {state.value: count for state, count in job.counts.items()},
        "in_flight": job.in_flight,
        "left_alone": {state.value: count for state, count in job.passed_over.items()},
    }

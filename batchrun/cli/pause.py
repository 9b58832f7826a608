"""`batchrun pause`."""

from __future__ import annotations

from typing import Annotated

import typer

from batchrun import api
from batchrun.cli.options import AllJobs, AsJson, Database, Simulated, SomeJobs, named_or_all
from batchrun.cli.render import command_text, screen, title_text
from batchrun.showing import counted
from batchrun.steering.operating import Paused


def command(
    context: typer.Context,
    jobs: SomeJobs = None,
    every: AllJobs = False,
    reason: Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why, for those who ask.")] = None,
    as_json: AsJson = False,
    simulated: Simulated = False,
    database: Database = None,
) -> None:
    """Let no new call of a job leave, on any machine. Calls in flight finish; nothing is lost.

    `run` doesn't lift such a pause and ends with exit code 3; `resume` lifts it.

    Example: batchrun pause caption-catalogue --reason "sorting pictures"
    """
    shell = screen(context)
    names = named_or_all(jobs, every=every, command="pause")
    done = api.pause(names, reason=reason, simulated=simulated, database=database)
    if as_json:
        shell.json({"jobs": [as_record(job) for job in done]})
        return
    if not done:
        shell.note("no job has anything left to do")
    for job in done:
        shell.line(line(job))
        shell.note(f"  → to go on: {command_text('resume', job.job, simulated=job.simulated)}")


def line(job: Paused) -> str:
    before = f" (was paused already: {job.before})" if job.before else ""
    flying = f", {counted(job.in_flight, 'call')} in flight finish" if job.in_flight else ""
    name = title_text(job.job, simulated=job.simulated)
    return f"{name}: paused{before} with {counted(job.left, 'item')} left{flying}"


def as_record(job: Paused) -> dict[str, object]:
    return {
        "name": job.job,
        "simulated": job.simulated,
        "paused_before": job.before,
        "items_left": job.left,
        "in_flight": job.in_flight,
    }

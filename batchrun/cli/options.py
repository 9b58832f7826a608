"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from batchrun.cli.completing import job_files, job_names
from batchrun.errors import UsageError
from batchrun.jobfile.quantities import parse_duration
from batchrun.states import State

Database = Annotated[
    str | None,
    typer.Option("--database", help="Address of the database. Default: DATABASE_URL, else .batchrun/batchrun.db here."),
]
CatalogueFile = Annotated[
    Path | None, typer.Option("--catalogue", help="Your own providers, models and prices.", envvar="BATCHRUN_CATALOGUE")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document; money as text.")]
JobName = Annotated[str, typer.Argument(metavar="JOB", help="Name of the job.", autocompletion=job_names)]
JobNames = Annotated[list[str], typer.Argument(metavar="JOB", help="Names of jobs.", autocompletion=job_names)]
SomeJobs = Annotated[list[str] | None, typer.Argument(metavar="JOB", help="Names of jobs.", autocompletion=job_names)]
JobsOrAll = Annotated[
    list[str] | None, typer.Argument(metavar="JOB", help="Names of jobs; all if none.", autocompletion=job_names)
]
JobFilePath = Annotated[Path, typer.Argument(metavar="JOBS.yaml", help="The job file.", autocompletion=job_files)]
ItemNames = Annotated[
    list[str] | None,
    typer.Option("--item", metavar="ID", help="Only this item of the one job. May be given several times."),
]
AllJobs = Annotated[bool, typer.Option("--all", help="All jobs, instead of naming them.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
Simulated = Annotated[bool, typer.Option("--simulated", help="The simulated job of that name, not the real one.")]
States = Annotated[
    list[State] | None, typer.Option("--state", help="Only items in this state. May be given several times.")
]
AlarmAfter = Annotated[
    str,
    typer.Option(
        "--alarm", metavar="TIME", help="Say why when nothing has finished for so long, as 90s or 5m; 0: never."
    ),
]
Workers = Annotated[
    int | None, typer.Option("--workers", metavar="N", min=1, max=256, help="Let N processes make the calls.")
]
DEFAULT_ALARM = "5m"
Interval = Annotated[str, typer.Option("--interval", metavar="TIME", help="Time between two looks, such as 2s or 1m.")]


def named_or_all(jobs: list[str] | None, *, every: bool, command: str) -> list[str] | None:
    """None for all jobs. Raises UsageError where both or neither were asked for."""
    if every == bool(jobs):
        raise UsageError(
            "name jobs, or give --all", code="usage", remedy=f"such as: batchrun {command} caption-catalogue"
        )
    return jobs or None


def chosen(states: Iterable[State] | None) -> frozenset[State] | None:
    """None where no state was named."""
    return frozenset(states) if states else None


def duration(text: str, option: str) -> timedelta:
    """A time as job files write it, or `0`. Raises what typer shows as wrong use."""
    if text.strip() == "0":
        return timedelta(0)
    try:
        return parse_duration(text.strip())
    except ValueError as error:
        raise typer.BadParameter(f"{error}; write whole d, h, m, s such as 90s or 5m", param_hint=option) from error


def alarm_after(text: str) -> timedelta | None:
    """None for never."""
    return duration(text, "--alarm") or None

"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer

from batchrun.errors import UsageError
from batchrun.states import State

Database = Annotated[
    str | None,
    typer.Option("--database", help="Address of the database. Default: DATABASE_URL, else .batchrun/batchrun.db here."),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document; money as text.")]
JobName = Annotated[str, typer.Argument(metavar="JOB", help="Name of the job.")]
JobNames = Annotated[list[str], typer.Argument(metavar="JOB", help="Names of jobs.")]
ItemNames = Annotated[
    list[str] | None,
    typer.Option("--item", metavar="ID", help="Only this item of the one job. May be given several times."),
]
SomeJobs = Annotated[list[str] | None, typer.Argument(metavar="JOB", help="Names of jobs.")]
AllJobs = Annotated[bool, typer.Option("--all", help="All jobs, instead of naming them.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
Simulated = Annotated[bool, typer.Option("--simulated", help="The simulated job of that name, not the real one.")]
States = Annotated[
    list[State] | None, typer.Option("--state", help="Only items in this state. May be given several times.")
]


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

"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer

from batchrun.states import State

Database = Annotated[
    str | None,
    typer.Option("--database", help="Address of the database. Default: DATABASE_URL, else .batchrun/batchrun.db here."),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document; money as text.")]
JobName = Annotated[str, typer.Argument(metavar="JOB", help="Name of the job.")]
Simulated = Annotated[bool, typer.Option("--simulated", help="The simulated job of that name, not the real one.")]
States = Annotated[
    list[State] | None, typer.Option("--state", help="Only items in this state. May be given several times.")
]


def chosen(states: Iterable[State] | None) -> frozenset[State] | None:
    """None where no state was named."""
    return frozenset(states) if states else None

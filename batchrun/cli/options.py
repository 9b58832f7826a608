"""Options that several commands share, and what they open."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from batchrun.database import connect
from batchrun.settings import Settings, current_folder, read_settings
from batchrun.states import State

if TYPE_CHECKING:
    from sqlalchemy import Engine

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


def settings_for(database: str | None) -> Settings:
    settings = read_settings(os.environ, current_folder())
    return settings if database is None else replace(settings, database_url=database)


@contextmanager
def opened(database: str | None) -> Iterator[Engine]:
    """The database, which must exist. Raises DatabaseError."""
    engine = connect(settings_for(database).database_url)
    try:
        yield engine
    finally:
        engine.dispose()


def chosen(states: Iterable[State] | None) -> frozenset[State] | None:
    """None where no state was named."""
    return frozenset(states) if states else None

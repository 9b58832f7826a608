"""`batchrun db`."""

from __future__ import annotations

from dataclasses import asdict

import typer

from batchrun import api
from batchrun.cli.options import AsJson, Database
from batchrun.cli.render import count_text, screen
from batchrun.errors import EXIT_DONE, EXIT_USAGE

command = typer.Typer(add_completion=False)


@command.callback()
def database_commands() -> None:
    """Look at the database, or upgrade its schema."""


@command.command("status")
def status(context: typer.Context, database: Database = None, as_json: AsJson = False) -> int:
    """Where the database is, and whether this version of batchrun can use it. Exit code 2 if it can't.

    Example: batchrun db status
    """
    shell = screen(context)
    found = api.db_status(database=database)
    if as_json:
        shell.json({**asdict(found), "current": found.current})
    else:
        shell.line(f"database  {found.address}")
        shell.line(
            f"schema    {found.schema or 'none'}{'' if found.current else f', this version needs {found.needed}'}"
        )
        for name, count in found.rows.items():
            shell.line(f"{name:8}  {count_text(count)}")
    if not found.current:
        shell.note("  → run: batchrun db upgrade")
    return EXIT_DONE if found.current else EXIT_USAGE


@command.command("upgrade")
def upgrade_schema(context: typer.Context, database: Database = None) -> None:
    """Bring the schema to what this version needs; make an SQLite file that doesn't exist. Safe to repeat.

    Example: batchrun db upgrade --database postgresql://batchrun@host/batchrun
    """
    shell = screen(context)
    before, after = api.db_upgrade(database=database)
    shell.note(f"the schema is {after} already" if before == after else f"the schema is now {after}")

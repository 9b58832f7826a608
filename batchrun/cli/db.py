"""`batchrun db`."""

from __future__ import annotations

import typer

from batchrun.api import settings_for
from batchrun.cli.options import AsJson, Database
from batchrun.cli.render import count_text, screen
from batchrun.database import (
    make_engine,
    parse_url,
    prepare_file,
    read_revision,
    reading,
    require_upgradable,
    shown_url,
    sqlite_path,
    upgrade,
)
from batchrun.errors import EXIT_DONE, EXIT_USAGE
from batchrun.reports.sizes import row_counts
from batchrun.tables import SCHEMA

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
    url = parse_url(settings_for(database).database_url)
    path = sqlite_path(url)
    if path is not None:
        prepare_file(path, create=False)
    engine = make_engine(url)
    try:
        revision = read_revision(engine)
        current = revision == SCHEMA
        sizes: dict[str, int] = {}
        if current:
            with reading(engine) as connection:
                sizes = row_counts(connection)
    finally:
        engine.dispose()
    address = shown_url(url)
    if as_json:
        shell.json({"address": address, "schema": revision, "needed": SCHEMA, "current": current, "rows": sizes})
    else:
        shell.line(f"database  {address}")
        shell.line(f"schema    {revision or 'none'}" + ("" if current else f", this version needs {SCHEMA}"))
        for name, count in sizes.items():
            shell.line(f"{name:8}  {count_text(count)}")
    if not current:
        shell.note("  → run: batchrun db upgrade")
    return EXIT_DONE if current else EXIT_USAGE


@command.command("upgrade")
def upgrade_schema(context: typer.Context, database: Database = None) -> None:
    """Bring the schema to what this version needs; make an SQLite file that doesn't exist. Safe to repeat.

    Example: batchrun db upgrade --database postgresql://batchrun@host/batchrun
    """
    shell = screen(context)
    address = settings_for(database).database_url
    url = parse_url(address)
    path = sqlite_path(url)
    if path is not None:
        prepare_file(path, create=True)
    engine = make_engine(url)
    try:
        revision = read_revision(engine)
    finally:
        engine.dispose()
    if revision == SCHEMA:
        shell.note(f"the schema is {SCHEMA} already")
        return
    require_upgradable(revision, automatic=True)
    upgrade(address)
    shell.note(f"the schema is now {SCHEMA}")

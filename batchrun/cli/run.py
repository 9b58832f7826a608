"""`batchrun run`: load a job file, make its calls here, say what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

CatalogueOption = Annotated[
    Path | None, typer.Option("--catalogue", help="Your own providers, models and prices.", envvar="BATCHRUN_CATALOGUE")
]
DatabaseOption = Annotated[
    str | None,
    typer.Option("--database", help="Address of the database [default: DATABASE_URL, or .batchrun/batchrun.db here]."),
]


def command(
    job_file: Annotated[Path, typer.Argument(help="The job file.", metavar="JOBS.yaml")],
    catalogue: CatalogueOption = None,
    database: DatabaseOption = None,
    sample: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Only N items of each job; the same ones each time, chosen as if by lot."
        ),
    ] = None,
    grace: Annotated[float, typer.Option(help="Seconds that calls in flight get after Ctrl-C.", min=0.0)] = 120.0,
    book: Annotated[
        Path | None, typer.Option("--simulator-book", help="Where a simulator that is started here writes its bills.")
    ] = None,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No progress on standard error.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The summary as one JSON document.")] = False,
) -> None:
    """Load a job file, make its calls, store the answers, and print what they cost.

    Running it again does nothing twice: what is done stays done, new pictures and rows are added, what failed for a
    passing reason goes on. Ctrl-C once lets the calls in flight finish; twice stops at once.

    With --sample, a few items of each job are called and the others stay as they are: look at the answers, then run
    the same command without it to go on with the rest.

    Example: batchrun run jobs.example.yaml
    """
    raise typer.Exit(
        execute(
            job_file,
            sample=sample,
            catalogue=catalogue,
            database=database,
            grace=grace,
            book=book,
            quiet=quiet,
            as_json=as_json,
        )
    )


def execute(
    path: Path,
    *,
    sample: int | None = None,
    catalogue: Path | None,
    database: str | None,
    grace: float,
    book: Path | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Run the job file at `path` and print what came of it; returns the exit code."""
    from batchrun.api import opened, run
    from batchrun.cli.summary import print_loaded, print_summary
    from batchrun.drain import Stop
    from batchrun.progress import reading_rows

    with reading_rows(quiet=quiet) as on_rows:
        end = run(
            path,
            sample=sample,
            database=database,
            catalogue=catalogue,
            progress=not quiet,
            grace=grace,
            simulator_book=book,
            on_rows=on_rows,
            on_loaded=(lambda _: None) if quiet else print_loaded,
            stop=Stop(),
        )
    with opened(database) as engine:
        print_summary(engine, end, as_json=as_json)
    return end.exit_code

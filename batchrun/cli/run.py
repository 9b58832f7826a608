"""`batchrun run`: load a job file, make its calls here, say what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from batchrun.cli.options import DEFAULT_ALARM, AlarmAfter, CatalogueFile, Database, JobFilePath, Workers, alarm_after
from batchrun.cli.render import screen

if TYPE_CHECKING:
    from batchrun.loading.loader import Loaded

CatalogueOption = CatalogueFile
DatabaseOption = Database


def command(
    context: typer.Context,
    job_file: JobFilePath,
    catalogue: CatalogueOption = None,
    database: DatabaseOption = None,
    sample: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Only N items of each job; the same ones each time, chosen as if by lot."
        ),
    ] = None,
    now: Annotated[bool, typer.Option("--now", help="Don't wait for the jobs' windows.")] = False,
    workers: Workers = None,
    grace: Annotated[
        float, typer.Option(metavar="SECONDS", help="What calls in flight get after Ctrl-C.", min=0.0)
    ] = 120.0,
    book: Annotated[
        Path | None, typer.Option("--simulator-book", help="Where a simulator that is started here writes its bills.")
    ] = None,
    alarm: AlarmAfter = DEFAULT_ALARM,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No progress on standard error.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The summary as one JSON document.")] = False,
) -> None:
    """Load a job file, make its calls, store the answers, and print what they cost.

    Running it again does nothing twice: what is done stays done, new pictures and rows are added, what failed for a
    passing reason goes on. Ctrl-C once lets the calls in flight finish; twice stops at once.

    A job with a `window` waits until it opens, and starts no call after it has closed.

    One process holds hundreds of calls at once. With --workers N, N processes share the work, for calls that come to
    more than what one core can follow; nothing needs to be installed or started for them.

    With --sample, a few items of each job are called and the others stay as they are: look at the answers, then run
    the same command without it to go on with the rest.

    Example: batchrun run jobs.example.yaml
    """
    raise typer.Exit(
        execute(
            job_file,
            sample=sample,
            now=now,
            workers=workers,
            catalogue=catalogue,
            database=database,
            grace=grace,
            book=book,
            alarm=alarm_after(alarm),
            quiet=quiet or screen(context).quiet,
            as_json=as_json,
        )
    )


def execute(
    path: Path,
    *,
    sample: int | None = None,
    now: bool = False,
    workers: int | None = None,
    catalogue: Path | None,
    database: str | None,
    grace: float,
    book: Path | None,
    alarm: timedelta | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Run the job file at `path` and print what came of it; returns the exit code."""
    from batchrun.api import opened, run
    from batchrun.cli.summary import print_loaded, print_summary
    from batchrun.drain import Stop
    from batchrun.progress import reading_rows

    with ExitStack() as stack:

        def loaded(jobs: Sequence[Loaded]) -> None:
            stack.close()  # two displays at once would write over each other
            if not quiet:
                print_loaded(jobs)

        end = run(
            path,
            sample=sample,
            now=now,
            workers=workers,
            database=database,
            catalogue=catalogue,
            progress=not quiet,
            grace=grace,
            alarm=alarm,
            simulator_book=book,
            on_rows=stack.enter_context(reading_rows(quiet=quiet)),
            on_loaded=loaded,
            stop=Stop(),
        )
    with opened(database) as engine:
        print_summary(engine, end, as_json=as_json)
    return end.exit_code

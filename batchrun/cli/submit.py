"""`batchrun submit`: load a job file and tell the workers."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Annotated

import typer

from batchrun.cli.options import CatalogueFile, Database, JobFilePath
from batchrun.cli.render import screen


def command(
    context: typer.Context,
    job_file: JobFilePath,
    catalogue: CatalogueFile = None,
    database: Database = None,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Only errors.")] = False,
) -> None:
    """Load a job file for the workers, and return at once. Workers that run make its calls; see `batchrun worker`.

    Example: batchrun submit jobs.yaml && batchrun watch
    """
    from batchrun.api import submit
    from batchrun.cli.summary import print_loaded
    from batchrun.progress import reading_rows

    quiet = quiet or screen(context).quiet
    with ExitStack() as stack:
        on_rows = stack.enter_context(reading_rows(quiet=quiet))
        submitted = submit(job_file, catalogue=catalogue, database=database, on_rows=on_rows)
    if quiet:
        return
    print_loaded(submitted.jobs)
    if submitted.trouble:
        typer.echo(f"note: {submitted.trouble}; workers that run look by themselves every other second", err=True)
    typer.echo(f"next: batchrun watch {' '.join(job.name for job in submitted.jobs)}", err=True)

"""`batchrun run`: load a job file, make its calls here, say what came of it."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Engine

    from batchrun.catalogue import Catalogue
    from batchrun.cli.summary import Files
    from batchrun.jobfile.spec import JobFile
    from batchrun.load import Loaded
    from batchrun.run import RunEnd
    from batchrun.settings import Settings

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

    Example: batchrun run jobs.example.yaml
    """
    from batchrun.settings import current_folder

    raise typer.Exit(
        execute(
            job_file,
            catalogue=catalogue,
            database=database,
            folder=current_folder(),
            grace=grace,
            book=book,
            quiet=quiet,
            as_json=as_json,
        )
    )


def execute(
    path: Path,
    *,
    catalogue: Path | None,
    database: str | None,
    folder: Path,
    grace: float,
    book: Path | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Run the job file at `path` with the default database in `folder`; returns the exit code."""
    from batchrun.catalogue import load_catalogue
    from batchrun.cli.progress import reading_rows
    from batchrun.cli.simulated import with_simulator
    from batchrun.cli.summary import print_loaded, print_summary
    from batchrun.database import connect
    from batchrun.jobfile.reader import read_job_file
    from batchrun.load import load, prepared_all
    from batchrun.plan import require_keys
    from batchrun.settings import read_settings

    settings = read_settings(os.environ, folder)
    jobs = read_job_file(path)
    known = load_catalogue(catalogue or settings.catalogue)
    prepared_all(jobs, known)  # a file that can't be loaded leaves no database behind
    with ExitStack() as stack:
        known, settings = stack.enter_context(with_simulator(jobs, known, settings, book))
        require_keys(jobs, known, settings)
        engine = connect(database or settings.database_url, create=True)
        stack.callback(engine.dispose)
        with reading_rows(quiet=quiet) as on_rows:
            loaded = load(engine, jobs, known, base=path.resolve().parent, on_rows=on_rows)
        if not quiet:
            print_loaded(loaded)
        end = drained(engine, loaded, known, settings, grace=grace, quiet=quiet)
        files = written_files(engine, loaded, jobs)
        end = replace(end, unwritten=sum(written.sidecars.problems for written in files.values()))
        print_summary(engine, end, files, as_json=as_json)
    return end.exit_code


def drained(
    engine: Engine, loaded: Sequence[Loaded], catalogue: Catalogue, settings: Settings, *, grace: float, quiet: bool
) -> RunEnd:
    """Make the calls, with the progress on standard error and Ctrl-C as the way to stop."""
    from batchrun.cli.progress import progress_of, showing
    from batchrun.drain import Stop
    from batchrun.run import ends, run, signals

    ids = frozenset(job.job_id for job in loaded)
    progress = progress_of(ends(engine, ids))
    stop = Stop()

    def interrupt() -> None:
        stop.ask()
        progress.notes = [
            f"stopping: no new calls; those in flight get {grace:g} s; Ctrl-C again stops them now"
            if stop.level == 1
            else "stopping now"
        ]
        if not quiet and not sys.stderr.isatty():
            os.write(2, (progress.notes[0] + "\n").encode())

    with signals(interrupt), showing(progress, quiet=quiet):
        return run(engine, ids, catalogue, settings, stop=stop, tally=progress.tally, grace=grace)


def written_files(engine: Engine, loaded: Sequence[Loaded], jobs: JobFile) -> dict[int, Files]:
    """The answers as files, where the job file asks for them; files that are there already stay as they are."""
    from batchrun.cli.summary import Files
    from batchrun.output.export import export

    written: dict[int, Files] = {}
    for job, spec in zip(loaded, jobs.jobs, strict=True):
        if spec.output is not None:
            result = export(engine, job.name, "sidecar", None, simulated=job.simulated).sidecars
            if result is not None:
                written[job.job_id] = Files(folder=spec.output.folder, sidecars=result)
    return written

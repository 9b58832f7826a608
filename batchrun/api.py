"""What the commands do, as functions: `import batchrun` offers them under the same names.

Each takes `database`, an address or the path of an SQLite file (None: `DATABASE_URL`, else `.batchrun/batchrun.db` in
the current folder), and where models are named `catalogue`, a catalogue file of your own (None: `BATCHRUN_CATALOGUE`).
What goes wrong is raised as a BatchrunError with a code, a message and a remedy. Nothing is printed, except for the
progress that `run` is asked for.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from sqlalchemy import Engine

from batchrun.catalogue import Catalogue, load_catalogue
from batchrun.database import connect, connect_to_tables, reading
from batchrun.drain import GRACE, Stop
from batchrun.errors import UsageError
from batchrun.estimating import Estimate, estimate_all
from batchrun.jobfile.reader import read_job_file
from batchrun.jobfile.spec import JobFile
from batchrun.loading import Loaded, prepared_all
from batchrun.loading import load as load_jobs
from batchrun.output.export import ExportSummary, Format
from batchrun.output.export import export as export_job
from batchrun.output.sidecar import Sidecars
from batchrun.plan import require_keys
from batchrun.progress import progress_of, showing
from batchrun.reports.cost import By, CostLine, cost_by
from batchrun.reports.jobs import find_jobs, one_job
from batchrun.reports.results import ItemResult
from batchrun.reports.results import results as read_results
from batchrun.reports.status import JobStatus
from batchrun.reports.status import status as read_status
from batchrun.running import RunEnd, ends, plan_of, signals
from batchrun.running import run as drain_jobs
from batchrun.settings import Settings, current_folder, read_settings
from batchrun.simulated import with_simulator
from batchrun.states import State
from batchrun.store.sample import draw
from batchrun.store.workers import dead_here

Place = str | Path | None
"""A database: its address, or the path of an SQLite file; None for the one of the environment."""


def settings_for(database: Place = None) -> Settings:
    """What the environment says, with another database if one is named."""
    settings = read_settings(os.environ, current_folder())
    if database is None:
        return settings
    address = f"sqlite:///{quote(str(database))}" if isinstance(database, Path) else database
    return replace(settings, database_url=address)


def catalogue_for(file: str | Path | None, settings: Settings) -> Catalogue:
    return load_catalogue(settings.catalogue if file is None else Path(file))


@contextmanager
def opened(database: Place = None) -> Iterator[Engine]:
    """The database, which must exist. Raises DatabaseError."""
    engine = connect(settings_for(database).database_url)
    try:
        yield engine
    finally:
        engine.dispose()


def load(
    job_file: str | Path,
    *,
    database: Place = None,
    catalogue: str | Path | None = None,
    on_rows: Callable[[int], None] = lambda _: None,
) -> list[Loaded]:
    """Check a job file and load its items, without making a call. `on_rows` hears how many rows were read so far.

    Raises SpecError, CatalogueError, UsageError, ChangedError, DatabaseError; then nothing was written.
    """
    path, settings = Path(job_file), settings_for(database)
    jobs = read_job_file(path)
    known = catalogue_for(catalogue, settings)
    prepared_all(jobs, known)  # a file that can't be loaded leaves no database behind
    engine = connect(settings.database_url, create=True)
    try:
        return load_jobs(engine, jobs, known, base=path.resolve().parent, on_rows=on_rows)
    finally:
        engine.dispose()


def run(
    job_file: str | Path,
    *,
    sample: int | None = None,
    database: Place = None,
    catalogue: str | Path | None = None,
    progress: bool = False,
    grace: float = GRACE,
    simulator_book: str | Path | None = None,
    on_rows: Callable[[int], None] = lambda _: None,
    on_loaded: Callable[[Sequence[Loaded]], None] = lambda _: None,
    stop: Stop | None = None,
) -> RunEnd:
    """Load a job file, make its calls in this process, store the answers; returns where the jobs stand then.

    `sample` makes the calls of only so many items of each job, chosen as if by lot, and always the same ones first: a
    sample is never bought twice, and a later run goes on with the others. `progress` shows how far it is on standard
    error. `grace` is how many seconds calls in flight get after the first Ctrl-C. `simulator_book` is where a simulator
    that is started here writes its bills. `stop` ends the run from another thread; without it, Ctrl-C does, and
    KeyboardInterrupt is raised once everything is stored.

    Raises what `load` raises, UsageError where a key is missing, and DatabaseError where the database stays away.
    """
    check_sample(sample)
    path, settings = Path(job_file), settings_for(database)
    jobs = read_job_file(path)
    known = catalogue_for(catalogue, settings)
    prepared_all(jobs, known)
    with ExitStack() as stack:
        book = None if simulator_book is None else Path(simulator_book)
        known, settings = stack.enter_context(with_simulator(jobs, known, settings, book))
        require_keys(jobs, known, settings)
        engine = connect(settings.database_url, create=True)
        stack.callback(engine.dispose)
        loaded = load_jobs(engine, jobs, known, base=path.resolve().parent, on_rows=on_rows)
        on_loaded(loaded)
        end = drained(engine, loaded, known, settings, sample=sample, grace=grace, progress=progress, stop=stop)
        return replace(end, files=written_files(engine, loaded, jobs))


def check_sample(size: int | None) -> None:
    if size is not None and size < 1:
        raise UsageError(
            f"a sample of {size} items", code="sample-size", remedy="take at least one item, or leave the sample out"
        )


def drained(
    engine: Engine,
    loaded: Sequence[Loaded],
    catalogue: Catalogue,
    settings: Settings,
    *,
    sample: int | None,
    grace: float,
    progress: bool,
    stop: Stop | None,
) -> RunEnd:
    """Make the calls, with the progress on standard error and Ctrl-C as the way to stop."""
    ids = frozenset(job.job_id for job in loaded)
    drawn = None
    if sample is not None:
        with reading(engine) as connection:
            drawn = draw(connection, ids, sample)
    shown, asked = progress_of(ends(engine, ids, drawn)), stop or Stop()

    def interrupt() -> None:
        asked.ask()
        shown.notes = [
            f"stopping: no new calls; those in flight get {grace:g} s; Ctrl-C again stops them now"
            if asked.level == 1
            else "stopping now"
        ]
        if progress and not sys.stderr.isatty():
            os.write(2, (shown.notes[0] + "\n").encode())

    with signals(interrupt), showing(shown, quiet=not progress):
        end = drain_jobs(engine, ids, catalogue, settings, sample=drawn, stop=asked, tally=shown.tally, grace=grace)
    if stop is None and asked.level:
        raise KeyboardInterrupt
    return end


def written_files(engine: Engine, loaded: Sequence[Loaded], jobs: JobFile) -> dict[int, Sidecars]:
    """The answers as files, where the job file asks for them; files that are there already stay as they are."""
    written: dict[int, Sidecars] = {}
    for job, spec in zip(loaded, jobs.jobs, strict=True):
        if spec.output is not None:
            made = export_job(engine, job.name, "sidecar", None, simulated=job.simulated).sidecars
            if made is not None:
                written[job.job_id] = replace(made, folder=spec.output.folder)
    return written


def estimate(
    job_file: str | Path,
    *,
    sample: int | None = None,
    database: Place = None,
    catalogue: str | Path | None = None,
    progress: bool = False,
    simulator_book: str | Path | None = None,
    on_rows: Callable[[int], None] = lambda _: None,
    on_loaded: Callable[[Sequence[Loaded]], None] = lambda _: None,
    stop: Stop | None = None,
) -> Estimate:
    """What the jobs of a file will cost, and how long they will take.

    Without `sample` no call is made, no key is needed and nothing is written; what a database that exists knows of the
    jobs is taken into account. With it, the calls of so many items of each job are made first, exactly as
    `run(sample=...)` makes them: their answers are kept, and what they used narrows the estimate of the others.

    Raises SpecError, CatalogueError, UsageError, DatabaseError, and with `sample` what `run` raises.
    """
    path, end = Path(job_file), None
    if sample is not None:
        end = run(
            path,
            sample=sample,
            database=database,
            catalogue=catalogue,
            progress=progress,
            simulator_book=simulator_book,
            on_loaded=on_loaded,
            stop=stop,
        )
    settings = settings_for(database)
    jobs = read_job_file(path)
    known = catalogue_for(catalogue, settings)
    with ExitStack() as stack:
        engine = connect_to_tables(settings.database_url)
        connection = None
        if engine is not None:
            stack.callback(engine.dispose)
            connection = stack.enter_context(reading(engine))
        base, now = path.resolve().parent, datetime.now(UTC)
        made = estimate_all(jobs, known, base=base, connection=connection, now=now, on_rows=on_rows)
        return replace(made, run=end)


def status(jobs: Iterable[str] | None = None, *, database: Place = None) -> list[JobStatus]:
    """How far the jobs of these names are, or all; what holds them, and what they have cost so far."""
    with opened(database) as engine, reading(engine) as connection:
        return read_status(connection, None if jobs is None else list(jobs), dead=dead_here(connection))


def results(
    job: str,
    *,
    states: Collection[State] | None = None,
    limit: int | None = None,
    simulated: bool = False,
    database: Place = None,
) -> list[ItemResult]:
    """What came of each item of a job, in the order of its source; `pandas.DataFrame` takes the list as it is.

    `simulated` takes the simulated job of that name where a real one has it too.
    """
    with opened(database) as engine, reading(engine) as connection:
        row = one_job(connection, job, simulated=simulated)
        return list(read_results(connection, row, states=states, limit=limit))


def export(
    job: str,
    output_format: Format = "jsonl",
    out: str | Path | BinaryIO | None = None,
    *,
    states: Collection[State] | None = None,
    simulated: bool = False,
    overwrite: bool = False,
    raw: bool = False,
    errors: str | Path | None = None,
    database: Place = None,
    catalogue: str | Path | None = None,
) -> ExportSummary:
    """Write the results of a job to a file, whole or not at all; see `output.export.export`.

    The catalogue is needed for `openai-requests` only, which renders the requests of a job.
    """
    target = Path(out) if isinstance(out, str) else out
    with opened(database) as engine:
        return export_job(
            engine,
            job,
            output_format,
            target,
            states=states,
            simulated=simulated,
            overwrite=overwrite,
            raw=raw,
            errors=None if errors is None else Path(errors),
            plan_of=lambda row: plan_of(row, catalogue_for(catalogue, settings_for(database))),
        )


def report(
    by: By = "job",
    *,
    jobs: Iterable[str] | None = None,
    since: date | None = None,
    until: date | None = None,
    database: Place = None,
) -> list[CostLine]:
    """What the calls cost, failed ones included, from `since` to `until`, days of UTC, both inclusive."""
    with opened(database) as engine, reading(engine) as connection:
        ids = None if jobs is None else [row.id for row in find_jobs(connection, list(jobs))]
        return cost_by(connection, by, job_ids=ids, since=since, until=until)

"""Job files into the database, without a call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from batchrun.api.inputs import Jobs, catalogue_for, read_jobs
from batchrun.api.opening import Place, settings_for
from batchrun.database import connect
from batchrun.loading.loader import Loaded, prepared_all
from batchrun.loading.loader import load as load_jobs


def load(
    job_file: Jobs,
    *,
    database: Place = None,
    catalogue: str | Path | None = None,
    on_rows: Callable[[int], None] = lambda _: None,
) -> list[Loaded]:
    """Check a job file and load its items, without making a call. `on_rows` hears how many rows were read so far.

    Raises SpecError, CatalogueError, UsageError, ChangedError, DatabaseError; then nothing was written.
    """
    settings = settings_for(database)
    jobs, base = read_jobs(job_file)
    known = catalogue_for(catalogue, settings)
    prepared_all(jobs, known)  # a file that can't be loaded leaves no database behind
    engine = connect(settings.database_url, create=True)
    try:
        return load_jobs(engine, jobs, known, base=base, on_rows=on_rows)
    finally:
        engine.dispose()

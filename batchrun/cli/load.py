"""`batchrun load`: a job file into the database, without a call."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from batchrun.cli.run import CatalogueOption, DatabaseOption


def command(
    job_file: Annotated[Path, typer.Argument(help="The job file.", metavar="JOBS.yaml")],
    catalogue: CatalogueOption = None,
    database: DatabaseOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="What was loaded as one JSON document.")] = False,
) -> None:
    """Check a job file and load its items, without making a call.

    Loading again adds what is new and changes limits, budget, priority and tags. A changed request is refused.

    Example: batchrun load jobs.example.yaml
    """
    from batchrun.catalogue import load_catalogue
    from batchrun.cli.progress import reading_rows
    from batchrun.cli.summary import loaded_document, print_loaded
    from batchrun.database import connect
    from batchrun.jobfile.reader import read_job_file
    from batchrun.load import load, prepared_all
    from batchrun.settings import current_folder, read_settings

    settings = read_settings(os.environ, current_folder())
    jobs = read_job_file(job_file)
    known = load_catalogue(catalogue or settings.catalogue)
    prepared_all(jobs, known)  # a file that can't be loaded leaves no database behind
    engine = connect(database or settings.database_url, create=True)
    try:
        with reading_rows(quiet=False) as on_rows:
            loaded = load(engine, jobs, known, base=job_file.resolve().parent, on_rows=on_rows)
    finally:
        engine.dispose()
    print_loaded(loaded)
    if as_json:
        sys.stdout.write(json.dumps([loaded_document(job) for job in loaded], ensure_ascii=False, indent=2) + "\n")

"""`batchrun load`: a job file into the database, without a call."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from batchrun.cli.options import JobFilePath
from batchrun.cli.run import CatalogueOption, DatabaseOption


def command(
    context: typer.Context,
    job_file: JobFilePath,
    catalogue: CatalogueOption = None,
    database: DatabaseOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="What was loaded as one JSON document.")] = False,
) -> None:
    """Check a job file and load its items, without making a call.

    Loading again adds what is new and changes limits, budget, priority and tags. A changed request is refused.

    Example: batchrun load jobs.example.yaml
    """
    from batchrun import api
    from batchrun.cli.render import screen
    from batchrun.cli.summary import loaded_document, print_loaded
    from batchrun.progress import reading_rows

    quiet = screen(context).quiet
    with reading_rows(quiet=quiet) as on_rows:
        loaded = api.load(job_file, database=database, catalogue=catalogue, on_rows=on_rows)
    if not quiet:
        print_loaded(loaded)
    if as_json:
        sys.stdout.write(json.dumps([loaded_document(job) for job in loaded], ensure_ascii=False, indent=2) + "\n")

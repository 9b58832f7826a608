"""`batchrun schema`."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Kind(StrEnum):
    JSON = "json"
    MARKDOWN = "markdown"


def command(
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A file; default: standard output.")] = None,
    kind: Annotated[
        Kind, typer.Option("--format", help="json is for editors and checkers, markdown the reference for people.")
    ] = Kind.JSON,
) -> None:
    """The JSON Schema of the job file: editors that know it complete keys, explain them and mark mistakes.

    Example: batchrun schema --out batchrun-jobs.schema.json
    """
    import json

    from batchrun.api import schema
    from batchrun.jobfile.reference import reference
    from batchrun.output.placing import whole_file

    found = schema()
    text = reference(found) if kind is Kind.MARKDOWN else json.dumps(found, indent=2, ensure_ascii=False) + "\n"
    if out is None:
        sys.stdout.write(text)
        return
    with whole_file(out, overwrite=True) as file:
        file.write(text.encode())

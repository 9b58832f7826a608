"""Results as files."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO, get_args

from batchrun.api.inputs import catalogue_for
from batchrun.api.opening import Place, one_of, opened, settings_for, states_of
from batchrun.errors import UsageError
from batchrun.output.export import IN_FOLDERS, ExportSummary, Format
from batchrun.output.export import export as export_job
from batchrun.plan import plan_of
from batchrun.states import State


def export(
    job: str,
    output_format: Format = "jsonl",
    out: str | Path | BinaryIO | None = None,
    *,
    states: Collection[State | str] | None = None,
    simulated: bool = False,
    overwrite: bool = False,
    raw: bool = False,
    errors: str | Path | None = None,
    database: Place = None,
    catalogue: str | Path | None = None,
) -> ExportSummary:
    """Write the results of a job to a file, whole or not at all; for `sidecar`, `markdown` and `srt`, a file for each
    item, or for each video with what was said about all its parts, to a folder.

    `out` is a path, or a binary file that stays open; for such a folder None takes the folder that the job names. `raw`
    leaves cells of a CSV alone that a spreadsheet would take for formulas. `errors` is where the form `openai` tells of
    items without an answer. The catalogue is needed for `openai-requests` only, which renders the requests of a job.
    """
    one_of("output_format", output_format, get_args(Format))
    if out is None and output_format not in IN_FOLDERS:
        raise UsageError(f"{output_format} needs a file to go to", code="usage", remedy="give it as `out`")
    target, wanted = Path(out) if isinstance(out, str) else out, None if states is None else states_of(states)
    with opened(database) as engine:
        return export_job(
            engine,
            job,
            output_format,
            target,
            states=wanted,
            simulated=simulated,
            overwrite=overwrite,
            raw=raw,
            errors=None if errors is None else Path(errors),
            plan_of=lambda row: plan_of(row, catalogue_for(catalogue, settings_for(database))),
        )

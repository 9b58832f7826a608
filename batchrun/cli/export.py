"""`batchrun export`."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from batchrun import api
from batchrun.cli.options import Database, JobName, Simulated, States, chosen
from batchrun.cli.render import Screen, screen
from batchrun.cli.run import CatalogueOption
from batchrun.errors import EXIT_DONE, EXIT_ITEMS_FAILED, UsageError
from batchrun.output.export import IN_FOLDERS, ExportSummary
from batchrun.output.sidecar import Sidecars


class Kind(StrEnum):
    JSONL = "jsonl"
    CSV = "csv"
    SIDECAR = "sidecar"
    MARKDOWN = "markdown"
    SRT = "srt"
    OPENAI = "openai"
    OPENAI_REQUESTS = "openai-requests"


def command(
    context: typer.Context,
    job: JobName,
    kind: Annotated[
        Kind,
        typer.Option(
            "--format",
            help="jsonl loses nothing, csv is for spreadsheets, sidecar is a text beside each picture, "
            "markdown a document of each video with its parts and cost, srt its subtitles, openai is the "
            "output of a batch service, openai-requests the input for one: what was not called yet.",
        ),
    ] = Kind.JSONL,
    out: Annotated[
        str | None,
        typer.Option(
            "--out", "-o", help="File, or - for standard output (default); for sidecar, markdown, srt a folder."
        ),
    ] = None,
    errors: Annotated[
        Path | None,
        typer.Option("--errors", help="openai: file for items without an answer. Default: beside --out, if any."),
    ] = None,
    states: States = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")] = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="CSV: leave cells alone that a spreadsheet takes for formulas.")
    ] = False,
    simulated: Simulated = False,
    catalogue: CatalogueOption = None,
    database: Database = None,
) -> int:
    """Write the results of a job to a file, whole or not at all.

    Sidecars are named as the job's `output` says, documents and subtitles as their videos are; they go where `output`
    says, else beside the media. Files that are there already stay, unless --overwrite is given.

    Example: batchrun export caption-catalogue --format csv --out captions.csv
    """
    shell = screen(context)
    if errors is not None and kind is not Kind.OPENAI:
        raise UsageError("--errors belongs to --format openai", code="usage", remedy="leave it out")
    summary = api.export(
        job,
        kind.value,
        target(kind, out),
        states=chosen(states),
        simulated=simulated,
        overwrite=overwrite,
        raw=raw,
        errors=errors,
        database=database,
        catalogue=catalogue,
    )
    if summary.sidecars is None:
        where = "standard output" if out in (None, "-") else out
        shell.note(f"rows written to {where}: {summary.written:,}, sha256 {summary.sha256}")
        if summary.settled:
            shell.note(f"calls whose cost was settled by hand: {summary.settled:,}")
        print_others(shell, summary, due=kind is Kind.OPENAI_REQUESTS and not states)
    else:
        print_sidecars(shell, summary.sidecars)
    return exit_code(summary)


def target(kind: Kind, out: str | None) -> Path | BinaryIO | None:
    if kind.value in IN_FOLDERS:
        if out == "-":
            raise UsageError(f"{kind.value} is many files", code="usage", remedy="name a folder with --out, or none")
        return None if out is None else Path(out)
    return sys.stdout.buffer if out in (None, "-") else Path(str(out))


def print_others(shell: Screen, summary: ExportSummary, *, due: bool) -> None:
    """What became of the items that aren't among the rows. `due`: those that are will be called here too."""
    if summary.errors is not None:
        shell.note(f"items without an answer written to {summary.errors}: {summary.unanswered:,}")
    elif summary.unanswered:
        shell.note(f"items without an answer left out: {summary.unanswered:,}; --errors FILE writes them")
    if due and summary.written:
        shell.note("these items are still due here: `batchrun cancel` them before another service is paid for them")
    for problem in summary.left_out.shown:
        shell.err.print(f"left out: {problem}", soft_wrap=True)
    if summary.left_out.number > len(summary.left_out.shown):
        shell.err.print(f"left out: {summary.left_out.number - len(summary.left_out.shown):,} more", soft_wrap=True)


def print_sidecars(shell: Screen, sidecars: Sidecars) -> None:
    shell.note(f"files written: {sidecars.written:,}, already there: {sidecars.present:,}")
    if not (sidecars.written or sidecars.present or sidecars.cut or sidecars.problems):
        shell.note("no item has an answer to write; `batchrun results` shows how far each is")
    if sidecars.cut:
        shell.note(f"left out as they were cut: {sidecars.cut:,}; --state done --state truncated takes them too")
    for problem in sidecars.shown:
        shell.err.print(f"not written: {problem}", soft_wrap=True)
    if sidecars.problems > len(sidecars.shown):
        shell.err.print(f"not written: {sidecars.problems - len(sidecars.shown):,} more", soft_wrap=True)


def exit_code(summary: ExportSummary) -> int:
    return EXIT_DONE if summary.complete else EXIT_ITEMS_FAILED

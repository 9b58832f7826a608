"""`batchrun prices`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Annotated

import typer

from batchrun import api
from batchrun.catalogue.file import ALWAYS
from batchrun.cli.known import CatalogueFile
from batchrun.cli.options import AsJson, Database
from batchrun.cli.render import Column, Screen, screen
from batchrun.reports.prices import PriceLine


def command(
    context: typer.Context,
    model: Annotated[str | None, typer.Option("--model", help="Only this model.")] = None,
    catalogue: CatalogueFile = None,
    database: Database = None,
    as_json: AsJson = False,
) -> None:
    """Prices per 1,000,000 tokens: those of the catalogue, and those that the database has booked with.

    A request is priced as a whole by the tier that its input tokens fall into. A dash is a rate that isn't known.

    Example: batchrun prices --model qwen3-vl-plus
    """
    shell = screen(context)
    found = api.prices(model, catalogue=catalogue, database=database)
    if as_json:
        shell.json({"per_tokens": 1_000_000, "prices": [asdict(line) for line in found]})
    else:
        print_prices(shell, found)


def print_prices(shell: Screen, found: Sequence[PriceLine]) -> None:
    for heading, tiers in groupby(found, key=heading_of):
        shell.line(heading, style="bold")
        shell.table(COLUMNS, [row_of(line) for line in tiers])
        shell.line()


def heading_of(line: PriceLine) -> str:
    checked = f", compared on {line.checked_on.isoformat()}" if line.checked_on else ""
    current = "" if line.current else "\n  not, or no longer, what the catalogue says of calls made now"
    source = line.source or "your own catalogue"
    also = f"\n  also at {', '.join(line.also_at)}" if line.also_at else ""
    since = "" if line.valid_from == ALWAYS else f" since {line.valid_from:%Y-%m-%d}"
    return f"{line.provider} {line.model}, {line.currency}{since}{also}\n  {source}{checked}{current}"


COLUMNS = (
    Column(title="  INPUT UP TO", justify="right"),
    Column(title="IN", justify="right"),
    Column(title="CACHED", justify="right"),
    Column(title="CACHE WRITE", justify="right"),
    Column(title="OUT", justify="right"),
    Column(title="OUT, THINKING", justify="right"),
)


def row_of(line: PriceLine) -> Sequence[str]:
    rates = (line.input, line.cached_input, line.cache_write, line.output)
    thinking = line.output if line.thinking_output is None else line.thinking_output
    return (
        "no end" if line.up_to is None else f"{line.up_to:,}",
        *("-" if rate is None else f"{rate.normalize():f}" for rate in (*rates, thinking)),
    )

"""`batchrun prices`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import groupby
from typing import Annotated

import typer

from batchrun.api import opened, settings_for
from batchrun.catalogue import Catalogue
from batchrun.cli.known import CatalogueFile, catalogue_for
from batchrun.cli.options import AsJson, Database
from batchrun.cli.render import Column, Screen, screen
from batchrun.database import parse_url, reading, sqlite_path
from batchrun.errors import UsageError
from batchrun.pricing import PriceRow
from batchrun.reports.prices import booked_prices
from batchrun.showing import clean


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A tier of a price, and where it stands."""

    row: PriceRow
    checked_on: date | None
    current: bool
    """Whether the catalogue prices calls with it now."""
    stored_at: datetime | None
    """When the database took it in; None where no call was booked with it."""
    also: tuple[str, ...] = ()
    """Other endpoints whose calls it prices."""


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
    stored = stored_prices(database)
    found = [
        shown
        for shown in combined(catalogue_for(catalogue), stored, datetime.now(UTC))
        if model in (None, shown.row.model)
    ]
    if model is not None and not found:
        raise UsageError(
            f"no price of a model `{clean(model)}`", code="unknown-model", remedy="`batchrun models` lists the models"
        )
    if as_json:
        shell.json({"per_tokens": 1_000_000, "prices": [as_record(shown) for shown in found]})
    else:
        print_prices(shell, found)


def stored_prices(database: str | None) -> dict[str, tuple[PriceRow, datetime]]:
    """Rows of the database by digest; none where there is no database yet and none was named."""
    settings = settings_for(database)
    path = sqlite_path(parse_url(settings.database_url))
    if database is None and path is not None and not path.exists():
        return {}
    with opened(database) as engine, reading(engine) as connection:
        return booked_prices(connection)


def combined(catalogue: Catalogue, stored: dict[str, tuple[PriceRow, datetime]], now: datetime) -> list[Shown]:
    """Each tier once, those of the catalogue first."""
    found: dict[str, Shown] = {}
    for endpoint in catalogue.endpoints.values():
        for model in () if endpoint.simulated else endpoint.models.values():
            for price in model.prices:
                for row in price.rows():
                    before = found.get(row.digest)
                    found[row.digest] = Shown(
                        row=row,
                        checked_on=price.checked_on,
                        current=price is model.price_at(now),
                        stored_at=stored[row.digest][1] if row.digest in stored else None,
                        also=() if before is None else (*before.also, endpoint.name),
                    )
    for digest, (row, stored_at) in stored.items():
        if digest not in found:
            found[digest] = Shown(row=row, checked_on=None, current=False, stored_at=stored_at)
    return list(found.values())


def print_prices(shell: Screen, found: Sequence[Shown]) -> None:
    for heading, tiers in groupby(found, key=heading_of):
        shell.line(heading, style="bold")
        shell.table(COLUMNS, [row_of(shown.row) for shown in tiers])
        shell.line()


def heading_of(shown: Shown) -> str:
    row = shown.row
    provider = f"{row.provider}/{row.region}" if row.region else row.provider
    checked = f", compared on {shown.checked_on.isoformat()}" if shown.checked_on else ""
    current = "" if shown.current else "\n  not, or no longer, what the catalogue says of calls made now"
    source = row.source or "your own catalogue"
    also = f"\n  also at {', '.join(shown.also)}" if shown.also else ""
    return f"{provider} {row.model}, {row.currency} since {row.valid_from:%Y-%m-%d}{also}\n  {source}{checked}{current}"


COLUMNS = (
    Column(title="  INPUT UP TO", justify="right"),
    Column(title="IN", justify="right"),
    Column(title="CACHED", justify="right"),
    Column(title="CACHE WRITE", justify="right"),
    Column(title="OUT", justify="right"),
    Column(title="OUT, THINKING", justify="right"),
)


def row_of(row: PriceRow) -> Sequence[str]:
    rates = (row.input, row.cached_input, row.cache_write, row.output)
    thinking = row.output if row.thinking_output is None else row.thinking_output
    return (
        "no end" if row.up_to is None else f"{row.up_to:,}",
        *("-" if rate is None else f"{rate.normalize():f}" for rate in (*rates, thinking)),
    )


def as_record(shown: Shown) -> dict[str, object]:
    row = shown.row
    return {
        "provider": f"{row.provider}/{row.region}" if row.region else row.provider,
        "also_at": list(shown.also),
        "model": row.model,
        "currency": row.currency,
        "from_tokens": row.from_tokens,
        "up_to": row.up_to,
        "input": row.input,
        "cached_input": row.cached_input,
        "cache_write": row.cache_write,
        "output": row.output,
        "thinking_output": row.thinking_output,
        "valid_from": row.valid_from,
        "source": row.source,
        "checked_on": shown.checked_on,
        "current": shown.current,
        "stored_at": shown.stored_at,
    }

"""The prices of the catalogue, and those that calls were booked with, which stay whatever the catalogue says later."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal

import sqlalchemy as sa
from sqlalchemy import Connection

from batchrun.catalogue import Catalogue, Endpoint, Model
from batchrun.pricing import PriceRow
from batchrun.tables import prices


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceLine:
    """A tier of a price; rates are per 1,000,000 tokens, None where they aren't known."""

    provider: str
    """With its region."""
    model: str
    currency: str
    from_tokens: int
    """Input tokens above which this tier holds."""
    up_to: int | None
    """The last it holds for; None where there is no end."""
    input: Decimal
    cached_input: Decimal | None
    cache_write: Decimal | None
    output: Decimal
    thinking_output: Decimal | None
    """None where thinking costs what other output does."""
    valid_from: datetime
    source: str
    checked_on: date | None
    current: bool
    """Whether the catalogue prices calls with it now."""
    stored_at: datetime | None
    """When the database took it in; None where no call was booked with it."""
    also_at: tuple[str, ...]
    """Other providers whose calls it prices."""


def price_lines(
    catalogue: Catalogue, stored: Mapping[str, tuple[PriceRow, datetime]], now: datetime, model: str | None = None
) -> list[PriceLine]:
    """Each tier once, those of the catalogue first, then those that only the database (`booked_prices`) has.

    Of a source of prices (`prices_from`) only what is listed, or `model`.
    """
    found: dict[str, PriceLine] = {}
    for provider, row, checked_on, current in _catalogued(catalogue, now, model):
        if row.digest in found:
            line = found[row.digest]
            found[row.digest] = replace(line, also_at=(*line.also_at, provider))
            continue
        stored_at = stored[row.digest][1] if row.digest in stored else None
        found[row.digest] = _line(row, checked_on=checked_on, current=current, stored_at=stored_at)
    for digest, (row, stored_at) in stored.items():
        if digest not in found:
            found[digest] = _line(row, checked_on=None, current=False, stored_at=stored_at)
    return [line for line in found.values() if model in (None, line.model)]


def _catalogued(
    catalogue: Catalogue, now: datetime, name: str | None
) -> Iterator[tuple[str, PriceRow, date | None, bool]]:
    for endpoint, model in _listed(catalogue) if name is None else catalogue.named(name):
        for price in model.prices:
            for row in price.rows():
                yield endpoint.name, row, price.checked_on, price is model.price_at(now)


def _listed(catalogue: Catalogue) -> Iterator[tuple[Endpoint, Model]]:
    for endpoint in catalogue.endpoints.values():
        for model in () if endpoint.simulated else endpoint.models.values():
            yield endpoint, model


def _line(row: PriceRow, *, checked_on: date | None, current: bool, stored_at: datetime | None) -> PriceLine:
    return PriceLine(
        provider=f"{row.provider}/{row.region}" if row.region else row.provider,
        model=row.model,
        currency=row.currency,
        from_tokens=row.from_tokens,
        up_to=row.up_to,
        input=row.input,
        cached_input=row.cached_input,
        cache_write=row.cache_write,
        output=row.output,
        thinking_output=row.thinking_output,
        valid_from=row.valid_from,
        source=row.source,
        checked_on=checked_on,
        current=current,
        stored_at=stored_at,
        also_at=(),
    )


def booked_prices(connection: Connection) -> dict[str, tuple[PriceRow, datetime]]:
    """The rows by digest, in the order in which they came, each with the time at which it did."""
    found = {}
    for row in connection.execute(sa.select(prices).order_by(prices.c.id)):
        price = PriceRow(
            provider=row.provider,
            region=row.region,
            model=row.model,
            currency=row.currency,
            valid_from=row.valid_from,
            source=row.source,
            from_tokens=row.from_tokens,
            up_to=row.up_to,
            input=row.input,
            output=row.output,
            cached_input=row.cached_input,
            cache_write=row.cache_write,
            thinking_output=row.thinking_output,
        )
        found[row.digest] = (price, row.loaded_at)
    return found

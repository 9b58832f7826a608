"""The prices that calls were booked with. They stay, whatever the catalogue says later."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import Connection

from batchrun.pricing import PriceRow
from batchrun.tables import prices


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

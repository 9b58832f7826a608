"""How much there is in the database."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import Connection

from batchrun.tables import attempts, items, jobs, usage


def row_counts(connection: Connection) -> dict[str, int]:
    """Rows by table, of those that grow."""
    return {
        table.name: connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
        for table in (jobs, items, attempts, usage)
    }

"""How much there is in the database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy import Connection

from batchrun.tables import attempts, items, jobs, usage


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseStatus:
    """Where a database is, and whether this version of batchrun can use it."""

    address: str
    """Without its password."""
    schema: str | None
    """The revision that it has; None where it has no tables yet."""
    needed: str
    rows: Mapping[str, int]
    """How many there are by table; none where the schema is another one."""

    @property
    def current(self) -> bool:
        return self.schema == self.needed


def row_counts(connection: Connection) -> dict[str, int]:
    """Rows by table, of those that grow."""
    return {
        table.name: connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
        for table in (jobs, items, attempts, usage)
    }

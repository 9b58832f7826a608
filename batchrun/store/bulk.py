"""Many rows in one statement: they travel as one `VALUES`, and the statement is compiled once for each database.

`executemany` would run the statement once for each row. sqlite3 gives the interpreter's lock away at each of these
runs, and the busy event loop keeps it for milliseconds; and SQLAlchemy's own work for a row costs more than SQLite's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.engine import Dialect
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.types import TypeEngine

from batchrun.tables import Record

Row = Mapping[str, object]
PARAMETERS = 30_000
"""Values in one statement at most: SQLite takes 32,766, PostgreSQL 65,535."""


class Given:
    """The rows of a statement as it sees them: a table `given` with these columns, in the statement as `given.c.name`.

    Both databases call the columns of a `VALUES` column1, column2, and so on.
    """

    def __init__(self, types: Mapping[str, TypeEngine[Any]]) -> None:
        self.types = dict(types)
        columns = [sa.column(f"column{place}", kind) for place, kind in enumerate(self.types.values(), 1)]
        self.table = sa.table("given", *columns)
        self.c: Mapping[str, sa.ColumnClause[Any]] = dict(zip(self.types, columns, strict=True))


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Bulk:
    """`statement` reads from `given.table`, once."""

    statement: UpdateBase
    given: Given

    def run(self, connection: Connection, rows: Sequence[Row]) -> list[Record]:
        """What the statement returns for all rows, in no particular order; nothing where it returns nothing."""
        form = rendered(self, connection.dialect)
        found: list[Record] = []
        share = PARAMETERS // len(self.given.types)
        for start in range(0, len(rows), share):
            part = rows[start : start + share]
            values = tuple(
                row[name] if bind is None else bind(row[name]) for row in part for name, bind in form.binds.items()
            )
            result = connection.exec_driver_sql(f"{form.head}{', '.join([form.row] * len(part))}{form.tail}", values)
            if result.returns_rows:
                found += result
        return found


def insert(table: sa.Table, names: Sequence[str], *, returning: Sequence[str] = ()) -> Bulk:
    """New rows of `table`; all other columns get their defaults."""
    given = Given({name: table.c[name].type for name in names})
    statement = sa.insert(table).from_select(list(names), sa.select(*given.c.values()), include_defaults=False)
    if returning:
        return Bulk(statement=statement.returning(*(table.c[name] for name in returning)), given=given)
    return Bulk(statement=statement, given=given)


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A statement as one database wants it: `head`, then a `row` for each row, then `tail`."""

    head: str
    row: str
    tail: str
    binds: Mapping[str, Callable[[Any], object] | None]
    """By name, what makes a value one of the driver's."""


@lru_cache(maxsize=256)
def rendered(bulk: Bulk, dialect: Dialect) -> Form:
    compiled = bulk.statement.compile(dialect=dialect, compile_kwargs={"literal_binds": True})
    head, tail = str(compiled).split("FROM given", 1)
    impls = {name: kind.dialect_impl(dialect) for name, kind in bulk.given.types.items()}
    if dialect.name == "sqlite":
        marks = ["?"] * len(impls)
    else:
        marks = [f"CAST(%s AS {dialect.type_compiler_instance.process(kind)})" for kind in impls.values()]
    return Form(
        head=f"{head}FROM (VALUES ",
        row=f"({', '.join(marks)})",
        tail=f") AS given{tail}",
        binds={name: kind.bind_processor(dialect) for name, kind in impls.items()},
    )

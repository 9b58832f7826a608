"""How commands write: data to standard output, notes to standard error, tables that fit, nothing a terminal obeys."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from datetime import datetime

    import typer
    from rich.console import Console


@dataclass(slots=True, kw_only=True)
class Switches:
    """What the options that every command has say."""

    verbose: bool = False
    quiet: bool = False
    no_color: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Screen:
    out: Console
    err: Console
    quiet: bool

    def note(self, text: str) -> None:
        """A line on standard error, unless --quiet."""
        from rich.text import Text

        from batchrun.visible import visible

        if not self.quiet:
            self.err.print(Text(visible(text)), soft_wrap=True)

    def line(self, text: str = "", style: str = "") -> None:
        """A line of text on standard output, never wrapped."""
        from rich.text import Text

        from batchrun.visible import visible

        self.out.print(Text(visible(text), style=style), soft_wrap=True)

    def json(self, value: object) -> None:
        """One document on standard output, always UTF-8."""
        from batchrun.visible import json_text

        self.data((json_text(value, indent=2) + "\n").encode())

    def data(self, content: bytes) -> None:
        sys.stdout.flush()
        sys.stdout.buffer.write(content)

    def table(self, columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
        """A table within the width of the terminal; cells that are too long end in `…`, numbers stay whole."""
        from rich.table import Table
        from rich.text import Text

        from batchrun.visible import visible

        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for column in columns:
            table.add_column(
                column.title,
                justify=column.justify,
                no_wrap=True,
                overflow="ellipsis",
                min_width=None if column.shrinks else column.width(rows := [tuple(row) for row in rows]),
            )
        for row in rows:
            table.add_row(*(Text(visible(cell)) for cell in row))
        self.out.print(table)


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    title: str
    justify: Literal["left", "right"] = "left"
    shrinks: bool = False
    """Whether its cells may be cut."""

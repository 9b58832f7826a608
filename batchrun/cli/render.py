"""How commands write: data to standard output, notes to standard error, tables that fit, nothing a terminal obeys."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from datetime import datetime

    import typer
    from rich.console import Console

    from batchrun.counting.foreseen import Foreseen
    from batchrun.reports.cost import CostLine


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

        from batchrun.output.visible import visible

        if not self.quiet:
            self.err.print(Text(visible(text)), soft_wrap=True)

    def line(self, text: str = "", style: str = "") -> None:
        """Text on standard output, its lines never wrapped."""
        from rich.text import Text

        from batchrun.output.visible import visible_lines

        self.out.print(Text("\n".join(visible_lines(text)), style=style), soft_wrap=True)

    def json(self, value: object) -> None:
        """One document on standard output, always UTF-8."""
        from batchrun.output.visible import json_text

        self.data((json_text(value, indent=2) + "\n").encode())

    def data(self, content: bytes) -> None:
        sys.stdout.flush()
        sys.stdout.buffer.write(content)

    def table(self, columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
        """A table within the width of the terminal. Only cells of columns that shrink are cut, with `…`."""
        from rich.cells import cell_len
        from rich.table import Table
        from rich.text import Text

        from batchrun.output.visible import visible

        cells = [[visible(cell) for cell in row] for row in rows]
        table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
        least = 0
        for index, column in enumerate(columns):
            whole = max([cell_len(column.title), *(cell_len(row[index]) for row in cells)])
            width = min(whole, SHRUNK) if column.shrinks else whole
            least += width + GAP
            table.add_column(
                Text(column.title), justify=column.justify, no_wrap=True, overflow="ellipsis", min_width=width
            )
        for row in cells:
            table.add_row(*map(Text, row))
        self.out.print(table, width=max(least, self.out.width), no_wrap=True, crop=False)


GAP = 2
SHRUNK = 12
"""Narrower no column is made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    title: str
    justify: Literal["left", "right"] = "left"
    shrinks: bool = False
    """Whether its cells may be cut."""


def screen(context: typer.Context) -> Screen:
    """The consoles of a command, set up as its switches say."""
    switches = context.find_object(Switches)
    return screen_of(Switches() if switches is None else switches)


def screen_of(switches: Switches) -> Screen:
    from rich.console import Console

    def console(*, stderr: bool) -> Console:
        no_color = True if switches.no_color else None  # None asks the environment
        return Console(stderr=stderr, markup=False, emoji=False, highlight=False, no_color=no_color)

    return Screen(out=console(stderr=False), err=console(stderr=True), quiet=switches.quiet)


def count_text(count: int | None) -> str:
    return "?" if count is None else f"{count:,}"


def cost_text(low: Decimal | None, high: Decimal | None, currency: str | None, *, unknown: int) -> str:
    """The exact amount; `≤` its upper bound, `≥` the known part where some isn't known; `unknown`."""
    from batchrun.output.visible import money_text

    if low is None or high is None:
        return "unknown" if unknown else "-"
    if unknown:
        return f"≥ {money_text(low)} {currency}"
    return f"{'' if low == high else '≤ '}{money_text(high)} {currency}"


def estimate_texts(line: CostLine) -> list[str]:
    """What the job was estimated at when it was loaded, and what it came to: cost and tokens, as far as they are known.
    The estimate is one for a call of each item, which is said where items share an answer."""
    if line.estimate is None:
        return []
    each = " for a call of each item" if line.shared else ""
    texts = estimate_text(line.estimate, line, each), foreseen_tokens_text(line.estimate, line, each)
    return [text for text in texts if text]


def estimate_text(estimate: Foreseen, line: CostLine, each: str) -> str:
    """`-` stands between a low and a high end."""
    from batchrun.output.visible import money_text

    low, high, currency = line.cost_low, line.cost_high, line.currency
    if estimate.cost is None or estimate.currency != currency or low is None or high is None:
        return ""
    least, most = estimate.cost
    span = f"at least {money_text(least)}" if most is None else f"{money_text(least)}-{money_text(most)}"
    came = money_text(high) if low == high else f"{money_text(low)}-{money_text(high)}"
    return f"estimated {span} {currency}{each}, came to {came} {currency}"


def foreseen_tokens_text(estimate: Foreseen, line: CostLine, each: str) -> str:
    """The same of the tokens; it says where not all items are answered."""
    spans = [
        f"at least {low:,}" if high is None else f"{low:,}-{high:,}"
        for low, high in (estimate.input_tokens, estimate.output_tokens)
    ]
    came = [count_text(tokens) for tokens in (line.input_tokens, line.output_tokens)]
    return f"estimated {spans[0]} tokens in and {spans[1]} out{each}, came to {came[0]} and {came[1]}" + (
        f" with {line.items:,} of {estimate.items:,} items answered" if line.items < estimate.items else ""
    )


def foreseen_document(estimate: Foreseen | None) -> dict[str, object] | None:
    return None if estimate is None else dict(estimate.stored())


def shared_text(line: CostLine) -> str:
    """A sentence about the calls that duplicates didn't need; empty where there are none."""
    if not line.shared:
        return ""
    saved = cost_text(line.saved_low, line.saved_high, line.currency, unknown=line.unknown_saved)
    about = "an unknown amount" if saved == "unknown" else f"about {saved}"
    return f"{line.calls:,} calls for {line.items:,} items: {line.shared:,} shared an answer, saved {about}"


def between_text(low: Decimal | None, high: Decimal | None, currency: str | None) -> str:
    """A sentence about an amount that isn't exact; empty for one that is."""
    from batchrun.output.visible import money_text

    if low is None or high is None or low == high:
        return ""
    return f"the cost lies between {money_text(low)} and {money_text(high)} {currency}"


def when_text(moment: datetime | None) -> str:
    """UTC, to the second."""
    return "-" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}Z"


def title_text(name: str, *, simulated: bool) -> str:
    return f"{name} (simulated)" if simulated else name


def command_text(command: str, job: str, *rest: str, simulated: bool) -> str:
    """A command line for a job, as it is typed. Names of jobs need no quotes; `rest` gets them where it must."""
    words = [*rest, *(["--simulated"] if simulated else [])]
    return " ".join(["batchrun", command, job, *(shlex.quote(word) for word in words)])

"""A vendor's bill as CSV: what each request cost, by its id.

Vendors name their columns as they like and split a request over several lines, so the columns can be named and lines
of one id are added. An amount that could be read in two ways, such as 1,234, is refused with its line: money isn't
guessed.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from pathlib import Path

from batchrun.errors import Problem, SpecError, UsageError
from batchrun.pricing import MONEY_UNIT
from batchrun.showing import clean, listing, shown

ID_COLUMN, AMOUNT_COLUMN, CURRENCY_COLUMN = "request_id", "amount", "currency"
DELIMITERS = ",;\t|"
MOST = Decimal(9_000_000)
"""Currency units of one request; more can't be counted, and no request costs it."""
MAX_PROBLEMS = 20
MAX_CELL = 65_536
_AMOUNT = re.compile(r"[+-]?\d{1,20}(?:\.\d{1,40})?(?:[eE][+-]?\d{1,2})?", re.ASCII)
_EXACT = Context(prec=120)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    amounts: dict[str, Decimal]
    """What each request cost, by its id; never negative, whole units of 10⁻¹²."""
    currency: str | None
    """Of all lines; None where the bill has no such column."""
    lines: int
    without_id: int
    """Lines without a request id, such as a total or storage: they are left out."""


@dataclass(slots=True, kw_only=True)
class _Reader:
    path: Path
    sums: dict[str, Decimal]
    problems: list[Problem]
    currencies: dict[str, int]
    lines: int = 0
    without_id: int = 0

    def note(self, line: int | None, column: str, message: str, remedy: str) -> None:
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(
                Problem(file=self.path, line=line, column=None, field=column, message=message, remedy=remedy)
            )

    def take(self, line: int, name: str, amount: str, currency: str | None, column: str) -> None:
        self.lines += 1
        if not name:
            self.without_id += 1
            return
        if currency is not None:
            self.currencies.setdefault(currency, line)
        if not _AMOUNT.fullmatch(amount):
            self.note(line, column, f"{shown(amount)} is not an amount", _remedy(amount))
            return
        self.sums[name] = _EXACT.add(self.sums.get(name, Decimal(0)), Decimal(amount))


def _remedy(amount: str) -> str:
    if re.fullmatch(r"[+-]?[\d.,'\s\u00a0\u202f]+", amount):
        return "Write plain digits with a point, without separators of thousands, such as 1234.56"
    return "Write plain digits, without a currency, such as 0.0123"


def read_bill(data: bytes, path: Path, *, id_column: str = ID_COLUMN, amount_column: str = AMOUNT_COLUMN) -> Bill:
    """The bill in `data`, the content of the file at `path`.

    Raises UsageError where it has no such columns, SpecError with the lines that can't be read.
    """
    rows = _rows(_text(data, path), path, (id_column, amount_column))
    _, header = next(rows)
    place, amount_place = (_place(header, name, path) for name in (id_column, amount_column))
    currency_place = _find(header, CURRENCY_COLUMN)
    reader = _Reader(path=path, sums={}, problems=[], currencies={})
    for line, cells in rows:
        if len(cells) != len(header):
            message = f"the line has {len(cells)} cells, the header has {len(header)}"
            reader.note(line, "", message, "Put a cell that contains the delimiter in quotes")
            continue
        currency = None if currency_place is None else cells[currency_place].strip()
        reader.take(line, cells[place].strip(), cells[amount_place].strip(), currency, header[amount_place].strip())
    return _checked(reader)


def _checked(reader: _Reader) -> Bill:
    for name, amount in reader.sums.items():
        if not 0 <= amount <= MOST:
            message = f"the lines of request {clean(name)} add up to {amount:f}"
            reader.note(None, "", message, f"A request costs from 0 to {MOST:,}: correct its lines, or take them out")
    if len(reader.currencies) > 1:
        (first, _), (second, line) = list(reader.currencies.items())[:2]
        message = f"the currency is {shown(second)}, further up it is {shown(first)}"
        reader.note(line, CURRENCY_COLUMN, message, "Split the bill by currency")
    if reader.problems:
        raise SpecError(reader.problems, code="bill")
    return Bill(
        amounts={name: amount.quantize(MONEY_UNIT, context=_EXACT) for name, amount in reader.sums.items()},
        currency=next(iter(reader.currencies), None),
        lines=reader.lines,
        without_id=reader.without_id,
    )


def _text(data: bytes, path: Path) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\x00" in data:
        raise SpecError([_problem(path, None, "is not UTF-8 text", "Save it as CSV in UTF-8")], code="bill")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        message = f"the byte 0x{data[error.start]:02X} is not UTF-8"
        raise SpecError([_problem(path, line, message, "Save the file as UTF-8")], code="bill") from error


def _problem(path: Path, line: int | None, message: str, remedy: str) -> Problem:
    return Problem(file=path, line=line, column=None, field="", message=message, remedy=remedy)


def _rows(text: str, path: Path, wanted: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """The header and the lines below it, each with its number. Raises SpecError, also for a file without lines."""
    first = next((line for line in text.splitlines() if line.strip()), None)
    if first is None:
        raise SpecError([_problem(path, None, "is empty", "Name the bill that the vendor offers as CSV")], code="bill")
    csv.field_size_limit(MAX_CELL)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(first, wanted), strict=True)
    started = 1
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            remedy = 'Close the quote; write a quote inside a cell as `""`'
            raise SpecError([_problem(path, started, "can't be read as CSV", remedy)], code="bill") from error
        if cells is None:
            return
        if any(cell.strip() for cell in cells):
            yield started, cells
        started = reader.line_num + 1


def _delimiter(header: str, wanted: Sequence[str]) -> str:
    """The one that shows the columns that are looked for, else the one that shows most columns."""

    def rank(delimiter: str) -> tuple[int, int]:
        cells = next(csv.reader([header], delimiter=delimiter), [])
        return sum(_find(cells, name) is not None for name in wanted), len(cells)

    return max(DELIMITERS, key=rank)


def _find(header: Sequence[str], name: str) -> int | None:
    """Where the column stands; exactly so, or else apart from case, blanks and punctuation, if that is one alone."""
    cells = [cell.strip() for cell in header]
    if cells.count(name) == 1:
        return cells.index(name)
    alike = [place for place, cell in enumerate(cells) if _letters(cell) == _letters(name)]
    return alike[0] if len(alike) == 1 else None


def _letters(name: str) -> str:
    return "".join(char for char in name.casefold() if char.isalnum())


def _place(header: Sequence[str], name: str, path: Path) -> int:
    place = _find(header, name)
    if place is None:
        raise UsageError(
            f"{path} has no single column `{clean(name)}`; "
            f"its columns are: {listing([cell.strip() for cell in header])}",
            code="bill-column",
            remedy="name the columns with --id-column and --amount-column",
        )
    return place

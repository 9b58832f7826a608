"""The bill book: what every request would have cost, one row each, kept in memory and as lines of JSON."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from batchrun.simulator.prices import CURRENCY, Usage


@dataclass(frozen=True, kw_only=True, slots=True)
class BookRow:
    """One request. Tokens are the billed ones, all inclusive; `amount` is None for a model without a price."""

    time: datetime
    request_id: str
    chat_id: str
    region: str
    model: str | None
    """None when the request was refused before its model was read."""
    fault: str
    """The fault spec of the address; empty without one."""
    hit: tuple[str, ...] = ()
    """Names of the faults that hit this request."""
    body_sha256: str
    """Equal for repeats of the same request."""
    stream: bool
    status: int | None
    """None when no status line was sent."""
    complete: bool
    """The client was given an end by which it can know that nothing is missing."""
    billed: Usage
    usage_sent: Usage | None
    """The last usage that the client was told."""
    amount: Decimal | None
    currency: str = CURRENCY

    def to_json(self) -> str:
        document = asdict(self)
        document["time"] = self.time.isoformat()
        document["amount"] = None if self.amount is None else plain(self.amount)
        return json.dumps(document, ensure_ascii=True)


def plain(amount: Decimal) -> str:
    """The number without an exponent and without zeros at its end."""
    return format(amount.normalize(), "f")


def read_row(document: Mapping[str, object]) -> BookRow:
    """A row from its JSON object; raise `ValueError` when the object is no row of a bill book."""
    values = dict(document)
    unknown = values.keys() ^ {column.name for column in fields(BookRow)}
    if unknown:
        raise ValueError(f"not a row of a bill book: {', '.join(sorted(unknown))} missing or unknown")
    return BookRow(
        time=datetime.fromisoformat(str(values["time"])),
        request_id=str(values["request_id"]),
        chat_id=str(values["chat_id"]),
        region=str(values["region"]),
        model=None if values["model"] is None else str(values["model"]),
        fault=str(values["fault"]),
        hit=tuple(values["hit"]) if isinstance(values["hit"], list) else (),
        body_sha256=str(values["body_sha256"]),
        stream=values["stream"] is True,
        status=values["status"] if isinstance(values["status"], int) else None,
        complete=values["complete"] is True,
        billed=read_usage(values["billed"]) or Usage(),
        usage_sent=read_usage(values["usage_sent"]),
        amount=None if values["amount"] is None else Decimal(str(values["amount"])),
        currency=str(values["currency"]),
    )


def read_usage(document: object) -> Usage | None:
    return Usage(**document) if isinstance(document, dict) else None


def read_book(path: Path) -> list[BookRow]:
    """The rows of a book file. A last line that a killed simulator left unfinished is left out."""
    rows = []
    for line in path.read_text("utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            rows.append(read_row(json.loads(line)))
    return rows


class Book:
    """Writes each row when its bill is known; a file gets it at once, so that a kill loses nothing."""

    def __init__(self, path: Path | None) -> None:
        self.rows: list[BookRow] = []
        self.file: TextIO | None = None if path is None else path.open("a", encoding="utf-8")

    def write(self, row: BookRow) -> None:
        self.rows.append(row)
        if self.file is not None:
            self.file.write(row.to_json() + "\n")
            self.file.flush()

    def to_json(self) -> str:
        return "[" + ",\n".join(row.to_json() for row in self.rows) + "]\n"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.file is not None:
            self.file.close()


def now() -> datetime:
    return datetime.now(UTC)

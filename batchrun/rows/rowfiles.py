"""Rows from JSONL and CSV files, one at a time, each with its line. Bad lines are noted, the reading goes on.

JSON is read by the standard library's decoder: with hooks it sees duplicate keys, NaN and overflowing numbers, which
faster decoders let pass.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from batchrun.messages import JsonValue
from batchrun.rows.complaints import Complaints
from batchrun.showing import clean, shown

MAX_LINE = 16_777_216
"""Bytes of a line: a data URL of the largest size, and the rest of its row."""
MAX_CELL = 1_048_576
"""Characters of a CSV cell."""
MAX_DEPTH = 32
Record = tuple[int, dict[str, JsonValue]]
"""Line, counted from 1, and the fields of the row."""

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_JSON = frozenset({".jsonl", ".ndjson"})

_SUSPECT = re.compile(r"\\u(?:[dD][89a-fA-F]|0000)")
_UNUSABLE = re.compile(r"[\ud800-\udfff]|\\u0000")


class _LineProblem(Exception):
    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.message, self.remedy = message, remedy


def read_records(path: Path, file: BinaryIO, complaints: Complaints) -> Iterator[Record]:
    """The rows of an opened file, by the extension of its name. Raises SpecError where the rest can't be read."""
    extension = path.suffix.lower()
    if extension in _JSON:
        return read_jsonl(file, complaints)
    if extension in _DELIMITERS:
        return _read_csv(file, _DELIMITERS[extension], complaints)
    if extension == ".parquet":
        raise complaints.stop("Parquet files do not work yet in this version", "Save the rows as JSONL or CSV")
    message = f"the extension `{clean(extension)}` is not one of .jsonl, .ndjson, .csv, .tsv"
    raise complaints.stop(message, "Save the rows in one of these forms, and name the file so")


def read_lines(
    file: BinaryIO,
    complaints: Complaints,
    *,
    max_line: int = MAX_LINE,
    too_long: str = "Name pictures by their paths",
) -> Iterator[tuple[int, str]]:
    """Lines of UTF-8 text without their ends; a byte order mark at the start is left out.

    A line of more than `max_line` bytes is noted with the remedy `too_long`, and passed over.
    """
    number = 0
    while data := file.readline(max_line + 1):
        number += 1
        if len(data) > max_line:
            complaints.add(f"the line is longer than {max_line:,} bytes", too_long, line=number)
            while data and not data.endswith(b"\n"):
                data = file.readline(max_line)
            continue
        if number == 1:
            data = _without_mark(data, complaints)
        try:
            yield number, data.decode().rstrip("\r\n")
        except UnicodeDecodeError as error:
            message = f"the byte 0x{data[error.start]:02X} is not UTF-8 (is the file Latin-1?)"
            complaints.add(message, "Save the file as UTF-8", line=number)


def _without_mark(data: bytes, complaints: Complaints) -> bytes:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\x00" in data[:4]:
        raise complaints.stop("the file is UTF-16 or UTF-32, not UTF-8", "Save the file as UTF-8", line=1)
    return data.removeprefix(b"\xef\xbb\xbf")


def read_jsonl(
    file: BinaryIO,
    complaints: Complaints,
    *,
    max_line: int = MAX_LINE,
    too_long: str = "Name pictures by their paths",
) -> Iterator[Record]:
    """The objects of a file with one of them on each line; see `read_lines`."""
    for number, line in read_lines(file, complaints, max_line=max_line, too_long=too_long):
        if not line or line.isspace():
            continue
        try:
            yield number, parse_object(line)
        except _LineProblem as problem:
            complaints.add(problem.message, problem.remedy, line=number)


def parse_object(line: str) -> dict[str, JsonValue]:
    try:
        value: JsonValue = _DECODER.decode(line)
    except json.JSONDecodeError as error:
        raise _LineProblem(
            f"not JSON: {error.msg} at column {error.colno}", "Write one JSON object per line"
        ) from error
    except RecursionError as error:
        raise _too_deep() from error
    except ValueError as error:  # a whole number with thousands of digits
        raise _LineProblem("a number is too long", "Write it as text") from error
    if not isinstance(value, dict):
        raise _LineProblem(f"the line holds {shown(value)}, not an object", 'Write `{"name": value, …}`')
    if line.count("[") + line.count("{") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise _too_deep()
    if "\\" in line and _SUSPECT.search(line):
        _refuse_unusable(json.dumps(value, ensure_ascii=False).replace("\\\\", ""))
    return value


def _refuse_unusable(text: str) -> None:
    """Only escapes can smuggle these in: the line is valid UTF-8, and JSON has no raw control characters."""
    if _UNUSABLE.search(text):
        raise _LineProblem("a text holds a NUL or half a surrogate pair", "Delete the escape")


def _too_deep() -> _LineProblem:
    return _LineProblem(f"nested more than {MAX_DEPTH} levels deep", "Make the row flatter, or write the part as text")


def _depth(value: JsonValue) -> int:
    level: list[JsonValue] = [value]
    depth = 0
    while level := [part for part in level if isinstance(part, dict | list)]:
        depth += 1
        level = [inner for part in level for inner in (part.values() if isinstance(part, dict) else part)]
    return depth


def _object(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _LineProblem(f"the key `{clean(twice)}` stands twice in an object", "Delete one of the two")
    return value


def _constant(word: str) -> float:
    raise _LineProblem(f"{word} is not JSON", "Write null, or the word in quotes")


def _float(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise _LineProblem(f"the number {clean(digits)} is too large", "Write it as text")
    return number


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_float=_float)


def _read_csv(file: BinaryIO, delimiter: str, complaints: Complaints) -> Iterator[Record]:
    # The limit is the csv module's own and holds for the process; its default is an eighth of ours.
    csv.field_size_limit(MAX_CELL)
    ends = (line + "\n" for _, line in read_lines(file, complaints))
    reader = csv.reader(ends, delimiter=delimiter, strict=True)
    header: list[str] = []
    started = 1
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            message = f"the row that starts here can't be read: {_csv_reason(str(error))}"
            raise complaints.stop(
                message, 'Close the quote; write a quote inside a cell as `""`', line=started
            ) from error
        if cells is None:
            return
        if cells and not header:
            header = _check_header(cells, delimiter, started, complaints)
        elif cells:
            yield from _record(header, cells, started, complaints)
        started = reader.line_num + 1


def _record(header: list[str], cells: list[str], line: int, complaints: Complaints) -> Iterator[Record]:
    if len(cells) != len(header):
        message = f"the row has {len(cells)} cells, the header has {len(header)}"
        complaints.add(message, "Put a cell that contains the delimiter in quotes", line=line)
    elif any("\x00" in cell for cell in cells):
        complaints.add("a cell holds a NUL", "Delete it", line=line)
    else:
        yield line, dict(zip(header, cells, strict=True))


def _check_header(cells: list[str], delimiter: str, line: int, complaints: Complaints) -> list[str]:
    names = [cell.strip() for cell in cells]
    others = {",": ";\t", "\t": ",;"}[delimiter]
    if len(names) == 1 and any(other in names[0] for other in others):
        message = f"the header `{clean(names[0])}` has no {'comma' if delimiter == ',' else 'tab'}"
        raise complaints.stop(message, "Separate .csv by commas and .tsv by tabs", line=line)
    for name in names:
        if not name or names.count(name) > 1:
            message = f"the column `{clean(name)}` stands twice" if name else "a column has no name"
            raise complaints.stop(message, "Give each column a name of its own", line=line)
    return names


def _csv_reason(reason: str) -> str:
    if "field limit" in reason:
        return f"a cell has more than {MAX_CELL:,} characters, or a quote isn't closed"
    if "end of data" in reason:
        return "a quote isn't closed"
    return reason

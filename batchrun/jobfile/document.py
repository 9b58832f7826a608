"""The YAML that a job file may use, read into plain values that remember where they stand.

YAML 1.2 with the core schema: `no`, `12:30` and dates are text. What can hide or multiply content is refused: aliases,
anchors, merge keys, tags, duplicate keys, a second document. Values are built from the parser's events, so nothing is
ever expanded, and depth and size are bounded while reading.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    DocumentStartEvent,
    Event,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceStartEvent,
)
from ruamel.yaml.reader import ReaderError

from batchrun.errors import Problem
from batchrun.messages import JsonValue
from batchrun.showing import clean

MAX_DEPTH = 32
MAX_VALUES = 200_000
MAX_LIST = 10_000
KeyPath = tuple[str | int, ...]

_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", re.ASCII)
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", re.ASCII)
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_WORDS: Mapping[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_QUOTES = "Put it in quotes if it is meant as text"
_ROW_FILE = "Put rows into a JSONL or CSV file and name it under `inputs: {rows: …}`"
_OLD_BREAKS = "\x85\u2028\u2029"
"""Line breaks of YAML 1.1 that are ordinary characters in 1.2. The parser still breaks lines at them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a value stands. Lines and columns count from 1."""

    line: int
    column: int
    key: tuple[int, int] | None
    """Line and column of its key; None in a list."""
    text: str | None
    """A plain scalar as it was written; None for anything quoted, and for mappings and lists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    value: JsonValue
    places: Mapping[KeyPath, Place]
    problems: list[Problem]
    complete: bool
    """False where the reading stopped early, so that `value` holds only what came before."""


class _Stop(Exception):
    """The problem is already noted; the rest can't be read."""


@dataclass(slots=True)
class _Frame:
    """A mapping or list that is still open."""

    container: dict[str, JsonValue] | list[JsonValue]
    path: KeyPath
    key: str | None = None
    """The key that waits for its value."""
    key_place: tuple[int, int] | None = None
    keys: dict[str, tuple[int, int]] = field(default_factory=dict)


class Lines:
    """Turns an index of a text into its line and column."""

    def __init__(self, text: str) -> None:
        self._starts = [0, *(match.end() for match in re.finditer(r"\r\n|\n|\r", text))]

    def at(self, index: int) -> tuple[int, int]:
        line = bisect_right(self._starts, index)
        return line, index - self._starts[line - 1] + 1


def read_document(text: str, file: Path) -> Document:
    """Read one YAML document. Never raises: what is wrong with it stands in `problems`."""
    return _Builder(text, file).build()


class _Builder:
    def __init__(self, text: str, file: Path) -> None:
        self._text, self._file, self._lines = text, file, Lines(text)
        self._frames: list[_Frame] = []
        self._root: JsonValue = None
        self._places: dict[KeyPath, Place] = {}
        self._problems: list[Problem] = []
        self._documents = 0
        unused = (chr(code) for code in range(0xE000, 0xF900) if chr(code) not in text)
        pairs = list(zip(_OLD_BREAKS, unused, strict=False))
        self._hide = {ord(char): stand_in for char, stand_in in pairs}
        self._restore = {ord(stand_in): char for char, stand_in in pairs}

    def build(self) -> Document:
        complete = False
        try:
            for event in self._events():
                self._take(event)
            if not self._documents:
                self._stop(0, "the file is empty", "Start with `version: 1` and `jobs:`")
            complete = True
        except _Stop:
            pass
        except MarkedYAMLError as error:
            self._note_syntax(error)
        except ReaderError as error:
            self._note(
                error.position, f"the character U+{ord(self._text[error.position]):04X} is not allowed", "Delete it"
            )
        return Document(value=self._root, places=self._places, problems=self._problems, complete=complete)

    def _events(self) -> Iterator[Event]:
        events: Iterator[Event] = YAML(typ="safe", pure=True).parse(self._text.translate(self._hide))
        return events

    def _take(self, event: Event) -> None:
        if isinstance(event, DocumentStartEvent):
            self._start_document(event)
        elif isinstance(event, CollectionEndEvent):
            self._frames.pop()
        elif isinstance(event, NodeEvent):
            self._take_node(event)

    def _start_document(self, event: DocumentStartEvent) -> None:
        index = event.start_mark.index
        self._documents += 1
        if self._documents > 1:
            self._stop(index, "a second YAML document starts here", "Write all jobs under one `jobs:`, without `---`")
        if event.tags or event.version not in (None, (1, 2)):
            self._note(index, "only YAML 1.2 without directives is read", "Delete the lines that start with `%`")

    def _take_node(self, event: NodeEvent) -> None:
        self._refuse_extras(event)
        frame = self._frames[-1] if self._frames else None
        if frame is not None and isinstance(frame.container, dict) and frame.key is None:
            self._take_key(event, frame)
        else:
            self._take_value(event, frame)

    def _refuse_extras(self, event: NodeEvent) -> None:
        index = event.start_mark.index
        if isinstance(event, AliasEvent):
            self._note(index, f"aliases such as `*{clean(str(event.anchor))}` are not allowed", "Write the value out")
        elif event.anchor is not None:
            self._note(index, f"anchors such as `&{clean(str(event.anchor))}` are not allowed", "Delete the anchor")
        elif (tag := getattr(event, "tag", None)) is not None:  # an alias, refused above, has none
            self._note(index, f"tags are not allowed: `{clean(str(tag))}`", "Delete the tag; quotes make a text")

    def _take_key(self, event: NodeEvent, frame: _Frame) -> None:
        place = self._lines.at(event.start_mark.index)
        if not isinstance(event, ScalarEvent | AliasEvent):
            remedy = "Put a text that starts with `{` or `[` in quotes"
            self._stop(event.start_mark.index, "a mapping or list can't be a key", remedy)
        key = event.value.translate(self._restore) if isinstance(event, ScalarEvent) else "*"
        if key == "<<" and isinstance(event, ScalarEvent) and event.style is None:
            self._note(event.start_mark.index, "merge keys `<<` are not allowed", "Write the keys out")
        elif isinstance(event, ScalarEvent) and not isinstance(self._scalar(event), str):
            self._note(event.start_mark.index, f"the key `{clean(key)}` is not text", "Put the key in quotes")
        elif key in frame.keys:
            line, column = frame.keys[key]
            message = f"the key `{clean(key)}` stands here a second time; the first is at {line}:{column}"
            self._note(event.start_mark.index, message, "Delete one of the two")
        frame.key, frame.key_place = key, place
        frame.keys.setdefault(key, place)

    def _take_value(self, event: NodeEvent, frame: _Frame | None) -> None:
        path = self._path(event, frame)
        value: JsonValue = None
        if isinstance(event, ScalarEvent):
            value = self._scalar(event)
        elif isinstance(event, MappingStartEvent):
            value = self._open({}, path, event)
        elif isinstance(event, SequenceStartEvent):
            value = self._open([], path, event)
        line, column = self._lines.at(event.start_mark.index)
        text = event.value if isinstance(event, ScalarEvent) and event.style is None else None
        key_place = frame.key_place if frame else None
        if text == "" and key_place is not None:
            line, column = key_place  # nothing was written, and the parser looks for it on later lines
        self._places[path] = Place(line=line, column=column, key=key_place, text=text)
        self._put(value, frame)
        if len(self._places) > MAX_VALUES:
            self._stop(event.start_mark.index, f"more than {MAX_VALUES:,} values", _ROW_FILE)

    def _path(self, event: NodeEvent, frame: _Frame | None) -> KeyPath:
        if frame is None:
            return ()
        if isinstance(frame.container, dict):
            return (*frame.path, frame.key or "")
        if len(frame.container) >= MAX_LIST:
            self._stop(event.start_mark.index, f"more than {MAX_LIST:,} entries in a list", _ROW_FILE)
        return (*frame.path, len(frame.container))

    def _open(self, container: dict[str, JsonValue] | list[JsonValue], path: KeyPath, event: NodeEvent) -> JsonValue:
        if len(self._frames) >= MAX_DEPTH:
            message = f"nested more than {MAX_DEPTH} levels deep"
            self._stop(event.start_mark.index, message, "Put a text that starts with `{` or `[` in quotes")
        self._frames.append(_Frame(container=container, path=path))
        return container

    def _put(self, value: JsonValue, frame: _Frame | None) -> None:
        if frame is None:
            self._root = value
        elif isinstance(frame.container, list):
            frame.container.append(value)
        else:
            frame.container[frame.key or ""] = value
            frame.key = None

    def _scalar(self, event: ScalarEvent) -> JsonValue:
        text: str = event.value.translate(self._restore)
        if event.style is None:
            return self._plain(text, event.start_mark.index)
        if "\x00" in text or any("\ud800" <= char <= "\udfff" for char in text):
            self._note(event.start_mark.index, "holds a NUL or half a surrogate pair", "Delete the escape")
            return ""
        return text

    def _plain(self, text: str, index: int) -> JsonValue:
        if text in _WORDS:
            return _WORDS[text]
        if _INT.fullmatch(text) and len(text) <= 100:
            return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
        number = float(text) if _FLOAT.fullmatch(text) else 0.0
        if _NOT_FINITE.fullmatch(text) or math.isinf(number) or (_INT.fullmatch(text) and len(text) > 100):
            self._note(index, f"`{clean(text)}` is not a number that can be used", _QUOTES)
            return text
        return number if _FLOAT.fullmatch(text) else text

    def _note_syntax(self, error: MarkedYAMLError) -> None:
        mark = error.problem_mark or error.context_mark
        index = mark.index if mark else 0
        opened = ""
        if error.context_mark is not None and error.context_mark.index != index:
            line, column = self._lines.at(error.context_mark.index)
            opened = f", {error.context} that starts at {line}:{column}"
        message = f"not valid YAML: {clean(str(error.problem or error.context))}{opened}"
        self._note(index, message, self._syntax_remedy(index, str(error.problem)))

    def _syntax_remedy(self, index: int, problem: str) -> str:
        line = self._lines.at(index)[0]
        written = self._text.splitlines()[line - 1 : line]
        if "\t" in self._text[index : index + 1]:
            return "Indent with spaces; a tab is not allowed here"
        if written and "{{" in written[0]:
            return "Put a text that contains `{{ }}` in quotes"
        if "end of stream" in problem or "stream end" in problem:
            return "Close the quote or bracket"
        return "Check the indentation, and put a text that contains `: `, `#` or brackets in quotes"

    def _note(self, index: int, message: str, remedy: str) -> None:
        line, column = self._lines.at(index)
        self._problems.append(
            Problem(file=self._file, line=line, column=column, field="", message=message, remedy=remedy)
        )

    def _stop(self, index: int, message: str, remedy: str) -> None:
        self._note(index, message, remedy)
        raise _Stop

"""A job file that is a mapping of Python instead of a file: the same values, with an order instead of lines."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from itertools import count

from batchrun.errors import Problem
from batchrun.jobfile.document import MAX_DEPTH, MAX_LIST, MAX_VALUES, Document, KeyPath, Place
from batchrun.messages import JsonValue
from batchrun.showing import clean, shown


def document_of(mapping: Mapping[str, object]) -> Document:
    """The mapping as a document. `line` of a place is the number of its value, so that problems keep their order;
    whoever shows a problem leaves it out. Never raises: what is wrong stands in `problems`."""
    taking = _Taking()
    value = taking.take(mapping, ())
    return Document(value=value, places=taking.places, problems=taking.problems, complete=not taking.full)


class _Taking:
    def __init__(self) -> None:
        self.places: dict[KeyPath, Place] = {}
        self.problems: list[Problem] = []
        self.full = False
        self._numbers = count(1)

    def take(self, value: object, path: KeyPath) -> JsonValue:
        self.places[path] = Place(line=next(self._numbers), column=1, key=None, text=None)
        if self.full or len(path) > MAX_DEPTH or len(self.places) > MAX_VALUES:
            if not self.full:
                found = "nested too deep" if len(path) > MAX_DEPTH else f"more than {MAX_VALUES:,} values"
                self._note(path, found, "Put rows into a JSONL or CSV file and name it under `inputs: {rows: …}`")
            self.full = True
            return None
        if isinstance(value, Mapping):
            return self._mapping(value, path)
        if isinstance(value, list | tuple):
            return self._list(value, path)
        return self._scalar(value, path)

    def _mapping(self, mapping: Mapping[object, object], path: KeyPath) -> JsonValue:
        taken: dict[str, JsonValue] = {}
        for key, value in mapping.items():
            if isinstance(key, str):
                taken[key] = self.take(value, (*path, key))
            else:
                self._note(path, f"the key {shown(key)} is not text", "Write the key as a text")
        return taken

    def _list(self, values: list[object] | tuple[object, ...], path: KeyPath) -> JsonValue:
        if len(values) > MAX_LIST:
            self._note(path, f"more than {MAX_LIST:,} entries in a list", "Put rows into a JSONL or CSV file")
            return []
        return [self.take(value, (*path, number)) for number, value in enumerate(values)]

    def _scalar(self, value: object, path: KeyPath) -> JsonValue:
        if isinstance(value, os.PathLike):
            value = os.fspath(value)
        if isinstance(value, str):
            if "\x00" in value or any("\ud800" <= char <= "\udfff" for char in value):
                self._note(path, "holds a NUL or half a surrogate pair", "Delete it")
                return ""
            return value
        if value is None or isinstance(value, bool | int):
            return value
        if isinstance(value, float):
            if math.isfinite(value):
                return value
            self._note(path, f"`{value}` is not a number that can be used", "Write None, or leave it out")
            return 0
        kind = clean(type(value).__name__)
        self._note(path, f"a value of the type {kind} can't stand in a job file", "Write it as a text or a number")
        return None

    def _note(self, path: KeyPath, message: str, remedy: str) -> None:
        place = self.places.get(path)
        line = None if place is None else place.line
        named = "".join(f"[{part}]" if isinstance(part, int) else f".{clean(part, 60)}" for part in path)
        self.problems.append(
            Problem(file=None, line=line, column=1, field=named.removeprefix("."), message=message, remedy=remedy)
        )

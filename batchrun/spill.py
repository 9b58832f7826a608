"""Answers that a database wouldn't take: kept in a file of lines, and stored by the next run.

A database that was deleted, or stays away for longer than anybody waits, must not cost answers that were paid for.
The file stands beside the SQLite database, or in `.batchrun` of the current folder; its first line names the database
that it belongs to. Applying it twice changes nothing, so that it is deleted only after its commit.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import msgspec
from sqlalchemy import Engine

from batchrun.answer import Answer, Usage
from batchrun.database import shown_url, sqlite_path, writing
from batchrun.settings import DEFAULT_DATABASE
from batchrun.store.claim import Call
from batchrun.store.finish import Charge, Result, finish, still_known

PATTERN = "unstored-*.jsonl"
GROUP = 200

Built = TypeVar("Built")


class Head(msgspec.Struct):
    """The first line of a file."""

    database: str
    """The address of the one that it belongs to, without a password."""


def spill_folder(engine: Engine) -> Path:
    """Where the file of this database goes."""
    path = sqlite_path(engine.url)
    return (DEFAULT_DATABASE if path is None else path).parent.absolute()


def spill(engine: Engine, folder: Path, worker: str, results: Sequence[Result]) -> Path:
    """Write `results` to a new file that only its owner can read. Raises OSError; then there is none."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / PATTERN.replace("*", worker)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        try:
            file.write(msgspec.json.encode({"version": 1, "database": shown_url(engine.url)}) + b"\n")
            for result in results:
                # What was asked isn't needed to store what was answered.
                bare = replace(result, call=replace(result.call, variables={}, media=[], prefix=None, parts=()))
                file.write(msgspec.json.encode(bare) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            path.unlink()
            raise
    return path


def restore(engine: Engine, folder: Path) -> int:
    """Store what earlier processes had to leave in files; returns how many results there were.

    A file stays where it is if it belongs to another database, or to calls that this one doesn't know: then it was
    made for a database that has been replaced since. It stays too if a line in its middle can't be read, for `doctor`
    to name; the others are stored. Raises DatabaseError.
    """
    restored = 0
    for path in sorted(folder.glob(PATTERN)):
        lines = lines_for(engine, path)
        read = [read_result(line) for line in lines]
        results = [result for result in read if result is not None]
        with writing(engine) as connection:
            if not results or not still_known(connection, results):
                continue
            for start in range(0, len(results), GROUP):
                finish(connection, results[start : start + GROUP])
        if None not in read[:-1]:  # the last line may have been cut off
            path.unlink(missing_ok=True)
        restored += len(results)
    return restored


def lines_for(engine: Engine, path: Path) -> Sequence[bytes]:
    """The results in a file; none of one that belongs to another database, that isn't whole, or that another run has
    stored and deleted meanwhile."""
    try:
        head, *lines = path.read_bytes().splitlines() or [b""]
        belongs_to = msgspec.json.decode(head, type=Head).database
    except (FileNotFoundError, msgspec.DecodeError):
        return []
    return lines if belongs_to == shown_url(engine.url) else []


def read_result(line: bytes) -> Result | None:
    """The result in a line of a file; None where it can't be read."""
    try:
        return result_of(msgspec.json.decode(line))
    except (msgspec.DecodeError, KeyError):
        return None


def result_of(value: Mapping[str, Any]) -> Result:
    answer, charge = value["answer"], value["charge"]
    return built(
        Result,
        value,
        call=built(Call, value["call"], variables={}, media=[], parts=()),
        answer=None if answer is None else answer_of(answer),
        charge=None if charge is None else built(Charge, charge, usage=usage_of(charge["usage"])),
    )


def answer_of(value: Mapping[str, Any]) -> Answer:
    parsed, calls = value.get("parsed"), value["tool_calls"]
    return built(Answer, value, usage=usage_of(value["usage"]), parsed=parsed, tool_calls=calls)


def usage_of(value: Mapping[str, Any] | None) -> Usage | None:
    return None if value is None else built(Usage, value, raw=value["raw"])


def built(kind: type[Built], value: Mapping[str, Any], **ready: object) -> Built:
    """A value of the class `kind` from its JSON; fields in `ready` are taken as they are."""
    hints = get_type_hints(kind)
    fields = {
        name: msgspec.convert(part, hints[name], strict=False) for name, part in value.items() if name not in ready
    }
    return kind(**fields, **ready)

"""Databases and names as the functions of this package take them."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import URL, Engine

from batchrun.database import connect, make_engine, prepare_file, sqlite_path
from batchrun.errors import UsageError
from batchrun.settings import Settings, current_folder, read_settings
from batchrun.showing import clean
from batchrun.states import State

Place = str | Path | None
"""A database: its address, or the path of an SQLite file; None for the one of the environment."""

Names = str | Iterable[str]
"""One name, or several."""


def settings_for(database: Place = None) -> Settings:
    """What the environment says, with another database if one is named."""
    settings = read_settings(os.environ, current_folder())
    if database is None:
        return settings
    address = f"sqlite:///{quote(str(database))}" if isinstance(database, Path) else database
    return replace(settings, database_url=address)


@contextmanager
def opened(database: Place = None) -> Iterator[Engine]:
    """The database, which must exist. Raises DatabaseError."""
    engine = connect(settings_for(database).database_url)
    try:
        yield engine
    finally:
        engine.dispose()


@contextmanager
def unchecked(url: URL, *, create: bool) -> Iterator[Engine]:
    """The database at this address, whatever its schema is."""
    path = sqlite_path(url)
    if path is not None:
        prepare_file(path, create=create)
    engine = make_engine(url)
    try:
        yield engine
    finally:
        engine.dispose()


def names_of(names: Names) -> list[str]:
    return [names] if isinstance(names, str) else list(dict.fromkeys(names))


def states_of(states: Collection[State | str]) -> frozenset[State]:
    """Raises UsageError for a word that is no state."""
    named = [states] if isinstance(states, str) else states
    for state in named:
        one_of("states", state, [known.value for known in State])
    return frozenset(map(State, named))


def one_of(name: str, value: str, known: Sequence[str]) -> None:
    """Raises UsageError where `value` isn't one of the words that the argument `name` takes."""
    if value not in known:
        raise UsageError(f"{name} can't be `{clean(value)}`", code="usage", remedy=f"there are: {', '.join(known)}")

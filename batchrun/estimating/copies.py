"""Which rows of a job ask the same, told while they pass by one after the other: only the first of them is called.

What has passed by is kept in a temporary SQLite database, which moves to disk as it grows: a set of the names alone
would take 20 MB for 200,000 rows.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Self

from batchrun.alike import KEY_LENGTH, READ, UNREAD, Reference
from batchrun.loading.duplicates import name_by_content

_TABLES = """
PRAGMA journal_mode = OFF;
PRAGMA cache_size = -2000;
CREATE TABLE seen (name TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE unread (key TEXT, media TEXT);
CREATE INDEX by_key ON unread (key);
BEGIN;
"""
_AFTER_READ = chr(ord(READ) + 1)


class Copies:
    """Of one job, whose files are below `root`. As when it is loaded, files are read only where another row has the
    same texts and files of the same sizes. Use it as a context manager."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._rows = sqlite3.connect("", isolation_level=None)
        self._rows.executescript(_TABLES)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rows.close()

    def note(self, name: str | None, media: Sequence[Reference]) -> None:
        """A request whose answer others get; `name` is that of `alike.request_name`, None for one like no other."""
        if name is None:
            return
        if name.endswith(UNREAD):
            row = name[:KEY_LENGTH], json.dumps(media)
            self._rows.execute("INSERT INTO unread VALUES (?, ?)", row)
        else:
            self._add(name)

    def is_one(self, name: str | None, media: Sequence[Reference]) -> bool:
        """Whether a request asks what an earlier one asked; notes it for later ones if it doesn't."""
        if name is None:
            return False
        if not name.endswith(UNREAD):
            return not self._add(name)
        key = name[:KEY_LENGTH]
        if not self._read(key):
            self.note(name, media)
            return False
        named = name_by_content(name, media, self._root)
        return named is not None and not self._add(named)

    def _add(self, name: str) -> bool:
        """Whether the name is new."""
        return self._rows.execute("INSERT OR IGNORE INTO seen VALUES (?)", (name,)).rowcount > 0

    def _read(self, key: str) -> bool:
        """Name the requests of this key by what is in their files. Whether there are any."""
        with closing(self._rows.execute("DELETE FROM unread WHERE key = ? RETURNING media", (key,))) as found:
            unread = [json.loads(media) for (media,) in found]
        for media in unread:
            named = name_by_content(key, media, self._root)
            if named is not None:
                self._add(named)
        named_alike = "SELECT 1 FROM seen WHERE name > ? AND name < ? LIMIT 1"
        return bool(unread) or bool(self._rows.execute(named_alike, (key + READ, key + _AFTER_READ)).fetchall())

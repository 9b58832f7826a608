"""What is in a local file, and whether it is still that file: for finding the same picture twice."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from batchrun.errors import MediaError
from batchrun.media.path import open_inside, unreadable

PIECE = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    digest: str
    """SHA-256 of the bytes, in hexadecimal."""
    size: int
    mtime: int
    """Nanoseconds, by the file system."""


def read_content(root: Path, path: str) -> Content:
    """Reads the whole file, a piece at a time. Raises MediaError, also for a file that changes meanwhile."""
    with open_inside(root, path) as file:
        before, sha256 = os.fstat(file.fileno()), hashlib.sha256()
        try:
            while piece := file.read(PIECE):
                sha256.update(piece)
        except OSError as error:
            raise unreadable(path, error) from error
        after = os.fstat(file.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        message = f"{path!r} changed while it was being read."
        raise MediaError(message, code="media-changed", remedy="Leave files alone while a job runs.")
    return Content(digest=sha256.hexdigest(), size=after.st_size, mtime=after.st_mtime_ns)


def is_as_it_was(root: Path, path: str, *, size: int, mtime: int) -> bool:
    """Whether the file has the size and the time that it had; not so where it is gone or can't be reached. Links out of
    the root are followed for this look only: nothing is read."""
    try:
        now = os.stat(root / path)
    except (OSError, ValueError):
        return False
    return (now.st_size, now.st_mtime_ns) == (size, mtime)

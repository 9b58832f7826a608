"""Open a file that a person named: a regular file of bounded size, or a problem that says what it is instead."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from batchrun.errors import Problem, SpecError

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


def open_regular(path: Path, field: str = "", max_bytes: int | None = None, too_large: str = "") -> BinaryIO:
    """Open `path` for reading; the caller closes it. Never blocks on a pipe and reads nothing.

    Raises SpecError, with `field` in the problem, where the path can't be opened, isn't a regular file, or is larger
    than `max_bytes`; `too_large` is the remedy then.
    """
    try:
        # Without O_NONBLOCK, opening a pipe that nobody writes to waits for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise _refused(path, field, f"can't be opened: {reason}", "Check the path and its permissions") from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        kind = next((name for test, name in _KINDS if test(status.st_mode)), "something else")
        raise _refused(path, field, f"is {kind}, not a regular file", "Name a file")
    if max_bytes is not None and status.st_size > max_bytes:
        os.close(descriptor)
        found = f"is {status.st_size:,} bytes long; at most {max_bytes:,} are read"
        raise _refused(path, field, found, too_large)
    return os.fdopen(descriptor, "rb")


def _refused(path: Path, field: str, message: str, remedy: str) -> SpecError:
    problem = Problem(file=path, line=None, column=None, field=field, message=message, remedy=remedy)
    return SpecError([problem])

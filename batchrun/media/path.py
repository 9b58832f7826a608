"""Opens a file that a row names, below the media root and nowhere else.

A row may name any path; it reaches nothing but regular files below the root. The path is resolved and checked, then
walked again from the root, directory by directory, without following links: what is swapped for a link between the
check and the opening is refused.
"""

from __future__ import annotations

import os
import re
import stat
from io import FileIO
from pathlib import Path, PurePosixPath

from batchrun.errors import MediaError

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def open_inside(root: Path, relative: str) -> FileIO:
    """The regular file at `relative` below `root`, opened for reading without a buffer; the caller closes it.

    Links are followed as long as they stay below the root. Raises MediaError: `media-path`, `media-outside`,
    `media-root`, `media-missing`, `media-not-a-file` or `media-unreadable`.
    """
    _check_words(relative)
    try:
        real_root = os.path.realpath(root, strict=True)
        directory = os.open(real_root, _DIRECTORY)
    except OSError as error:
        raise MediaError(
            f"The folder of the job's media, {str(root)!r}, can't be opened ({error.strerror}).",
            code="media-root",
            remedy="Check the folder that the job file names.",
        ) from error
    try:
        inside = _resolve(real_root, relative)
        for part in inside.parts[:-1]:
            step = os.open(part, _DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
            os.close(directory)
            directory = step
        return _open_regular(directory, inside.name, relative)
    except FileNotFoundError as error:
        raise MediaError(
            f"{relative!r} isn't there.",
            code="media-missing",
            remedy="Check the path, and whether the file was moved since the job was loaded.",
        ) from error
    except OSError as error:
        raise unreadable(relative, error) from error
    finally:
        os.close(directory)


def unreadable(name: str, error: OSError) -> MediaError:
    return MediaError(
        f"{name!r} can't be read ({error.strerror}).",
        code="media-unreadable",
        remedy="Check the file and its permissions.",
    )


def _check_words(relative: str) -> None:
    """What can be refused without a look at the disk."""
    remedy = "Write a path within the folder of the job's media, such as cats/1.jpg."
    if not relative or "\0" in relative:
        raise MediaError(f"{relative!r} is no path.", code="media-path", remedy=remedy)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", relative):
        raise MediaError(f"{relative!r} is a URL, not a path.", code="media-path", remedy=remedy)
    path = PurePosixPath(relative)
    if path.is_absolute() or ".." in path.parts:
        raise MediaError(
            f"{relative!r} leads out of the folder of the job's media.", code="media-outside", remedy=remedy
        )


def _resolve(real_root: str, relative: str) -> PurePosixPath:
    """The path below the root with all links followed. Raises OSError as the system does."""
    try:
        real = PurePosixPath(os.path.realpath(os.path.join(real_root, relative), strict=True))
    except ValueError as error:  # letters that no file name on this machine can have
        raise MediaError(f"{relative!r} is no path.", code="media-path", remedy="Rename the file.") from error
    if not real.is_relative_to(real_root):
        raise MediaError(
            f"{relative!r} is a link out of the folder of the job's media.",
            code="media-outside",
            remedy="Copy the file itself into that folder.",
        )
    return real.relative_to(real_root)


def _open_regular(directory: int, part: str, name: str) -> FileIO:
    """Looks before it opens: opening a device can do things, opening a pipe could wait for ever."""
    if part and stat.S_ISREG(os.stat(part, dir_fd=directory, follow_symlinks=False).st_mode):
        file = FileIO(os.open(part, _FILE, dir_fd=directory))
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return file
        file.close()
    raise MediaError(
        f"{name!r} is a directory, device, pipe or socket.", code="media-not-a-file", remedy="Name a regular file."
    )

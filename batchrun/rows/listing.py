"""The pictures of a folder, or those that a pattern names: files only, in order, without hidden ones.

A pattern is matched one folder level at a time by keeping the set of positions in it that are still possible, so any
number of `**` costs no more than one walk, and branches that can't match aren't entered.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from batchrun.rows.complaints import Complaints
from batchrun.showing import clean

IMAGE_EXTENSIONS = frozenset({"bmp", "gif", "heic", "heif", "jpe", "jpeg", "jpg", "png", "tif", "tiff", "webp"})
"""Contract 5.1, and GIF, which other vendors take; whether a model takes a picture is found when it is opened."""

VIDEO_EXTENSIONS = frozenset(
    {"asf", "avi", "flv", "m2ts", "m4v", "mkv", "mov", "mp4", "mpeg", "mpg", "mts", "ts", "webm", "wmv"}
)
"""Contract 5.2, "and others"."""

_MAGIC = re.compile(r"[*?[]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What `images` or `videos` names: a folder, and the pattern below it."""

    root: Path
    """Absolute, links resolved."""
    segments: tuple[str, ...]
    whole_folder: bool
    """A folder was named, so only files with a known extension count."""
    extensions: frozenset[str] = IMAGE_EXTENSIONS

    @property
    def pattern(self) -> str:
        return str(self.root) if self.whole_folder else f"{self.root}/{'/'.join(self.segments)}"


def find_listing(source: str, base: Path, extensions: frozenset[str] = IMAGE_EXTENSIONS) -> Listing:
    """Split `source`, relative to `base`, into the folder without wildcards and the rest.

    A path that exists is taken literally, brackets and all.
    """
    path = Path(os.path.abspath(base)) / os.path.expanduser(source)
    if os.path.isdir(path):
        return Listing(root=_real(path), segments=("**",), whole_folder=True, extensions=extensions)
    parts = path.parts
    first = len(parts) - 1
    if not os.path.lexists(path):
        first = next((index for index, part in enumerate(parts) if _MAGIC.search(part)), first)
    literal = first == len(parts) - 1 and (os.path.lexists(path) or not _MAGIC.search(parts[-1]))
    segments = (_escaped(parts[-1]),) if literal else parts[first:]
    return Listing(root=_real(Path(*parts[:first])), segments=segments, whole_folder=False)


def list_files(listing: Listing, complaints: Complaints) -> Iterator[str]:
    """Paths relative to the root, with `/`, ordered by name level by level."""
    if ".." in listing.segments:
        raise complaints.stop(f"`..` can't stand behind a wildcard: {listing.pattern}", "Start at the folder itself")
    pattern = _Pattern(listing.segments)
    stack = [("", pattern.start, True)]
    while stack:
        path, states, is_folder = stack.pop()
        if is_folder:
            stack += reversed(_entries(listing, path, states, pattern, complaints))
        elif not listing.whole_folder or path.rpartition(".")[2].lower() in listing.extensions:
            yield path


def _entries(
    listing: Listing, folder: str, states: frozenset[int], pattern: _Pattern, complaints: Complaints
) -> list[tuple[str, frozenset[int], bool]]:
    """What of one folder is a match or may lead to one: path, states behind it, whether it is a folder."""
    found: list[tuple[str, frozenset[int], bool]] = []
    try:
        with os.scandir(listing.root / folder) as scan:
            for entry in scan:
                after = pattern.step(states, entry.name)
                path = f"{folder}/{entry.name}" if folder else entry.name
                if not after:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    found.append((path, after, True))
                elif _leads_to_folder(entry):
                    _refuse_outside(listing, path, complaints)
                elif pattern.end in after and (entry.is_symlink() or entry.is_file()):
                    found.append((path, after, False))
    except FileNotFoundError:
        pass  # the folder isn't there, or went while we looked; an empty result is an error of its own
    except OSError as error:
        complaints.add(
            f"`{clean(folder or str(listing.root))}` can't be listed: {error.strerror}", "Check its permissions"
        )
    return sorted(found)


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: a picture that can't be read, not a folder that can't be listed
        return False


def _refuse_outside(listing: Listing, path: str, complaints: Complaints) -> None:
    target = os.path.realpath(listing.root / path)
    if not f"{target}/".startswith(f"{listing.root}/"):
        message = f"`{clean(path)}` is a link to a folder outside of {listing.root}, which isn't followed"
        complaints.add(message, "Name that folder itself in a job of its own, or copy it")


class _Pattern:
    def __init__(self, segments: tuple[str, ...]) -> None:
        self._segments = segments
        self._tests = [None if part == "**" else re.compile(fnmatch.translate(part)) for part in segments]
        self.end = len(segments)
        self.start = self._close({0})

    def step(self, states: frozenset[int], name: str) -> frozenset[int]:
        """The positions that are possible behind `name`."""
        after: set[int] = set()
        for state in states - {self.end}:
            test = self._tests[state]
            if test is None:
                after |= set() if name.startswith(".") else {state}
            elif test.match(name) and (not name.startswith(".") or self._segments[state].startswith(".")):
                after.add(state + 1)
        return self._close(after)

    def _close(self, states: set[int]) -> frozenset[int]:
        """`**` also stands for no folder at all."""
        for state in range(self.end):
            if state in states and self._tests[state] is None:
                states.add(state + 1)
        return frozenset(states)


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _escaped(name: str) -> str:
    """A name as a pattern that matches nothing else."""
    return _MAGIC.sub(lambda found: f"[{found[0]}]", name)

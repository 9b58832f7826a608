"""A text file for each answer, such as a caption beside its picture.

Names come from a template and the item's own row, which anybody may have written; never from an answer. What is there
already stays, unless it is to be overwritten, and a picture never is.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from batchrun.errors import TemplateError, UsageError
from batchrun.jobfile.template import Template
from batchrun.output.placing import Folder
from batchrun.reports.results import ItemResult
from batchrun.showing import clean
from batchrun.states import State
from batchrun.tables import Record

MAX_NAME = 255
"""Bytes that a file name may have."""
SHOWN_PROBLEMS = 20
_UNSAFE = re.compile(r"[/\\\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_PICTURES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".jp2"})
_OTHER_MEDIA = frozenset({".heic", ".heif", ".avif", ".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v"})
_NO_WAY = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})
"""After these no other file could be written either."""


class NameProblem(Exception):
    """Why an item's file can't be written."""


class Collision(NameProblem):
    """Another item of the same export has the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What the file of an item is called, and what stands in it: None where there is no answer. Both raise
    NameProblem."""

    name: Callable[[ItemResult], str]
    text: Callable[[ItemResult], str | None]
    apart: str
    """What to do about two items whose files would have the same name."""


@dataclass(slots=True, kw_only=True)
class Sidecars:
    """What became of the files."""

    folder: str | None = None
    """Where they are, as the job file names it; None for beside the pictures."""
    written: int = 0
    present: int = 0
    """Left as they were found."""
    without_answer: int = 0
    cut: int = 0
    """Answers that were left out because they were cut."""
    collisions: int = 0
    """Items whose file belongs to an earlier item of the same export."""
    refused: int = 0
    """Items whose file can't have the name that it would have, or can't be written."""
    shown: list[str] = field(default_factory=list)
    """The first problems, in words."""

    @property
    def problems(self) -> int:
        return self.collisions + self.refused

    def complain(self, item: ItemResult, problem: NameProblem) -> None:
        if isinstance(problem, Collision):
            self.collisions += 1
        else:
            self.refused += 1
        if len(self.shown) < SHOWN_PROBLEMS:
            self.shown.append(f"{clean(item.custom_id)}: {problem}")


def place_sidecars(
    job: Record,
    stream: Iterator[ItemResult],
    *,
    folder: Path | None,
    overwrite: bool,
    with_cut: bool,
    form: Form | None = None,
) -> Sidecars:
    """Write the text of each item to its file; `folder` replaces the one that the job names, and `form` what it says of
    names: by itself it is the answer under the name that the job's template makes.

    Sub-folders of the picture's path are kept below it. An item that can't have its file is a problem of its own, and
    the others go on. Raises UsageError where the job says nothing about such files, and where their folder can't be
    used.
    """
    chosen = form or _answers(_template(job))
    done = Sidecars()
    owners: dict[tuple[str, ...], str] = {}
    with ExitStack() as stack:
        current = _Current(stack.enter_context(_root(job, folder)))
        stack.callback(current.leave)
        for item in stream:
            if item.state is State.TRUNCATED and not with_cut:
                done.cut += 1
                continue
            try:
                _place(item, chosen, current, owners, done, overwrite=overwrite)
            except NameProblem as problem:
                done.complain(item, problem)
    return done


def _place(
    item: ItemResult,
    form: Form,
    current: _Current,
    owners: dict[tuple[str, ...], str],
    done: Sidecars,
    *,
    overwrite: bool,
) -> None:
    text = form.text(item)
    if text is None:
        done.without_answer += 1
        return
    place = target(item, form)
    owner = owners.setdefault(place, item.custom_id)
    if owner != item.custom_id:
        raise Collision(f"{clean('/'.join(place), 200)} belongs to {clean(owner)}; {form.apart}")
    try:
        written = _write(current.enter(place[:-1]), place[-1], text, overwrite=overwrite)
    except OSError as error:
        if error.errno in _NO_WAY:
            raise UsageError(
                f"can't write {clean('/'.join(place), 300)}: {error.strerror}",
                code="not-writable",
                remedy="make room and export again: what is there already stays",
            ) from error
        raise NameProblem(f"{clean('/'.join(place), 200)} {_reason(error)}") from error
    if written:
        done.written += 1
    else:
        done.present += 1


class _Current:
    """The folder of the item at hand, kept open as long as the next item has the same."""

    def __init__(self, root: Folder) -> None:
        self._root = root
        self._parts: tuple[str, ...] | None = None
        self._folder: Folder | None = None

    def enter(self, parts: tuple[str, ...]) -> Folder:
        if self._folder is None or parts != self._parts:
            self.leave()
            self._folder, self._parts = self._root.below(parts), parts
        return self._folder

    def leave(self) -> None:
        if self._folder is not None:
            folder, self._folder = self._folder, None
            with folder:
                folder.sync()


def _answers(template: Template) -> Form:
    def name(item: ItemResult) -> str:
        try:
            return template.render(item.variables)
        except TemplateError as error:
            raise NameProblem(error.message) from error

    better = "{{ filename }}.txt"
    apart = "make the template tell them apart" if template.source == better else f"use `{better}`"
    return Form(name=name, text=words, apart=apart)


def words(item: ItemResult) -> str | None:
    """The answer, if it says anything: one that only calls functions is no caption."""
    return None if item.tool_calls and not item.text else item.text


def target(item: ItemResult, form: Form) -> tuple[str, ...]:
    """Folders and name of the item's file, below the folder of all. Raises NameProblem."""
    path = next((str(media["path"]) for media in item.media if media.get("path") is not None), "")
    parts = path.split("/") if path else [""]
    if any(part in ("", ".", "..") or _UNSAFE.search(part) for part in parts[:-1]):
        raise NameProblem(f"the picture's path `{clean(path)}` can't be used as a place")
    name = form.name(item)
    check_name(name)
    if name == parts[-1] or PurePosixPath(name).suffix.lower() in _PICTURES | _OTHER_MEDIA:
        raise NameProblem(f"`{clean(name)}` is the name of a picture or video; end the template in `.txt`")
    return (*parts[:-1], name)


def check_name(name: str) -> None:
    """Raises NameProblem for what isn't the name of one file on every system that we run on."""
    if name in ("", ".", ".."):
        raise NameProblem(f"`{name}` is not a file name")
    unsafe = _UNSAFE.search(name)
    if unsafe:
        raise NameProblem(f"the file name `{clean(name)}` would contain `{clean(unsafe[0])}`")
    if len(name.encode()) > MAX_NAME:
        raise NameProblem(f"the file name `{clean(name)}` would be longer than {MAX_NAME} bytes")


def _write(folder: Folder, name: str, text: str, *, overwrite: bool) -> bool:
    """Returns whether the file was written; it wasn't if one was there. Raises NameProblem and OSError."""
    kind = folder.kind(name)
    if kind in ("link", "other"):
        raise NameProblem(f"at `{clean(name)}` stands {'a link' if kind == 'link' else 'something'} that isn't a file")
    if kind == "file" and not overwrite:
        return False
    try:
        with folder.placing(name, overwrite=overwrite) as file:
            file.write((text.rstrip("\r\n") + "\n").encode())
    except FileExistsError:
        return False  # it came between the look and the placing
    return True


def _reason(error: OSError) -> str:
    if error.errno in (errno.ENOTDIR, errno.ELOOP):
        return "can't be written: a part of its path is a link, or not a folder"
    return f"can't be written: {error.strerror}"


def _output(job: Record) -> Mapping[str, str | None]:
    output: Mapping[str, str | None] = job.spec.get("output") or {}
    return output


def _template(job: Record) -> Template:
    sidecar = _output(job).get("sidecar")
    if sidecar is None:
        raise UsageError(
            f"the job {clean(job.name)} doesn't say how its text files are named",
            code="no-sidecar",
            remedy='add `output: {sidecar: "{{ stem }}.txt"}` to the job and run `batchrun load` again',
        )
    return Template(sidecar)


def _root(job: Record, folder: Path | None) -> Folder:
    named = _output(job).get("folder")
    if folder is not None:
        path, create = folder, True
    elif named is not None:
        path, create = _absolute(job, named), True
    elif job.media_root is not None:
        path, create = Path(job.media_root), False
    else:
        raise UsageError(
            f"the job {clean(job.name)} has no folder for its text files",
            code="no-sidecar-folder",
            remedy="name one with --out FOLDER, or as `output: {folder: …}` in the job",
        )
    try:
        return Folder.open(path, create=create)
    except OSError as error:
        raise UsageError(
            f"can't use the folder {clean(str(path), 300)}: {error.strerror}",
            code="not-writable",
            remedy="mend it, or name another one with --out FOLDER",
        ) from error


def _absolute(job: Record, named: str) -> Path:
    path = Path(os.path.expanduser(named))
    base = job.spec.get("base")
    if path.is_absolute():
        return path
    if base is None:
        raise UsageError(
            f"the folder {clean(named)} is relative, and it isn't known to what",
            code="no-sidecar-folder",
            remedy="name an absolute folder, or give one with --out FOLDER",
        )
    return Path(base) / path

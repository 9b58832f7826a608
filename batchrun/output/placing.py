"""Putting a file in its place: whole or not at all, never through a link, and never over another one unasked."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from batchrun.errors import UsageError
from batchrun.showing import clean

_WITHOUT_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES})
"""What file systems answer that can't give a file a second name."""


class Folder:
    """An open folder. Files are placed by its descriptor, so a link that somebody swaps in on the path changes nothing.

    Leaving it as a context brings the names in it to the disk.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def open(cls, path: Path, *, create: bool = False) -> Folder:
        """The folder that the user named; links on the way to it are the user's own. Raises OSError."""
        if create:
            path.mkdir(parents=True, exist_ok=True)
        return cls(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))

    def below(self, parts: Sequence[str]) -> Folder:
        """A folder inside of this one, made where it is missing. Raises OSError for a link on the way."""
        folder = Folder(os.dup(self._descriptor))
        for part in parts:
            with folder:
                folder = Folder(folder._enter(part))
        return folder

    def _enter(self, name: str) -> int:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            return os.open(name, flags, dir_fd=self._descriptor)
        except FileNotFoundError:
            os.mkdir(name, dir_fd=self._descriptor)
            return os.open(name, flags, dir_fd=self._descriptor)

    def kind(self, name: str) -> str | None:
        """What stands under `name`: `file`, `link` or `other`; None for nothing."""
        try:
            mode = os.stat(name, dir_fd=self._descriptor, follow_symlinks=False).st_mode
        except FileNotFoundError:
            return None
        if stat.S_ISREG(mode):
            return "file"
        return "link" if stat.S_ISLNK(mode) else "other"

    @contextmanager
    def placing(self, name: str, *, overwrite: bool) -> Iterator[BinaryIO]:
        """A file to write to that gets its `name` at the end, complete and on the disk; none at all after an error.

        Raises FileExistsError where the name is taken and `overwrite` isn't set, and OSError.
        """
        part = f".{secrets.token_hex(8)}.batchrun-part"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(part, flags, 0o666, dir_fd=self._descriptor)
        try:
            with open(descriptor, "wb", buffering=1 << 20) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            self._publish(part, name, overwrite=overwrite)
        except BaseException:
            os.unlink(part, dir_fd=self._descriptor)
            raise

    def _publish(self, part: str, name: str, *, overwrite: bool) -> None:
        here = self._descriptor
        if not overwrite:
            try:
                os.link(part, name, src_dir_fd=here, dst_dir_fd=here, follow_symlinks=False)
            except OSError as error:
                if error.errno not in _WITHOUT_LINKS:
                    raise
                if self.kind(name) is not None:
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name) from error
            else:
                os.unlink(part, dir_fd=here)
                return
        os.replace(part, name, src_dir_fd=here, dst_dir_fd=here)

    def sync(self) -> None:
        os.fsync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)

    def __enter__(self) -> Folder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextmanager
def whole_file(path: Path, *, overwrite: bool) -> Iterator[BinaryIO]:
    """A file that the user named, placed whole. Raises UsageError where it can't be written or is there already."""
    try:
        with Folder.open(path.parent) as folder:
            _require_free(folder, path, overwrite=overwrite)
            with folder.placing(path.name, overwrite=overwrite) as file:
                yield file
            folder.sync()
    except FileExistsError as error:
        raise _taken(path) from error
    except OSError as error:
        raise UsageError(
            f"can't write {clean(str(path), 300)}: {error.strerror}",
            code="not-writable",
            remedy="name a file in a folder that exists, that you may write to, and that has room",
        ) from error


def _require_free(folder: Folder, path: Path, *, overwrite: bool) -> None:
    kind = folder.kind(path.name)
    if kind in ("link", "other"):
        raise UsageError(
            f"{clean(str(path), 300)} is {'a link' if kind == 'link' else 'not a regular file'}",
            code="not-a-file",
            remedy="name a file, or `-` for standard output",
        )
    if kind == "file" and not overwrite:
        raise _taken(path)


def _taken(path: Path) -> UsageError:
    return UsageError(
        f"{clean(str(path), 300)} is there already", code="file-exists", remedy="name another file, or add --overwrite"
    )

"""Local pictures on their way into a request: typed by content, measured, streamed as base64 of their own bytes.

What a vendor takes is in `rules`, which metadata may be left out in `stripping`. Nothing is decoded, and no more than a
chunk is ever in memory. What has to be decoded, because it is too large or hides its metadata, is made anew by
`making`, and leaves in the same way.
"""

from __future__ import annotations

import hashlib
import os
from base64 import b64encode
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from types import TracebackType

from batchrun.errors import MediaError
from batchrun.media.header import HEAD, Size, name_of, read_size, sniff
from batchrun.media.path import open_inside, unreadable
from batchrun.media.rules import AS_IT_IS, LONG_SIDE, SHORT_SIDE, Preparation
from batchrun.media.stripping import LOSSLESS, Piece, stripped
from batchrun.media.whole import check_end

CHUNK = 192 * 1024
"""Bytes read at a time; a multiple of three, so that only the last piece of base64 has padding."""


class OpenMedia:
    """An opened picture. Whoever opened it closes it; use it as a context manager.

    `size` counts the raw bytes that will be sent, `encoded_size` the characters of base64 that `read_encoded` gives.
    """

    def __init__(self, file: FileIO, name: str, *, preparation: Preparation = AS_IT_IS, note: str = "") -> None:
        """Takes over `file`. Raises MediaError where its content can't be sent; the file stays open then.

        `note` says what was done to it before. With `preparation.shrink`, or where metadata can only be dropped by
        decoding, a picture that can't be sent as it is raises nothing, but `must_be_made` says why.
        """
        self.name = name
        self.note = note
        self.file = file
        self.must_be_made = ""
        self._opened = os.fstat(file.fileno())
        self._digest: str | None = None
        self._pieces: tuple[Piece, ...] = (range(self._opened.st_size),)
        self._measure()
        rules, shown = preparation.rules, repr(name)
        rules.check_amount(shown, self.size, 0)
        head = self._read_file(0, HEAD)
        self.mime = rules.check_format(shown, sniff(head), name_of(head))
        self.width, self.height = self._read_size()
        rules.check_shape(shown, self.width, self.height)
        if preparation.strip:
            self._strip()
        try:
            rules.check_pixels(shown, self.mime, self.width, self.height)
            rules.check_amount(shown, self.size, self.encoded_size)
        except MediaError as error:
            if not preparation.shrink:
                raise
            self.must_be_made = str(error.code)
        if preparation.shrink and (max(self.sides) > LONG_SIDE or min(self.sides) > SHORT_SIDE):
            self.must_be_made = self.must_be_made or "media-beyond-8k"
        self._check_end()

    def __enter__(self) -> OpenMedia:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.file.close()

    @property
    def sides(self) -> Size:
        """Width and height as stored."""
        return self.width, self.height

    @property
    def digest(self) -> str | None:
        """SHA-256 of the raw bytes in hexadecimal; None until `read_encoded` has come to its end once."""
        return self._digest

    def read_encoded(self, chunk: int = CHUNK) -> Iterator[bytes]:
        """Exactly `encoded_size` bytes of base64, from the beginning each time it is called.

        `chunk` is the number of raw bytes per piece, a multiple of three. Raises MediaError(`media-changed`) before
        the last piece when the file isn't as it was opened, so that no request with it is ever complete.
        """
        if chunk <= 0 or chunk % 3:
            raise ValueError(f"chunk is {chunk}; it must be a multiple of three")
        sha256 = hashlib.sha256()
        for offset in range(0, self.size, chunk):
            wanted = min(chunk, self.size - offset)
            raw = self._read_sent(offset, wanted)
            if len(raw) < wanted or (offset + wanted == self.size and self._has_changed()):
                raise MediaError(
                    f"{self.name!r} changed while it was being sent.",
                    code="media-changed",
                    remedy="Leave files alone while a job runs; retry the item.",
                )
            sha256.update(raw)
            yield b64encode(raw)
        self._digest = sha256.hexdigest()

    def _measure(self) -> None:
        self.size = sum(len(piece) for piece in self._pieces)
        self.encoded_size = (self.size + 2) // 3 * 4

    def _read_sent(self, offset: int, length: int) -> bytes:
        """Bytes of what is sent, from `offset` on; fewer where the file has become shorter."""
        parts = []
        for piece in self._pieces:
            if offset < len(piece) and length > 0:
                wanted = piece[offset : offset + length]
                parts.append(wanted if isinstance(wanted, bytes) else self._read_file(wanted.start, len(wanted)))
                length -= len(wanted)
            offset = max(0, offset - len(piece))
        return b"".join(parts)

    def _read_file(self, offset: int, length: int) -> bytes:
        """The bytes there; fewer only at the end of the file."""
        parts = []
        try:
            while length > 0 and (part := os.pread(self.file.fileno(), length, offset)):
                parts.append(part)
                offset += len(part)
                length -= len(part)
        except OSError as error:
            raise unreadable(self.name, error) from error
        return b"".join(parts)

    def _has_changed(self) -> bool:
        now = os.fstat(self.file.fileno())
        return (now.st_size, now.st_mtime_ns) != (self._opened.st_size, self._opened.st_mtime_ns)

    def _read_size(self) -> Size:
        try:
            return read_size(self.mime, self._read_file)
        except ValueError as error:
            raise _broken(self.name, error) from error

    def _check_end(self) -> None:
        try:
            check_end(self.mime, self._read_file, self._opened.st_size)
        except ValueError as error:
            raise _broken(self.name, error) from error

    def _strip(self) -> None:
        if self.mime not in LOSSLESS:
            self.must_be_made = "strip"
            return
        try:
            self._pieces = stripped(self.mime, self._read_file, self._opened.st_size)
        except ValueError as error:
            raise _broken(self.name, error) from error
        self._measure()


def open_media(root: Path, relative: str, preparation: Preparation = AS_IT_IS) -> OpenMedia:
    """The picture at `relative` below `root`.

    Raises MediaError with the codes of `media.path.open_inside`, `media.rules`, and `media-broken`.
    """
    file = open_inside(root, relative)
    try:
        return OpenMedia(file, relative, preparation=preparation)
    except BaseException:
        file.close()
        raise


def _broken(name: str, error: ValueError) -> MediaError:
    return MediaError(f"{name!r} is broken: {error}.", code="media-broken", remedy="Copy or download the file again.")

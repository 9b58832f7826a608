"""Local pictures on their way into a request: typed by content, measured, streamed as base64 of their own bytes.

Limits are those of provider contract 5.1. Nothing is decoded, and no more than a chunk is ever in memory.
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
from batchrun.media.header import HEAD, name_of, read_size, sniff
from batchrun.media.path import open_inside, unreadable

RAW_LIMIT = 10_485_760
"""Bytes of a picture that vendors fetch or that was uploaded to them, at most (contract 5.1)."""
ENCODED_LIMIT = 10_485_760
"""Characters of base64 per picture that vendors accept (contract 5.1)."""
CHUNK = 192 * 1024
"""Bytes read at a time; a multiple of three, so that only the last piece of base64 has padding."""
MIN_SIDE = 11
MAX_RATIO = 200
PIXELS_4K = 3840 * 2160
"""Above this only JPEG and PNG are accepted."""
LARGE_FORMATS = frozenset({"image/jpeg", "image/png"})


class OpenMedia:
    """An opened picture. Whoever opened it closes it; use it as a context manager.

    `size` counts raw bytes, `encoded_size` the characters of base64 that `read_encoded` gives; `width` and `height`
    are None where the header doesn't tell cheaply (TIFF, HEIC).
    """

    def __init__(self, file: FileIO, name: str, *, limit: int) -> None:
        """Takes over `file`. Raises MediaError where its content can't be sent; the file stays open then."""
        self.name = name
        self._file = file
        self._opened = os.fstat(file.fileno())
        self._digest: str | None = None
        self.size = self._opened.st_size
        self.encoded_size = (self.size + 2) // 3 * 4
        check_amount(repr(name), self.size, self.encoded_size, limit)
        self.mime = self._sniff()
        self.width: int | None = None
        self.height: int | None = None
        if (size := self._read_size()) is not None:
            self.width, self.height = size
            _check_dimensions(name, self.mime, self.width, self.height)

    def __enter__(self) -> OpenMedia:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    @property
    def digest(self) -> str | None:
        """SHA-256 of the raw bytes in hexadecimal; None until they were read to their end once."""
        return self._digest

    def read_encoded(self, chunk: int = CHUNK) -> Iterator[bytes]:
        """Exactly `encoded_size` bytes of base64, from the beginning each time it is called.

        `chunk` is the number of raw bytes per piece, a multiple of three. Raises as `read_raw` does.
        """
        if chunk <= 0 or chunk % 3:
            raise ValueError(f"chunk is {chunk}; it must be a multiple of three")
        return map(b64encode, self.read_raw(chunk))

    def read_raw(self, chunk: int = CHUNK) -> Iterator[bytes]:
        """The bytes of the file, from the beginning each time it is called.

        Raises MediaError(`media-changed`) before the last piece when the file isn't as it was opened, so that no
        request with it is ever complete.
        """
        sha256 = hashlib.sha256()
        for offset in range(0, self.size, chunk):
            wanted = min(chunk, self.size - offset)
            raw = self._read_at(offset, wanted)
            if len(raw) < wanted or (offset + wanted == self.size and self._has_changed()):
                raise MediaError(
                    f"{self.name!r} changed while it was being sent.",
                    code="media-changed",
                    remedy="Leave files alone while a job runs; retry the item.",
                )
            sha256.update(raw)
            yield raw
        self._digest = sha256.hexdigest()

    def _read_at(self, offset: int, length: int) -> bytes:
        """The bytes there; fewer only at the end of the file."""
        parts = []
        try:
            while length > 0 and (part := os.pread(self._file.fileno(), length, offset)):
                parts.append(part)
                offset += len(part)
                length -= len(part)
        except OSError as error:
            raise unreadable(self.name, error) from error
        return b"".join(parts)

    def _has_changed(self) -> bool:
        now = os.fstat(self._file.fileno())
        return (now.st_size, now.st_mtime_ns) != (self.size, self._opened.st_mtime_ns)

    def _sniff(self) -> str:
        head = self._read_at(0, HEAD)
        mime = sniff(head)
        if mime is None:
            raise MediaError(
                f"{self.name!r} is no picture that can be sent; its content is {name_of(head)}.",
                code="media-format",
                remedy="Save it as JPEG, PNG, WEBP, BMP, TIFF or HEIC.",
            )
        return mime

    def _read_size(self) -> tuple[int, int] | None:
        try:
            return read_size(self.mime, self._read_at)
        except ValueError as error:
            raise _broken(self.name, error) from error


def open_media(root: Path, relative: str, *, limit: int = ENCODED_LIMIT) -> OpenMedia:
    """The picture at `relative` below `root`. `limit` is the length of its base64 at most.

    Raises MediaError with the codes of `media_path.open_inside`, and `media-empty`, `media-too-large`,
    `media-format`, `media-broken`, `media-too-small`, `media-ratio` or `media-large-format`.
    """
    file = open_inside(root, relative)
    try:
        return OpenMedia(file, relative, limit=limit)
    except BaseException:
        file.close()
        raise


def check_amount(name: str, size: int, encoded_size: int, limit: int) -> None:
    """Raises MediaError `media-empty` or `media-too-large`; `name` as it stands in the message."""
    if size == 0:
        raise MediaError(f"{name} is empty.", code="media-empty", remedy="Copy or download the file again.")
    if encoded_size > limit:
        raise MediaError(
            f"{name} has {encoded_size:,} characters as base64; the limit is {limit:,}.",
            code="media-too-large",
            remedy=f"Shrink it to {limit // 4 * 3:,} bytes at most; more pixels don't make answers better.",
        )


def _check_dimensions(name: str, mime: str, width: int, height: int) -> None:
    found = f"{name!r} has {width:,}×{height:,} pixels"
    if min(width, height) < MIN_SIDE:
        raise MediaError(
            f"{found}; both sides must be over {MIN_SIDE - 1}.",
            code="media-too-small",
            remedy="Enlarge it, or leave it out.",
        )
    if max(width, height) > MAX_RATIO * min(width, height):
        raise MediaError(
            f"{found}; one side may be at most {MAX_RATIO} times the other.",
            code="media-ratio",
            remedy="Cut it into pieces.",
        )
    if width * height > PIXELS_4K and mime not in LARGE_FORMATS:
        raise MediaError(
            f"{found}; above 3840×2160 only JPEG and PNG are taken.",
            code="media-large-format",
            remedy="Shrink it, or save it as JPEG.",
        )


def _broken(name: str, error: ValueError) -> MediaError:
    return MediaError(f"{name!r} is broken: {error}.", code="media-broken", remedy="Copy or download the file again.")

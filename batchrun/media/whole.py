"""Whether a picture is there to its end. A copy that broke off has a perfect header, and a call for it is wasted.

Looked at are the marks that each format has at its end, or the lengths that its header promises; no pixel is decoded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from batchrun.media.header import ReadAt, number, tiff_tags

_BLOCK = 256 * 1024
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)
"""In JPEG data a marker; other bytes behind FF belong to the data."""
_STRIPS = ((0x0111, 0x0117), (0x0144, 0x0145))
"""TIFF: offsets and lengths of strips, and of tiles."""
_MOST_STRIPS = 65_536


def check_end(mime: str, read_at: ReadAt, size: int) -> None:
    """Raises ValueError that says what is missing. What stands behind the end doesn't matter: cameras put films there.

    Formats without a known end (GIF) pass.
    """
    checker = _CHECKERS.get(mime)
    if checker is not None:
        checker(read_at, size)


def jpeg_end(read_at: ReadAt, size: int, data: int) -> int:
    """Where a JPEG ends whose compressed data begin at `data`, a marker: behind its end marker. Raises ValueError."""
    position = data
    while True:
        position = _next_marker(read_at, size, position)
        kind = read_at(position, 4)
        if kind[1] == 0xD9:
            return position + 2
        # Tables and the headers of further scans stand between the data, and may hold bytes like markers.
        position += 2 + number(kind[2:4], ">H")


def png_chunks(read_at: ReadAt, size: int) -> Iterator[tuple[bytes, range]]:
    """Each chunk: its type, and where it stands as a whole. Raises ValueError where the file ends before IEND does."""
    position = 8
    while True:
        head = read_at(position, 8)
        end = position + 12 + number(head[:4], ">I")
        if end > size:
            raise ValueError("it ends in the middle")
        yield head[4:8], range(position, end)
        if head[4:8] == b"IEND":
            return
        position = end


def webp_chunks(read_at: ReadAt, size: int) -> Iterator[tuple[bytes, range]]:
    """The same of a WEBP file; padding is part of a chunk."""
    position, end = 12, 8 + number(read_at(4, 4), "<I")
    if end > size:
        raise ValueError("it ends in the middle")
    while position + 8 <= end:
        head = read_at(position, 8)
        length = number(head[4:8], "<I")
        after = position + 8 + length + length % 2
        if after > end + 1:
            raise ValueError("a part of it is longer than the whole")
        yield head[:4], range(position, min(after, size))
        position = after


def _next_marker(read_at: ReadAt, size: int, position: int) -> int:
    while position < size:
        block = read_at(position, _BLOCK)
        if (found := _MARKER.search(block)) is not None:
            return position + found.start()
        position += max(1, len(block) - 1)  # a marker may stand on the edge
    raise ValueError("it ends in the middle")


def _jpeg(read_at: ReadAt, size: int) -> None:
    if read_at(size - 2, 2) == b"\xff\xd9":
        return
    position = 2
    while True:
        head = read_at(position, 4)
        if len(head) < 4:
            raise ValueError("it ends in the middle")
        if head[1] == 0xDA:
            break
        position += 1 if head[1] == 0xFF else 2 if 0xD0 <= head[1] <= 0xD7 else 2 + number(head[2:4], ">H")
    jpeg_end(read_at, size, position)


def _png(read_at: ReadAt, size: int) -> None:
    if read_at(size - 8, 4) != b"IEND":
        for _ in png_chunks(read_at, size):
            pass


def _webp(read_at: ReadAt, size: int) -> None:
    for _ in webp_chunks(read_at, size):
        pass


def _bmp(read_at: ReadAt, size: int) -> None:
    head = read_at(0, 54)
    if len(head) < 54 or number(head[14:18], "<I") < 40 or number(head[30:34], "<I") not in (0, 3):
        return  # an old or a packed one
    width, height, bits = number(head[18:22], "<i"), abs(number(head[22:26], "<i")), number(head[28:30], "<H")
    if number(head[10:14], "<I") + (width * bits + 31) // 32 * 4 * height > size:
        raise ValueError("it ends in the middle")


def _tiff(read_at: ReadAt, size: int) -> None:
    tags = tiff_tags(read_at, 0, {tag for pair in _STRIPS for tag in pair}, most=_MOST_STRIPS)
    for offsets, lengths in _STRIPS:
        if any(offset + length > size for offset, length in zip(tags.get(offsets, ()), tags.get(lengths, ()))):  # noqa: B905
            raise ValueError("it ends in the middle")


def _heic(read_at: ReadAt, size: int) -> None:
    position = 0
    while position + 8 <= size:
        head = read_at(position, 16)
        length = number(head[:4], ">I")
        if length == 0:  # the last box goes to the end
            return
        if length == 1:
            length = number(head[8:16], ">Q")
        if length < 8 or position + length > size:
            raise ValueError("it ends in the middle")
        position += length


_CHECKERS: dict[str, Callable[[ReadAt, int], None]] = {
    "image/jpeg": _jpeg,
    "image/png": _png,
    "image/webp": _webp,
    "image/bmp": _bmp,
    "image/tiff": _tiff,
    "image/heic": _heic,
}

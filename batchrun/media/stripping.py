"""Leaves the metadata of a picture out without decoding it: place, camera, time, comments, previews.

What is kept is what the pixels need to look right: colour profile, gamma, transparency, resolution, Adobe's colour
transform; and of EXIF the orientation alone, as a segment of its own with nothing else in it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from zlib import crc32

from batchrun.media.header import ReadAt, number, tiff_tags
from batchrun.media.whole import jpeg_end, png_chunks, webp_chunks

Piece = bytes | range
"""Bytes of our own, or a part of the file."""

LOSSLESS = frozenset({"image/jpeg", "image/png", "image/webp", "image/bmp"})
"""The formats of which metadata can be left out so. BMP has none."""
ORIENTATION = 0x0112
_PNG_KEPT = frozenset(b"IHDR PLTE IDAT IEND tRNS gAMA cHRM sRGB iCCP sBIT bKGD pHYs cICP acTL fcTL fdAT".split())
_WEBP_KEPT = frozenset([b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP"])
_EXIF_FLAG, _XMP_FLAG = 0x08, 0x04


def stripped(mime: str, read_at: ReadAt, size: int) -> tuple[Piece, ...]:
    """The picture without its metadata, as parts of the file. Raises ValueError where it is broken."""
    return tuple(_joined(_STRIPPERS[mime](read_at, size)))


def _jpeg(read_at: ReadAt, size: int) -> Iterator[Piece]:
    yield range(2)
    position, orientation = 2, 1
    kept: list[Piece] = []
    while True:
        head = read_at(position, 16)
        if len(head) < 4 or head[0] != 0xFF:
            raise ValueError("the JPEG header is cut or broken")
        kind = head[1]
        if kind == 0xFF or kind == 0x01 or 0xD0 <= kind <= 0xD7:
            position += 1 if kind == 0xFF else 2
            continue
        if kind == 0xDA:
            break
        segment = range(position, position + 2 + number(head[2:4], ">H"))
        if kind == 0xE1 and head[4:10] == b"Exif\0\0" and orientation == 1:
            orientation = _orientation(read_at, segment.start + 10)
        if _is_kept(kind, head):
            kept.append(segment)
        position = segment.stop
    # JFIF wants to be the first segment, EXIF the next.
    if kept and isinstance(kept[0], range) and read_at(kept[0].start + 1, 1) == b"\xe0":
        yield kept.pop(0)
    if orientation != 1:
        exif = b"Exif\0\0" + _exif(orientation)
        yield b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    yield from kept
    yield range(position, jpeg_end(read_at, size, position + 2 + number(read_at(position + 2, 2), ">H")))


def _is_kept(kind: int, head: bytes) -> bool:
    if kind == 0xE0:
        return head[4:9] == b"JFIF\0"  # JFXX holds previews
    if kind == 0xE2:
        return head[4:16] == b"ICC_PROFILE\0"
    if kind == 0xEE:
        return head[4:9] == b"Adobe"
    return not (0xE0 <= kind <= 0xEF or kind == 0xFE)


def _png(read_at: ReadAt, size: int) -> Iterator[Piece]:
    yield range(8)
    chunks = list(png_chunks(read_at, size))
    exif = next((place for kind, place in chunks if kind == b"eXIf"), None)
    orientation = 1 if exif is None else _orientation(read_at, exif.start + 8)
    for kind, place in chunks:
        if kind == b"IDAT" and orientation != 1:
            body = b"eXIf" + _exif(orientation)
            yield struct.pack(">I", len(body) - 4) + body + struct.pack(">I", crc32(body))
            orientation = 1
        if kind in _PNG_KEPT:
            yield place


def _webp(read_at: ReadAt, size: int) -> Iterator[Piece]:
    chunks = list(webp_chunks(read_at, size))
    exif = next((place for kind, place in chunks if kind == b"EXIF"), None)
    orientation = 1
    if exif is not None:
        marked = 6 if read_at(exif.start + 8, 6) == b"Exif\0\0" else 0
        orientation = _orientation(read_at, exif.start + 8 + marked)
    kept: list[Piece] = []
    for kind, place in chunks:
        if kind == b"VP8X":
            whole = bytearray(read_at(place.start, len(place)))
            whole[8] &= ~(_XMP_FLAG | (_EXIF_FLAG if orientation == 1 else 0))
            kept.append(bytes(whole))
        elif kind in _WEBP_KEPT:
            kept.append(place)
    if orientation != 1:
        body = _exif(orientation)
        kept.append(b"EXIF" + struct.pack("<I", len(body)) + body)
    yield b"RIFF" + struct.pack("<I", 4 + sum(len(piece) for piece in kept)) + b"WEBP"
    yield from kept


def _bmp(_read_at: ReadAt, size: int) -> Iterator[Piece]:
    yield range(size)


def _orientation(read_at: ReadAt, base: int) -> int:
    """Of the EXIF data at `base`; 1, upright, where they don't say or can't be read."""
    try:
        (value,) = tiff_tags(read_at, base, {ORIENTATION}).get(ORIENTATION, (1,))
    except ValueError:
        return 1
    return value if 1 <= value <= 8 else 1


def _exif(orientation: int) -> bytes:
    """EXIF data that say nothing else: one directory of one entry."""
    return b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, ORIENTATION, 3, 1, orientation, 0, 0)


def _joined(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Neighbouring parts of the file as one."""
    last: Piece | None = None
    for piece in pieces:
        if isinstance(piece, range) and isinstance(last, range) and last.stop == piece.start:
            last = range(last.start, piece.stop)
            continue
        if last is not None:
            yield last
        last = piece
    if last is not None:
        yield last


_STRIPPERS: dict[str, Callable[[ReadAt, int], Iterator[Piece]]] = {
    "image/jpeg": _jpeg,
    "image/png": _png,
    "image/webp": _webp,
    "image/bmp": _bmp,
}

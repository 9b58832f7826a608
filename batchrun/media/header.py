"""What the first bytes of a picture say: its format, and its width and height where that is cheap.

Nothing is decoded. Formats are those of provider contract 5.1; the extension of a file name plays no part.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

ReadAt = Callable[[int, int], bytes]
"""(offset, length) → the bytes there, fewer at the end of the file."""
Size = tuple[int, int]
"""Width and height in pixels, as stored: before any rotation that the metadata asks for."""

HEAD = 64
"""Bytes that `sniff` wants to see."""
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})
_BMP_HEADERS = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
_REFUSED: tuple[tuple[bytes, str], ...] = (
    (b"GIF8", "GIF"),
    (b"%PDF", "PDF"),
    (b"8BPS", "Photoshop"),
    (b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (b"\x00\x00\x01\x00", "ICO"),
    (b"<svg", "SVG"),
    (b"<?xml", "XML or SVG"),
    (b"PK\x03\x04", "ZIP"),
    (b"\x1a\x45\xdf\xa3", "Matroska video"),
)


def sniff(head: bytes) -> str | None:
    """The MIME type of a picture that can be sent, else None."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if head.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "image/webp"
    if head.startswith((b"II*\x00", b"MM\x00*")):
        return "image/tiff"
    if head.startswith(b"BM") and len(head) >= 18 and _number(head[14:18], "<I") in _BMP_HEADERS:
        return "image/bmp"
    return "image/heic" if _HEIC_BRANDS.intersection(_brands(head)) else None


def name_of(head: bytes) -> str:
    """What a file that can't be sent is, in words for a message."""
    brands = _brands(head)
    if brands:
        return "AVIF" if b"avif" in brands else "a video or another ISO media file"
    return next((name for magic, name in _REFUSED if head.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(magic)), "unknown")


def read_size(mime: str, read_at: ReadAt) -> Size | None:
    """Width and height; None for TIFF and HEIC. Raises ValueError that says what is wrong with the header."""
    reader = _READERS.get(mime)
    if reader is None:
        return None
    width, height = reader(read_at)
    if width <= 0 or height <= 0:
        raise ValueError(f"the header says {width}×{height} pixels")
    return width, height


def _png(read_at: ReadAt) -> Size:
    head = read_at(0, 24)
    if head[12:16] != b"IHDR":
        raise ValueError("the PNG header is cut or isn't first")
    return _number(head[16:20], ">I"), _number(head[20:24], ">I")


def _bmp(read_at: ReadAt) -> Size:
    head = read_at(0, 26)
    if _number(head[14:18], "<I") == 12:
        return _number(head[18:20], "<H"), _number(head[20:22], "<H")
    # A negative height only says that the rows go from the top down.
    return _number(head[18:22], "<i"), abs(_number(head[22:26], "<i"))


def _webp(read_at: ReadAt) -> Size:
    head = read_at(0, 30)
    kind = head[12:16]
    if kind == b"VP8X":
        return 1 + _number(head[24:27] + b"\0", "<I"), 1 + _number(head[27:30] + b"\0", "<I")
    if kind == b"VP8L" and head[20:21] == b"\x2f":
        bits = _number(head[21:25], "<I")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 " and head[23:26] == b"\x9d\x01\x2a":
        return _number(head[26:28], "<H") & 0x3FFF, _number(head[28:30], "<H") & 0x3FFF
    raise ValueError("the WEBP header is cut or unknown")


def _jpeg(read_at: ReadAt) -> Size:
    """Walks the segments to the frame header; metadata before it may be longer than any fixed head."""
    offset = 2
    for _ in range(1000):
        marker = read_at(offset, 9)
        if len(marker) < 4 or marker[0] != 0xFF:
            raise ValueError("the JPEG header is cut or broken")
        kind = marker[1]
        if kind == 0xFF or kind == 0x01 or 0xD0 <= kind <= 0xD7:  # a fill byte; markers without length
            offset += 1 if kind == 0xFF else 2
        elif 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            return _number(marker[7:9], ">H"), _number(marker[5:7], ">H")
        elif kind in (0xD9, 0xDA):
            raise ValueError("the JPEG has no frame header before its data")
        else:
            offset += 2 + _number(marker[2:4], ">H")
    raise ValueError("the JPEG has no frame header in its first 1,000 segments")


_READERS: dict[str, Callable[[ReadAt], Size]] = {
    "image/png": _png,
    "image/jpeg": _jpeg,
    "image/webp": _webp,
    "image/bmp": _bmp,
}


def _brands(head: bytes) -> list[bytes]:
    """The brands of an ISO media file (HEIC, AVIF, MP4): the major one, then the compatible ones."""
    if head[4:8] != b"ftyp":
        return []
    end = min(_number(head[:4], ">I"), len(head))
    return [head[8:12], *(head[start : start + 4] for start in range(16, end - 3, 4))]


def _number(data: bytes, form: str) -> int:
    """Raises ValueError if `data` is shorter than the form: the file ends inside its header."""
    try:
        (number,) = struct.unpack(form, data)
    except struct.error:
        raise ValueError("the file ends inside its header") from None
    return int(number)

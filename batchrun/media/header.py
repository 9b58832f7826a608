"""What the first bytes of a picture say: its format, and its width and height.

Nothing is decoded. Formats are those of provider contract 5.1, and GIF (8.5); the extension of a file name plays no
part.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Container, Iterator

ReadAt = Callable[[int, int], bytes]
"""(offset, length) → the bytes there, fewer at the end of the file."""
Size = tuple[int, int]
"""Width and height in pixels, as stored: before any rotation that the metadata asks for."""

HEAD = 64
"""Bytes that `sniff` wants to see."""
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})
_TIFF_WIDTH, _TIFF_HEIGHT = 0x0100, 0x0101
_META_BYTES = 4 * 1024 * 1024
_MOST_BOXES = 65_536
_BMP_HEADERS = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
_REFUSED: tuple[tuple[bytes, str], ...] = (
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
    (b"ID3", "sound"),
    (b"\xff\xfb", "sound"),
    (b"\xff\xf3", "sound"),
    (b"fLaC", "sound"),
    (b"OggS", "sound"),
    (b"MThd", "sound"),
)


def sniff(head: bytes) -> str | None:
    """The MIME type of a picture, else None."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if head.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "image/webp"
    if head.startswith((b"II*\x00", b"MM\x00*")):
        return "image/tiff"
    if head.startswith(b"BM") and len(head) >= 18 and number(head[14:18], "<I") in _BMP_HEADERS:
        return "image/bmp"
    return "image/heic" if _HEIC_BRANDS.intersection(_brands(head)) else None


def name_of(head: bytes) -> str:
    """What a file that can't be sent is, in words for a message."""
    if head.startswith(b"GIF8"):
        return "GIF"
    if head.startswith(b"RIFF") and head[8:12] == b"WAVE":
        return "sound"
    brands = _brands(head)
    if brands:
        if b"M4A " in brands:
            return "sound"
        return "AVIF" if b"avif" in brands else "a video or another ISO media file"
    plain = head.lstrip(b"\xef\xbb\xbf \r\n\t")
    return next((name for magic, name in _REFUSED if plain.startswith(magic)), "text" if _is_text(head) else "unknown")


def read_size(mime: str, read_at: ReadAt) -> Size:
    """Width and height of a format that `sniff` knows. Raises ValueError that says what is wrong with the header."""
    width, height = _READERS[mime](read_at)
    if width <= 0 or height <= 0:
        raise ValueError(f"the header says {width}×{height} pixels")
    return width, height


def _png(read_at: ReadAt) -> Size:
    head = read_at(0, 24)
    if head[12:16] != b"IHDR":
        raise ValueError("the PNG header is cut or isn't first")
    return number(head[16:20], ">I"), number(head[20:24], ">I")


def _bmp(read_at: ReadAt) -> Size:
    head = read_at(0, 26)
    if number(head[14:18], "<I") == 12:
        return number(head[18:20], "<H"), number(head[20:22], "<H")
    # A negative height only says that the rows go from the top down.
    return number(head[18:22], "<i"), abs(number(head[22:26], "<i"))


def _webp(read_at: ReadAt) -> Size:
    head = read_at(0, 30)
    kind = head[12:16]
    if kind == b"VP8X":
        return 1 + number(head[24:27] + b"\0", "<I"), 1 + number(head[27:30] + b"\0", "<I")
    if kind == b"VP8L" and head[20:21] == b"\x2f":
        bits = number(head[21:25], "<I")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 " and head[23:26] == b"\x9d\x01\x2a":
        return number(head[26:28], "<H") & 0x3FFF, number(head[28:30], "<H") & 0x3FFF
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
            return number(marker[7:9], ">H"), number(marker[5:7], ">H")
        elif kind in (0xD9, 0xDA):
            raise ValueError("the JPEG has no frame header before its data")
        else:
            offset += 2 + number(marker[2:4], ">H")
    raise ValueError("the JPEG has no frame header in its first 1,000 segments")


def _gif(read_at: ReadAt) -> Size:
    head = read_at(6, 4)
    return number(head[:2], "<H"), number(head[2:4], "<H")


def _tiff(read_at: ReadAt) -> Size:
    tags = tiff_tags(read_at, 0, {_TIFF_WIDTH, _TIFF_HEIGHT})
    try:
        return tags[_TIFF_WIDTH][0], tags[_TIFF_HEIGHT][0]
    except (KeyError, IndexError):
        raise ValueError("the TIFF header doesn't tell its width and height") from None


def tiff_tags(read_at: ReadAt, base: int, wanted: Container[int], *, most: int = 1) -> dict[int, tuple[int, ...]]:
    """Whole numbers of the first directory of a TIFF file, or of EXIF data, that begins at `base`; up to `most` of each
    tag. Raises ValueError."""
    head = read_at(base, 8)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None or len(head) < 8:
        raise ValueError("the TIFF header is cut or broken")
    directory = base + number(head[4:8], f"{order}I")
    count = number(read_at(directory, 2), f"{order}H")
    entries = read_at(directory + 2, 12 * count)
    found: dict[int, tuple[int, ...]] = {}
    for start in range(0, 12 * count, 12):
        tag = number(entries[start : start + 2], f"{order}H")
        form = {1: "B", 3: "H", 4: "I"}.get(number(entries[start + 2 : start + 4], f"{order}H"))
        if tag not in wanted or form is None:
            continue
        values = min(number(entries[start + 4 : start + 8], f"{order}I"), most)
        length = values * struct.calcsize(form)
        field = entries[start + 8 : start + 12]
        data = field[:length] if length <= 4 else read_at(base + number(field, f"{order}I"), length)
        if len(data) < length:
            raise ValueError("the file ends inside its header")
        found[tag] = struct.unpack(f"{order}{values}{form}", data)
    return found


def _heic(read_at: ReadAt) -> Size:
    """Of the primary picture: of all properties that belong to it, the one that says how large it is."""
    meta = _child(_boxes(read_at, 0, None), b"meta")
    if len(meta) > _META_BYTES:
        raise ValueError("the HEIC header is too long")
    data = read_at(meta.start, len(meta))

    def inside(offset: int, length: int) -> bytes:
        return data[offset : offset + length]

    parts = dict(_boxes(inside, 4, len(data)))
    primary = parts.get(b"pitm")
    properties = parts.get(b"iprp")
    if primary is None or properties is None:
        raise ValueError("the HEIC header names no primary picture")
    wide = data[primary.start] > 0
    item = number(inside(primary.start + 4, 4 if wide else 2), ">I" if wide else ">H")
    within = dict(_boxes(inside, properties.start, properties.stop))
    if b"ipco" not in within or b"ipma" not in within:
        raise ValueError("the HEIC header doesn't tell its width and height")
    known = list(_boxes(inside, within[b"ipco"].start, within[b"ipco"].stop))
    for index in _properties_of(item, inside, within[b"ipma"]):
        if 0 < index <= len(known) and known[index - 1][0] == b"ispe":
            start = known[index - 1][1].start
            return number(inside(start + 4, 4), ">I"), number(inside(start + 8, 4), ">I")
    raise ValueError("the HEIC header doesn't tell its width and height")


def _boxes(read_at: ReadAt, position: int, end: int | None) -> Iterator[tuple[bytes, range]]:
    """Type and content of each box (ISO 14496-12) between two places; None is the end of the file."""
    for _ in range(_MOST_BOXES):
        head = read_at(position, 16)
        if len(head) < 8 or (end is not None and position + 8 > end):
            return
        length, header = number(head[:4], ">I"), 8
        if length == 1:
            length, header = number(head[8:16], ">Q"), 16
        if length < header or (end is not None and position + length > end):
            raise ValueError("the HEIC header is cut or broken")
        yield head[4:8], range(position + header, position + length)
        position += length


def _child(boxes: Iterator[tuple[bytes, range]], wanted: bytes) -> range:
    found = next((place for kind, place in boxes if kind == wanted), None)
    if found is None:
        raise ValueError("the HEIC header is cut or broken")
    return found


def _properties_of(item: int, read_at: ReadAt, place: range) -> Iterator[int]:
    """Numbers, from 1, of the properties that `ipma` gives an item."""
    version, width = number(read_at(place.start, 1), "B"), 1 + (number(read_at(place.start + 3, 1), "B") & 1)
    position = place.start + 8
    for _ in range(min(number(read_at(place.start + 4, 4), ">I"), _MOST_BOXES)):
        size = 4 if version else 2
        found = number(read_at(position, size), ">I" if version else ">H")
        count = number(read_at(position + size, 1), "B")
        position += size + 1
        for _ in range(count):
            index = number(read_at(position, width), ">H" if width == 2 else "B")
            position += width
            if found == item:
                yield index & (0x7FFF if width == 2 else 0x7F)


_READERS: dict[str, Callable[[ReadAt], Size]] = {
    "image/png": _png,
    "image/jpeg": _jpeg,
    "image/webp": _webp,
    "image/bmp": _bmp,
    "image/gif": _gif,
    "image/tiff": _tiff,
    "image/heic": _heic,
}


def _is_text(head: bytes) -> bool:
    """Whether it reads like the beginning of a text file."""
    try:
        text = head.decode("utf-8", errors="strict" if len(head) < HEAD else "ignore")
    except UnicodeDecodeError:
        return False
    return len(text) > 1 and len(text.encode()) >= len(head) - 3 and all(c.isprintable() or c in "\r\n\t" for c in text)


def _brands(head: bytes) -> list[bytes]:
    """The brands of an ISO media file (HEIC, AVIF, MP4): the major one, then the compatible ones."""
    if head[4:8] != b"ftyp":
        return []
    end = min(number(head[:4], ">I"), len(head))
    return [head[8:12], *(head[start : start + 4] for start in range(16, end - 3, 4))]


def number(data: bytes, form: str) -> int:
    """Raises ValueError if `data` is shorter than the form: the file ends inside its header."""
    try:
        (number,) = struct.unpack(form, data)
    except struct.error:
        raise ValueError("the file ends inside its header") from None
    return int(number)

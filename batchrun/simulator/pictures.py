"""Size and format of a picture, read from the header of its bytes; nothing is decoded.

Known are the formats of the contract's table 5.1 (BMP, JPEG, PNG, TIFF, WEBP, HEIC). A JPEG or TIFF whose
EXIF orientation turns it by a quarter, and a HEIC with such a rotation, are given with the sides as seen.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from batchrun.simulator.boxes import BrokenBox, boxes, find_box

MIME_TYPES: Final = {
    "image/bmp": "BMP",
    "image/jpeg": "JPEG",
    "image/png": "PNG",
    "image/tiff": "TIFF",
    "image/webp": "WEBP",
    "image/heic": "HEIC",
}
HEIC_BRANDS: Final = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
ORIENTATION: Final = 0x0112
QUARTER_TURNS: Final = frozenset({5, 6, 7, 8})


class UnreadablePicture(ValueError):
    """The bytes are no picture of a known format, or end before their size is told."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """Format name of table 5.1; width and height in pixels as a person sees the picture."""

    format: str
    width: int
    height: int


def measure(data: bytes) -> Picture:
    """Raise `UnreadablePicture` for bytes of which no size can be read."""
    for starts, reader in READERS:
        if starts(data):
            try:
                picture = reader(data)
            except (struct.error, IndexError, BrokenBox) as error:
                raise UnreadablePicture("the picture ends within its header") from error
            if picture.width < 1 or picture.height < 1:
                raise UnreadablePicture(f"the {picture.format} header tells no size")
            return picture
    raise UnreadablePicture("the bytes are no picture of a supported format")


def jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and content of each segment up to the compressed data."""
    position = 2
    while True:
        if data[position] != 0xFF:
            raise UnreadablePicture("the JPEG has no marker where one must stand")
        while data[position] == 0xFF:
            position += 1
        marker = data[position]
        position += 1
        if marker in (0xD9, 0xDA):
            return
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:
            continue
        (length,) = struct.unpack_from(">H", data, position)
        yield marker, data[position + 2 : position + length]
        position += max(length, 2)


def read_jpeg(data: bytes) -> Picture:
    turned = False
    for marker, content in jpeg_segments(data):
        if marker == 0xE1 and content.startswith(b"Exif\0\0"):
            turned = exif_turns(content[6:])
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", content, 1)
            return upright("JPEG", width, height, turned=turned)
    raise UnreadablePicture("the JPEG has no frame header")


def exif_turns(exif: bytes) -> bool:
    try:
        return tiff_entries(exif).get(ORIENTATION) in QUARTER_TURNS
    except (struct.error, UnreadablePicture):
        return False  # a broken EXIF block does not make the picture unreadable


def upright(name: str, width: int, height: int, *, turned: bool) -> Picture:
    if turned:
        width, height = height, width
    return Picture(format=name, width=width, height=height)


def tiff_entries(data: bytes) -> dict[int, int]:
    """The whole numbers of the first directory of a TIFF, by tag."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None:
        raise UnreadablePicture("the TIFF header is broken")
    (start,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, start)
    entries: dict[int, int] = {}
    for index in range(count):
        entry = start + 2 + 12 * index
        tag, kind = struct.unpack_from(order + "HH", data, entry)
        if kind in (3, 4):
            (entries[tag],) = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, entry + 8)
    return entries


def read_tiff(data: bytes) -> Picture:
    entries = tiff_entries(data)
    turned = entries.get(ORIENTATION) in QUARTER_TURNS
    return upright("TIFF", entries.get(256, 0), entries.get(257, 0), turned=turned)


def read_png(data: bytes) -> Picture:
    kind, width, height = struct.unpack_from(">4sII", data, 12)
    if kind != b"IHDR":
        raise UnreadablePicture("the PNG does not begin with its header")
    return Picture(format="PNG", width=width, height=height)


def read_bmp(data: bytes) -> Picture:
    (header,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header == 12 else "<ii", data, 18)
    return Picture(format="BMP", width=width, height=abs(height))  # negative: stored from the top down


def read_webp(data: bytes) -> Picture:
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
        if len(data) < 30:
            raise UnreadablePicture("the WEBP ends within its header")
    elif kind == b"VP8L" and data[20] == 0x2F:
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    else:
        raise UnreadablePicture("the WEBP holds no picture data that tells a size")
    return Picture(format="WEBP", width=width, height=height)


def read_heic(data: bytes) -> Picture:
    """The largest of the sizes that the file names: tiles and thumbnails are smaller than the picture."""
    meta = find_box(data, b"meta")[4:]
    properties = dict.fromkeys((b"ispe", b"irot"), b"")
    largest = 0
    for kind, content in boxes(find_box(meta, b"iprp", b"ipco")):
        if kind == b"ispe":
            width, height = struct.unpack_from(">II", content, 4)
            if width * height > largest:
                largest, properties[kind] = width * height, content
        elif kind == b"irot":
            properties[kind] = content
    width, height = struct.unpack_from(">II", properties[b"ispe"], 4)
    return upright("HEIC", width, height, turned=bool(properties[b"irot"][:1] and properties[b"irot"][0] & 1))


def is_heic(data: bytes) -> bool:
    return data[4:8] == b"ftyp" and data[8:12] in HEIC_BRANDS


READERS: Final[tuple[tuple[Callable[[bytes], bool], Callable[[bytes], Picture]], ...]] = (
    (lambda data: data.startswith(b"\xff\xd8\xff"), read_jpeg),
    (lambda data: data.startswith(b"\x89PNG\r\n\x1a\n"), read_png),
    (lambda data: data.startswith(b"RIFF") and data[8:12] == b"WEBP", read_webp),
    (lambda data: data.startswith(b"BM"), read_bmp),
    (lambda data: data.startswith((b"II*\0", b"MM\0*")), read_tiff),
    (is_heic, read_heic),
)

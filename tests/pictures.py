"""Pictures for tests: real ones, and files that only claim to be some."""

from __future__ import annotations

import io
import struct
from zlib import crc32

from PIL import Image


def picture(form: str, width: int = 32, height: int = 20, mode: str = "RGB", **options: object) -> bytes:
    out = io.BytesIO()
    Image.new(mode, (width, height)).save(out, form, **options)
    return out.getvalue()


PNG_LEAST = 45
"""Bytes of a PNG with nothing in it."""


def png(width: int, height: int, size: int = PNG_LEAST) -> bytes:
    """A PNG of `size` bytes without any pixels: only its size can be read."""
    filling = b"" if size == PNG_LEAST else chunk(b"IDAT", b"\xa5" * (size - PNG_LEAST - 12))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + filling + chunk(b"IEND", b"")


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc32(kind + body))


def heic(width: int, height: int, *brands: bytes) -> bytes:
    """The boxes of a HEIC picture with two items, of which the second one is the primary picture."""
    sizes = [box(b"ispe", struct.pack(">III", 0, *sides)) for sides in ((64, 64), (width, height))]
    ipma = struct.pack(">II", 0, 2) + b"".join(struct.pack(">HBB", item, 1, item) for item in (1, 2))
    iprp = box(b"iprp", box(b"ipco", *sizes) + box(b"ipma", ipma))
    meta = box(b"meta", bytes(4), box(b"pitm", struct.pack(">IH", 0, 2)), iprp)
    return box(b"ftyp", brands[0], bytes(4), *brands[1:]) + meta + box(b"mdat", bytes(100))


def box(kind: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return struct.pack(">I", len(body) + 8) + kind + body

"""Boxes of the ISO base media format, which HEIC pictures and MP4 videos share."""

import struct
from collections.abc import Iterator


class BrokenBox(ValueError):
    """A box is missing, or claims a length that the bytes do not have."""


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of each box that stands directly in the bytes."""
    position = 0
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        head = 8
        if length == 1:
            if position + 16 > len(data):
                raise BrokenBox("a long box ends within its header")
            (length,) = struct.unpack_from(">Q", data, position + 8)
            head = 16
        elif length == 0:
            length = len(data) - position
        if length < head:
            raise BrokenBox("a box is shorter than its own header")
        yield kind, data[position + head : position + length]
        position += length


def find_box(data: bytes, *path: bytes) -> bytes:
    """Content of the first box along the path; raise `BrokenBox` when there is none."""
    for wanted in path:
        for kind, content in boxes(data):
            if kind == wanted:
                data = content
                break
        else:
            raise BrokenBox(f"there is no {wanted.decode('ascii')} box")
    return data

"""Small videos, made while the tests run: moving bars, a few seconds long."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import av
from PIL import Image, ImageDraw

FORMATS = {
    "mp4": "mpeg4",
    "mov": "mpeg4",
    "mkv": "mpeg4",
    "avi": "mpeg4",
    "flv": "flv",
    "wmv": "wmv2",
    "ts": "mpeg2video",
}
CONTAINERS = {"mkv": "matroska", "wmv": "asf", "ts": "mpegts"}


def clip(
    kind: str = "mp4", *, seconds: float = 3.0, rate: int = 10, size: tuple[int, int] = (128, 96), noise: int = 0
) -> bytes:
    """A video of a bar that wanders; with `noise` its colour changes too, by that much."""
    file = BytesIO()
    with av.open(file, "w", format=CONTAINERS.get(kind, kind)) as container:
        stream = container.add_stream(FORMATS[kind], rate=rate)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for number in range(round(seconds * rate)):
            picture = Image.new("RGB", size, ((number * noise) % 256, 40, 90))
            left = number * 5 % size[0]
            ImageDraw.Draw(picture).rectangle((left, 0, left + 9, size[1]), fill=(250, 240, 30))
            frame = av.VideoFrame.from_image(picture)  # type: ignore[no-untyped-call]
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return file.getvalue()


def padded(video: bytes, size: int) -> bytes:
    """An MP4 or MOV video of so many bytes, with a box at its end that players pass over."""
    free = size - len(video)
    return video + free.to_bytes(4, "big") + b"free" + bytes(free - 8)


def write_clip(path: Path, kind: str = "", **made: object) -> Path:
    path.write_bytes(clip(kind or path.suffix.removeprefix("."), **made))  # type: ignore[arg-type]
    return path

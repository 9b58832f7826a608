"""Small videos, made while the tests run: moving bars, a few seconds long."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
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


def slides(times: Sequence[float], kind: str = "mp4", size: tuple[int, int] = (64, 64)) -> bytes:
    """A video in which nothing moves but from slide to slide, at these seconds; the slides get brighter by twenties."""
    file = BytesIO()
    with av.open(file, "w", format=CONTAINERS.get(kind, kind)) as container:
        stream = container.add_stream("mpeg4", rate=30)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.time_base = stream.time_base = Fraction(1, 1_000)
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_image(Image.new("RGB", size, (number * 20 % 256,) * 3))  # type: ignore[no-untyped-call]
            frame.pts, frame.time_base = round(time * 1_000), Fraction(1, 1_000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()


def flag(size: tuple[int, int] = (128, 64), pixels: Fraction = Fraction(1)) -> bytes:
    """Three seconds of an MP4 with a red half above a blue one; `pixels` says how wide each is to its height."""
    file = BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=10)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.sample_aspect_ratio = pixels
        picture = Image.new("RGB", size, (220, 20, 20))
        picture.paste((20, 20, 220), (0, size[1] // 2, *size))
        for _ in range(30):
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))  # type: ignore[no-untyped-call]
        container.mux(stream.encode())
    return file.getvalue()


def turned(video: bytes, degrees: int) -> bytes:
    """An MP4 video that players show turned clockwise, as telephones write them: the pixels stay as they are."""
    a, b, c, d = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}[degrees]
    matrix = video.index(b"tkhd") + 44
    numbers = (a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    return video[:matrix] + struct.pack(">9i", *numbers) + video[matrix + 36 :]


def with_header_seconds(video: bytes, seconds: float) -> bytes:
    """An MP4 video of one track whose headers say that it lasts so long."""
    made, movie, medium = bytearray(video), video.index(b"mvhd"), video.index(b"mdhd")
    for clock, duration in (
        (movie + 16, movie + 20),
        (medium + 16, medium + 20),
        (movie + 16, video.index(b"tkhd") + 24),
    ):
        (ticks,) = struct.unpack_from(">I", video, clock)
        struct.pack_into(">I", made, duration, round(ticks * seconds))
    return bytes(made)


def padded(video: bytes, size: int) -> bytes:
    """An MP4 or MOV video of so many bytes, with a box at its end that players pass over."""
    free = size - len(video)
    return video + free.to_bytes(4, "big") + b"free" + bytes(free - 8)


def write_clip(path: Path, kind: str = "", **made: object) -> Path:
    path.write_bytes(clip(kind or path.suffix.removeprefix("."), **made))  # type: ignore[arg-type]
    return path

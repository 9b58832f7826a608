"""Videos in the process for decoding: what they are, and pictures taken out of them.

FFmpeg gets one demuxer, chosen by the first bytes, and no protocol: a playlist is never opened, nor what a file names.
It reads through the descriptor that came with the request.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from PIL import Image

from batchrun.errors import MediaError
from batchrun.media.video_header import VIDEO_HEAD, container_of, instead_of_video, what_it_is
from batchrun.messages import JsonValue
from batchrun.tokens import scaled

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

MOST_STREAMS = 32
MOST_PIXELS = 8_192 * 8_192
"""Of one frame as it is stored."""
JPEG_QUALITY = 85
"""Above it the bytes grow faster than what a model can see."""
SEEK = 5.0
"""Seconds between two pictures from which on the video is sought in, and not decoded all along."""
READ_WHOLE = 16 * 1024 * 1024
"""Bytes of a file up to which a look into it reads it to its end."""
LATE = 1.0
"""Seconds by which a header may promise more than the file holds."""
SLOWEST, FASTEST = 0.1, 10.0
"""Pictures per second that a request may name (contract 5.2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is asked of `frames`; sizes are those of the vendor's formula (contract 8.3.3)."""

    fps: float
    start: float
    end: float | None
    least: int
    most: int
    bytes: int
    """Of all pictures together; there are fewer of them where they would have more."""
    factor: int
    frame_pixels: int
    total_pixels: int

    def size(self, width: int, height: int, number: int) -> tuple[int, int]:
        """What the model looks at, where there are so many pictures; never more than there is."""
        bound = max(min(self.frame_pixels, self.total_pixels / number * 2), int(4 * self.factor**2 * 1.05))
        rows, columns = scaled(width, height, self.factor, 1, bound, least=1)
        size = columns * self.factor, rows * self.factor
        return size if size[0] * size[1] < width * height else (width, height)


def probe(source: BinaryIO, _target: BinaryIO | None, _arguments: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """`seconds`, `frames`, `width`, `height` (as shown), `audio`: whether there is sound. Raises MediaError."""
    with opened(source) as (container, stream):
        first = next(decoded(container, stream), None)
        if first is None:
            raise no_frames()
        check_index(source, stream)
        seconds = length(container, stream)
        if os.fstat(source.fileno()).st_size <= READ_WHOLE:
            check_end(container, stream, seconds)
        width, height = shown_size(first)
        rate = float(stream.average_rate or stream.guessed_rate or 0)
        return {
            "seconds": seconds,
            "frames": stream.frames or max(1, round(seconds * rate)),
            "width": width,
            "height": height,
            "audio": bool(container.streams.audio),
        }


def frames(source: BinaryIO, target: BinaryIO | None, arguments: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Write JPEGs of a video, one behind the other: one for each 1/fps seconds, evenly fewer where there would be too
    many or too much of them.

    Says `sizes` in bytes, `fps`: the rate of what was written, `width` and `height`, `seconds` of the part, `audio`.
    Raises MediaError.
    """
    assert target is not None  # noqa: S101 - the caller always gives one
    wanted = read(arguments)
    with opened(source) as (container, stream):
        check_index(source, stream)
        end = length(container, stream)
        if wanted.end is not None:
            end = min(end, wanted.end)
        span = end - wanted.start
        if span <= 0:
            raise MediaError(
                f"ends at {end:g} s, before the part that begins at {wanted.start:g} s",
                code="media-video-length",
                remedy="Load the job again if the file has changed.",
            )
        number, step = spread(span, wanted)
        times = [wanted.start + step * index for index in range(number)]
        sizes: list[int] = []
        shape = (0, 0)
        for frame in at_times(container, stream, times, wanted.start):
            shape = wanted.size(*shown_size(frame), number)
            begins = target.tell()
            picture(frame, shape).save(target, "JPEG", quality=JPEG_QUALITY)
            sizes.append(target.tell() - begins)
        if len(sizes) < wanted.least:
            raise too_few(len(sizes), wanted.least)
        kept, rate = thinned(sizes, wanted), 1 / step
        return {
            "sizes": [[sum(sizes[:at]), sizes[at]] for at in kept],
            "fps": round(rate * len(kept) / len(sizes), 4),
            "width": shape[0],
            "height": shape[1],
            "seconds": span,
            "audio": bool(container.streams.audio),
        }


def read(arguments: Mapping[str, JsonValue]) -> Wanted:
    end = arguments["end"]
    whole = ("least", "most", "bytes", "factor", "frame_pixels", "total_pixels")
    return Wanted(
        fps=float(str(arguments["fps"])),
        start=float(str(arguments["start"])),
        end=None if end is None else float(str(end)),
        **{name: int(str(arguments[name])) for name in whole},
    )


@contextmanager
def opened(source: BinaryIO) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The video and its first moving picture. Raises MediaError, also for what FFmpeg says within the context."""
    try:
        import av  # an extra, and only for videos
    except ImportError:
        raise MediaError(
            "is a video; looking into it needs another package",
            code="media-extra",
            remedy="Install it: pip install 'batchrun[video]'",
        ) from None
    head = source.read(VIDEO_HEAD)
    source.seek(0)
    form = container_of(head)
    if form is None:
        raise MediaError(
            f"is no video that can be sent; its content is {what_it_is(head)}",
            code="media-format",
            remedy=f"{instead_of_video(what_it_is(head))}.",
        )
    av.logging.set_level(None)
    options = {"protocol_whitelist": "none", "format_whitelist": form.demuxer, "max_streams": str(MOST_STREAMS)}
    try:
        with av.open(source, "r", format=form.demuxer, options=options, metadata_errors="ignore") as container:
            yield container, moving_picture(container)
    except (av.FFmpegError, ValueError, EOFError) as error:
        said = error.strerror if isinstance(error, av.FFmpegError) else str(error)
        words = " ".join((said or type(error).__name__).split())[:200]
        raise MediaError(
            f"is broken: {words}", code="media-broken", remedy="Copy or download the file again."
        ) from error


def moving_picture(container: InputContainer) -> VideoStream:
    from av.stream import Disposition

    streams = [one for one in container.streams.video if not one.disposition & Disposition.attached_pic]
    if not streams:
        raise MediaError("has no moving pictures", code="media-no-frames", remedy="Take it out, or save it again.")
    stream = streams[0]
    if stream.width * stream.height > MOST_PIXELS:
        raise MediaError(
            f"has frames of {stream.width:,}×{stream.height:,} pixels; at most {MOST_PIXELS:,} pixels are decoded",
            code="media-too-many-pixels",
            remedy="Save it smaller: models look at 2K at most.",
        )
    stream.thread_type = "NONE"
    return stream


def decoded(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    return (frame for frame in container.decode(stream) if frame.time is not None)


def length(container: InputContainer, stream: VideoStream) -> float:
    """Seconds. Where no header tells them, by the last packet."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    if container.duration:
        return container.duration / 1_000_000
    last = 0.0
    for packet in container.demux(stream):
        if packet.pts is not None and packet.time_base is not None:
            last = max(last, float((packet.pts + (packet.duration or 0)) * packet.time_base))
    container.seek(0)
    if last <= 0:
        raise no_frames()
    return last


def check_index(source: BinaryIO, stream: VideoStream) -> None:
    """Raises MediaError where the index names bytes behind the end of the file: it was cut."""
    here = source.tell()
    size = source.seek(0, 2)
    source.seek(here)
    entries = stream.index_entries
    ends = (entries[at] for at in {len(entries) // 2, len(entries) - 1}) if len(entries) else ()
    last = max((entry.pos + entry.size for entry in ends), default=0)
    if last > size:
        raise MediaError(
            f"is cut: its index names bytes up to {last:,}, and it has {size:,}",
            code="media-broken",
            remedy="Copy or download the file again.",
        )


def check_end(container: InputContainer, stream: VideoStream, seconds: float) -> None:
    """Raises MediaError where the file ends long before its header says. Reads it to the end."""
    container.seek(0)
    times = (packet.pts * packet.time_base for packet in container.demux(stream) if packet.pts is not None)
    last = float(max(times, default=0)) - float((stream.start_time or 0) * (stream.time_base or 0))
    if seconds - last > LATE:
        raise cut(last)


def cut(last: float) -> MediaError:
    return MediaError(
        f"is cut: it ends at {last:.1f} s, and its header says more",
        code="media-broken",
        remedy="Copy or download the file again.",
    )


def spread(span: float, wanted: Wanted) -> tuple[int, float]:
    """How many pictures, and the seconds from one to the next. Raises MediaError."""
    number = max(wanted.least, math.floor(span * wanted.fps + 1e-6))
    if number <= wanted.most and number == math.floor(span * wanted.fps + 1e-6):
        return number, 1 / wanted.fps
    number = min(number, wanted.most)
    rate = number / span
    if rate < SLOWEST:
        raise MediaError(
            f"lasts {span:,.0f} s; {wanted.most:,} pictures, the most that the model takes, are fewer than {SLOWEST:g} "
            "per second",
            code="media-video-length",
            remedy=f"Cut it into parts of at most {wanted.most / SLOWEST:,.0f} s: `media: {{split: 10m}}`.",
        )
    if rate > FASTEST:
        raise MediaError(
            f"lasts {span:.2g} s; {wanted.least} pictures, the fewest that the model takes, are more than {FASTEST:g} "
            "per second",
            code="media-video-length",
            remedy="Send it as pictures, or leave it out.",
        )
    return number, span / number


def at_times(container: InputContainer, stream: VideoStream, times: list[float], start: float) -> Iterator[VideoFrame]:
    """The first frame at or behind each time. Raises MediaError where the video ends long before them."""
    origin = float((stream.start_time or 0) * (stream.time_base or 0))
    seeks = len(times) > 1 and times[1] - times[0] > SEEK
    if start > 0:
        seek(container, stream, origin + start)
    coming = decoded(container, stream)
    last = -1.0
    for number, time in enumerate(times):
        if seeks and number:
            seek(container, stream, origin + time)
            coming = decoded(container, stream)
        frame = next((frame for frame in coming if (frame.time or 0.0) >= origin + time - 0.002), None)
        if frame is None:
            if number == 0 and last < 0:
                raise no_frames()
            if time - last > LATE + (times[1] - times[0] if len(times) > 1 else 0.0):
                raise cut(last)
            return
        last = (frame.time or 0.0) - origin
        yield frame


def seek(container: InputContainer, stream: VideoStream, time: float) -> None:
    """To the last key frame at or before `time`."""
    container.seek(int(time / float(stream.time_base or 1)), stream=stream, backward=True)


def shown_size(frame: VideoFrame) -> tuple[int, int]:
    """Width and height upright, with square pixels."""
    ratio = frame.sample_aspect_ratio if hasattr(frame, "sample_aspect_ratio") else None
    width = round(frame.width * float(ratio)) if ratio else frame.width
    return (frame.height, width) if frame.rotation % 180 else (width, frame.height)


def picture(frame: VideoFrame, size: tuple[int, int]) -> Image.Image:
    turned = frame.rotation % 360
    width, height = (size[1], size[0]) if turned % 180 else size
    image: Image.Image = frame.reformat(width=width, height=height, format="rgb24").to_image()  # type: ignore[no-untyped-call]  # PyAV's
    return image.rotate(turned, expand=True) if turned else image


def thinned(sizes: list[int], wanted: Wanted) -> list[int]:
    """Which pictures stay, evenly spread, so that they have no more bytes than they may."""
    total, number = sum(sizes), len(sizes)
    left = number
    while total > wanted.bytes and left > wanted.least:
        left = max(wanted.least, min(left - 1, math.floor(left * wanted.bytes / total)))
        total = sum(sizes[index * number // left] for index in range(left))
    return [index * number // left for index in range(left)]


def no_frames() -> MediaError:
    return MediaError("has no frames", code="media-no-frames", remedy="Copy or download the file again.")


def too_few(number: int, least: int) -> MediaError:
    return MediaError(
        f"has {number} frames; a list of pictures has at least {least}",
        code="media-no-frames",
        remedy="Send it as pictures, or leave it out.",
    )

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
from io import BytesIO
from itertools import accumulate
from typing import TYPE_CHECKING, BinaryIO

from PIL import Image

from batchrun.counting.clips import FASTEST, FRAMES_PER_GRID, SLOWEST
from batchrun.counting.tokens import scaled
from batchrun.errors import MediaError
from batchrun.media.video_header import VIDEO_HEAD, container_of, instead_of_video, what_it_is
from batchrun.messages import JsonValue

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

MOST_STREAMS = 128
"""What stands behind them isn't looked at."""
MOST_PIXELS = 8_192 * 8_192
"""Of one frame as it is stored."""
JPEG_QUALITY = 85
"""Above it the bytes grow faster than what a model can see."""
SEEK = 5.0
"""Seconds between two pictures from which on the video is sought in, and not decoded all along."""
ODDEST = 10.0
"""How many times as wide as high a pixel may be, or as high as wide; what says more is a mistake."""
EARLIER = (0.0, 10.0, 100.0)
"""Seconds before a time to which is sought, one after the other, until that leads to a frame before it."""
READ_WHOLE = 16 * 1024 * 1024
"""Bytes of a file up to which a look into it reads it to its end."""
LATE = 1.0
"""Seconds by which a header may promise more, or less, than the file holds."""
SOON = 0.002
"""Seconds by which a frame may come too late for its time: times are rounded in some containers."""


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
        seconds = length(source, container, stream)
        width, height = shown_size(first, stream)
        rate = float(stream.average_rate or stream.guessed_rate or 0)
        return {
            "seconds": seconds,
            "frames": stream.frames or max(1, round(seconds * rate)),
            "width": width,
            "height": height,
            "audio": bool(container.streams.audio),
        }


def frames(source: BinaryIO, target: BinaryIO | None, arguments: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Write JPEGs of a video, one behind the other: what is shown each 1/fps seconds, evenly fewer where there would be
    too many or too much of them, or more than the file has.

    Says `sizes` in bytes, `fps`: the rate of what was written, `width` and `height`, `seconds` of the part, `audio`.
    Raises MediaError.
    """
    assert target is not None  # noqa: S101 - the caller always gives one
    wanted = read(arguments)
    with opened(source) as (container, stream):
        check_index(source, stream)
        whole = length(source, container, stream)
        end = whole if wanted.end is None else min(whole, wanted.end)
        span = end - wanted.start
        if span <= 0:
            raise MediaError(
                f"ends at {end:g} s, before the part that begins at {wanted.start:g} s",
                code="media-video-length",
                remedy="Load the job again if the file has changed.",
            )
        number, step = spread(span, wanted, math.ceil(stream.frames * span / whole) if stream.frames else None)
        times = [wanted.start + step * index for index in range(number)]
        sizes: list[int] = []
        shape, before, jpeg = (0, 0), None, b""
        for frame in at_times(container, stream, times, wanted.start):
            if frame is not before:
                shape = wanted.size(*shown_size(frame, stream), number)
                jpeg, before = picture(frame, shape), frame
            sizes.append(target.write(jpeg))
        kept = thinned(sizes, wanted)
        rate = len(kept) / len(sizes) / step
        if rate < SLOWEST - 1e-6:
            raise too_long(span, len(kept), f"{len(kept):,} pictures, as many as {wanted.bytes:,} bytes hold,")
        begins = [0, *accumulate(sizes)]
        return {
            "sizes": [[begins[at], sizes[at]] for at in kept],
            "fps": max(round(rate, 4), SLOWEST),
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
        if isinstance(error, MemoryError):
            words = f"it has more than {MOST_STREAMS} streams, or needs too much memory"
        raise MediaError(
            f"is broken: {words}", code="media-broken", remedy="Copy or download the file again."
        ) from error


def moving_picture(container: InputContainer) -> VideoStream:
    from av.stream import Disposition

    streams = [one for one in container.streams.video if not one.disposition & Disposition.attached_pic]
    if not streams:
        where = f" among its first {MOST_STREAMS} streams" if len(container.streams) >= MOST_STREAMS else ""
        raise MediaError(
            f"has no moving pictures{where}", code="media-no-frames", remedy="Take it out, or save it again."
        )
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


def length(source: BinaryIO, container: InputContainer, stream: VideoStream) -> float:
    """Seconds, as the header says where it can be believed. Raises MediaError where the file ends long before that."""
    told = 0.0
    if stream.duration and stream.time_base:
        told = float(stream.duration * stream.time_base)
    elif container.duration:
        told = container.duration / 1_000_000
    whole = told <= 0 or os.fstat(source.fileno()).st_size <= READ_WHOLE
    last, end = reach(container, stream) if whole else indexed(stream)
    if told <= 0:
        if end <= 0:
            raise no_frames()
        return end
    if whole and told - end > LATE:
        raise cut(end)
    return end if last - told > LATE else told


def reach(container: InputContainer, stream: VideoStream) -> tuple[float, float]:
    """When the last picture is shown, and until when. Reads the file to its end, and goes back to its beginning."""
    container.seek(0)
    last = end = origin = float((stream.start_time or 0) * (stream.time_base or 0))
    for packet in container.demux(stream):
        if packet.pts is not None and packet.time_base is not None:
            last = max(last, float(packet.pts * packet.time_base))
            end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
    container.seek(0)
    return last - origin, end - origin


def indexed(stream: VideoStream) -> tuple[float, float]:
    """When the last picture of the index is shown, twice: 0 without an index."""
    entries = stream.index_entries
    last = float(entries[-1].timestamp * (stream.time_base or 0)) if len(entries) else 0.0
    return last, last


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


def cut(last: float) -> MediaError:
    return MediaError(
        f"is cut: it ends at {last:.1f} s, and its header says more",
        code="media-broken",
        remedy="Copy or download the file again.",
    )


def spread(span: float, wanted: Wanted, held: int | None) -> tuple[int, float]:
    """How many pictures, and the seconds from one to the next; `held` frames are in the file, where that is known, and
    vendors look at an even number of them. Raises MediaError."""
    asked = math.floor(span * wanted.fps + 1e-6)
    number = min(max(wanted.least, asked), wanted.most)
    if held is not None:
        there = held // FRAMES_PER_GRID * FRAMES_PER_GRID
        number = min(number, max(wanted.least, there, math.ceil(span * SLOWEST)))
    if number == asked:
        return number, 1 / wanted.fps
    rate = number / span
    if rate < SLOWEST:
        raise too_long(span, wanted.most, f"{wanted.most:,} pictures, the most that the model takes,")
    if rate > FASTEST:
        raise MediaError(
            f"lasts {span:.2g} s; {wanted.least} pictures, the fewest that the model takes, are more than {FASTEST:g} "
            "per second",
            code="media-video-length",
            remedy="Send it as pictures, or leave it out.",
        )
    return number, span / number


def too_long(span: float, most: int, what: str) -> MediaError:
    return MediaError(
        f"lasts {span:,.0f} s; {what} are fewer than {SLOWEST:g} per second",
        code="media-video-length",
        remedy=f"Cut it into parts of at most {most / SLOWEST:,.0f} s: `media: {{split: 10m}}`.",
    )


def at_times(container: InputContainer, stream: VideoStream, times: list[float], start: float) -> Iterator[VideoFrame]:
    """The frame that is shown at each time: the same one again where none follows it. Raises MediaError where the video
    ends long before the last time."""
    origin = float((stream.start_time or 0) * (stream.time_base or 0))
    step = times[1] - times[0] if len(times) > 1 else 0.0
    seeks = step > SEEK
    coming, following = frames_before(container, stream, origin + start) if start > 0 else begun(container, stream)
    shown = None
    for number, time in enumerate(times):
        until = origin + time + SOON
        if number and seeks and following is not None and (passed := moment(following)) <= until:
            coming, following = frames_before(container, stream, origin + time)
            shown = None
            seeks = following is not None and moment(following) >= passed  # where key frames are rare it leads back
        while following is not None and moment(following) <= until:
            shown, following = following, next(coming, None)
        found = shown or following  # the first frame may come late
        if found is None:
            raise no_frames()
        if following is None and (ends := moment(found) - origin + max(lasting(found), step) + LATE) < time:
            raise cut(ends - LATE)
        yield found


def moment(frame: VideoFrame) -> float:
    """Seconds of the container's clock at which it is shown."""
    return frame.time or 0.0


def lasting(frame: VideoFrame) -> float:
    """Seconds for which it is shown; 0 where that isn't told."""
    return float((frame.duration or 0) * (frame.time_base or 0))


def frames_before(
    container: InputContainer, stream: VideoStream, time: float
) -> tuple[Iterator[VideoFrame], VideoFrame | None]:
    """The last key frame at or before `time`, and what follows it. Where there is no index it may be an earlier one, or
    the very first frame."""
    for early in EARLIER:
        container.seek(int((time - early) / float(stream.time_base or 1)), stream=stream, backward=True)
        coming = decoded(container, stream)
        first = next(coming, None)
        if first is not None and moment(first) <= time + SOON:
            return coming, first
    container.seek(0)
    return begun(container, stream)


def begun(container: InputContainer, stream: VideoStream) -> tuple[Iterator[VideoFrame], VideoFrame | None]:
    """The next frame, and those behind it."""
    coming = decoded(container, stream)
    return coming, next(coming, None)


def shown_size(frame: VideoFrame, stream: VideoStream) -> tuple[int, int]:
    """Width and height upright, with square pixels."""
    ratio = float(stream.sample_aspect_ratio or 1)
    width = round(frame.width * ratio) if 1 / ODDEST <= ratio <= ODDEST else frame.width
    return (frame.height, width) if frame.rotation % 180 else (width, frame.height)


def picture(frame: VideoFrame, size: tuple[int, int]) -> bytes:
    """It as a JPEG."""
    turned = frame.rotation % 360
    width, height = (size[1], size[0]) if turned % 180 else size
    image: Image.Image = frame.reformat(width=width, height=height, format="rgb24").to_image()  # type: ignore[no-untyped-call]  # PyAV's
    file = BytesIO()
    (image.rotate(turned, expand=True) if turned else image).save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()


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

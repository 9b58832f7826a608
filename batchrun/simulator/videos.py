"""Size, length and frame count of an MP4 or MOV video, read from its boxes.

Other containers, and videos that are only named by a public address, are never opened: for them the
simulator assumes `ASSUMED`.
"""

import struct
from dataclasses import dataclass
from typing import Final

from batchrun.simulator.boxes import BrokenBox, boxes, find_box


class UnreadableVideo(ValueError):
    """The bytes are no MP4 or MOV video, or end before its length is told."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Video:
    width: int
    height: int
    frames: int
    seconds: float

    @property
    def rate(self) -> float:
        """Frames per second."""
        return self.frames / self.seconds


ASSUMED: Final = Video(width=1280, height=720, frames=1_800, seconds=60.0)


def measure_video(data: bytes) -> Video:
    """Raise `UnreadableVideo` for bytes of which no size and length can be read."""
    try:
        video = read_movie(find_box(data, b"moov"))
    except (struct.error, IndexError, BrokenBox) as error:
        raise UnreadableVideo("the video file cannot be read") from error
    if min(video.width, video.height, video.frames, video.seconds) <= 0:
        raise UnreadableVideo("the video file tells no size or length")
    return video


def read_movie(movie: bytes) -> Video:
    for kind, track in boxes(movie):
        if kind == b"trak" and find_box(track, b"mdia", b"hdlr")[8:12] == b"vide":
            width, height = (side >> 16 for side in struct.unpack(">II", find_box(track, b"tkhd")[-8:]))
            return Video(
                width=width,
                height=height,
                frames=count_frames(find_box(track, b"mdia", b"minf", b"stbl", b"stts")),
                seconds=track_seconds(find_box(track, b"mdia", b"mdhd")),
            )
    raise UnreadableVideo("the file has no video track")


def count_frames(times: bytes) -> int:
    (entries,) = struct.unpack_from(">I", times, 4)
    return sum(struct.unpack_from(">I", times, 8 + 8 * index)[0] for index in range(entries))


def track_seconds(header: bytes) -> float:
    form, at = (">IQ", 20) if header[0] == 1 else (">II", 12)
    scale, duration = struct.unpack_from(form, header, at)
    return duration / scale if scale else 0.0

"""Local videos on their way into a request: as the file itself, or as pictures taken out of it.

Nothing is decoded here; that is done by the operations of `decoding.videos` in a limited process.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Literal

from batchrun.errors import MediaError
from batchrun.media.decoder import Decoded, Decoder
from batchrun.media.path import open_inside, unreadable
from batchrun.media.url import VIDEO_ENCODED, check_video_amount
from batchrun.media.video_header import VIDEO_HEAD, container_of, instead_of_video, what_it_is
from batchrun.messages import FramesPart, JsonValue, VideoPart

VideoAs = Literal["auto", "file", "frames"]
DEFAULT_FPS = 2.0
"""The vendors' own (contract 5.2)."""
FRAMES_BYTES = 24 * 1024 * 1024
"""Bytes of all pictures of one video, 32 MiB as base64; no vendor says how much a list may have."""
FRAMES_SECONDS = 600.0
"""Wall and CPU time for taking the pictures out of one video."""
PROBE_SECONDS = 60.0
CHUNK = 192 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoRules:
    """What a model takes of a video (contract 5.2); None isn't known, and not refused."""

    frames: tuple[int, int] = (4, 2_000)
    """Pictures of a list: the fewest, the most."""
    seconds: tuple[float, float] | None = None
    """Of a video as a file: the shortest, the longest."""
    url_bytes: int | None = None
    """Of a video that is named by its address."""
    upload_bytes: int = 100 * 1024 * 1024
    """Of a local file that is uploaded first."""

    def check_list(self, name: str, number: int) -> None:
        """Raises MediaError `media-frames`."""
        least, most = self.frames
        if not least <= number <= most:
            raise MediaError(
                f"{name} has {number:,} pictures; a list of frames has {least:,} to {most:,}.",
                code="media-frames",
                remedy="Take some out evenly." if number > most else "Send them as pictures.",
            )

    def fit(self, seconds: float) -> bool:
        return self.seconds is None or self.seconds[0] <= seconds <= self.seconds[1]

    def check_seconds(self, name: str, seconds: float) -> None:
        """Raises MediaError `media-video-length`."""
        if self.seconds is not None and not self.fit(seconds):
            raise MediaError(
                f"{name!r} lasts {seconds:,.1f} s; the model takes {self.seconds[0]:g} to {self.seconds[1]:,g} s.",
                code="media-video-length",
                remedy="Write `media: {video: frames}`, or cut it into parts.",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How a local video leaves, and how its pictures are taken."""

    how: VideoAs = "auto"
    fps: float | None = None
    """None: the default of the vendors."""
    max_frames: int | None = None
    sends_max_frames: bool = False
    """Whether the wire form has that field."""
    uploads: bool = False
    """Whether files go to the vendor's storage where they are too large for a request."""
    rules: VideoRules = VideoRules()
    factor: int = 32
    frame_pixels: int = 655_360
    total_pixels: int = 134_217_728
    """What the model looks at, of one frame and of all (contract 8.3.3)."""

    @property
    def most(self) -> int:
        """Pictures that are taken at most."""
        least, most = self.rules.frames
        return most if self.max_frames is None else max(least, min(most, self.max_frames))

    def takes(self, size: int) -> bool:
        """Whether a file of so many bytes can be sent as it is."""
        return size <= self.rules.upload_bytes if self.uploads else encoded(size) <= VIDEO_ENCODED

    def check_amount(self, name: str, size: int) -> None:
        """Raises MediaError `media-too-large`."""
        if not self.uploads:
            check_video_amount(repr(name), encoded(size))
        elif not self.takes(size):
            raise MediaError(
                f"{name!r} has {size:,} bytes; the limit of a video that is uploaded is {self.rules.upload_bytes:,}.",
                code="media-too-large",
                remedy="Write `media: {video: frames}`, or name a public URL.",
            )

    def arguments(self, start: float | None, end: float | None) -> dict[str, JsonValue]:
        return {
            "fps": self.fps or DEFAULT_FPS,
            "start": start or 0.0,
            "end": end,
            "least": self.rules.frames[0],
            "most": self.most,
            "bytes": FRAMES_BYTES,
            "factor": self.factor,
            "frame_pixels": self.frame_pixels,
            "total_pixels": self.total_pixels,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoFacts:
    """What a look into a video has told."""

    seconds: float
    frames: int
    width: int
    height: int
    """Upright, with square pixels."""
    audio: bool
    size: int
    """Bytes of the file."""
    mtime: int
    """Of the file when it was looked into, in nanoseconds."""


def encoded(size: int) -> int:
    """Characters of base64."""
    return (size + 2) // 3 * 4


class FilePart:
    """Bytes of an opened file that are sent. The file is closed by whoever opened it."""

    def __init__(self, file: FileIO, name: str, mime: str, *, offset: int = 0, size: int) -> None:
        self.name, self.mime, self.size = name, mime, size
        self.encoded_size = encoded(size)
        self._file, self._offset = file, offset
        self._opened = os.fstat(file.fileno())
        self._digest: str | None = None

    @property
    def digest(self) -> str | None:
        """SHA-256 of the raw bytes in hexadecimal; None until they were read to their end once."""
        return self._digest

    def read_encoded(self) -> Iterator[bytes]:
        """Exactly `encoded_size` bytes of base64, from the beginning each time. Raises as `read_raw` does."""
        return map(b64encode, self.read_raw())

    def read_raw(self) -> Iterator[bytes]:
        """The bytes, from the beginning each time. Raises MediaError(`media-changed`) before the last piece when the
        file isn't as it was opened."""
        sha256 = hashlib.sha256()
        for at in range(0, self.size, CHUNK):
            wanted = min(CHUNK, self.size - at)
            raw = self._read(self._offset + at, wanted)
            if len(raw) < wanted or (at + wanted == self.size and self._has_changed()):
                raise MediaError(
                    f"{self.name!r} changed while it was being sent.",
                    code="media-changed",
                    remedy="Leave files alone while a job runs; retry the item.",
                )
            sha256.update(raw)
            yield raw
        self._digest = sha256.hexdigest()

    def _read(self, offset: int, length: int) -> bytes:
        parts = []
        try:
            while length > 0 and (part := os.pread(self._file.fileno(), length, offset)):
                parts.append(part)
                offset, length = offset + len(part), length - len(part)
        except OSError as error:
            raise unreadable(self.name, error) from error
        return b"".join(parts)

    def _has_changed(self) -> bool:
        now = os.fstat(self._file.fileno())
        return (now.st_size, now.st_mtime_ns) != (self._opened.st_size, self._opened.st_mtime_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenVideo:
    """A video that is ready to be sent. Whoever opened it closes it."""

    file: FileIO
    part: VideoPart | FramesPart

    def close(self) -> None:
        self.file.close()


async def open_video(
    root: Path, relative: str, sampling: Sampling, decoder: Decoder, *, start: float | None, end: float | None
) -> OpenVideo:
    """The video at `relative` below `root`, or its part from `start` to `end`, as it is to be sent.

    `auto` sends a whole file that is small enough as it is, and pictures of all else. Raises MediaError.
    """
    file = await asyncio.to_thread(open_inside, root, relative)
    try:
        mime = await asyncio.to_thread(mime_of, file, relative)
        whole = start is None and end is None
        if sampling.how != "frames" and whole:
            size = os.fstat(file.fileno()).st_size
            if sampling.how == "file":
                sampling.check_amount(relative, size)
            if sampling.takes(size):
                facts = await probe(file, relative, decoder)
                if sampling.how == "file":
                    sampling.rules.check_seconds(relative, facts.seconds)
                if sampling.how == "file" or goes_as_file(facts, sampling):
                    return OpenVideo(file=file, part=as_file(file, relative, mime, size, sampling))
        arguments = sampling.arguments(start, end)
        taken = await decoder.answer("frames", file, arguments, name=relative, writes=True, seconds=FRAMES_SECONDS)
    except BaseException:
        file.close()
        raise
    file.close()
    return as_frames(taken, relative)


def linked_video(url: str, sampling: Sampling) -> VideoPart:
    """A video that the server fetches itself, or that somebody has written as base64. Raises MediaError."""
    if sampling.how == "frames":
        raise MediaError(
            "Pictures can only be taken out of local videos.",
            code="media-video-as",
            remedy="Download it and name its path, or delete `media.video`.",
        )
    return VideoPart(source=url, fps=sampling.fps, max_frames=sampling.max_frames)


async def probe(file: FileIO, name: str, decoder: Decoder) -> VideoFacts:
    """Raises MediaError."""
    status = os.fstat(file.fileno())
    return facts_of((await decoder.answer("probe", file, {}, name=name, seconds=PROBE_SECONDS)).values, status)


def probe_now(root: Path, relative: str, decoder: Decoder) -> VideoFacts:
    """The same of the video at `relative` below `root`, for who may wait. Raises MediaError."""
    with open_inside(root, relative) as file:
        mime_of(file, relative)
        status = os.fstat(file.fileno())
        return facts_of(decoder.ask("probe", file, {}, name=relative, seconds=PROBE_SECONDS).values, status)


def facts_of(values: Mapping[str, JsonValue], status: os.stat_result) -> VideoFacts:
    return VideoFacts(
        seconds=float(str(values["seconds"])),
        frames=int(str(values["frames"])),
        width=int(str(values["width"])),
        height=int(str(values["height"])),
        audio=values["audio"] is True,
        size=status.st_size,
        mtime=status.st_mtime_ns,
    )


def mime_of(file: FileIO, name: str) -> str:
    """By its content. Raises MediaError `media-empty` or `media-format`."""
    head = os.pread(file.fileno(), VIDEO_HEAD, 0)
    if not head:
        raise MediaError(f"{name!r} is empty.", code="media-empty", remedy="Copy or download the file again.")
    found = container_of(head)
    if found is None:
        raise MediaError(
            f"{name!r} is no video that can be sent; its content is {what_it_is(head)}.",
            code="media-format",
            remedy=f"{instead_of_video(what_it_is(head))}.",
        )
    return found.mime


def goes_as_file(facts: VideoFacts, sampling: Sampling) -> bool:
    """Whether the server would look at no more of it than it may, by a bound that it may not be able to hear."""
    if not sampling.rules.fit(facts.seconds):
        return False
    if sampling.max_frames is None or sampling.sends_max_frames:
        return True
    return facts.seconds * (sampling.fps or DEFAULT_FPS) <= sampling.max_frames


def as_file(file: FileIO, name: str, mime: str, size: int, sampling: Sampling) -> VideoPart:
    return VideoPart(
        source=FilePart(file, name, mime, size=size),
        fps=sampling.fps,
        max_frames=sampling.max_frames if sampling.sends_max_frames else None,
    )


def as_frames(taken: Decoded, name: str) -> OpenVideo:
    file, sizes = taken.output, taken.values["sizes"]
    assert file is not None and isinstance(sizes, list)  # noqa: S101, PT018 - what `frames` gives
    places = [(int(str(place[0])), int(str(place[1]))) for place in sizes if isinstance(place, list)]
    sources = tuple(FilePart(file, name, "image/jpeg", offset=offset, size=size) for offset, size in places)
    return OpenVideo(file=file, part=FramesPart(sources=sources, fps=float(str(taken.values["fps"]))))

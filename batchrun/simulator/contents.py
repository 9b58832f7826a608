"""Reads the messages of a chat request: texts, pictures, videos, with the rules of contract 5.1, 5.2, 8.1.2."""

import binascii
import hashlib
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from batchrun.simulator.models import Model
from batchrun.simulator.parameters import Fields, whole
from batchrun.simulator.pictures import MIME_TYPES, Picture, UnreadablePicture, measure
from batchrun.simulator.refusals import Refusal, invalid, malformed
from batchrun.simulator.tokens import (
    HIGH_RESOLUTION_TOKENS,
    described,
    picture_tokens,
    sampled_frames,
    text_tokens,
    video_tokens,
)
from batchrun.simulator.videos import ASSUMED, UnreadableVideo, Video, measure_video

ROLES: Final = frozenset({"system", "user", "assistant", "tool"})
MAX_DATA_URL: Final = 10_485_760
REMOTE_PICTURE: Final = Picture(format="JPEG", width=1024, height=768)
"""A public address is never fetched; this is what the simulator takes every such picture for."""
MOVIE_TYPES: Final = frozenset({"video/mp4", "video/quicktime"})
SHORTEST_VIDEO: Final = 2
FEWEST_FRAMES: Final = 4


@dataclass(kw_only=True)
class Contents:
    """What the messages hold. `hash` is over texts and media, so the same contents give the same answer."""

    texts: list[str] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    videos: list[Video] = field(default_factory=list)
    tool_tokens: int = 0
    image_tokens: int = 0
    video_tokens: int = 0
    prefix: str | None = None
    """Text of a last assistant message that is to be continued (8.7)."""
    hash: bytes = b""

    @property
    def input_tokens(self) -> int:
        prefix = [] if self.prefix is None else [self.prefix]
        return text_tokens([*self.texts, *prefix]) + self.tool_tokens + self.image_tokens + self.video_tokens

    def mentions(self, word: str) -> bool:
        return any(word in text.lower() for text in self.texts)


class ContentsReader:
    """Walks over the messages of one request once."""

    def __init__(
        self,
        model: Model,
        *,
        high_resolution: bool,
        seed: bytes,
        stored: Callable[[str], tuple[str, bytes]],
        scheme: str = "oss://",
        max_frames: bool = False,
    ) -> None:
        """`stored` gives type and bytes of an uploaded file, whose address begins with `scheme`; `max_frames` says
        whether a video part may have a member of that name; without it none is looked at."""
        self.model = model
        self.stored = stored
        self.scheme = scheme
        self.max_frames = max_frames
        self.high_resolution = high_resolution
        self.contents = Contents()
        self.hash = hashlib.sha256(seed)

    def read(self, fields: Fields) -> Contents:
        messages = fields.get("messages")
        if not isinstance(messages, list) or not messages:
            raise malformed("The parameter messages must be a list with at least one message.")
        for index, message in enumerate(messages):
            self.read_message(message, index, last=index == len(messages) - 1)
        check_order([message["role"] for message in messages], partial=self.contents.prefix is not None)
        if fields.get("tools") is not None:
            self.contents.tool_tokens = described(self.note(json.dumps(fields["tools"], separators=(",", ":"))))
        self.contents.hash = self.hash.digest()
        return self.contents

    def read_message(self, message: object, index: int, *, last: bool) -> None:
        where = f"messages[{index}]"
        role = message.get("role") if isinstance(message, dict) else None
        if not isinstance(message, dict) or not isinstance(role, str) or role not in ROLES:
            raise invalid(f"The role of {where} must be one of {', '.join(sorted(ROLES))}.")
        content = message.get("content")
        if last and message.get("partial") is True:
            self.read_prefix(role, content)
            return
        self.note(role)
        if content is None and role == "assistant":
            content = ""
        if isinstance(content, str):
            self.contents.texts.append(self.note(content))
        elif isinstance(content, list) and content:
            self.contents.texts.append("".join(self.read_part(part, where) for part in content))
        else:
            raise invalid(f"The content of {where} must be a text or a list of parts that is not empty.")

    def read_prefix(self, role: str, content: object) -> None:
        if not self.model.partial_mode:
            raise invalid(f"The model {self.model.name} does not support partial mode.", param="partial")
        if role != "assistant" or not isinstance(content, str):
            raise invalid("A message with partial must be a text of the assistant.", param="partial")
        self.contents.prefix = content

    def read_part(self, part: object, where: str) -> str:
        """Count the part; return its text."""
        kind = part.get("type") if isinstance(part, dict) else None
        if not isinstance(part, dict) or kind not in ("text", "image_url", "video_url", "video"):
            raise invalid(f"A part of {where} must have the type text, image_url, video_url or video.")
        if kind == "text":
            text = part.get("text")
            if not isinstance(text, str):
                raise invalid(f"A text part of {where} has no text.")
            return self.note(text)
        if not self.model.pictures:
            raise invalid(f"The model {self.model.name} accepts text only.", param="messages")
        if kind == "image_url":
            self.read_picture(part, where)
        elif kind == "video_url":
            self.read_video(part, where)
        else:
            self.read_picture_list(part, where)
        return ""

    def note(self, text: str) -> str:
        self.hash.update(text.encode("utf-8", "surrogatepass"))
        self.hash.update(b"\0")
        return text

    def inline(self, url: str) -> tuple[str, bytes] | None:
        """Type and bytes of what an address holds or of a file that was uploaded; None for a public one. The answer
        depends on the bytes of an uploaded file, not on the name that it got."""
        if url.startswith(self.scheme):
            mime, data = self.stored(url)
            self.hash.update(hashlib.sha256(data).digest())
            return mime, data
        return data_url(self.note(url))

    def read_picture(self, part: Fields, where: str) -> None:
        picture = look_at(self.inline(address(part, "image_url", where)))
        model = self.model
        highest = whole(part, "max_pixels", model.factor**2, model.settable_pixels) or model.max_pixels
        lowest = whole(part, "min_pixels", model.factor**2, model.settable_pixels)
        if lowest is not None and lowest > highest:
            raise invalid("min_pixels must not be above max_pixels.", param="min_pixels")
        if self.high_resolution:
            highest = HIGH_RESOLUTION_TOKENS * model.factor**2
        self.contents.pictures.append(picture)
        self.contents.image_tokens += picture_tokens(
            picture.width,
            picture.height,
            factor=model.factor,
            min_pixels=min(lowest or model.min_pixels, highest),
            max_pixels=highest,
        )

    def read_video(self, part: Fields, where: str) -> None:
        video = watch(self.inline(address(part, "video_url", where)), self.model.longest_video)
        fps = frames_per_second(part)
        most = self.model.max_frames
        if self.max_frames:
            most = whole(part, "max_frames", FEWEST_FRAMES, most) or most
        frames = sampled_frames(frames=video.frames, rate=video.rate, fps=fps, max_frames=most)
        self.add_video(video, frames)

    def read_picture_list(self, part: Fields, where: str) -> None:
        urls = part.get("video")
        if not isinstance(urls, list) or not all(isinstance(url, str) for url in urls):
            raise invalid(f"The video of {where} must be a list of picture addresses.")
        if not FEWEST_FRAMES <= len(urls) <= self.model.max_frames:
            raise invalid(f"The image sequence must have {FEWEST_FRAMES} to {self.model.max_frames} images.")
        pictures = [look_at(self.inline(url)) for url in urls]
        seconds = len(urls) / frames_per_second(part)
        first = pictures[0]
        self.add_video(Video(width=first.width, height=first.height, frames=len(urls), seconds=seconds), len(urls))

    def add_video(self, video: Video, frames: int) -> None:
        self.contents.videos.append(video)
        self.contents.video_tokens += video_tokens(video.width, video.height, max(frames, 1), self.model)


def check_order(roles: list[object], *, partial: bool) -> None:
    if "user" not in roles:
        raise invalid("There is no message with the role user.", param="messages")
    if roles[-1] not in ("user", "tool") and not partial:
        raise Refusal(
            status=500,
            code="internal_error",
            type="internal_error",
            message="The last message must be a user message.",
            model_side=True,
            inside="InternalError.Algo",
        )


def address(part: Fields, name: str, where: str) -> str:
    holder = part.get(name)
    url = holder.get("url") if isinstance(holder, dict) else None
    if not isinstance(url, str) or not url:
        raise invalid(f"The {name} part of {where} must be an object with a url.")
    return url


def frames_per_second(part: Fields) -> float:
    fps = part.get("fps", 2.0)
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not 0.1 <= fps <= 10:
        raise invalid("Range of fps should be [0.1, 10].", param="fps")
    return float(fps)


def data_url(url: str) -> tuple[str, bytes] | None:
    """MIME type and bytes of a data URL; None for a public address."""
    scheme, _, rest = url.partition(":")
    if scheme.lower() in ("http", "https") and rest.startswith("//"):
        return None
    if scheme.lower() != "data":
        raise invalid("The URL must be http, https, or data with base64.", param="url")
    head, comma, encoded = rest.partition(",")
    mime, _, coding = head.rpartition(";")
    if not comma or coding.strip().lower() != "base64":
        raise invalid("A data URL must have the form data:<type>;base64,<data>.", param="url")
    if len(encoded) > MAX_DATA_URL:
        raise invalid(f"Exceeded limit on max bytes per data-uri item: {MAX_DATA_URL}.", param="url")
    try:
        return mime.lower(), binascii.a2b_base64(encoded, strict_mode=True)
    except ValueError as error:
        raise invalid(f"The base64 data of a data URL is not valid: {error}.", param="url") from error


def look_at(inline: tuple[str, bytes] | None) -> Picture:
    """The picture of an address, after the rules of contract 5.1; None stands for a public address."""
    if inline is None:
        return REMOTE_PICTURE
    mime, data = inline
    if mime not in MIME_TYPES:
        raise invalid(f"The image type {mime[:80] or 'without name'} is not supported.", param="url")
    try:
        picture = measure(data)
    except UnreadablePicture as error:
        raise invalid(f"The image cannot be decoded: {error}.", param="url") from error
    if picture.format != MIME_TYPES[mime]:
        raise invalid(f"The data URL says {mime} but the bytes are {picture.format}.", param="url")
    check_size(picture)
    return picture


def check_size(picture: Picture) -> None:
    short, long = sorted((picture.width, picture.height))
    if short <= 10:
        raise invalid(
            f"The image is {picture.width} by {picture.height} pixels; height and width must both be larger than 10."
        )
    check_ratio(picture.width, picture.height)
    if picture.format not in ("JPEG", "PNG") and (long > 3_840 or short > 2_160):
        raise invalid(f"A {picture.format} image must not be larger than 3840 by 2160 pixels.")


def check_ratio(width: int, height: int) -> None:
    if max(width, height) > 200 * min(width, height):
        raise invalid("The aspect ratio of an image must not be above 200.")


def watch(inline: tuple[str, bytes] | None, longest: int) -> Video:
    """The video of an address, which may last so many seconds; None stands for a public address."""
    if inline is None:
        return ASSUMED
    mime, data = inline
    if not mime.startswith("video/"):
        raise invalid(f"The video type {mime[:80] or 'without name'} is not supported.", param="url")
    if mime not in MOVIE_TYPES:
        return ASSUMED
    try:
        video = measure_video(data)
    except (UnreadableVideo, struct.error) as error:
        raise invalid(f"Invalid video file: {error}.", param="url") from error
    if not SHORTEST_VIDEO <= video.seconds <= longest:
        raise invalid(f"The video is too long or too short: it must last {SHORTEST_VIDEO} to {longest} seconds.")
    check_ratio(video.width, video.height)
    return video

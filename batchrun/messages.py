"""What goes into a call: parts, messages, the request. Values only; a dialect gives them their wire form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

Role = Literal["system", "user", "assistant"]
JsonValue = None | bool | int | float | str | Sequence["JsonValue"] | Mapping[str, "JsonValue"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TextPart:
    text: str


class Encoded(Protocol):
    """A local file, or a part of one, that goes out as base64 of its own bytes."""

    @property
    def mime(self) -> str: ...

    @property
    def encoded_size(self) -> int:
        """Characters of base64."""
        ...

    @property
    def digest(self) -> str | None:
        """SHA-256 of the raw bytes in hexadecimal; None until they were read to their end once."""
        ...

    def read_encoded(self) -> Iterator[bytes]:
        """Exactly `encoded_size` bytes of base64, from the beginning each time. Raises MediaError."""
        ...


Source: TypeAlias = "str | Encoded | Uploaded"
"""An http(s) or data URL, sent as it is; an opened local file, sent as a data URL of its own bytes; or a file that was
uploaded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Uploaded:
    """A local file that the vendor keeps for a while."""

    url: str
    """`oss://…`, good for one account and one model."""
    digest: str
    """SHA-256 of its bytes: what the model sees, whatever the address is."""
    fresh: bool
    """It was uploaded for this very call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePart:
    source: Source


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoPart:
    """A video as a file (contract C4, C7, N4)."""

    source: Source
    fps: float | None = None
    """Frames per second of it that the server looks at; None leaves its default."""
    max_frames: int | None = None
    """How many it looks at at most; the native wire form alone can say it (contract T27)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FramesPart:
    """A video as a list of its pictures (contract C5, C8, N5)."""

    sources: tuple[Source, ...]
    fps: float | None = None
    """Pictures per second of the video; None leaves the server's default."""


MediaPart = ImagePart | VideoPart | FramesPart
Part = TextPart | MediaPart


def sources_of(part: Part) -> tuple[Source, ...]:
    """What a part consists of besides text, in its order."""
    if isinstance(part, TextPart):
        return ()
    return part.sources if isinstance(part, FramesPart) else (part.source,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    role: Role
    parts: tuple[Part, ...]
    """One TextPart alone is sent as a plain string (contract C1), anything else as a list."""
    partial: bool = False
    """The beginning of an answer, one TextPart of the assistant's: the model goes on behind it (contract 8.7)."""

    @property
    def sources(self) -> tuple[Source, ...]:
        """Its pictures and videos, in their order; of a list of frames each."""
        return tuple(source for part in self.parts for source in sources_of(part))


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenMessage:
    """A message of the compat form as somebody wrote it; it is sent as it stands."""

    fields: Mapping[str, JsonValue]
    """With the pictures and videos of its parts lacking their addresses, and videos their `fps`."""
    media: tuple[MediaPart, ...] = ()
    """One for each part that is no text, in their order."""

    @property
    def sources(self) -> tuple[Source, ...]:
        return tuple(source for part in self.media for source in sources_of(part))


@dataclass(frozen=True, slots=True, kw_only=True)
class Thinking:
    """What the job asks for; None as a whole means: say nothing, take the vendor's default."""

    enabled: bool
    budget: int | None = None
    """Tokens of thinking at most; None leaves the model's maximum."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    model: str
    messages: tuple[Message | WrittenMessage, ...]
    params: Mapping[str, JsonValue] = field(default_factory=dict)
    """Sampling and length, under the vendor's own names."""
    thinking: Thinking | None = None
    stream: bool = True

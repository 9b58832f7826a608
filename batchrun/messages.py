"""What goes into a call: parts, messages, the request. Values only; a dialect gives them their wire form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from batchrun.media import OpenMedia

Role = Literal["system", "user", "assistant"]
JsonValue = None | bool | int | float | str | Sequence["JsonValue"] | Mapping[str, "JsonValue"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TextPart:
    text: str


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
    """An http(s) or data URL, sent as it is; an opened local file, sent as a data URL of its own bytes; or a file that
    was uploaded."""


Part = TextPart | ImagePart
Source: TypeAlias = "str | OpenMedia | Uploaded"
"""Where a picture comes from, as in an ImagePart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    role: Role
    parts: tuple[Part, ...]
    """One TextPart alone is sent as a plain string (contract C1), anything else as a list."""
    partial: bool = False
    """The beginning of an answer, one TextPart of the assistant's: the model goes on behind it (contract 8.7)."""

    @property
    def images(self) -> tuple[Source, ...]:
        """Its pictures, in their order."""
        return tuple(part.source for part in self.parts if isinstance(part, ImagePart))


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenMessage:
    """A message of the compat form as somebody wrote it; it is sent as it stands."""

    fields: Mapping[str, JsonValue]
    """With `image_url` of its parts lacking their `url`."""
    images: tuple[Source, ...] = ()
    """One for each image part, in their order."""


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

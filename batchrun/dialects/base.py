"""What a dialect is: the wire form of requests, streams and errors. Bytes and headers in, values out; no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from batchrun.answer import Delta
from batchrun.errors import ProviderError
from batchrun.media.rules import PictureRules
from batchrun.messages import ChatRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRules:
    """What a dialect must know of a model to write a request for it; data of the catalogue."""

    thinking: str = "never"
    """`never`, `always` or `switchable` (contract 2.3): whether the model thinks."""
    thinking_switch: str | None = None
    """Body field that switches thinking: `enable_thinking` at Model Studio; None where nothing may be sent."""
    thinking_budget: bool = False
    """Whether `thinking_budget` may be sent."""
    stream_only: bool = False
    """Whether it refuses calls for a plain answer (contract 8.1.2)."""
    forbidden: frozenset[str] = frozenset()
    """Parameters that must not be sent to this model (contract 2.3, cells with a dash)."""
    native_task: str = "multimodal-generation"
    """The task that stands in the path of the native wire form (contract 1.2)."""
    media_urls: bool = True
    """Whether the server fetches pictures from http(s) addresses; else they go as data (contract 8.5, T24)."""
    file_ids: bool = False
    """Whether files that were uploaded to the vendor beforehand may be named as `ms://<id>` (contract 8.5)."""
    max_tokens_as: str = "max_tokens"
    """The name under which `max_tokens` is sent in the compat form."""
    pictures: PictureRules = field(default_factory=PictureRules)
    """What is taken of a picture."""


class Streamed(Protocol):
    """An opened file as a piece of a body, such as one that goes out as base64 of its own bytes."""

    @property
    def encoded_size(self) -> int:
        """Bytes on the wire."""

    def read_encoded(self) -> Iterator[bytes]:
        """These bytes, a block at a time. Raises MediaError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """A request body in pieces, in order: bytes and opened files."""

    pieces: tuple[bytes | Streamed, ...]

    @property
    def length(self) -> int:
        """Exact number of bytes on the wire."""
        return sum(len(piece) if isinstance(piece, bytes) else piece.encoded_size for piece in self.pieces)


class Dialect(Protocol):
    """One wire form. Its objects hold no state of a call."""

    def path(self, rules: ModelRules) -> str:
        """Path below the base URL of a catalogue entry."""
        ...

    def headers(self, *, stream: bool) -> Mapping[str, str]:
        """What this wire form says in headers: `accept`, and what asks for a stream. Names in lower case."""
        ...

    def encode(self, request: ChatRequest, rules: ModelRules) -> Body: ...

    def decode(self, event: bytes, data: bytes) -> Delta:
        """One server-sent event. Raises ProviderError(INCOMPLETE) where the data can't be read."""
        ...

    def decode_all(self, events: Sequence[tuple[bytes, bytes]]) -> Iterable[Delta]:
        """The same of several events in a row, in order. Those that hold nothing but text may share a delta."""
        ...

    def decode_plain(self, body: bytes, headers: Mapping[str, str]) -> Delta:
        """The body of an answer that wasn't streamed, already of status 200; `end` is set."""
        ...

    def read_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError: ...

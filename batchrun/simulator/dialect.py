"""What all wire forms have in common: the chunks of a stream before they are encoded, and what a dialect must do.

A dialect reads a request into the common form (the fields and parameters of compat), and writes chunks, plain
answers and refusals. What is generated, what it costs, and how it breaks does not depend on it.
"""

import json
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, Protocol

from batchrun.simulator.faults import Faults
from batchrun.simulator.generation import Generation
from batchrun.simulator.models import Model
from batchrun.simulator.parameters import Fields, Parameters
from batchrun.simulator.prices import Usage
from batchrun.simulator.refusals import Refusal

Delta = Mapping[str, str | None]
DONE: Final = "[DONE]"


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """What names an answer; constant over a stream."""

    region: str
    request_id: str
    chat_id: str
    created: int
    model: str = ""
    """Empty until the request has been read."""


def new_identity(region: str, *, digits: int | None = None) -> Identity:
    """The chat id ends in a UUID, or in so many hexadecimal digits."""
    own = str(uuid.uuid4()) if digits is None else uuid.uuid4().hex[:digits]
    return Identity(region=region, request_id=str(uuid.uuid4()), chat_id=f"chatcmpl-{own}", created=int(time.time()))


class CallPiece(NamedTuple):
    """A piece of the arguments of a call to a tool. The first one has id and name too."""

    arguments: str
    id: str = ""
    name: str = ""


class Chunk(NamedTuple):
    """One chunk of a stream before it is encoded. `raw` replaces the whole JSON text.

    A tuple, because a stream has hundreds and a frozen dataclass takes five times as long to make.
    """

    delta: Delta | None = None
    """None for a chunk with empty `choices`."""
    call: CallPiece | None = None
    """Stands in the delta beside its texts."""
    finish: str | None = None
    usage: Usage | None = None
    usage_in_choice: bool = False
    usage_null: bool = False
    """Say that there is no usage, where the dialect would leave the member out."""
    raw: str | None = None
    refusal: Refusal | None = None
    """The error that takes the chunk's place."""
    role: Literal["role", "reasoning", "text", "finish", "usage", "done", "error", "broken"] = "text"
    tokens: int = 0
    """Tokens that had to be generated for this chunk."""
    reasoning_tokens: int = 0


class Asked(NamedTuple):
    """A request in the common form."""

    fields: Fields
    parameters: Parameters


class Told(NamedTuple):
    """A plain answer: its body, and the usage in it."""

    body: str
    usage: Usage | None


class Encoder(Protocol):
    """Encodes the chunks of one stream."""

    def encode(self, chunk: Chunk, number: int) -> str:
        """The JSON text of the chunk that stands at this place of the stream, counted from 0."""

    def heading(self, chunk: Chunk, number: int, end: str) -> str:
        """The lines of the frame before its data, each with this line end."""


class Dialect(Protocol):
    @property
    def field(self) -> str:
        """What stands before the data of a frame."""

    @property
    def text_mark(self) -> bytes:
        """The bytes before a text of the answer."""

    def identity(self, region: str) -> Identity:
        """A new name for an answer."""

    def streams(self, fields: Fields, headers: Mapping[str, str]) -> bool:
        """Whether the request asks for a stream, as far as that can be told."""

    def read(self, fields: Fields, headers: Mapping[str, str], model: Model) -> Asked:
        """Raise `Refusal` for what the service does not accept here."""

    def chunks(self, generation: Generation, parameters: Parameters) -> list[Chunk]: ...

    def encoder(self, identity: Identity, *, text_form: bool = False) -> Encoder: ...

    def ends(self, chunk: Chunk) -> bool:
        """Whether the client knows by this chunk that nothing is missing."""

    def plain(self, generation: Generation, identity: Identity, parameters: Parameters, faults: Faults) -> Told: ...

    def refusal(self, refusal: Refusal, identity: Identity) -> tuple[int, bytes]:
        """Status and body."""

    def padding(self, size: int) -> str:
        """A frame without content of at least so many characters."""


ENCODER: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def encode(value: object) -> str:
    return ENCODER.encode(value)


def calling(chunks: list[Chunk], generation: Generation) -> list[Chunk]:
    """The same chunks where a function is called: its arguments stand where the text of an answer would."""
    if generation.function is None:
        return chunks
    called, first = [], CallPiece("", generation.call_id, generation.function)
    for chunk in chunks:
        if chunk.delta is not None and (text := chunk.delta.get("content")):
            piece = first._replace(arguments=text)
            called.append(chunk._replace(delta={**chunk.delta, "content": None}, call=piece))
            first = CallPiece("")
        else:
            called.append(chunk)
    return called


def call_object(call: CallPiece) -> str:
    """A list with the piece of the one call, as all dialects write it."""
    name = {"name": call.name} if call.name else {}
    function = {**name, "arguments": call.arguments}
    return encode([{"index": 0, "id": call.id, "type": "function", "function": function}])


def encode_delta(delta: Delta, call: CallPiece | None = None) -> str:
    """By hand: a thousand streams spend most of their time here, and a text alone takes the short way."""
    if call is not None:
        return f'{encode_delta(delta)[:-1]},"tool_calls":{call_object(call)}}}'
    members = (f'"{key}":{"null" if text is None else ENCODER.encode(text)}' for key, text in delta.items())
    return f"{{{','.join(members)}}}"


def place_usage(
    document: dict[str, object],
    choice: dict[str, object],
    usage: Usage,
    faults: Faults,
    write: Callable[[Usage], object],
) -> Usage | None:
    """Put the usage into a plain answer, where the fault wants it; return the one that the client looks for."""
    match faults.text("usage"):
        case "missing":
            return None
        case "null":
            document["usage"] = None
            return None
        case "choice":
            choice["usage"] = write(usage)
            return usage
        case "zero":
            usage = Usage()
    document["usage"] = write(usage)
    return usage


def place_finish(choice: dict[str, object], generation: Generation) -> None:
    """The finish reason of a plain answer in the forms of OpenAI."""
    if generation.finish != "missing":
        choice["finish_reason"] = None if generation.finish == "null" else generation.finish

"""Turns an answer into the bytes of a response, event by event, with the faults of the delivery in them."""

import hashlib
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final, Literal, NamedTuple

from batchrun.simulator.dialect import Chunk, Dialect, Encoder, Identity, calling
from batchrun.simulator.faults import Faults
from batchrun.simulator.generation import Generation
from batchrun.simulator.http import Headers
from batchrun.simulator.parameters import Parameters
from batchrun.simulator.places import after, contents, first, told_throughout
from batchrun.simulator.prices import Usage
from batchrun.simulator.shapes import shaped

Ending = Literal["end", "reset", "cut", "stall", "keepalive"]
Framing = Literal["chunked", "length", "close"]
COMMENT: Final = ": keep-alive"
DECORATIONS: Final = frozenset({"comments", "garbage", "huge-line", "events", "multi-data", "invalid-utf8", "bom"})


class Event(NamedTuple):
    """Bytes that are written together, and what the client knows or has cost when they are."""

    data: bytes
    tokens: int = 0
    reasoning_tokens: int = 0
    usage: Usage | None = None
    finish: str | None = None
    done: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Script:
    """A response to perform. `length` is the Content-Length told, for the framing of that name."""

    headers: Headers
    events: Iterable[Event]
    """Made one by one while they are sent, so that many streams that begin together do not wait for each other."""
    framing: Framing
    length: int | None
    ending: Ending
    split: int | None
    """Greatest number of bytes of one socket write; None for whole events."""


def stream_script(
    dialect: Dialect, generation: Generation, parameters: Parameters, identity: Identity, faults: Faults
) -> Script:
    chunks = calling(shaped(dialect.chunks(generation, parameters), generation, faults), generation)
    frames = encoded(chunks, dialect, dialect.encoder(identity, text_form=parameters.text_form), faults)
    framing = framing_of(faults, "chunked")
    events: Iterable[Event] = packed(frames, len(chunks), faults)
    length = None
    if framing == "length":
        events = list(events)
        length = sum(len(event.data) for event in events)
    stop, ending = ending_of(chunks, faults)
    kind = "text/plain" if "wrong-type" in faults else "text/event-stream;charset=UTF-8"
    return Script(
        headers=headers_of(kind, identity, faults),
        events=islice(events, stop),
        framing=framing,
        length=length,
        ending=ending,
        split=faults.whole("split"),
    )


def ending_of(chunks: list[Chunk], faults: Faults) -> tuple[int, Ending]:
    """How many events are sent, and what follows them."""
    for name in faults.clauses:
        match name:
            case "reset-after":
                return after(chunks, faults.whole(name) or 0), "reset"
            case "cut-after":
                return after(chunks, faults.whole(name) or 0), "cut"
            case "stall-after":
                return after(chunks, faults.whole(name) or 0), "stall"
            case "stall-before":
                return place_of(faults.text(name) or "", chunks), "stall"
            case "stall-headers":
                return 0, "stall"
            case "keepalive":
                return sum(chunk.role == "role" for chunk in chunks[:1]), "keepalive"
    return len(chunks), "end"


def place_of(role: str, chunks: list[Chunk]) -> int:
    """Where the frame of this role stands; the last usage stands in the finish where each frame carries it."""
    return first(chunks, "finish" if role == "usage" and told_throughout(chunks) else role)


def encoded(chunks: list[Chunk], dialect: Dialect, encoder: Encoder, faults: Faults) -> Iterator[Event]:
    """One event for each chunk."""
    style = Style(dialect, encoder, faults)
    middle = after(chunks, len(contents(chunks)) // 2) if faults.clauses else -1
    for number, chunk in enumerate(chunks):
        yield Event(
            style.frame(chunk, number, middle=number == middle),
            chunk.tokens,
            chunk.reasoning_tokens,
            chunk.usage,
            chunk.finish,
            dialect.ends(chunk),
        )


class Style:
    """How the lines of a stream look."""

    def __init__(self, dialect: Dialect, encoder: Encoder, faults: Faults) -> None:
        self.dialect = dialect
        self.encoder = encoder
        self.faults = faults
        self.end = "\r\n" if "crlf" in faults else "\r" if "cr" in faults else "\n"
        self.field = "data:" if "no-space" in faults else dialect.field
        self.decorated = not DECORATIONS.isdisjoint(faults.clauses)

    def frame(self, chunk: Chunk, number: int, *, middle: bool) -> bytes:
        heading = self.encoder.heading(chunk, number, self.end)
        text = self.encoder.encode(chunk, number)
        if not self.decorated:
            return to_bytes(heading + self.field + text + self.end + self.end)
        data = to_bytes(self.extras(number, middle=middle) + heading + self.field_lines(text) + self.end)
        data = with_bad_bytes(data, self.dialect, self.faults)
        return b"\xef\xbb\xbf" + data if "bom" in self.faults and number == 0 else data

    def field_lines(self, text: str) -> str:
        if "multi-data" in self.faults and text.startswith("{"):
            return f"{self.field}{{{self.end}{self.field}{text[1:]}{self.end}"
        return self.field + text + self.end

    def extras(self, number: int, *, middle: bool) -> str:
        lines = []
        if "comments" in self.faults:
            lines += [COMMENT, ""]
        if "garbage" in self.faults and middle:
            lines += ["~~ this line belongs to no protocol ~~", ""]
        if "huge-line" in self.faults and middle:
            size = (self.faults.whole("huge-line") or 0) * 1024 * 1024
            lines += [self.field + self.dialect.padding(size), ""]
        if "events" in self.faults:
            lines += ["event: ping", "data: {}", "", f"id: {number}", "event: message", "retry: 3000"]
        return "".join(line + self.end for line in lines)


def to_bytes(text: str) -> bytes:
    """A lone half of a surrogate pair cannot be encoded; it becomes the escape that JSON allows."""
    return text.encode("utf-8", "backslashreplace")


def packed(events: Iterable[Event], count: int, faults: Faults) -> Iterable[Event]:
    """So many events after the content encoding."""
    return gzipped(events, count, faults) if "gzip" in faults else events


def gzipped(events: Iterable[Event], count: int, faults: Faults) -> Iterator[Event]:
    packer = zlib.compressobj(wbits=31)
    for number, event in enumerate(events, 1):
        ending = zlib.Z_FINISH if number == count and "truncate" not in faults else zlib.Z_SYNC_FLUSH
        yield event._replace(data=packer.compress(event.data) + packer.flush(ending))


def with_bad_bytes(data: bytes, dialect: Dialect, faults: Faults) -> bytes:
    mark = dialect.text_mark
    return data.replace(mark, mark + b"\xff\xc3") if "invalid-utf8" in faults else data


def plain_script(
    dialect: Dialect,
    generation: Generation,
    parameters: Parameters,
    identity: Identity,
    faults: Faults,
    *,
    partial: bool = False,
) -> Script:
    """An answer in one body, sent in two halves so that it can be broken between them."""
    word = faults.text("finish")
    if word is not None:
        generation = replace(generation, finish=word)
    if partial:
        generation = half(generation)
    told = dialect.plain(generation, identity, parameters, faults)
    body = with_bad_bytes(to_bytes(told.body), dialect, faults)
    if "bad-json" in faults:
        body = body[: len(body) * 2 // 3]
    return plain_events(body, generation, told.usage, identity, faults, partial=partial)


def half(generation: Generation) -> Generation:
    """What was there when the answer was stopped half way; the finish reason stays open (8.7)."""
    answer = generation.answer[: len(generation.answer) // 2]
    output = generation.usage.reasoning + sum(piece.tokens for piece in answer)
    return replace(generation, answer=answer, finish="null", usage=replace(generation.usage, output=output))


def plain_events(
    body: bytes, generation: Generation, usage: Usage | None, identity: Identity, faults: Faults, *, partial: bool
) -> Script:
    middle = len(body) // 2
    finish = None if generation.finish in ("null", "missing") else generation.finish
    told = Event(body[middle:], usage=usage, finish=finish, done=True)
    if "bad-json" in faults:
        told = Event(body[middle:])
    everything = Event(body[:middle], generation.usage.output, generation.usage.reasoning)
    events = list(packed([everything, told], 2, faults))
    stop, ending = plain_ending(faults)
    framing = framing_of(faults, "length")
    sent = events[:1] if "truncate" in faults else events
    headers = headers_of("application/json", identity, faults)
    if partial:
        headers = [*headers, ("x-dashscope-partialresponse", "true")]
    return Script(
        headers=headers,
        events=sent[:stop],
        framing=framing,
        length=sum(len(event.data) for event in sent) if framing == "length" else None,
        ending=ending,
        split=faults.whole("split"),
    )


def plain_ending(faults: Faults) -> tuple[int, Ending]:
    for name in faults.clauses:
        match name:
            case "reset-after":
                return 1, "reset"
            case "cut-after":
                return 1, "cut"
            case "stall-after" | "stall-before":
                return 1, "stall"
            case "stall-headers" | "keepalive":
                return 0, "stall"
    return 2, "end"


def framing_of(faults: Faults, usual: Framing) -> Framing:
    match faults.text("framing"):
        case "chunked":
            return "chunked"
        case "length":
            return "length"
        case "close":
            return "close"
    return usual


def headers_of(kind: str, identity: Identity, faults: Faults) -> list[tuple[str, str]]:
    headers = [("content-type", kind), ("x-request-id", identity.request_id)]
    if "gzip" in faults:
        headers.append(("content-encoding", "gzip"))
    size = faults.whole("big-header")
    if size is not None:
        headers.append(("x-padding", "x" * (size * 1024)))
    return headers


def parts(data: bytes, greatest: int) -> Iterator[bytes]:
    """The bytes in pieces of 1 to `greatest` bytes; where they are cut depends on the bytes alone."""
    position = 0
    for size in endless(hashlib.sha256(data).digest()):
        if position >= len(data):
            return
        width = 1 + size % max(greatest, 1)
        yield data[position : position + width]
        position += width


def endless(values: Iterable[int]) -> Iterator[int]:
    row = tuple(values)
    while True:
        yield from row

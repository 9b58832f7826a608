"""The OpenAI-compatible wire form: Model Studio's compatible mode, AceData, Moonshot, OpenAI and those that copy it.

Provider contract 4.1, 4.2, 4.5, 4.6, 8.5 and 8.10. Answers are read leniently: unknown fields are skipped, and any
known one may be null or missing. Requests are written in `compat_request`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Literal, cast

import msgspec

from batchrun.answer import Delta, Usage
from batchrun.dialects.base import Body, ModelRules
from batchrun.dialects.compat_request import encode
from batchrun.dialects.error_tables import table_named
from batchrun.dialects.reading import (
    Content,
    cut_short,
    real_reason,
    reread,
    text_of,
    to_value,
    tool_calls_of,
    unreadable,
)
from batchrun.dialects.usage import read_usage
from batchrun.dialects.vendor_errors import as_provider_error, error_event, error_in, read_error
from batchrun.errors import ProviderError
from batchrun.messages import ChatRequest, JsonValue
from batchrun.stream.sse import ERROR

END_MARKER = b"[DONE]"
_END = Delta(end=True)


class _Message(msgspec.Struct, gc=False):
    """The `delta` of a chunk, or the `message` of a plain answer."""

    content: Content = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: object = None


class _Choice(msgspec.Struct, gc=False):
    index: int | None = None
    delta: _Message | None = None
    message: _Message | None = None
    finish_reason: str | None = None
    usage: object = None


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None
    usage: object = None
    error: object = None
    id: object = None


_decode_chunk = msgspec.json.Decoder(_Chunk).decode
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_NO_CHOICE = _Choice()
_NO_MESSAGE = _Message()


class _PlainMessage(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: None = None
    tool_calls: None = None


class _PlainChoice(msgspec.Struct, gc=False):
    delta: _PlainMessage
    index: Literal[0] | None = None
    message: None = None
    finish_reason: Literal[""] | None = None
    usage: None = None


class _PlainChunk(msgspec.Struct, gc=False):
    """A chunk that holds nothing but text of the first choice, as nearly all do: checked while it is decoded."""

    choices: Annotated[list[_PlainChoice], msgspec.Meta(min_length=1, max_length=1)]
    usage: None = None
    error: None = None
    id: str | None = None


_decode_plain_chunk = msgspec.json.Decoder(_PlainChunk).decode


class _Run:
    """Plain chunks in a row. `decode` gives the same for each at twice the price."""

    __slots__ = ("reasonings", "request_id", "texts")

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.reasonings: list[str] = []
        self.request_id: str | None = None

    def take(self, events: Iterator[tuple[bytes, bytes]]) -> tuple[bytes, bytes] | None:
        """Take events up to the first that isn't plain, which is returned; None where all were."""
        for event, data in events:
            if event:
                return event, data
            try:
                chunk = _decode_plain_chunk(data)
            except _UNREADABLE:
                return event, data
            message = chunk.choices[0].delta
            if message.content:
                self.texts.append(message.content)
            if reasoning := message.reasoning_content or message.reasoning:
                self.reasonings.append(reasoning)
            if chunk.id:
                self.request_id = chunk.id
        return None

    @property
    def is_empty(self) -> bool:
        return not (self.texts or self.reasonings or self.request_id)

    def delta(self) -> Delta:
        return Delta(texts=self.texts, reasonings=self.reasonings, request_id=self.request_id)


class Compat:
    """The dialect. `errors` names the vendor's error table: `model-studio`, `acedata` or `openai`."""

    def __init__(self, errors: str = "openai") -> None:
        self._table = table_named(errors)

    def path(self, rules: ModelRules) -> str:
        return "/chat/completions"

    def headers(self, *, stream: bool) -> Mapping[str, str]:
        return {"accept": "text/event-stream" if stream else "application/json"}

    def encode(self, request: ChatRequest, rules: ModelRules) -> Body:
        """See `compat_request.encode`."""
        return encode(request, rules)

    def decode(self, event: bytes, data: bytes) -> Delta:
        """One event of a stream. Raises ProviderError(INCOMPLETE) where the data can't be read.

        An error that the server reports is `Delta.error`, its kind by the vendor's table; what else the event holds
        is kept beside it.
        """
        if len(data) < 16 and data.strip() == END_MARKER:
            return _END
        if event.startswith(ERROR):
            return Delta(error=error_event(self._table, event, data))
        chunk = _read(data)
        error = None
        if chunk.error or not (chunk.choices or chunk.usage):
            error = self._reported(data, {})
        choice = _first_choice(chunk.choices)
        message = choice.delta or _NO_MESSAGE
        whole = choice.message is not None and not (_text(message) or message.reasoning_content or message.reasoning)
        if choice.message is not None and whole and not message.tool_calls:
            message = choice.message
        text, reasoning = _text(message), message.reasoning_content or message.reasoning or ""
        return Delta(
            text=text,
            reasoning=reasoning,
            finish_reason=real_reason(choice.finish_reason),
            usage=_usage(chunk, choice) if chunk.usage or choice.usage else None,
            request_id=chunk.id if chunk.id and isinstance(chunk.id, str) else None,
            whole=whole,
            tool_calls=tool_calls_of(message.tool_calls) if message.tool_calls else (),
            error=error,
        )

    def decode_all(self, events: Sequence[tuple[bytes, bytes]]) -> Iterable[Delta]:
        """See `Dialect.decode_all`."""
        return (self.decode(*events[0]),) if len(events) == 1 else self._decode_runs(events)

    def _decode_runs(self, events: Sequence[tuple[bytes, bytes]]) -> Iterator[Delta]:
        left = iter(events)
        while True:
            run = _Run()
            other = run.take(left)
            if not run.is_empty:
                yield run.delta()
            if other is None:
                return
            yield self.decode(*other)

    def decode_plain(self, body: bytes, headers: Mapping[str, str]) -> Delta:
        """The whole answer of a call that wasn't streamed, of status 200.

        An answer that the vendor cut at its time limit keeps text and usage and has an error of kind INCOMPLETE. Raises
        ProviderError(INCOMPLETE) for a body that is empty, HTML or otherwise no JSON.
        """
        if not body.strip():
            raise unreadable("The server answered 200 with an empty body.")
        chunk = _read(body)
        error = self._reported(body, headers) if chunk.error or not chunk.choices else None
        choice = _first_choice(chunk.choices)
        message = choice.message or choice.delta or _NO_MESSAGE
        finish_reason = real_reason(choice.finish_reason)
        if error is None and not chunk.choices:
            error = unreadable("The server answered 200 without any choice.")
        return Delta(
            text=_text(message),
            reasoning=message.reasoning_content or message.reasoning or "",
            finish_reason=finish_reason,
            usage=_usage(chunk, choice),
            request_id=chunk.id if chunk.id and isinstance(chunk.id, str) else None,
            end=True,
            tool_calls=tool_calls_of(message.tool_calls),
            error=error or cut_short(finish_reason, headers),
        )

    def read_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        """What an answer of any other status than 200 means. Never raises."""
        return read_error(self._table, status, headers, body)

    def _reported(self, data: bytes, headers: Mapping[str, str]) -> ProviderError | None:
        """The error in a body of status 200 or in an event of a stream, if there is one."""
        words = error_in(to_value(data))
        return as_provider_error(self._table, words, status=200, headers=headers) if words else None


def _read(data: bytes) -> _Chunk:
    try:
        return _decode_chunk(data)
    except _UNREADABLE:
        return reread(data, _Chunk, _Chunk(error=True))


def _first_choice(choices: Sequence[_Choice] | None) -> _Choice:
    """The choice of index 0, or of none; others were never asked for."""
    if not choices:
        return _NO_CHOICE
    if not choices[0].index:
        return choices[0]
    return next((choice for choice in choices if not choice.index), _NO_CHOICE)


def _text(message: _Message) -> str:
    """The answer's text, or the refusal that stands in its place."""
    return text_of(message.content) or message.refusal or ""


def _usage(chunk: _Chunk, choice: _Choice) -> Usage | None:
    """From the top level, or from inside the choice (Moonshot, contract 8.5)."""
    return read_usage(cast(JsonValue, chunk.usage)) or read_usage(cast(JsonValue, choice.usage))

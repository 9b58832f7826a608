"""The OpenAI-compatible wire form: Model Studio's compatible mode, AceData, Moonshot, OpenAI and those that copy it.

Provider contract 4.1, 4.2, 4.5, 4.6, 8.5 and 8.10. Answers are read leniently: unknown fields are skipped, and any
known one may be null or missing. Requests are written in `compat_request`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import cast

import msgspec

from batchrun.answer import Delta, ToolCallPart, Usage
from batchrun.dialects.base import Body, ModelRules
from batchrun.dialects.compat_request import encode
from batchrun.dialects.error_tables import TABLES
from batchrun.dialects.usage import read_usage
from batchrun.dialects.vendor_errors import as_provider_error, clean, error_in, header, read_error, words_of
from batchrun.errors import CatalogueError, ErrorKind, ProviderError
from batchrun.messages import ChatRequest, JsonValue

PARTIAL_HEADER = "x-dashscope-partialresponse"
"""`true` on a plain answer that the vendor cut at its own time limit (contract O1, T17b)."""

END_MARKER = b"[DONE]"
_END = Delta(end=True)


class _Text(msgspec.Struct, gc=False):
    text: str | None = None


class _Message(msgspec.Struct, gc=False):
    """The `delta` of a chunk, or the `message` of a plain answer."""

    content: str | list[str | _Text | None] | None = None
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
_NO_CHOICE = _Choice()
_NO_MESSAGE = _Message()


class Compat:
    """The dialect. `errors` names the vendor's error table: `model-studio`, `acedata` or `openai`."""

    path = "/chat/completions"

    def __init__(self, errors: str = "openai") -> None:
        if errors not in TABLES:
            raise CatalogueError(
                f"There is no error table {errors!r}.", code="error-table", remedy=f"Use one of {', '.join(TABLES)}."
            )
        self._table = TABLES[errors]

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
        if event == b"error":
            return Delta(error=as_provider_error(self._table, words_of(data), status=200))
        chunk = _read(data)
        error = None
        if chunk.error or not (chunk.choices or chunk.usage):
            error = self._reported(data, {})
        choice = _first_choice(chunk.choices)
        message = choice.delta or _NO_MESSAGE
        text, reasoning = _text(message), message.reasoning_content or message.reasoning or ""
        whole = choice.message is not None and not text and not reasoning
        if choice.message is not None and whole:
            text, reasoning = _text(choice.message), choice.message.reasoning_content or choice.message.reasoning or ""
        return Delta(
            text=text,
            reasoning=reasoning,
            finish_reason=_finish_reason(choice),
            usage=_usage(chunk, choice) if chunk.usage or choice.usage else None,
            request_id=chunk.id if chunk.id and isinstance(chunk.id, str) else None,
            whole=whole,
            tool_calls=_tool_calls(message.tool_calls) if message.tool_calls else (),
            error=error,
        )

    def decode_plain(self, body: bytes, headers: Mapping[str, str]) -> Delta:
        """The whole answer of a call that wasn't streamed, of status 200.

        An answer that the vendor cut at its time limit keeps text and usage and has an error of kind INCOMPLETE. Raises
        ProviderError(INCOMPLETE) for a body that is empty, HTML or otherwise no JSON.
        """
        if not body.strip():
            raise _unreadable("The server answered 200 with an empty body.")
        chunk = _read(body)
        error = self._reported(body, headers) if chunk.error or not chunk.choices else None
        choice = _first_choice(chunk.choices)
        message = choice.message or choice.delta or _NO_MESSAGE
        return Delta(
            text=_text(message),
            reasoning=message.reasoning_content or message.reasoning or "",
            finish_reason=_finish_reason(choice),
            usage=_usage(chunk, choice),
            request_id=chunk.id if chunk.id and isinstance(chunk.id, str) else None,
            end=True,
            tool_calls=_tool_calls(message.tool_calls),
            error=error or _cut_short(chunk, choice, headers),
        )

    def read_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        """What an answer of any other status than 200 means. Never raises."""
        return read_error(self._table, status, headers, body)

    def _reported(self, data: bytes, headers: Mapping[str, str]) -> ProviderError | None:
        """The error in a body of status 200 or in an event of a stream, if there is one."""
        words = error_in(_to_value(data))
        return as_provider_error(self._table, words, status=200, headers=headers) if words else None


def _read(data: bytes) -> _Chunk:
    try:
        return _decode_chunk(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _reread(data)


def _reread(data: bytes) -> _Chunk:
    """The tolerant second reading: half characters, NaN and broken UTF-8 pass; an error may have any other shape."""
    value = _to_value(data)
    try:
        return msgspec.convert(value, _Chunk)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:  # the second: half a character where none may be
        if error_in(value):
            return _Chunk(error=True)
        raise _unreadable(
            f"The server sent an answer of another shape ({clean(str(error), 200)}): {_quote(data)}"
        ) from error


def _to_value(data: bytes) -> JsonValue:
    try:
        return cast(JsonValue, json.loads(data.decode("utf-8-sig", "replace"), parse_constant=lambda _: None))
    except (ValueError, RecursionError) as error:
        raise _unreadable(f"The server sent something that isn't JSON, or is cut: {_quote(data)}") from error


def _quote(data: bytes) -> str:
    return repr(clean(data[:200].decode("utf-8", "replace"), 200))


def _first_choice(choices: Sequence[_Choice] | None) -> _Choice:
    """The choice of index 0, or of none; others were never asked for."""
    if not choices:
        return _NO_CHOICE
    if not choices[0].index:
        return choices[0]
    return next((choice for choice in choices if not choice.index), _NO_CHOICE)


def _text(message: _Message) -> str:
    """The answer's text: a string, a list of parts, or the refusal that stands in its place."""
    content = message.content
    if isinstance(content, str):
        return content
    if content is None:
        return message.refusal or ""
    return "".join(part if isinstance(part, str) else part.text or "" for part in content if part is not None)


def _tool_calls(calls: object) -> tuple[ToolCallPart, ...]:
    """The pieces that can be read; those without an index are numbered in their order."""
    found = [call for call in calls if isinstance(call, Mapping)] if isinstance(calls, list) else []
    return tuple(_tool_call(number, call) for number, call in enumerate(found))


def _tool_call(number: int, call: Mapping[str, object]) -> ToolCallPart:
    index, name, function = call.get("index"), call.get("id"), call.get("function")
    told = function if isinstance(function, Mapping) else {}
    arguments = told.get("arguments")
    if not isinstance(arguments, str):  # some servers send the object itself
        arguments = "" if arguments is None else json.dumps(arguments, ensure_ascii=False)
    return ToolCallPart(
        index=index if isinstance(index, int) else number,
        id=name if isinstance(name, str) else "",
        name=str(told.get("name") or ""),
        arguments=arguments,
    )


def _finish_reason(choice: _Choice) -> str | None:
    reason = choice.finish_reason
    return reason if reason and reason != "null" else None


def _usage(chunk: _Chunk, choice: _Choice) -> Usage | None:
    """From the top level, or from inside the choice (Moonshot, contract 8.5)."""
    return read_usage(cast(JsonValue, chunk.usage)) or read_usage(cast(JsonValue, choice.usage))


def _cut_short(chunk: _Chunk, choice: _Choice, headers: Mapping[str, str]) -> ProviderError | None:
    """Why a plain answer is no complete one, though its status is 200 and it reports no error."""
    if not chunk.choices:
        return _unreadable("The server answered 200 without any choice.")
    if header(headers, PARTIAL_HEADER).strip().lower() == "true" or _finish_reason(choice) is None:
        return ProviderError(
            ErrorKind.INCOMPLETE,
            "The vendor cut the answer, most likely at its own time limit, and sent what it had.",
            http_status=200,
            remedy="Stream the answer, or ask for less in one call. It has probably been billed.",
        )
    return None


def _unreadable(message: str) -> ProviderError:
    return ProviderError(
        ErrorKind.INCOMPLETE,
        message,
        http_status=200,
        remedy="If this repeats, check the base URL: something else than a model server may stand there.",
    )

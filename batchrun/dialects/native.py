"""DashScope's own wire form at Model Studio.

Provider contract 1.2, 4.3, 4.4, 8.9 and 8.10. A stream has no end marker: the frame with a finish reason is its last.
Each frame counts all tokens so far. Answers are read leniently: unknown fields are skipped, and any known one may be
null or missing. Requests are written in `native_request`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import msgspec

from batchrun.answer import Delta, ToolCallPart, Usage
from batchrun.dialects.base import Body, ModelRules
from batchrun.dialects.error_tables import table_named
from batchrun.dialects.native_request import encode
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
from batchrun.messages import ChatRequest
from batchrun.stream.sse import ERROR


class _Message(msgspec.Struct, gc=False):
    content: Content = None
    """A string in answers of text-generation, a list of parts in others; an empty list while the model thinks."""
    reasoning_content: str | None = None
    tool_calls: object = None


class _Choice(msgspec.Struct, gc=False):
    message: _Message | None = None
    finish_reason: str | None = None
    """The text `null` while the answer goes on."""


class _Output(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None
    text: str | None = None
    """The answer, where the form `text` was asked for; null beside choices."""
    finish_reason: str | None = None


class _Frame(msgspec.Struct, gc=False):
    """An event of a stream, or a plain answer."""

    output: _Output | None = None
    usage: msgspec.Raw = msgspec.Raw()
    """Not read before it is known to be the last: each frame has one, and reading costs more than all the rest."""
    request_id: object = None
    code: object = None
    error: object = None


_decode_frame = msgspec.json.Decoder(_Frame).decode
_NO_OUTPUT = _Output()
_NO_MESSAGE = _Message()


class Native:
    """The dialect. `errors` names the vendor's error table, `model-studio`."""

    def __init__(self, errors: str = "model-studio") -> None:
        self._table = table_named(errors)

    def path(self, rules: ModelRules) -> str:
        return f"/services/aigc/{rules.native_task}/generation"

    def headers(self, *, stream: bool) -> Mapping[str, str]:
        if not stream:
            return {"accept": "application/json"}
        return {"accept": "text/event-stream", "x-dashscope-sse": "enable"}

    def encode(self, request: ChatRequest, rules: ModelRules) -> Body:
        """See `native_request.encode`."""
        return encode(request, rules)

    def decode(self, event: bytes, data: bytes) -> Delta:
        """One event of a stream. Raises ProviderError(INCOMPLETE) where the data can't be read.

        An error that the server reports is `Delta.error`, its kind by the vendor's table; what else the event holds
        is kept beside it.
        """
        if event.startswith(ERROR):
            return Delta(error=error_event(self._table, event, data))
        frame = _read(data)
        error = self._reported(frame, data, {})
        text, reasoning, finish_reason, calls = _answer(frame.output or _NO_OUTPUT)
        running = finish_reason is None and error is None
        return Delta(
            text=text,
            reasoning=reasoning,
            finish_reason=finish_reason,
            usage=None if running else _usage(frame.usage),
            running_usage=partial(_usage, frame.usage) if running and frame.usage else None,
            request_id=_name_of(frame),
            end=finish_reason is not None,
            tool_calls=calls,
            error=error,
        )

    def decode_all(self, events: Sequence[tuple[bytes, bytes]]) -> Iterable[Delta]:
        """See `Dialect.decode_all`: each by itself, as each counts the tokens so far."""
        return (self.decode(event, data) for event, data in events)

    def decode_plain(self, body: bytes, headers: Mapping[str, str]) -> Delta:
        """The whole answer of a call that wasn't streamed, of status 200.

        An answer that the vendor cut at its time limit keeps text and usage and has an error of kind INCOMPLETE. Raises
        ProviderError(INCOMPLETE) for a body that is empty, HTML or otherwise no JSON.
        """
        if not body.strip():
            raise unreadable("The server answered 200 with an empty body.")
        frame = _read(body)
        output = frame.output or _NO_OUTPUT
        text, reasoning, finish_reason, calls = _answer(output)
        error = self._reported(frame, body, headers)
        if error is None and not output.choices and output.text is None:
            error = unreadable("The server answered 200 without any choice.")
        return Delta(
            text=text,
            reasoning=reasoning,
            finish_reason=finish_reason,
            usage=_usage(frame.usage),
            request_id=_name_of(frame),
            end=True,
            tool_calls=calls,
            error=error or cut_short(finish_reason, headers),
        )

    def read_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        """What an answer of any other status than 200 means. Never raises."""
        error = read_error(self._table, status, headers, body)
        if "url error" in error.message:
            error.remedy = "Set `native_task` of the model to the other task, in a catalogue file of your own."
        return error

    def _reported(self, frame: _Frame, data: bytes, headers: Mapping[str, str]) -> ProviderError | None:
        """The error in a body of status 200 or in an event of a stream, if there is one (contract T20)."""
        if frame.output and not frame.code and not frame.error:
            return None
        words = error_in(to_value(data))
        return as_provider_error(self._table, words, status=200, headers=headers) if words else None


def _read(data: bytes) -> _Frame:
    try:
        return _decode_frame(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return reread(data, _Frame, _Frame(error=True), raw="usage")


def _usage(raw: msgspec.Raw) -> Usage | None:
    """Never raises: it may be called when all else of a call is over."""
    try:
        return read_usage(to_value(bytes(raw)))
    except ProviderError:  # nothing there, or nested too deep
        return None


def _answer(output: _Output) -> tuple[str, str, str | None, tuple[ToolCallPart, ...]]:
    """Text, reasoning, finish reason and calls to tools. Only one answer is ever asked for: the first choice."""
    if not output.choices:
        return output.text or "", "", real_reason(output.finish_reason), ()
    choice = output.choices[0]
    message = choice.message or _NO_MESSAGE
    calls = tool_calls_of(message.tool_calls) if message.tool_calls else ()
    return text_of(message.content), message.reasoning_content or "", real_reason(choice.finish_reason), calls


def _name_of(frame: _Frame) -> str | None:
    return frame.request_id if frame.request_id and isinstance(frame.request_id, str) else None

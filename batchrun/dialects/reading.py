"""What the dialects share in reading answers: tolerant JSON, the text of a message, why an answer is no whole one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TypeVar, cast

import msgspec

from batchrun.answer import ToolCallPart
from batchrun.dialects.vendor_errors import clean, error_in, header
from batchrun.errors import ErrorKind, ProviderError
from batchrun.messages import JsonValue

PARTIAL_HEADER = "x-dashscope-partialresponse"
"""`true` on a plain answer that the vendor cut at its own time limit (contract O1, T17b)."""

ShapeT = TypeVar("ShapeT", bound=msgspec.Struct)


class TextOf(msgspec.Struct, gc=False):
    """A part of an answer; parts that are no text have none."""

    text: str | None = None


Content = str | list[str | TextOf | None] | None


def text_of(content: Content) -> str:
    """The text of a message: a string or a list of parts."""
    if isinstance(content, str):
        return content
    if not content:
        return ""
    if len(content) == 1 and isinstance(only := content[0], TextOf):
        return only.text or ""
    return "".join(part if isinstance(part, str) else part.text or "" for part in content if part is not None)


def tool_calls_of(calls: object) -> tuple[ToolCallPart, ...]:
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


def real_reason(reason: str | None) -> str | None:
    """A finish reason; None for all that vendors write while an answer goes on (contract T21)."""
    return reason if reason and reason != "null" else None


def reread(data: bytes, shape: type[ShapeT], faulty: ShapeT, *, raw: str = "") -> ShapeT:
    """The tolerant second reading: half characters, NaN and broken UTF-8 pass; an error may have any other shape.

    Returns `faulty` for an error of another shape. `raw` names a member that `shape` keeps as it was written. Raises
    ProviderError(INCOMPLETE) for anything that can't be read.
    """
    value = to_value(data)
    try:
        if isinstance(value, Mapping) and raw in value:
            value = {**value, raw: msgspec.Raw(json.dumps(value[raw]).encode())}
        return msgspec.convert(value, shape)
    except (msgspec.ValidationError, UnicodeEncodeError, RecursionError) as error:  # half a character; nested too deep
        if error_in(value):
            return faulty
        raise unreadable(
            f"The server sent an answer of another shape ({clean(str(error), 200)}): {quoted(data)}"
        ) from error


def to_value(data: bytes) -> JsonValue:
    try:
        return cast(JsonValue, json.loads(data.decode("utf-8-sig", "replace"), parse_constant=lambda _: None))
    except (ValueError, RecursionError) as error:
        raise unreadable(f"The server sent something that isn't JSON, or is cut: {quoted(data)}") from error


def quoted(data: bytes) -> str:
    return repr(clean(data[:200].decode("utf-8", "replace"), 200))


def cut_short(finish_reason: str | None, headers: Mapping[str, str]) -> ProviderError | None:
    """Why a plain answer of status 200 that reports no error is no complete one all the same."""
    if header(headers, PARTIAL_HEADER).strip().lower() == "true" or finish_reason is None:
        return ProviderError(
            ErrorKind.INCOMPLETE,
            "The vendor cut the answer, most likely at its own time limit, and sent what it had.",
            http_status=200,
            remedy="Stream the answer, or ask for less in one call. It has probably been billed.",
        )
    return None


def unreadable(message: str) -> ProviderError:
    return ProviderError(
        ErrorKind.INCOMPLETE,
        message,
        http_status=200,
        remedy="If this repeats, check the base URL: something else than a model server may stand there.",
    )

"""Lines of an OpenAI batch file: `{"custom_id", "method", "url", "body"}`, the body a request for a chat completion.

What a line asks for is carried out as it stands, or the line is refused: nothing in it is ignored, but for `stream`,
as batchrun chooses that itself. Provider contract 3.1 and 8.6.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import BinaryIO

from batchrun.jobfile.sections import URL_KEYS, holds_secret, what_is_wrong
from batchrun.messages import JsonValue
from batchrun.rows.complaints import Complaints
from batchrun.rows.references import ReferenceProblem, check_id
from batchrun.rows.rowfiles import read_jsonl
from batchrun.showing import clean, listing, shown

MAX_LINE = 6 * 1024 * 1024
"""Bytes of a line, the vendor's own bound (contract 8.6)."""
METHOD = "POST"
URL = "/v1/chat/completions"
URLS = (URL, "/chat/completions")
ROLES = ("system", "developer", "user", "assistant", "tool")

FPS = (0.1, 10.0)
"""Of a video, the least and the most (contract 5.2)."""

_LINE = ("custom_id", "method", "url", "body")
_NATIVE = "It exists in the vendor's native wire form only; delete it"
_REFUSED = {
    "stream_options": "Delete it: the usage is always asked for",
    "incremental_output": _NATIVE,
    "result_format": _NATIVE,
    "input": _NATIVE,
    "parameters": _NATIVE,
    "extra_body": "Write its fields directly into the body",
    "extra_headers": "A line can't set headers; delete it",
    "extra_query": "A line can't change the address; delete it",
    "fps": "Write it into the part of the video, beside `video_url` or `video`",
    "max_frames": "It doesn't exist in this wire form; delete it",
    "min_pixels": "Write it into the image part, beside `image_url`",
    "max_pixels": "Write it into the image part, beside `image_url`",
}
"""Fields that batchrun writes itself, or that mean nothing where they stand."""
_NOT_KEPT = {
    "logprobs": "Log probabilities are not kept in this version; delete it",
    "top_logprobs": "Log probabilities are not kept in this version; delete it",
    "functions": "Write `tools` instead",
    "function_call": "Write `tool_choice` instead",
    "audio": "Answers of sound are not kept in this version; delete it",
}
"""Fields whose answers would be paid for and lost. Null and false ask for nothing."""

_COUNTS = ("max_tokens", "max_completion_tokens", "thinking_budget")


def read_requests(
    file: BinaryIO, model: str, complaints: Complaints
) -> Iterator[tuple[int, str, dict[str, JsonValue]]]:
    """Line, custom_id and body of each request. Bad lines are noted, the reading goes on."""
    remedy = "Name pictures and videos by their URLs, or by their paths relative to the folder of this file"
    for number, fields in read_jsonl(file, complaints, max_line=MAX_LINE, too_long=remedy):
        try:
            custom_id, body = check_line(fields)
            check_body(body, model)
        except ReferenceProblem as problem:
            complaints.add(problem.message, problem.remedy, line=number)
            continue
        yield number, custom_id, body


def check_line(fields: Mapping[str, JsonValue]) -> tuple[str, dict[str, JsonValue]]:
    """The id and the body. Raises ReferenceProblem."""
    missing = [name for name in _LINE if name not in fields]
    if missing:
        example = '{"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {…}}'
        raise ReferenceProblem(f"the line has no `{missing[0]}`", f"Write {example}")
    unknown = [name for name in fields if name not in _LINE]
    if unknown:
        raise ReferenceProblem(
            f"unknown key `{clean(unknown[0])}` beside the body", f"Known here: {listing(list(_LINE))}"
        )
    if not isinstance(fields["custom_id"], str):
        raise ReferenceProblem(f"`custom_id` is {shown(fields['custom_id'])}, not text", "Write it in quotes")
    if fields["method"] != METHOD:
        raise ReferenceProblem(f"`method` is {_found(fields['method'])}", f"Write `{METHOD}`")
    if fields["url"] not in URLS:
        remedy = f"Only chat completions can be run: write `{URL}`, or take the line out"
        raise ReferenceProblem(f"`url` is {_found(fields['url'])}", remedy)
    body = fields["body"]
    if not isinstance(body, dict):
        raise ReferenceProblem(f"`body` is {shown(body)}, not a mapping", "Write the request's fields in it")
    return check_id(fields["custom_id"]), body


def check_body(body: Mapping[str, JsonValue], model: str) -> None:
    """Raises ReferenceProblem for what can't be sent, would be paid for in vain, or isn't for `model`."""
    if body.get("model") != model:
        asked = "names no model" if body.get("model") is None else f"asks for {_found(body['model'])}"
        remedy = f"Write `{model}`; lines for other models belong into a file and a job of their own"
        raise ReferenceProblem(f"body.model: the line {asked}, the job for `{model}`", remedy)
    for name, value in body.items():
        if name != "messages":
            _check_field(name, value)
    _check_thinking(body)
    _check_messages(body.get("messages"))


def _check_field(name: str, value: JsonValue) -> None:
    if name in _REFUSED:
        raise _bad_field(name, ": this can't stand in a body", _REFUSED[name])
    if name in _NOT_KEPT and value not in (None, False):
        raise _bad_field(name, ": what it asks for would be lost", _NOT_KEPT[name])
    if name == "modalities" and value not in (None, ["text"]):
        raise _bad_field(name, ": only text is kept in this version", 'Write ["text"], or delete it')
    if name == "n" and value not in (None, 1):
        raise _bad_field(name, ": one line gets one answer", "Delete it; repeat the line under other ids")
    if name == "stream" and not isinstance(value, bool | None):
        raise _bad_field(name, f" is {shown(value)}", "Write true or false, or delete it")
    if name in _COUNTS and not _is_count(value):
        raise _bad_field(name, f" is {shown(value)}", "Write a whole number of 1 or more, or delete it")
    if name.lower() in URL_KEYS or holds_secret({name: value}):
        remedy = "Keys belong in the environment, addresses in a catalogue"
        raise _bad_field(name, f": this {what_is_wrong(name, value)}", remedy)


def _bad_field(name: str, message: str, remedy: str) -> ReferenceProblem:
    return ReferenceProblem(f"body.{clean(name)}{message}", remedy)


def _is_count(value: JsonValue) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 1)


def _check_thinking(body: Mapping[str, JsonValue]) -> None:
    switch, other = body.get("enable_thinking"), body.get("thinking")
    if not isinstance(switch, bool | None):
        raise ReferenceProblem(f"body.enable_thinking is {shown(switch)}", "Write true or false")
    if other is None:
        return
    if switch is not None:
        raise ReferenceProblem("body.thinking: it says the same as `enable_thinking`", "Delete one of the two")
    if other not in ({"type": "enabled"}, {"type": "disabled"}):
        raise ReferenceProblem(
            f"body.thinking is {shown(other)} that isn't understood",
            'Write {"type": "enabled"} or {"type": "disabled"}; a bound goes into `thinking_budget`',
        )


def _check_messages(messages: JsonValue) -> None:
    if not isinstance(messages, list) or not messages:
        found = "empty" if messages == [] else _found(messages)
        raise ReferenceProblem(f"body.messages is {found}", 'Write a list of {"role": …, "content": …}')
    for index, message in enumerate(messages):
        _check_message(f"body.messages[{index}]", message)


def _check_message(place: str, message: JsonValue) -> None:
    if not isinstance(message, dict):
        raise ReferenceProblem(f"{place} is {shown(message)}", 'Write {"role": …, "content": …}')
    role = message.get("role")
    if role not in ROLES:
        raise ReferenceProblem(f"{place}.role is {_found(role)}", f"Known here: {listing(list(ROLES))}")
    if message.get("function_call") is not None or message.get("audio") is not None:
        raise ReferenceProblem(f"{place} holds a part that isn't understood", "Write `tool_calls`, or text")
    content = message.get("content")
    if isinstance(content, str) or (content is None and role == "assistant" and message.get("tool_calls")):
        return
    if not isinstance(content, list) or not content:
        found = "empty" if content == [] else _found(content)
        raise ReferenceProblem(f"{place}.content is {found}", "Write a text, or a list of parts")
    for index, part in enumerate(content):
        _check_part(f"{place}.content[{index}]", part)


def _check_part(place: str, part: JsonValue) -> None:
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(part, dict) or kind is None:
        raise ReferenceProblem(f"{place} is no part with a `type`", 'Write {"type": "text", "text": …}')
    if kind == "text":
        if not isinstance(part.get("text"), str):
            raise ReferenceProblem(f"{place}.text is {_found(part.get('text'))}", "Write a text")
    elif kind in ("image_url", "video_url"):
        named = part.get(kind)
        if not isinstance(named, dict) or not isinstance(named.get("url"), str):
            raise ReferenceProblem(f"{place}.{kind} has no `url`", f'Write {{"{kind}": {{"url": "https://…"}}}}')
    elif kind == "video":
        named = part.get("video")
        if not isinstance(named, list) or not named or not all(isinstance(address, str) for address in named):
            remedy = "Write the addresses of its pictures, in their order; a video file is a part `video_url`"
            raise ReferenceProblem(f"{place}.video is no list of pictures", remedy)
    else:
        raise ReferenceProblem(
            f"{place}: a part of the type {_found(kind)} isn't understood",
            "Known here: text, image_url, video_url, video",
        )
    if kind in ("video_url", "video"):
        _check_video(place, part)


def _check_video(place: str, part: Mapping[str, JsonValue]) -> None:
    """What may stand beside a video (contract 5.2)."""
    if part.get("max_frames") is not None:
        raise ReferenceProblem(f"{place}.max_frames: this can't stand beside a video", _REFUSED["max_frames"])
    fps = part.get("fps")
    if fps is not None and (isinstance(fps, bool) or not isinstance(fps, int | float) or not FPS[0] <= fps <= FPS[1]):
        remedy = f"Write a number from {FPS[0]:g} to {FPS[1]:g}, or delete it"
        raise ReferenceProblem(f"{place}.fps is {_found(fps)}", remedy)


def _found(value: JsonValue) -> str:
    if value is None:
        return "missing"
    return f"`{clean(value)}`" if isinstance(value, str) else shown(value)

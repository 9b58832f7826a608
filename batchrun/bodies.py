"""Bodies of chat requests that somebody wrote for a vendor, as an item keeps them.

The fields of the body are the item's variables, without `model` and `stream`, which are the job's. Its pictures and
videos are the item's media, in their order, and what stands for them in the messages has no address and no `fps` any
more. Nothing is filled in: braces are braces.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeGuard

from batchrun.messages import JsonValue, MediaPart, Thinking, WrittenMessage
from batchrun.rows.references import MediaKind, MediaRef

Refer = Callable[[str, MediaKind], MediaRef]
"""From an address to what it names. Raises ReferenceProblem."""
THINKING = ("enable_thinking", "thinking_budget", "thinking")
"""What a dialect writes itself, as the model wants it."""
BOUNDS = ("min_pixels", "max_pixels", "total_pixels")
"""What may stand beside a picture or a video to say how it is scaled."""
_KINDS: Mapping[str, MediaKind] = {"image_url": "image", "video_url": "video", "video": "frames"}
_OF_THE_JOB = ("model", "stream")
_to_json = json.JSONEncoder(ensure_ascii=False, sort_keys=True).encode


def taken_apart(body: Mapping[str, JsonValue], refer: Refer) -> tuple[dict[str, JsonValue], list[MediaRef]]:
    """The variables and the media. `body` has the form that `rows.requests` has checked. Raises ReferenceProblem."""
    media: list[MediaRef] = []
    messages = [_without_media(message, refer, media) for message in _messages(body)]
    rest = {name: value for name, value in body.items() if name not in _OF_THE_JOB}
    return {**rest, "messages": messages}, media


def written_messages(variables: Mapping[str, JsonValue], media: Sequence[MediaPart]) -> tuple[WrittenMessage, ...]:
    """The messages with their media, of which there are as many as the body has."""
    rest = iter(media)
    return tuple(
        WrittenMessage(fields=message, media=tuple(next(rest) for _ in _media(message)))
        for message in _messages(variables)
    )


def last_role(variables: Mapping[str, JsonValue]) -> JsonValue:
    """Who speaks in the last message: the assistant where the body brings the beginning of an answer."""
    *_, last = _messages(variables)
    return last.get("role")


def written_params(variables: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    return {name: value for name, value in variables.items() if name != "messages" and name not in THINKING}


def written_thinking(variables: Mapping[str, JsonValue], *, by_default: bool) -> Thinking | None:
    """What the body says about thinking, in either spelling; None for nothing. A budget alone leaves it as it is."""
    switch, budget, other = (variables.get(name) for name in THINKING)
    enabled = other.get("type") == "enabled" if isinstance(other, Mapping) else switch
    if enabled is None and budget is None:
        return None
    return Thinking(
        enabled=by_default if enabled is None else bool(enabled), budget=budget if isinstance(budget, int) else None
    )


def written_texts(variables: Mapping[str, JsonValue]) -> list[str]:
    """All that the model may read: each message, then the other fields, as JSON, which is never shorter than the text.

    Media apart, equal texts mean equal requests.
    """
    rest = {name: value for name, value in variables.items() if name != "messages"}
    return [_to_json(part) for part in (*_messages(variables), rest)]


def written_words(variables: Mapping[str, JsonValue]) -> list[str]:
    """The plain text of each message: less than the model reads where there are calls to tools, never more."""
    return [_words(message.get("content")) for message in _messages(variables)]


def has_own_bounds(variables: Mapping[str, JsonValue]) -> bool:
    """Whether a picture or video has bounds of its own beside it, such as `max_pixels`."""
    return any(_bounded(part) for message in _messages(variables) for part in _media(message))


def has_bounded_videos(variables: Mapping[str, JsonValue]) -> bool:
    """Whether a video has: it may become longer than any without them."""
    parts = (part for message in _messages(variables) for part in _media(message))
    return any(_bounded(part) for part in parts if part["type"] != "image_url")


def is_media(part: JsonValue) -> TypeGuard[Mapping[str, JsonValue]]:
    return isinstance(part, Mapping) and part.get("type") in _KINDS


def beside_media(part: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """What a part says beside the medium itself, which may be sent as another kind than it was written."""
    return {name: value for name, value in part.items() if name != "type" and name not in _KINDS}


def _messages(fields: Mapping[str, JsonValue]) -> Iterator[Mapping[str, JsonValue]]:
    messages = fields["messages"]
    assert isinstance(messages, list)  # noqa: S101 - the reader has checked it
    return (message for message in messages if isinstance(message, Mapping))


def _words(content: JsonValue) -> str:
    if not isinstance(content, list):
        return content if isinstance(content, str) else ""
    return "".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))


def _media(message: Mapping[str, JsonValue]) -> Iterator[Mapping[str, JsonValue]]:
    content = message.get("content")
    return (part for part in content if is_media(part)) if isinstance(content, list) else iter(())


def _bounded(part: Mapping[str, JsonValue]) -> bool:
    return any(name in part for name in BOUNDS)


def _without_media(message: Mapping[str, JsonValue], refer: Refer, media: list[MediaRef]) -> Mapping[str, JsonValue]:
    content = message.get("content")
    if not isinstance(content, list):
        return message
    media += [_reference(part, refer) for part in content if is_media(part)]
    return {**message, "content": [_without_address(part) if is_media(part) else part for part in content]}


def _reference(part: Mapping[str, JsonValue], refer: Refer) -> MediaRef:
    key = str(part["type"])
    named, fps = part[key], part.get("fps")
    if isinstance(named, Mapping):
        made = refer(str(named["url"]), _KINDS[key])
    else:
        assert isinstance(named, list)  # noqa: S101 - the reader has checked it
        made = MediaRef(kind="frames", frames=tuple(refer(str(address), "image") for address in named))
    return made if made.kind == "image" or not isinstance(fps, int | float) else replace(made, fps=fps)


def _without_address(part: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    key = str(part["type"])
    named = part[key]
    rest = {name: value for name, value in part.items() if name != "fps" or key == "image_url"}
    if isinstance(named, Mapping):
        return {**rest, key: {name: value for name, value in named.items() if name != "url"}}
    return {**rest, key: []}

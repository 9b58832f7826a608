"""Bodies of chat requests that somebody wrote for a vendor, as an item keeps them.

The fields of the body are the item's variables, without `model` and `stream`, which are the job's. The addresses of
its pictures are the item's media, in their order; in the messages `image_url` stands without its `url`. Nothing is
filled in: braces are braces.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from batchrun.messages import JsonValue, Source, Thinking, WrittenMessage

THINKING = ("enable_thinking", "thinking_budget", "thinking")
"""What a dialect writes itself, as the model wants it."""
_OF_THE_JOB = ("model", "stream")
_to_json = json.JSONEncoder(ensure_ascii=False, sort_keys=True).encode


def taken_apart(body: Mapping[str, JsonValue]) -> tuple[dict[str, JsonValue], list[str]]:
    """The variables, and the addresses of the pictures. `body` has the form that `rows.requests` has checked."""
    urls: list[str] = []
    messages = [_without_urls(message, urls) for message in _messages(body)]
    rest = {name: value for name, value in body.items() if name not in _OF_THE_JOB}
    return {**rest, "messages": messages}, urls


def written_messages(variables: Mapping[str, JsonValue], sources: Sequence[Source]) -> tuple[WrittenMessage, ...]:
    """The messages with their pictures, of which there are as many as the body has."""
    rest = iter(sources)
    return tuple(
        WrittenMessage(fields=message, sources=tuple(next(rest) for _ in _images(message)))
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

    Pictures apart, equal texts mean equal requests.
    """
    rest = {name: value for name, value in variables.items() if name != "messages"}
    return [_to_json(part) for part in (*_messages(variables), rest)]


def written_words(variables: Mapping[str, JsonValue]) -> list[str]:
    """The plain text of each message: less than the model reads where there are calls to tools, never more."""
    return [_words(message.get("content")) for message in _messages(variables)]


def has_own_bounds(variables: Mapping[str, JsonValue]) -> bool:
    """Whether a picture has bounds of its own beside it, such as `max_pixels`."""
    parts = (part for message in _messages(variables) for part in _images(message) if isinstance(part, Mapping))
    return any(name in part for part in parts for name in ("min_pixels", "max_pixels"))


def with_url(part: Mapping[str, JsonValue], url: str) -> dict[str, JsonValue]:
    """An image part as it was written."""
    rest = part["image_url"]
    return {**part, "image_url": {"url": url, **rest} if isinstance(rest, Mapping) else {"url": url}}


def is_image(part: JsonValue) -> bool:
    return isinstance(part, Mapping) and part.get("type") == "image_url"


def _messages(fields: Mapping[str, JsonValue]) -> Iterator[Mapping[str, JsonValue]]:
    messages = fields["messages"]
    assert isinstance(messages, list)  # noqa: S101 - the reader has checked it
    return (message for message in messages if isinstance(message, Mapping))


def _words(content: JsonValue) -> str:
    if not isinstance(content, list):
        return content if isinstance(content, str) else ""
    return "".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))


def _images(message: Mapping[str, JsonValue]) -> Iterator[JsonValue]:
    content = message.get("content")
    return (part for part in content if is_image(part)) if isinstance(content, list) else iter(())


def _without_urls(message: Mapping[str, JsonValue], urls: list[str]) -> Mapping[str, JsonValue]:
    content = message.get("content")
    if not isinstance(content, list):
        return message
    return {**message, "content": [_without_url(part, urls) for part in content]}


def _without_url(part: JsonValue, urls: list[str]) -> JsonValue:
    if not (isinstance(part, Mapping) and is_image(part)):
        return part
    image = part["image_url"]
    assert isinstance(image, Mapping)  # noqa: S101 - the reader has checked it
    urls.append(str(image["url"]))
    return {**part, "image_url": {name: value for name, value in image.items() if name != "url"}}

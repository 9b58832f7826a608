"""Writes a request in the OpenAI-compatible wire form (provider contract 2.6, 3.1 and 3.3)."""

from __future__ import annotations

from collections.abc import Mapping

from batchrun.bodies import beside_media, is_media
from batchrun.dialects.base import Body, ModelRules
from batchrun.dialects.thinking import thinking_fields
from batchrun.dialects.writing import (
    Placeholders,
    check_request,
    image_fields,
    invalid,
    other_params,
    partial_fields,
    plain_number,
)
from batchrun.messages import ChatRequest, FramesPart, JsonValue, Message, Part, TextPart, VideoPart, WrittenMessage

REFUSED_FIELDS: dict[str, str] = {
    "max_frames": "It doesn't exist in this wire form.",
    "incremental_output": "It exists in the native wire form only; here every stream is incremental.",
    "result_format": "It exists in the native wire form only.",
}
"""Parameters that mean nothing here (contract 2.6, T27), and what to do."""


def encode(request: ChatRequest, rules: ModelRules) -> Body:
    """The request's JSON; local files go out between its pieces as base64 of their own bytes.

    The same request gives the same bytes: fields stand in one order, parameters by name. Raises
    ProviderError(INVALID) for a parameter that may not be sent or can't be written, and MediaError for a URL of no use.
    """
    check_request(request, rules, REFUSED_FIELDS)
    places, images = Placeholders(rules.pictures), image_fields(request)
    fields: dict[str, JsonValue] = {
        "model": request.model,
        "messages": [_message(message, images, places) for message in request.messages],
    }
    if request.stream:
        fields |= {"stream": True, "stream_options": {"include_usage": True}}
    fields |= thinking_fields(request.model, request.thinking, rules)
    fields |= _renamed(other_params(request), rules)
    return places.body(fields, request)


def _renamed(params: dict[str, JsonValue], rules: ModelRules) -> dict[str, JsonValue]:
    """`max_tokens` under the name that the server takes, unless the request has that too."""
    if rules.max_tokens_as in params or "max_tokens" not in params:
        return params
    return {rules.max_tokens_as if name == "max_tokens" else name: value for name, value in params.items()}


def _message(
    message: Message | WrittenMessage, images: Mapping[str, JsonValue], places: Placeholders
) -> Mapping[str, JsonValue]:
    if isinstance(message, WrittenMessage):
        return _written(message, places)
    if message.partial:
        return partial_fields(message)
    first = message.parts[0]
    if len(message.parts) == 1 and isinstance(first, TextPart):
        return {"role": message.role, "content": first.text}
    return {"role": message.role, "content": [_part(part, images, places) for part in message.parts]}


def _part(part: Part, images: Mapping[str, JsonValue], places: Placeholders) -> dict[str, JsonValue]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    if isinstance(part, VideoPart):
        return {"type": "video_url", "video_url": {"url": places.video_address(part.source)}, **_rate(part)}
    if isinstance(part, FramesPart):
        return {"type": "video", "video": [places.address(source) for source in part.sources], **_rate(part)}
    return {"type": "image_url", "image_url": {"url": places.address(part.source)}, **images}


def _rate(part: VideoPart | FramesPart) -> dict[str, JsonValue]:
    """What stands beside a video, and not in it (contract C4)."""
    if isinstance(part, VideoPart) and part.max_frames is not None:
        raise invalid(
            "`max_frames` can't be sent in this wire form.", "Delete `media.max_frames`, or lower `media.fps`."
        )
    return {} if part.fps is None else {"fps": plain_number(part.fps)}


def _written(message: WrittenMessage, places: Placeholders) -> Mapping[str, JsonValue]:
    """The message as it was written, with its media."""
    content = message.fields.get("content")
    if not isinstance(content, list):
        return message.fields
    media = iter(message.media)
    parts = [_written_part(part, next(media), places) if is_media(part) else part for part in content]
    return {**message.fields, "content": parts}


def _written_part(part: Mapping[str, JsonValue], medium: Part, places: Placeholders) -> dict[str, JsonValue]:
    """With what was written beside the address, and inside of it, such as `detail`."""
    made = _part(medium, {}, places)
    key = str(made["type"])
    address, inside = made[key], part.get(key)
    if isinstance(address, Mapping) and isinstance(inside, Mapping):
        made[key] = {**address, **inside}
    return {**made, **beside_media(part)}

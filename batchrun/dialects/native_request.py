"""Writes a request in DashScope's own wire form (provider contract 1.2, 2.6 and 3.2).

Everything but the model and the messages stands in `parameters`. Parts have no `type`: their key names their kind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

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
from batchrun.errors import ProviderError
from batchrun.messages import ChatRequest, FramesPart, JsonValue, Message, Part, TextPart, VideoPart, WrittenMessage

TEXT_TASK = "text-generation"
"""The task whose messages are plain texts, and whose answers must be asked for as messages; others take parts."""

REFUSED_FIELDS: dict[str, str] = {
    "input": "Write the text into the job's `prompt`.",
    "parameters": "Write the parameters into `params` themselves.",
    "incremental_output": "Leave it out: batchrun always asks for streams that bring new text only.",
    "result_format": "Leave it out: batchrun asks for the form that it reads.",
    "max_frames": "It belongs to a video, not to the request.",
}
"""Parameters that this module writes itself, or that have another place, and what to do."""

KINDS = ("image", "video", "audio")
"""Keys of parts that are media, whatever else stands beside them."""


def encode(request: ChatRequest, rules: ModelRules) -> Body:
    """The request's JSON; local files go out between its pieces as base64 of their own bytes.

    The same request gives the same bytes: fields stand in one order, parameters by name. Raises
    ProviderError(INVALID) for a parameter that may not be sent or can't be written, and for media in a task of
    text; MediaError for a URL of no use.
    """
    check_request(request, rules, REFUSED_FIELDS)
    places = Placeholders(rules.pictures)
    texts_only = rules.native_task == TEXT_TASK
    images = image_fields(request)
    fields: dict[str, JsonValue] = {
        "model": request.model,
        "input": {
            "messages": [
                _written(request.model, message, texts_only, places)
                if isinstance(message, WrittenMessage)
                else _message(request.model, message, texts_only, images, places)
                for message in request.messages
            ]
        },
    }
    parameters = _parameters(request, rules)
    if parameters:
        fields["parameters"] = parameters
    return places.body(fields, request)


def _parameters(request: ChatRequest, rules: ModelRules) -> dict[str, JsonValue]:
    parameters: dict[str, JsonValue] = {}
    if rules.native_task == TEXT_TASK:
        parameters["result_format"] = "message"
    if request.stream:
        parameters["incremental_output"] = True
    return parameters | thinking_fields(request.model, request.thinking, rules) | other_params(request)


def _message(
    model: str, message: Message, texts_only: bool, images: Mapping[str, JsonValue], places: Placeholders
) -> Mapping[str, JsonValue]:
    if message.partial:
        return partial_fields(message)
    content = _text(model, message) if texts_only else _parts(message, images, places)
    return {"role": message.role, "content": content}


def _text(model: str, message: Message) -> str:
    """Several texts are one after the other, as the models' own templates put them."""
    texts = [part.text for part in message.parts if isinstance(part, TextPart)]
    if message.sources:
        raise _no_pictures(model)
    return "".join(texts)


def _parts(message: Message, images: Mapping[str, JsonValue], places: Placeholders) -> list[JsonValue]:
    return [_part(part, images, places) for part in message.parts]


def _part(part: Part, images: Mapping[str, JsonValue], places: Placeholders) -> dict[str, JsonValue]:
    if isinstance(part, TextPart):
        return {"text": part.text}
    if isinstance(part, VideoPart):
        most: dict[str, JsonValue] = {} if part.max_frames is None else {"max_frames": part.max_frames}
        return {"video": places.video_address(part.source), **_rate(part), **most}
    if isinstance(part, FramesPart):
        return {"video": [places.address(source) for source in part.sources], **_rate(part)}
    return {"image": places.address(part.source), **images}


def _rate(part: VideoPart | FramesPart) -> dict[str, JsonValue]:
    return {} if part.fps is None else {"fps": plain_number(part.fps)}


def _written(model: str, message: WrittenMessage, texts_only: bool, places: Placeholders) -> dict[str, JsonValue]:
    """A message of the compat form in this one; what its parts say beside their kind stays."""
    content = message.fields.get("content")
    if texts_only and message.sources:
        raise _no_pictures(model)
    if isinstance(content, list):
        media = iter(message.media)
        parts = [_written_part(part, media, places) for part in content]
    else:
        parts = [] if content is None else [{"text": content}]
    text = "".join(str(part.get("text", "")) for part in parts)
    return {**message.fields, "content": text if texts_only else parts}


def _written_part(part: JsonValue, media: Iterator[Part], places: Placeholders) -> dict[str, JsonValue]:
    """`detail` of an image is OpenAI's and means nothing here."""
    if is_media(part):
        return {**_part(next(media), {}, places), **_beside(beside_media(part))}
    kind = part.get("type") if isinstance(part, Mapping) else None
    if not isinstance(part, Mapping) or kind != "text":
        raise invalid(
            f"A part of the type {kind!r} can't be sent in this wire form.",
            "Use an endpoint of the compat dialect, or leave the part out.",
        )
    return _beside({name: value for name, value in part.items() if name != "type"})


def _beside(fields: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Nothing that the other wire form doesn't know may become a medium in this one, which nobody has looked at."""
    for name in KINDS:
        if name in fields:
            raise invalid(
                f"A part has a field `{name}`, which would be another medium in this wire form.",
                'Write it as a part of its own, such as {"type": "image_url", "image_url": {"url": …}}.',
            )
    return fields


def _no_pictures(model: str) -> ProviderError:
    return invalid(
        f"{model} takes text only in this wire form.",
        f"If it takes pictures and videos, its `native_task` in the catalogue is not {TEXT_TASK}.",
    )

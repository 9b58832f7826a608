"""Writes a request in DashScope's own wire form (provider contract 1.2, 2.6 and 3.2).

Everything but the model and the messages stands in `parameters`. Parts have no `type`: their key names their kind.
"""

from __future__ import annotations

from collections.abc import Mapping

from batchrun.dialects.base import Body, ModelRules
from batchrun.dialects.thinking import thinking_fields
from batchrun.dialects.writing import Placeholders, check_request, image_fields, invalid, other_params
from batchrun.messages import ChatRequest, JsonValue, Message, Part, TextPart

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


def encode(request: ChatRequest, rules: ModelRules) -> Body:
    """The request's JSON; local files go out between its pieces as base64 of their own bytes.

    The same request gives the same bytes: fields stand in one order, parameters by name. Raises
    ProviderError(INVALID) for a parameter that may not be sent or can't be written, and for an image in a task of
    text; MediaError for an image URL of no use.
    """
    check_request(request, rules, REFUSED_FIELDS)
    places = Placeholders()
    texts_only = rules.native_task == TEXT_TASK
    images = image_fields(request)
    fields: dict[str, JsonValue] = {
        "model": request.model,
        "input": {
            "messages": [
                {
                    "role": message.role,
                    "content": _text(request.model, message) if texts_only else _parts(message, images, places),
                }
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


def _text(model: str, message: Message) -> str:
    """Several texts are one after the other, as the models' own templates put them."""
    texts = [part.text for part in message.parts if isinstance(part, TextPart)]
    if len(texts) < len(message.parts):
        raise invalid(
            f"{model} takes text only in this wire form.",
            f"If it takes pictures, its `native_task` in the catalogue is not {TEXT_TASK}.",
        )
    return "".join(texts)


def _parts(message: Message, images: Mapping[str, JsonValue], places: Placeholders) -> list[JsonValue]:
    return [_part(part, images, places) for part in message.parts]


def _part(part: Part, images: Mapping[str, JsonValue], places: Placeholders) -> dict[str, JsonValue]:
    if isinstance(part, TextPart):
        return {"text": part.text}
    return {"image": places.address(part), **images}

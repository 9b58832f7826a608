"""Reads a request of the native protocol into the common form (contract 1.2, 2.6, 3.2, 8.11)."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from batchrun.simulator.dialect import Asked
from batchrun.simulator.models import Model
from batchrun.simulator.parameters import Fields, flag, read_parameters
from batchrun.simulator.refusals import invalid, malformed

MEDIA: Final = ("image", "video")
RESULT_FORMATS: Final = ("message", "text")
ELSEWHERE: Final = frozenset({"model", "messages", "stream", "stream_options"})
"""Names that mean something at the top of a compat body and nothing within `parameters`."""


def asks_for_stream(headers: Mapping[str, str]) -> bool:
    return headers.get("x-dashscope-sse", "").lower() == "enable"


def read_native(fields: Fields, headers: Mapping[str, str], model: Model, *, multimodal: bool) -> Asked:
    """Raise `Refusal` for what the service does not accept at this one of the two addresses."""
    if model.pictures is not multimodal:
        raise invalid("url error, please check url!")
    given = fields.get("parameters")
    given = {} if given is None else given
    if not isinstance(given, dict):
        raise malformed("parameters must be an object.", code="BadRequest.EmptyParameters")
    stream = asks_for_stream(headers)
    common: dict[str, object] = {name: value for name, value in given.items() if name not in ELSEWHERE}
    common |= {"messages": messages_of(fields, multimodal=multimodal), "stream": stream}
    parameters = read_parameters(common, model)
    incremental = flag(given, "incremental_output")
    incremental = model.incremental if incremental is None else incremental
    if parameters.thinking and stream and not incremental:
        raise invalid("The incremental_output parameter must be true when enable_thinking is true.")
    text_form = wants_text_form(given, thinking=parameters.thinking, multimodal=multimodal)
    return Asked(common, replace(parameters, incremental=incremental, text_form=text_form, max_frames=True))


def wants_text_form(given: Fields, *, thinking: bool, multimodal: bool) -> bool:
    """Multimodal answers and those of thinking models have choices whether they were asked for or not."""
    form = given.get("result_format")
    if form is not None and form not in RESULT_FORMATS:
        raise invalid(f"result_format must be one of {', '.join(RESULT_FORMATS)}.")
    if thinking and form == "text":
        raise invalid("The result_format parameter must be message when enable_thinking is true.")
    return form != "message" and not thinking and not multimodal


def messages_of(fields: Fields, *, multimodal: bool) -> list[object]:
    """The messages with their parts in the form of compat; what is no message is left to the common reader."""
    holder = fields.get("input")
    if not isinstance(holder, dict):
        raise malformed("input must be an object with messages.", code="BadRequest.EmptyInput")
    messages = holder.get("messages")
    if not isinstance(messages, list) or not messages:
        raise malformed("input.messages must be a list with at least one message.", code="BadRequest.EmptyInput")
    return [
        with_common_parts(message, f"messages[{index}]", multimodal=multimodal)
        if isinstance(message, dict)
        else message
        for index, message in enumerate(messages)
    ]


def with_common_parts(message: Fields, where: str, *, multimodal: bool) -> Fields:
    content = message.get("content")
    if not isinstance(content, list):
        return message
    if not multimodal:
        raise invalid(f"The content of {where} must be a text at this address.")
    return {**message, "content": [common_part(part, where) for part in content]}


def common_part(part: object, where: str) -> Fields:
    """The key of a native part names its kind (3.2)."""
    kinds = [kind for kind in ("text", *MEDIA) if isinstance(part, dict) and kind in part]
    if not isinstance(part, dict) or len(kinds) != 1:
        raise invalid(f"A part of {where} must have one of the keys text, image and video.")
    if kinds == ["text"]:
        return {"type": "text", "text": part["text"]}
    settings = {name: value for name, value in part.items() if name != kinds[0]}
    medium = part[kinds[0]]
    if kinds == ["video"] and isinstance(medium, list):
        return {**settings, "type": "video", "video": medium}
    if not isinstance(medium, str):
        raise invalid(f"The {kinds[0]} of {where} must be an address.")
    return {**settings, "type": f"{kinds[0]}_url", f"{kinds[0]}_url": {"url": medium}}

"""Writes a request in the OpenAI-compatible wire form (provider contract 2.6, 3.1 and 3.3)."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence

from batchrun.dialects.base import Body, ModelRules
from batchrun.dialects.thinking import thinking_fields
from batchrun.dialects.vendor_errors import clean
from batchrun.errors import ErrorKind, ProviderError
from batchrun.media import OpenMedia
from batchrun.media.url import check_image_url
from batchrun.messages import ChatRequest, ImagePart, JsonValue, Message, Part, TextPart

IMAGE_FIELDS = ("min_pixels", "max_pixels")
"""Parameters that stand in each image part, beside `image_url` (contract 2.6)."""

REFUSED_FIELDS: dict[str, str] = {
    "model": "Name the model in the job's `model`.",
    "messages": "Write the text into the job's `prompt`.",
    "stream": "Leave it out: batchrun chooses between streamed and plain answers itself.",
    "stream_options": "Leave it out: the usage is always asked for.",
    "enable_thinking": "Write `thinking: {enabled: true}` or `thinking: {enabled: false}` into the job.",
    "thinking_budget": "Write `thinking: {enabled: true, budget: N}` into the job.",
    "thinking": "Write `thinking: {enabled: true}` or `thinking: {enabled: false}` into the job.",
    "fps": "It belongs to a video, not to the request.",
    "max_frames": "It doesn't exist in this wire form.",
    "incremental_output": "It exists in the native wire form only; here every stream is incremental.",
    "result_format": "It exists in the native wire form only.",
}
"""Parameters that this module writes itself, or that mean nothing here (contract 2.6, T27), and what to do."""


def encode(request: ChatRequest, rules: ModelRules) -> Body:
    """The request's JSON; local files go out between its pieces as base64 of their own bytes.

    The same request gives the same bytes: fields stand in one order, parameters by name. Raises
    ProviderError(INVALID) for a parameter that may not be sent or can't be written, and MediaError for an image URL
    of no use.
    """
    _check_params(request, rules)
    files = _files(request)
    placeholder = secrets.token_hex(16) if files else ""
    images = {name: request.params[name] for name in IMAGE_FIELDS if name in request.params}
    fields: dict[str, JsonValue] = {
        "model": request.model,
        "messages": [_message(message, images, placeholder) for message in request.messages],
    }
    if request.stream:
        fields |= {"stream": True, "stream_options": {"include_usage": True}}
    fields |= thinking_fields(request.model, request.thinking, rules)
    fields |= {name: request.params[name] for name in sorted(request.params) if name not in images}
    text = _to_json(fields)
    return Body(pieces=_interleave(text.split(placeholder.encode()), files) if files else (text,))


def _check_params(request: ChatRequest, rules: ModelRules) -> None:
    for name in sorted(request.params):
        if name in REFUSED_FIELDS:
            raise _invalid(f"The parameter `{name}` can't be given in `params`.", REFUSED_FIELDS[name])
        if name in rules.forbidden:
            raise _invalid(f"{request.model} doesn't take the parameter `{name}`.", f"Remove `{name}` from `params`.")
    if request.params.get("n", 1) != 1:
        raise _invalid(
            "`n` asks for several answers to one item.", "Remove `n`; repeat the row to get several answers."
        )
    if not request.messages or any(not message.parts for message in request.messages):
        raise _invalid("The request has a message without text or image.", "Give the item a prompt.")


def _message(message: Message, image_fields: Mapping[str, JsonValue], placeholder: str) -> dict[str, JsonValue]:
    first = message.parts[0]
    if len(message.parts) == 1 and isinstance(first, TextPart):
        return {"role": message.role, "content": first.text}
    return {"role": message.role, "content": [_part(part, image_fields, placeholder) for part in message.parts]}


def _part(part: Part, image_fields: Mapping[str, JsonValue], placeholder: str) -> dict[str, JsonValue]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    if isinstance(part.source, str):
        check_image_url(part.source)
        url = part.source
    else:
        url = f"data:{part.source.mime};base64,{placeholder}"
    return {"type": "image_url", "image_url": {"url": url}, **image_fields}


def _files(request: ChatRequest) -> list[OpenMedia]:
    """The local files in the order of their parts."""
    parts = [part for message in request.messages for part in message.parts if isinstance(part, ImagePart)]
    return [part.source for part in parts if not isinstance(part.source, str)]


def _interleave(texts: Sequence[bytes], files: Sequence[OpenMedia]) -> tuple[bytes | OpenMedia, ...]:
    """The first text, the first file, the second text, and so on to the last text."""
    pieces: list[bytes | OpenMedia] = [texts[0]]
    for file, text in zip(files, texts[1:], strict=True):
        pieces += [file, text]
    return tuple(pieces)


def _to_json(fields: Mapping[str, JsonValue]) -> bytes:
    try:
        return _WRITER.encode(fields).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise _invalid(
            f"The request can't be written as JSON: {clean(str(error), 200)}.",
            "Look for NaN, dates, broken characters or circles in the item's prompt and `params`.",
        ) from error


def _plain(value: object) -> dict[object, object]:
    """Read-only mappings as JSON knows them."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is no JSON")


_WRITER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain)


def _invalid(message: str, remedy: str) -> ProviderError:
    return ProviderError(ErrorKind.INVALID, message, remedy=remedy)

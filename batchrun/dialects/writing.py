"""What the dialects share in writing a request: what is refused, and JSON with local files between its pieces."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

from batchrun.dialects.base import Body, ModelRules
from batchrun.dialects.vendor_errors import clean
from batchrun.errors import ErrorKind, ProviderError
from batchrun.media.rules import PictureRules
from batchrun.media.url import check_image_url, check_video_url, is_file_id
from batchrun.messages import ChatRequest, Encoded, JsonValue, Message, Source, TextPart, Uploaded

IMAGE_FIELDS = ("min_pixels", "max_pixels")
"""Parameters that stand in each image part, beside the image (contract 2.6)."""

_WRITTEN_BY_US: dict[str, str] = {
    "model": "Name the model in the job's `model`.",
    "messages": "Write the text into the job's `prompt`.",
    "stream": "Leave it out: batchrun chooses between streamed and plain answers itself.",
    "stream_options": "Leave it out: the usage is always asked for.",
    "enable_thinking": "Write `thinking: {enabled: true}` or `thinking: {enabled: false}` into the job.",
    "thinking_budget": "Write `thinking: {enabled: true, budget: N}` into the job.",
    "thinking": "Write `thinking: {enabled: true}` or `thinking: {enabled: false}` into the job.",
    "fps": "It belongs to a video, not to the request.",
}
"""Parameters that another setting says, in every wire form, and what to do instead."""


NO_MEDIA_URLS = "{model} fetches no pictures from addresses here."
NO_FILE_IDS = "{model} can't read files by an id (`ms://…`) here: only Moonshot can."
FILES_THEMSELVES = "Name the files by their paths, or choose a provider at Moonshot."
MEDIA_AS_FILES = "Download the pictures and name them by their paths, or write data URLs."

LONG_URL = 65_536
"""Characters."""


class Placeholders:
    """The addresses of a request's media; a word that nobody can guess stands where long ones will go."""

    def __init__(self, rules: PictureRules) -> None:
        self.rules = rules

    @cached_property
    def word(self) -> str:
        """Made for the requests that need it only."""
        return secrets.token_hex(16)

    def address(self, source: Source) -> str:
        """Of a picture. Raises MediaError for a URL of no use."""
        if isinstance(source, str):
            check_image_url(source, self.rules)
        return self._placed(source)

    def video_address(self, source: Source) -> str:
        """Raises MediaError for a URL of no use."""
        if isinstance(source, str):
            check_video_url(source)
        return self._placed(source)

    def _placed(self, source: Source) -> str:
        if isinstance(source, Uploaded):
            return source.url
        if not isinstance(source, str):
            return f"data:{source.mime};base64,{self.word}"
        return self.word if _is_long(source) else source

    def body(self, fields: Mapping[str, JsonValue], request: ChatRequest) -> Body:
        """`fields` as JSON, and between its pieces what stands apart.

        Raises ProviderError(INVALID) for what JSON can't say.
        """
        text, apart = _to_json(fields), _apart(request)
        return Body(pieces=tuple(_interleave(text.split(self.word.encode()), apart)) if apart else (text,))


def check_request(request: ChatRequest, rules: ModelRules, refused: Mapping[str, str]) -> None:
    """Refuse what would be sent in vain. `refused` are parameters that mean nothing in this wire form, and what to do.

    Raises ProviderError(INVALID).
    """
    for name in sorted(request.params):
        remedy = _WRITTEN_BY_US.get(name) or refused.get(name)
        if remedy is not None:
            raise invalid(f"The parameter `{name}` can't be given in `params`.", remedy)
        if name in rules.forbidden:
            raise invalid(f"{request.model} doesn't take the parameter `{name}`.", f"Remove `{name}`.")
    if rules.stream_only and not request.stream:
        raise invalid(f"{request.model} answers in streams only.", "Delete `stream: false`; the answer is the same.")
    if request.params.get("n") not in (None, 1):
        raise invalid("`n` asks for several answers to one item.", "Remove `n`; repeat the row to get several answers.")
    empty = [message for message in request.messages if isinstance(message, Message) and not message.parts]
    if not request.messages or empty:
        raise invalid("The request has a message without text, picture or video.", "Give the item a prompt.")
    if not rules.media_urls and any(is_web(source) for message in request.messages for source in message.sources):
        raise invalid(NO_MEDIA_URLS.format(model=request.model), MEDIA_AS_FILES)
    if not rules.file_ids and any(is_file_id(source) for message in request.messages for source in message.sources):
        raise invalid(NO_FILE_IDS.format(model=request.model), FILES_THEMSELVES)


def partial_fields(message: Message) -> dict[str, JsonValue]:
    """The beginning of an answer: a plain text in both wire forms, also where other messages have parts."""
    text = "".join(part.text for part in message.parts if isinstance(part, TextPart))
    return {"role": message.role, "content": text, "partial": True}


def image_fields(request: ChatRequest) -> dict[str, JsonValue]:
    """The parameters that go into each image part."""
    return {name: request.params[name] for name in IMAGE_FIELDS if name in request.params}


def other_params(request: ChatRequest) -> dict[str, JsonValue]:
    """All other parameters, by name: the same request gives the same bytes."""
    return {name: request.params[name] for name in sorted(request.params) if name not in IMAGE_FIELDS}


def plain_number(number: float) -> float:
    """2 and not 2.0, as people write it."""
    return int(number) if number == int(number) else number


def is_web(source: Source) -> bool:
    """Whether the server would have to fetch it."""
    return isinstance(source, str) and not is_data(source) and not is_file_id(source)


def is_data(source: str) -> bool:
    """Whether it stands in the request itself."""
    return source[:5].lower() == "data:"


def invalid(message: str, remedy: str) -> ProviderError:
    return ProviderError(ErrorKind.INVALID, message, remedy=remedy)


def _is_long(source: str) -> bool:
    """Megabytes of base64 are put between the pieces of the request instead of being copied with them."""
    return len(source) > LONG_URL and is_data(source)


def _apart(request: ChatRequest) -> list[bytes | Encoded]:
    """What goes out between the pieces of the request, in the order of the parts: local files, long data URLs."""
    apart: list[bytes | Encoded] = []
    for source in (source for message in request.messages for source in message.sources):
        if isinstance(source, str):
            apart += [source.encode()] if _is_long(source) else []
        elif not isinstance(source, Uploaded):
            apart.append(source)
    return apart


def _interleave(texts: Sequence[bytes], apart: Sequence[bytes | Encoded]) -> Iterator[bytes | Encoded]:
    """The first text, the first piece that stands apart, the second text, and so on to the last text."""
    yield texts[0]
    for piece, text in zip(apart, texts[1:], strict=True):
        yield piece
        yield text


def _to_json(fields: Mapping[str, JsonValue]) -> bytes:
    try:
        return _WRITER.encode(fields).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise invalid(
            f"The request can't be written as JSON: {clean(str(error), 200)}.",
            "Look for NaN, dates, broken characters or circles in the item's prompt and `params`.",
        ) from error


def _plain(value: object) -> dict[object, object]:
    """Read-only mappings as JSON knows them."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is no JSON")


_WRITER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain)

"""What a request asks of its model, against what the catalogue knows: refusals before any call, and advice.

What may be sent at all is checked by the dialects, from `ModelRules`. What isn't known is never refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from batchrun.catalogue import FEATURE_FIELDS, Model
from batchrun.errors import ErrorKind, ProviderError
from batchrun.messages import ChatRequest, JsonValue, Thinking
from batchrun.stream.continuing import LENGTHS

PIXELS = ("min_pixels", "max_pixels")


def check_sizes(request: ChatRequest, model: Model) -> None:
    """Refuse a length or a budget that the vendor answers with an error (contract 8.1.2: outside of 1 to the maximum).

    Raises ProviderError(INVALID).
    """
    for name in LENGTHS:
        _check(model.id, f"`{name}`", request.params.get(name), model.max_output, "tokens of answer")
    if request.thinking is not None:
        _check(model.id, "the thinking budget", request.thinking.budget, model.max_cot, "tokens of thinking")
    _check_pixels(request.params, model)


def advice(model: Model, *, system: bool, params: Mapping[str, JsonValue], thinking: Thinking | None) -> Iterator[str]:
    """Sentences about what is allowed, and yet may bring worse answers or none. `system`: there is such a message."""
    if system and not model.system_while_thinking and model.may_think(thinking):
        yield f"the vendor advises against `system` while {model.id} thinks; say it in the prompt"
    if model.unpriced:
        yield f"the cost won't be known: {model.unpriced}"
    if params.get("vl_high_resolution_images") is True and params.get("max_pixels") is not None:
        yield "`max_pixels` has no effect while `vl_high_resolution_images` is true"
    for feature, names in FEATURE_FIELDS.items():
        asked = [name for name in names if params.get(name)]
        if asked and feature not in model.features:
            yield f"whether {model.id} knows `{asked[0]}` isn't known; the vendor may ignore it"
        elif asked and feature == "web_search":
            yield "a web search may cost something beside its tokens, which isn't known and not counted here"


def _check_pixels(params: Mapping[str, JsonValue], model: Model) -> None:
    """Bounds of the size to which the vendor scales a picture (contract 8.3.2), in pixels."""
    given = {name: value for name in PIXELS if isinstance(value := params.get(name), int)}
    for name, value in given.items():
        if model.pixel_bounds is not None and not model.pixel_bounds[0] <= value <= model.pixel_bounds[1]:
            low, high = model.pixel_bounds
            raise ProviderError(
                ErrorKind.INVALID,
                f"{model.id} takes {low:,} to {high:,} pixels as a bound, and `{name}` is {value:,}.",
                remedy=f"Write a number from {low:,} to {high:,}, or leave it out.",
            )
    if len(given) == len(PIXELS) and given["min_pixels"] > given["max_pixels"]:
        raise ProviderError(
            ErrorKind.INVALID,
            f"`min_pixels` is {given['min_pixels']:,} and `max_pixels` only {given['max_pixels']:,}.",
            remedy="Write the smaller number into `min_pixels`.",
        )


def _check(model: str, what: str, value: JsonValue, most: int | None, unit: str) -> None:
    if not isinstance(value, int) or most is None or 1 <= value <= most:
        return
    raise ProviderError(
        ErrorKind.INVALID,
        f"{model} gives at most {most:,} {unit}, and {what} is {value:,}.",
        remedy=f"Write a number from 1 to {most:,}, or leave it out.",
    )

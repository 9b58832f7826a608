"""What a request asks of its model, against what the catalogue knows: refusals before any call, and advice.

What may be sent at all is checked by the dialects, from `ModelRules`. What isn't known is never refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from batchrun.catalogue import FEATURE_FIELDS, Model
from batchrun.continuing import LENGTHS
from batchrun.errors import ErrorKind, ProviderError
from batchrun.messages import ChatRequest, JsonValue, Thinking


def check_sizes(request: ChatRequest, model: Model) -> None:
    """Refuse a length or a budget that the vendor answers with an error (contract 8.1.2: outside of 1 to the maximum).

    Raises ProviderError(INVALID).
    """
    for name in LENGTHS:
        _check(model.id, f"`{name}`", request.params.get(name), model.max_output, "tokens of answer")
    if request.thinking is not None:
        _check(model.id, "the thinking budget", request.thinking.budget, model.max_cot, "tokens of thinking")


def advice(model: Model, *, system: bool, params: Mapping[str, JsonValue], thinking: Thinking | None) -> Iterator[str]:
    """Sentences about what is allowed, and yet may bring worse answers or none. `system`: there is such a message."""
    if system and not model.system_while_thinking and model.may_think(thinking):
        yield f"the vendor advises against `system` while {model.id} thinks; say it in the prompt"
    if model.unpriced:
        yield f"the cost won't be known: {model.unpriced}"
    for feature, names in FEATURE_FIELDS.items():
        asked = [name for name in names if params.get(name)]
        if asked and feature not in model.features:
            yield f"whether {model.id} knows `{asked[0]}` isn't known; the vendor may ignore it"
        elif asked and feature == "web_search":
            yield "a web search may cost something beside its tokens, which isn't known and not counted here"


def _check(model: str, what: str, value: JsonValue, most: int | None, unit: str) -> None:
    if not isinstance(value, int) or most is None or 1 <= value <= most:
        return
    raise ProviderError(
        ErrorKind.INVALID,
        f"{model} gives at most {most:,} {unit}, and {what} is {value:,}.",
        remedy=f"Write a number from 1 to {most:,}, or leave it out.",
    )

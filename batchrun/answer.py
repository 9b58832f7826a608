"""What comes out of a call: deltas, folded into an answer with its usage. Values and rules, no I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from batchrun.errors import ProviderError
from batchrun.messages import JsonValue

DONE_REASONS = frozenset({"stop", "tool_calls"})
TRUNCATED_REASONS = frozenset({"length", "content_filter"})
"""Complete and billed, but cut: the item becomes `truncated`, keeps its answer, and isn't bought again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one attempt as the vendor counted them. None is unknown, and never becomes zero.

    Counts are inclusive: cached, cache write, image and video are parts of `input_tokens`; reasoning is a part of
    `output_tokens` (contract 8.9).
    """

    input_tokens: int | None
    output_tokens: int | None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    image_tokens: int | None = None
    video_tokens: int | None = None
    raw: Mapping[str, JsonValue] = field(default_factory=dict)
    """The vendor's usage object, untouched."""

    @property
    def total_tokens(self) -> int | None:
        """Input and output together; None where either is unknown."""
        if self.input_tokens is None or self.output_tokens is None:
            return None
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """What the text of an answer says in the form that was asked for."""

    value: JsonValue = None
    """None where it doesn't fit, or is `null`."""
    problem: str = ""
    """Why it doesn't fit, and where; empty where it does."""


class ToolCallPart(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A piece of a call to a tool; the pieces of one have the same `index`."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""
    """JSON, as the model writes it; the pieces belong behind each other."""


class Delta(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What one event of a stream, several in a row, or one plain answer, adds. A struct, as calls make many of them."""

    text: str = ""
    reasoning: str = ""
    texts: Sequence[str] = ()
    reasonings: Sequence[str] = ()
    """Of several events in a row that held nothing else, one each; `text` and `reasoning` are empty then."""
    finish_reason: str | None = None
    usage: Usage | None = None
    running_usage: Callable[[], Usage | None] | None = None
    """Reads the usage so far of an answer that goes on. Called only if no later one comes."""
    request_id: str | None = None
    whole: bool = False
    """Text and reasoning are all there is so far, not an addition."""
    end: bool = False
    """The dialect's terminal marker stood here (compat: `[DONE]`; native: a finish reason)."""
    tool_calls: tuple[ToolCallPart, ...] = ()
    error: ProviderError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """All that arrived of one attempt. `complete` by the rule of `fold.Fold.answer`; text may be partial otherwise."""

    text: str
    reasoning: str
    finish_reason: str | None
    complete: bool
    usage: Usage | None
    request_id: str | None
    parsed: JsonValue = None
    """What the text says in the form that the job asks for; None where it doesn't fit, or none is asked for."""
    tool_calls: Sequence[Mapping[str, JsonValue]] = ()
    """In the compat form: `id`, `type` and `function` with `name` and `arguments`."""

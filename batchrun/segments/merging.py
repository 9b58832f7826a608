"""What the parts of a video say, as the request that merges them reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from batchrun.errors import TemplateError
from batchrun.messages import JsonValue
from batchrun.segments.clocktime import clock_text
from batchrun.segments.timeline import text_in_video

ANSWERS = "answers"
"""The variable that holds what is said about the parts."""
OF_ANY = frozenset({"start", "end", "parts"})
OF_PARTS = OF_ANY | {"part"}
"""The variables of a part, beside those of its video."""
MERGED = OF_ANY | {ANSWERS}
"""The variables of what merges parts."""
BYTES_PER_TOKEN = 4
"""Of an answer whose tokens weren't counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of a video with its answer."""

    custom_id: str
    start: float
    """Seconds in the video."""
    end: float
    text: str | None
    """None where its answer is gone."""
    parsed: JsonValue
    tokens: int | None
    """Of the text alone, as the vendor counted them."""


def is_merged(variables: Mapping[str, JsonValue]) -> bool:
    """Whether these are the variables of an item that merges parts; of a job that splits."""
    return "parts" in variables and "part" not in variables


def answers_text(parts: Sequence[Part], limit: int | None) -> str:
    """All answers in their order, each below the times of its part; the times in them are those of the video.

    `limit` is what the model reads at most. Raises TemplateError where that is less than the answers have, so that no
    call is made that must be refused.
    """
    tokens = sum(tokens_of(part) for part in parts)
    if limit is not None and tokens > limit:
        raise TemplateError(
            f"the answers about its {len(parts)} parts have about {tokens:,} tokens, and the model reads {limit:,}",
            code="template",
            remedy="Ask for shorter answers: lower `params.max_tokens`, or write a longer `media.split`",
        )
    return "\n\n".join(f"[{clock_text(part.start)} - {clock_text(part.end)}]\n{said(part)}" for part in parts)


def said(part: Part) -> str:
    return text_in_video(answer_of(part), part.parsed, part.start, part.end)


def answer_of(part: Part) -> str:
    if part.text is None:
        raise TemplateError(
            f"the answer of its part {part.custom_id} is gone",
            code="template",
            remedy="`batchrun doctor` tells what is wrong with the database",
        )
    return part.text.strip()


def tokens_of(part: Part) -> int:
    return len(answer_of(part).encode()) // BYTES_PER_TOKEN if part.tokens is None else part.tokens

"""Answers that stopped half-way and are continued instead of bought anew (partial mode, contract 8.7).

The next request of the item ends with the text so far; the model doesn't repeat it but goes on behind its last
character, so the answer is the one put before the other: nothing is stripped, and nothing is taken for a repetition,
as a model may well mean to say a thing twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from batchrun.counting.tokens import text_tokens
from batchrun.errors import ErrorKind
from batchrun.messages import JsonValue
from batchrun.stream.fold import MAX_ANSWER

BROKEN_OFF = frozenset({ErrorKind.INCOMPLETE, ErrorKind.NETWORK, ErrorKind.TIMEOUT, ErrorKind.SERVER, ErrorKind.LOST})
"""Errors after which the text so far is good as far as it goes; after moderation, for one, it isn't."""
CUT = "length"
"""The finish reason of an answer that `max_tokens` cut."""
LENGTHS = ("max_tokens", "max_completion_tokens")
"""Parameters that bound an answer; a vendor knows one of them."""
HALF = "\ufffd"
"""Stands for half a character, and for what a database can't keep: not what the model wrote."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Continuing:
    """Which answers of a job are continued."""

    broken: bool
    """Those that broke off."""
    cut: bool
    """Those that `max_tokens` cut."""
    limit: int | None = None
    """Tokens that the whole answer may have; None where each call may have `max_tokens` of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefix:
    """The text that a call is to continue."""

    attempt_id: int
    """The attempt that brought its end; what stood before may be from earlier ones."""
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """What an attempt left behind."""

    text: str
    finish_reason: str | None
    complete: bool
    error_kind: str | None
    plain: bool
    """Text only: no reasoning, as partial mode and thinking exclude each other, and no calls to tools."""


def may_continue(stopped: Stopped, rule: Continuing) -> bool:
    if not stopped.plain or not stopped.text.strip() or HALF in stopped.text or len(stopped.text) >= MAX_ANSWER:
        return False
    if stopped.complete:
        return rule.cut and stopped.finish_reason == CUT
    if rule.limit is not None and left(rule.limit, stopped.text) < 1:
        return False
    if stopped.finish_reason == "content_filter":
        return False
    return rule.broken and stopped.error_kind in BROKEN_OFF


def limit_in(params: Mapping[str, JsonValue]) -> int | None:
    """What a request allows an answer to have, in tokens; None for no limit."""
    return min((value for name in LENGTHS if isinstance(value := params.get(name), int)), default=None)


def left(tokens: int, text: str) -> int:
    """Of so many tokens those that are left behind `text` in any case: what broke off was rarely counted, so the text
    is taken for as many as it can be. None are left from 0 down."""
    return tokens - (text_tokens(text).high or 0)


def cut_early(text: str, finish_reason: str | None, rule: Continuing) -> bool:
    """Whether the whole of a continued answer may have been cut before its limit, as it began with a guess."""
    return finish_reason == CUT and rule.limit is not None and text_tokens(text).low < rule.limit


def lengths_left(params: Mapping[str, JsonValue], text: str) -> dict[str, JsonValue]:
    """The same parameters for the rest of an answer that begins with `text`."""
    lengths = {name: value for name in LENGTHS if isinstance(value := params.get(name), int)}
    return {**params, **{name: max(1, left(value, text)) for name, value in lengths.items()}}

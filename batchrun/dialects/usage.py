"""Reads a vendor's usage object, compat or native (contract 8.9, 8.5, T30), into `Usage`."""

from __future__ import annotations

import math
from collections.abc import Mapping

from batchrun.answer import Usage
from batchrun.messages import JsonValue
from batchrun.stream.fold import storable

MAX_COUNT = 2**53
"""Above this a count is no count: it wouldn't survive a JSON reader, nor a price."""
MAX_DEPTH = 20
"""Objects and lists inside one another that are kept of a usage; vendors need three."""
_NOTHING: Mapping[str, JsonValue] = {}


def read_usage(value: JsonValue) -> Usage | None:
    """None where `value` is no usage: null, or without any readable count of input and output.

    A count that is null, negative, huge or not a whole number is unknown, never zero.
    """
    if not isinstance(value, Mapping):
        return None
    given = _details(value, "prompt_tokens_details", "input_tokens_details")
    made = _details(value, "completion_tokens_details", "output_tokens_details")
    input_tokens = _first(value, "prompt_tokens", "input_tokens")
    output_tokens = _first(value, "completion_tokens", "output_tokens")
    if input_tokens is None and output_tokens is None:
        return None
    return Usage(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cached_tokens=_cached(value, given),
        cache_write_tokens=_first(given, "cache_creation_input_tokens", otherwise=_sum(given, "cache_creation")),
        reasoning_tokens=_first(made, "reasoning_tokens"),
        image_tokens=_first(given, "image_tokens", otherwise=_first(value, "image_tokens")),
        video_tokens=_first(given, "video_tokens", otherwise=_first(value, "video_tokens")),
        raw=_storable_members(value),
    )


def _cached(usage: Mapping[str, JsonValue], given: Mapping[str, JsonValue]) -> int | None:
    """Cached tokens from any of the three places: compat's, Moonshot's and native's, AceData's."""
    otherwise = _first(usage, "cached_tokens", otherwise=_sum(given, "cached_tokens_details"))
    return _first(given, "cached_tokens", otherwise=otherwise)


def _details(usage: Mapping[str, JsonValue], compat: str, native: str) -> Mapping[str, JsonValue]:
    """The members of both names in one; native usage may carry one of each."""
    one, other = _member(usage, compat), _member(usage, native)
    return {**other, **{name: count for name, count in one.items() if count is not None}}


def _first(members: Mapping[str, JsonValue], *names: str, otherwise: int | None = None) -> int | None:
    for name in names:
        if (count := _count(members.get(name))) is not None:
            return count
    return otherwise


def _sum(members: Mapping[str, JsonValue], name: str) -> int | None:
    """The sum of an object that splits a count by sort; None if it is empty or missing."""
    parts = _member(members, name)
    counts = [count for value in parts.values() if (count := _count(value)) is not None] if parts else []
    return sum(counts) if counts else None


def _member(members: Mapping[str, JsonValue], name: str) -> Mapping[str, JsonValue]:
    value = members.get(name)
    return value if isinstance(value, dict) else _NOTHING


def _count(value: JsonValue) -> int | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value <= MAX_COUNT else None


def _storable_members(value: Mapping[str, JsonValue], depth: int = 0) -> dict[str, JsonValue]:
    """`value` as every database can keep it: texts as `storable` makes them, no infinity, nothing below `MAX_DEPTH`."""
    return {storable(key): _storable(member, depth + 1) for key, member in value.items()}


def _storable(value: JsonValue, depth: int) -> JsonValue:
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, Mapping | list) and depth > MAX_DEPTH:
        return None
    if isinstance(value, Mapping):
        return _storable_members(value, depth)
    if isinstance(value, list):
        return [_storable(member, depth + 1) for member in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

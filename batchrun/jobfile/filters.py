"""The filters that a template may use, and how a value becomes text. The table at the end is the whole list."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from batchrun.errors import TemplateError
from batchrun.messages import JsonValue
from batchrun.showing import clean, listing

MAX_RENDERED = 2_097_152
"""Bytes that a rendered prompt may have, and characters that a filter may make on the way."""

Constant = None | bool | int | float | str
_WORD = re.compile(r"[^\s\-(\[{<]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """What a lookup found that found nothing."""

    name: str
    there: tuple[str, ...]
    """The names that exist in its place."""


Value = JsonValue | Missing


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterRule:
    form: str
    """How it is written, for messages."""
    accepts: Callable[[tuple[Constant, ...]], bool]
    apply: Callable[[Value, tuple[Constant, ...], str], JsonValue]
    """Value, arguments, and the label of the value for messages."""


def as_text(value: Value, label: str) -> str:
    """A value as it stands in a prompt: text as it is, numbers and truth values as in JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, Missing):
        raise _missing(value)
    if value is None:
        raise _wrong(f"`{clean(label)}` is null", f'Give a default: `{{{{ {clean(label)} | default("…") }}}}`')
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not math.isfinite(value):
        raise _wrong(f"`{clean(label)}` is not a finite number", "Write it as text in the row")
    if isinstance(value, int | float):
        return repr(value)
    kind = "a mapping" if isinstance(value, Mapping) else "a list"
    raise _wrong(f"`{clean(label)}` is {kind}, not text", 'Use `join(", ")`, `tojson`, or name a part of it')


def check_size(size: int) -> None:
    if size > MAX_RENDERED:
        raise _wrong(f"the prompt would be longer than {MAX_RENDERED:,} bytes", "Shorten the row, or use `truncate`")


def _missing(value: Missing) -> TemplateError:
    there = listing(sorted(value.there)) if value.there else "nothing"
    return _wrong(f"there is no `{clean(value.name)}`; there is: {there}", "Correct the name, or give it a default")


def _wrong(message: str, remedy: str) -> TemplateError:
    return TemplateError(message, code="template", remedy=remedy)


def _text_filter(change: Callable[[str], str]) -> Callable[[Value, tuple[Constant, ...], str], JsonValue]:
    def apply(value: Value, _: tuple[Constant, ...], label: str) -> JsonValue:
        text = as_text(value, label)
        check_size(len(text))
        return change(text)

    return apply


def _title(text: str) -> str:
    return _WORD.sub(lambda word: word[0][0].upper() + word[0][1:].lower(), text)


def _default(value: Value, arguments: tuple[Constant, ...], _: str) -> JsonValue:
    use = isinstance(value, Missing) or value is None or (len(arguments) == 2 and arguments[1] is True and not value)
    return arguments[0] if use or isinstance(value, Missing) else value


def _join(value: Value, arguments: tuple[Constant, ...], label: str) -> JsonValue:
    if isinstance(value, Missing):
        raise _missing(value)
    if not isinstance(value, list | tuple):
        raise _wrong(f"`{clean(label)}` is not a list, so it can't be joined", "Take `join` away")
    separator = str(arguments[0]) if arguments else ""
    parts = [as_text(part, f"{label}[{index}]") for index, part in enumerate(value)]
    check_size(sum(map(len, parts)) + len(separator) * max(0, len(parts) - 1))
    return separator.join(parts)


def _length(value: Value, _: tuple[Constant, ...], label: str) -> JsonValue:
    if isinstance(value, Missing):
        raise _missing(value)
    if not isinstance(value, str | list | tuple | Mapping):
        raise _wrong(f"`{clean(label)}` has no length", "Use it as it is")
    return len(value)


def _tojson(value: Value, _: tuple[Constant, ...], label: str) -> JsonValue:
    if isinstance(value, Missing):
        raise _missing(value)
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise _wrong(f"`{clean(label)}` holds a number that isn't finite", "Write it as text") from error
    check_size(len(text))
    return text


def _replace(value: Value, arguments: tuple[Constant, ...], label: str) -> JsonValue:
    text, old, new = as_text(value, label), str(arguments[0]), str(arguments[1])
    check_size(len(text) + text.count(old) * (len(new) - len(old)))
    return text.replace(old, new)


def _truncate(value: Value, arguments: tuple[Constant, ...], label: str) -> JsonValue:
    text, limit = as_text(value, label), arguments[0]
    assert isinstance(limit, int)  # noqa: S101 - `accepts` has seen to it
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _no_arguments(arguments: tuple[Constant, ...]) -> bool:
    return not arguments


FILTERS: Mapping[str, FilterRule] = {
    "trim": FilterRule(form="trim", accepts=_no_arguments, apply=_text_filter(str.strip)),
    "lower": FilterRule(form="lower", accepts=_no_arguments, apply=_text_filter(str.lower)),
    "upper": FilterRule(form="upper", accepts=_no_arguments, apply=_text_filter(str.upper)),
    "title": FilterRule(form="title", accepts=_no_arguments, apply=_text_filter(_title)),
    "default": FilterRule(
        form='default("…")` or, for empty values too, `default("…", true)',
        accepts=lambda given: len(given) == 1 or (len(given) == 2 and given[1] in (True, False)),
        apply=_default,
    ),
    "join": FilterRule(
        form='join(", ")',
        accepts=lambda given: not given or (len(given) == 1 and isinstance(given[0], str)),
        apply=_join,
    ),
    "length": FilterRule(form="length", accepts=_no_arguments, apply=_length),
    "tojson": FilterRule(form="tojson", accepts=_no_arguments, apply=_tojson),
    "replace": FilterRule(
        form='replace("old", "new")',
        accepts=lambda given: len(given) == 2 and all(isinstance(one, str) for one in given) and given[0] != "",
        apply=_replace,
    ),
    "truncate": FilterRule(
        form="truncate(100)",
        accepts=lambda given: len(given) == 1 and type(given[0]) is int and 1 <= given[0] <= MAX_RENDERED,
        apply=_truncate,
    ),
}

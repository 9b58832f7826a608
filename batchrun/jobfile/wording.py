"""What a person is told about a key or value that a job file can't have: what is wrong, and what to write instead."""

from __future__ import annotations

import difflib
import types
from decimal import Decimal
from typing import Union, get_args, get_origin

from pydantic_core import ErrorDetails

from batchrun.jobfile.document import KeyPath, Place
from batchrun.jobfile.sections import URL_KEYS, Section, is_secret_name
from batchrun.jobfile.spec import JobsDocument, JobSpec
from batchrun.showing import clean, shown

Advice = tuple[str, str]
"""Message and remedy."""

LONG = 10**18
"""From here on a number is shown with an exponent."""

_KINDS = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
}
_BOUNDS = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "more than"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "less than"),
}


def wrong_value(details: ErrorDetails, place: Place | None) -> Advice:
    """Message and remedy for a value that a section refuses."""
    kind, value, context = details["type"], details["input"], details.get("ctx", {})
    if kind == "refused":
        return str(context["message"]), str(context["remedy"])
    if kind == "string_type" and place is not None and place.text is not None and not _is_container(value):
        read = shown(value)
        written = clean(place.text)
        return f"must be text, but `{written}` is read as {read}", f'Put it in quotes: "{written}"'
    if kind in _KINDS:
        return f"must be {_KINDS[kind]}, not {shown(value)}", _kind_remedy(kind, value)
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        return f"must be {words} {_number(context[name])}, not {_number(value)}", "Write a value within the bounds"
    if kind == "string_pattern_mismatch":
        return f"{shown(value)} can't stand here", _pattern_remedy(details["loc"])
    if kind == "literal_error" and details["loc"][-1:] != ("version",):
        return f"{shown(value)} can't stand here", f"Write {context['expected']}"
    if kind == "literal_error":
        return f"this batchrun reads version 1, not {shown(value)}", "Write `version: 1`"
    if kind in ("too_short", "string_too_short"):
        return "must not be empty", "Write a value, or delete the key"
    if kind == "too_long":
        return f"has more than {context['max_length']:,} entries", "Put rows into a JSONL or CSV file"
    return clean(details["msg"], 200), "See the documentation of this key"


def _is_container(value: object) -> bool:
    return isinstance(value, dict | list)


def _number(value: object) -> str:
    if isinstance(value, int | float | Decimal):
        number = Decimal(value)
        return f"{value:,}" if -LONG < number < LONG else f"{number:.6g}"
    return clean(str(value))


def unknown_key(path: KeyPath) -> Advice:
    """Message and remedy for a key that no section has at `path`."""
    key, section = str(path[-1]), _section(path[:-1])
    found = f"unknown key `{clean(key)}`"
    if is_secret_name(key):
        return f"{found}: keys don't belong in a job file", "Put it in the environment, such as DASHSCOPE_API_KEY"
    if key.lower() in URL_KEYS:
        return f"{found}: a job file names no addresses", "Add an entry to your catalogue, and name it as `provider`"
    if section is None:
        return found, "Delete it"
    if key in section.LATER:
        return f"`{clean(key)}` does not work yet in this version", "Delete it"
    names = [field.alias or name for name, field in section.model_fields.items()]
    near = difflib.get_close_matches(key.lower(), names, n=1)
    if near:
        return found, f"Did you mean `{near[0]}`?"
    if home := _home(key):
        return found, f"It belongs under `{home}`"
    if path[-2:-1] == ("params",):
        return found, f"To send it as it is, write it under `params: {{extra: {{{clean(key)}: …}}}}`"
    names += ["defaults"] if section is JobsDocument else []
    return found, f"Known here: {', '.join(sorted(names))}" if names else "Delete it: this section has no keys yet"


def _home(key: str) -> str | None:
    """The section of a job that knows `key`."""
    for name, field in JobSpec.model_fields.items():
        section = _section_of(field.annotation)
        if section is not None and key in section.model_fields:
            return field.alias or name
    return "each job" if key in JobSpec.model_fields else None


def _section(path: KeyPath) -> type[Section] | None:
    """The section that stands at `path`; None inside of free mappings."""
    section: type[Section] | None = JobsDocument
    for part in path:
        if isinstance(part, int):
            continue
        fields = section.model_fields if section else {}
        field = next((field for name, field in fields.items() if (field.alias or name) == part), None)
        section = _section_of(field.annotation) if field else None
    return section


def _section_of(annotation: object) -> type[Section] | None:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    if get_origin(annotation) in (Union, types.UnionType, tuple):
        return next((found for part in get_args(annotation) if (found := _section_of(part))), None)
    return None


def missing_key(path: KeyPath) -> Advice:
    """Message and remedy for a key that must be there."""
    remedies = {
        "version": "Add `version: 1` as the first line",
        "jobs": "Add `jobs:` with at least one job",
        "provider": "Add for example `provider: model-studio/singapore`, here or under `defaults`",
        "prompt": 'Add for example `prompt: "Describe the picture."`, or messages, or `inputs: {requests: …}`',
        "inputs": "Add for example `inputs: {images: photos/**/*.jpg}`",
        "max_cost": "Add for example `max_cost: 5.00 USD`",
    }
    return f"`{path[-1]}` is missing", remedies.get(str(path[-1]), f"Add `{path[-1]}: …`")


def _kind_remedy(kind: str, value: object) -> str:
    if kind == "model_type" and isinstance(value, bool):
        return f"Write for example `{{enabled: {str(value).lower()}}}`"
    if isinstance(value, float) and abs(value) < LONG and value == int(value):
        return f"Write `{int(value)}`, without point and exponent"
    remedies = {
        "int_type": "Write the number in plain digits, without quotes, units or separators",
        "float_type": "Write the number in plain digits, without quotes, units or separators",
        "bool_type": "Write true or false, without quotes",
        "string_type": "Write a text in quotes",
        "tuple_type": "Write a list, such as `[a, b]`",
    }
    return remedies.get(kind, "Write its keys below it, indented, or in braces")


def _pattern_remedy(path: KeyPath) -> str:
    remedies = {
        "name": "A name has 1 to 100 of A-Z a-z 0-9 . _ -",
        "provider": "Name a provider of the catalogue, such as `model-studio/singapore`; not a URL",
        "model": "Write the vendor's name of the model, such as `qwen3-vl-plus`",
    }
    return remedies.get(str(path[-1]), "A tag has 1 to 100 characters, no commas and no control characters")

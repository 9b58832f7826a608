"""The form that answers are to have: a JSON Schema, and whether a text holds one value of it.

A schema may come from anybody, an answer from any model, and both are looked at on the loop that drives all calls. So
references stay inside of the schema, patterns are those of an engine whose time is linear, and a check ends after so
many steps. What is wrong with a schema is said when the job file is read.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError, best_match
from jsonschema.validators import extend
from pydantic_core import SchemaError as PatternError
from pydantic_core import SchemaValidator, core_schema
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from batchrun.answer import Fit
from batchrun.errors import UsageError
from batchrun.messages import JsonValue
from batchrun.showing import clean
from batchrun.stream.fold import storable

DRAFT = "https://json-schema.org/draft/2020-12/schema"
MAX_SCHEMA = 100_000
"""Characters of its JSON."""
MAX_DEPTH = 50
MAX_PATTERN = 1_000
MAX_STEPS = 20_000
"""Keywords that are looked at in one check: about 0.1 s. An answer of a hundred objects takes some two thousand."""
MAX_VALUE_DEPTH = 100
TOO_DEEP = "it is nested too deep"
CODE = "response-schema"

_NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
"""Keywords that hold schemas by names of the user's."""
_PLAIN = frozenset({"const", "enum", "default", "examples"})
"""Keywords that hold values, not schemas."""
REFUSED = {
    "$id": "Delete it: references stay inside of the schema",
    "$dynamicRef": "Write `$ref`",
    "unevaluatedProperties": "Write `additionalProperties`",
    "unevaluatedItems": "Write `items: false` behind `prefixItems`",
}
"""Keywords that lead out of the schema, or whose time nothing bounds; and what to write instead."""
_FENCE = re.compile(r"^[ \t]*```[A-Za-z]*[ \t]*\n(.*?)^[ \t]*```[ \t]*$", re.DOTALL | re.MULTILINE)
_STRING_OR_COMMA = re.compile(r'"(?:[^"\\]|\\.)*+"|,(?=\s*+[}\]])', re.DOTALL)
_BRACKET = re.compile(r"[{}\[\]]")


class Shape:
    """A schema that was checked. Raises UsageError for one that can't be used."""

    def __init__(self, schema: Mapping[str, JsonValue]) -> None:
        check_schema(schema)
        self._steps = 0
        self._validator = _counting(self._step)(schema, registry=Registry())
        if self.problem_of(None) == TOO_DEEP:
            raise refused("$ref", "it leads back to itself", "Let it describe something that has an end")

    def fit(self, text: str) -> Fit:
        """The one JSON value of the text, and whether it fits. Nothing is made up: see `values_of`."""
        for value in values_of(text):
            problem = self.problem_of(value)
            return Fit(value=None if problem else value, problem=problem)
        return Fit(value=None, problem="there is no single JSON value in it")

    def problem_of(self, value: JsonValue) -> str:
        """What is wrong with a value, and where; empty where nothing is."""
        self._steps = 0
        try:
            error = best_match(self._validator.iter_errors(value))
        except _TooManySteps:
            return f"checking it takes more than {MAX_STEPS:,} steps"
        except RecursionError:
            return TOO_DEEP
        except OverflowError:
            return "a number in it is too large"
        return "" if error is None else f"{_place(error)}: {clean(error.message, 200)}"

    def _step(self) -> None:
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise _TooManySteps


class _TooManySteps(Exception):
    pass


def check_schema(schema: Mapping[str, JsonValue]) -> None:
    """Raises UsageError that names what can't be used, and where."""
    if len(json.dumps(schema, ensure_ascii=False)) > MAX_SCHEMA:
        raise refused("it", f"is longer than {MAX_SCHEMA:,} characters", "Describe less of the answer")
    if str(schema.get("$schema", DRAFT)).rstrip("#") != DRAFT:
        raise refused("$schema", f"names another draft than {DRAFT}", "Delete it; most schemas are the same there")
    _check(schema, "", schema)
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        place = ".".join(str(part) for part in error.absolute_path) or "it"
        raise refused(place, clean(error.message, 200), "Correct it; see json-schema.org") from error


def _check(part: JsonValue, place: str, root: Mapping[str, JsonValue], depth: int = 0) -> None:
    """Look at a schema, or a list of them, at `place`."""
    if depth > MAX_DEPTH:
        raise refused(place[:100], f"is nested deeper than {MAX_DEPTH} levels", "Describe less of the answer")
    if isinstance(part, list):
        for number, inner in enumerate(part):
            _check(inner, f"{place}[{number}]", root, depth + 1)
    if not isinstance(part, dict):
        return
    for name, inner in part.items():
        where = f"{place}.{name}" if place else name
        _check_keyword(name, inner, where, root)
        if name in _NAMED and isinstance(inner, dict):
            for key, schema in inner.items():
                if name == "patternProperties":
                    _check_pattern(key, where)
                _check(schema, f"{where}.{key}", root, depth + 1)
        elif name not in _PLAIN:
            _check(inner, where, root, depth + 1)


def _check_keyword(name: str, value: JsonValue, where: str, root: Mapping[str, JsonValue]) -> None:
    if name == "$ref" and isinstance(value, str):
        if not value.startswith("#"):
            raise refused(where, "names another document", "Write what it describes under `$defs`: `#/$defs/…`")
        try:
            Registry().resolver_with_root(DRAFT202012.create_resource(root)).lookup(value)
        except (Unresolvable, ValueError) as error:
            raise refused(where, f"`{clean(value)}` isn't there", "Correct it, or add the definition") from error
    if name in REFUSED:
        raise refused(where, "can't be checked here", REFUSED[name])
    if name == "pattern" and isinstance(value, str):
        _check_pattern(value, where)


def _check_pattern(pattern: str, where: str) -> None:
    if len(pattern) > MAX_PATTERN:
        raise refused(where, f"the pattern is longer than {MAX_PATTERN:,} characters", "Write a shorter one")
    try:
        _matcher(pattern)
    except PatternError as error:
        what = "the pattern can't be matched in linear time, or is none"
        raise refused(where, what, "Write it without look-around and back-references") from error


def refused(where: str, message: str, remedy: str) -> UsageError:
    return UsageError(f"{clean(where, 100)}: {message}", code=CODE, remedy=remedy)


def values_of(text: str) -> Iterator[JsonValue]:
    """The JSON value that a text holds, if it is certain which one: at most one.

    It may stand in a code fence, or between words in which there is no bracket; and it may have a comma behind its last
    entry. Nothing else is mended.
    """
    for candidate in (text, *_fenced(text), *_between_words(text)):
        for written in (candidate, _without_last_commas(candidate)):
            try:
                value = json.loads(written, parse_constant=_refuse, parse_float=_finite, parse_int=_of_64_bits)
            except (ValueError, RecursionError):
                continue
            if _depth_within(value, MAX_VALUE_DEPTH):
                yield _storable(value) if "\\u" in written else value
            return


def _fenced(text: str) -> list[str]:
    found = _FENCE.findall(text) if text.count("```") == 2 else []
    return [str(inner) for inner in found]


def _between_words(text: str) -> list[str]:
    """From the first bracket to the last one: what stands outside has none then."""
    brackets = [match.start() for match in _BRACKET.finditer(text)]
    return [text[brackets[0] : brackets[-1] + 1]] if brackets else []


def _without_last_commas(text: str) -> str:
    return _STRING_OR_COMMA.sub(lambda match: "" if match[0] == "," else match[0], text)


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError("no database can keep it")
    return number


def _of_64_bits(digits: str) -> int:
    number = int(digits)
    if not -(2**63) <= number < 2**64:
        raise ValueError("few programs can read it")
    return number


def _storable(value: JsonValue) -> JsonValue:
    """Escapes can write what no database can keep, as in any text."""
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, dict):
        return {storable(name): _storable(inner) for name, inner in value.items()}
    return [_storable(inner) for inner in value] if isinstance(value, list) else value


def _depth_within(value: JsonValue, levels: int) -> bool:
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return levels > 0 and all(_depth_within(part, levels - 1) for part in inner)
    return True


def _place(error: ValidationError) -> str:
    """Where in the answer, such as `$.tags[2]`."""
    return clean(error.json_path, 100)


@lru_cache(maxsize=1_000)
def _matcher(pattern: str) -> SchemaValidator:
    """Rust's engine: its time is linear in the text. Raises PatternError."""
    return SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex"))


def _matches(pattern: str, text: str) -> bool:
    return _matcher(pattern).isinstance_python(text)


Keyword = Callable[[Any, Any, Any, Any], Iterator[ValidationError] | None]  # as jsonschema calls it


def _pattern(_validator: Any, pattern: str, value: object, _schema: object) -> Iterator[ValidationError]:
    if isinstance(value, str) and not _matches(pattern, value):
        yield ValidationError(f"{value!r} does not match {pattern!r}")


def _pattern_properties(
    validator: Any, patterns: Mapping[str, object], value: object, _schema: object
) -> Iterator[ValidationError]:
    if not isinstance(value, dict):
        return
    for pattern, schema in patterns.items():
        for name, inner in value.items():
            if _matches(pattern, name):
                yield from validator.descend(inner, schema, path=name, schema_path=pattern)


def _additional_properties(
    validator: Any, allowed: object, value: object, schema: Mapping[str, Any]
) -> Iterator[ValidationError]:
    if not isinstance(value, dict):
        return
    patterns, named = schema.get("patternProperties", {}), schema.get("properties", {})
    for name, inner in value.items():
        if name in named or any(_matches(pattern, name) for pattern in patterns):
            continue
        if allowed is False:
            yield ValidationError(f"{name!r} is not expected here")
        else:
            yield from validator.descend(inner, allowed, path=name)


def _unique_items(_validator: Any, wanted: bool, value: object, _schema: object) -> Iterator[ValidationError]:
    if wanted and isinstance(value, list):
        seen = {json.dumps(entry, sort_keys=True) for entry in value}
        if len(seen) < len(value):
            yield ValidationError("it has the same entry twice")


OWN: Mapping[str, Keyword] = {
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
    "uniqueItems": _unique_items,
}
"""Keywords whose usual way takes a time that nothing bounds."""


def _counting(step: Callable[[], None]) -> Any:
    """A validator that calls `step` for each keyword that it looks at."""

    def counted(look: Keyword) -> Keyword:
        def counting(validator: Any, wanted: Any, value: Any, schema: Any) -> Iterator[ValidationError] | None:
            step()
            return look(validator, wanted, value, schema)

        return counting

    keywords = {**Draft202012Validator.VALIDATORS, **OWN}
    return extend(Draft202012Validator, {name: counted(look) for name, look in keywords.items()})

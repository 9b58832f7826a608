"""The form of answers: which value a text holds, whether it fits, and which schemas are refused."""

from __future__ import annotations

import time

import pytest

from batchrun.errors import UsageError
from batchrun.messages import JsonValue
from batchrun.shape import MAX_STEPS, Shape, values_of

TITLED: dict[str, JsonValue] = {
    "type": "object",
    "required": ["title"],
    "properties": {"title": {"type": "string"}, "tags": {"type": "array", "items": {"type": "string"}}},
    "additionalProperties": False,
}


# The value of a text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1}', {"a": 1}),
        (' \n{"a": 1}\n', {"a": 1}),
        ('"just a text"', "just a text"),
        ("3", 3),
        ('```json\n{"a": 1}\n```', {"a": 1}),
        ('Here it is:\n```\n{"a": [1, 2]}\n```\nAnything [else]?', {"a": [1, 2]}),
        ('Sure! {"a": 1} Enjoy.', {"a": 1}),
        ('{"a": 1,}', {"a": 1}),
        ('{"a": [1, 2,\n],}', {"a": [1, 2]}),
        ('{"a": ",}", }', {"a": ",}"}),
        ('{"a": "```"}', {"a": "```"}),
        ('{"a": "\\ud83d\\ude00"}', {"a": "😀"}),
        ('{"a": "half \\ud83d"}', {"a": "half �"}),
        ('{"a\\u0000": "b\\u0000"}', {"a�": "b�"}),
    ],
)
def test_the_one_value_of_a_text_is_found(text: str, value: JsonValue) -> None:
    assert list(values_of(text)) == [value]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "A wooden boat.",
        '{"a": 1} or {"a": 2}',
        '```json\n{"a": 1}\n```\n```json\n{"a": 2}\n```',
        "see [1]: {}",
        '{"a": {"b": 1}',
        '{"a": 1',
        "{'a': 1}",
        '{"a": 1,, }',
        "{a: 1}",
        '{"a": NaN}',
        '{"a": 1e999}',
        '{"a": 100000000000000000000}',
        "[" * 100_000,
        "[" * 101 + "]" * 101,
    ],
)
def test_nothing_is_made_up(text: str) -> None:
    assert list(values_of(text)) == []


@pytest.mark.parametrize("text", ["{" * 300_000, '"' * 300_000, ",}" * 150_000, "```\n" * 70_000, ", " * 150_000])
def test_a_text_is_looked_at_in_linear_time(text: str) -> None:
    began = time.perf_counter()
    list(values_of(text))
    assert time.perf_counter() - began < 3


# Fitting


def test_a_value_that_fits_is_the_answer_in_the_form_that_was_asked_for() -> None:
    fit = Shape(TITLED).fit('{"title": "Boat", "tags": ["sea"]}')
    assert (fit.value, fit.problem) == ({"title": "Boat", "tags": ["sea"]}, "")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("A boat.", "there is no single JSON value in it"),
        ("{}", "$: 'title' is a required property"),
        ('{"title": 1}', "$.title: 1 is not of type 'string'"),
        ('{"title": "x", "tags": ["a", 2]}', "$.tags[1]: 2 is not of type 'string'"),
        ('{"title": "x", "colour": 1}', "$: 'colour' is not expected here"),
    ],
)
def test_what_does_not_fit_has_no_value_and_says_where(text: str, problem: str) -> None:
    fit = Shape(TITLED).fit(text)
    assert (fit.value, fit.problem) == (None, problem)


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"pattern": "^[a-z]+$"}, '"abc"', '"Abc"'),
        ({"patternProperties": {"^n": {"type": "integer"}}, "additionalProperties": False}, '{"n1": 1}', '{"x": 1}'),
        ({"patternProperties": {"^n": {"type": "integer"}}}, '{"x": "1"}', '{"n1": "1"}'),
        ({"additionalProperties": {"type": "integer"}}, '{"x": 1}', '{"x": "1"}'),
        ({"uniqueItems": True}, "[1, 2]", "[1, 1]"),
        ({"uniqueItems": True}, '[{"a": 1, "b": 2}, {"a": 1}]', '[{"a": 1, "b": 2}, {"b": 2, "a": 1}]'),
        ({"$ref": "#/$defs/n", "$defs": {"n": {"enum": ["a", "b"]}}}, '"a"', '"c"'),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "1", '"1"'),
        ({"properties": {"$ref": {"type": "string"}, "pattern": {"const": None}}}, '{"pattern": null}', '{"$ref": 1}'),
    ],
)
def test_keywords(schema: dict[str, JsonValue], good: str, bad: str) -> None:
    shape = Shape(schema)
    assert (shape.fit(good).problem == "", shape.fit(bad).problem == "") == (True, False)


def test_a_long_value_is_not_repeated_in_full() -> None:
    assert len(Shape({"type": "integer"}).fit('"' + "x" * 100_000 + '"').problem) < 400


# Hostile schemas and values


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"$ref": "https://example.org/schema.json"}, r"\$ref: names another document"),
        ({"properties": {"a": {"$ref": "file:///etc/passwd"}}}, "names another document"),
        ({"$ref": "#/$defs/missing"}, "isn't there"),
        ({"$ref": "#"}, "leads back to itself"),
        ({"$id": "https://example.org/", "type": "object"}, "can't be checked here"),
        ({"unevaluatedProperties": False}, "can't be checked here"),
        ({"type": "objekt"}, "type: "),
        ({"pattern": "(?=x)y"}, "linear time"),
        ({"pattern": r"(a)\1"}, "linear time"),
        ({"pattern": "["}, "linear time"),
        ({"patternProperties": {"(?!x)": {}}}, "linear time"),
        ({"pattern": "x" * 2_000}, "longer than 1,000"),
        ({"$schema": "http://json-schema.org/draft-04/schema#"}, "another draft"),
        ({"description": "x" * 100_001}, "longer than 100,000"),
    ],
)
def test_a_schema_that_can_not_be_used_is_refused_with_the_place(schema: dict[str, JsonValue], message: str) -> None:
    with pytest.raises(UsageError, match=message) as raised:
        Shape(schema)
    assert raised.value.code == "response-schema"
    assert raised.value.remedy


def test_a_schema_is_nested_only_so_deep() -> None:
    schema: dict[str, JsonValue] = {}
    for _ in range(60):
        schema = {"items": schema}
    with pytest.raises(UsageError, match="nested deeper than 50"):
        Shape(schema)


def test_a_pattern_that_other_engines_choke_on_is_matched_at_once() -> None:
    shape = Shape({"pattern": "^(a+)+$"})
    began = time.perf_counter()
    assert shape.fit('"' + "a" * 50_000 + 'b"').problem
    assert time.perf_counter() - began < 1


def test_a_check_ends_after_so_many_steps() -> None:
    twice: JsonValue = [{"type": "array", "items": {"$ref": "#"}}, {"items": {"$ref": "#"}, "type": "array"}]
    shape = Shape({"anyOf": twice})
    assert shape.fit("[" * 40 + "1" + "]" * 40).problem == f"checking it takes more than {MAX_STEPS:,} steps"

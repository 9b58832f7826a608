"""Prompt templates: what they take, what they refuse, and that values stay values."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.errors import TemplateError
from batchrun.jobfile.template import Template
from batchrun.messages import JsonValue


def refusal(source: str) -> str:
    with pytest.raises(TemplateError) as caught:
        Template(source)
    return f"{caught.value.message} | {caught.value.remedy}"


def failure(source: str, **variables: JsonValue) -> str:
    with pytest.raises(TemplateError) as caught:
        Template(source).render(variables)
    return f"{caught.value.message} | {caught.value.remedy}"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("plain, {one} brace }} and 100 %", "plain, {one} brace }} and 100 %"),
        ("Describe {{ name }}.", "Describe Anna Bell."),
        ("{{name}}{{ name }}", "Anna BellAnna Bell"),
        ("{{ product.price }}", "12.5"),
        ("{{ product['price'] }}", "12.5"),
        ("{{ product.items }}", "data, not a method"),
        ("{{ tags[1] }} {{ tags.0 }}", "b a"),
        ("{{ count }} {{ yes }}", "3 true"),
        ("{{ '{{' }} {{ \"}}\" }}", "{{ }}"),
        ("{{ name | upper }}", "ANNA BELL"),
        ("{{ name | lower }}", "anna bell"),
        ("{{ 'don\\'t stop' | title }}", "Don't Stop"),
        ("{{ '  x ' | trim }}", "x"),
        ("{{ absent | default('none') }}", "none"),
        ("{{ nothing | default('none') }}", "none"),
        ("{{ product.absent.deeper | default('none') }}", "none"),
        ("{{ empty | default('none') }}", ""),
        ("{{ empty | default('none', true) }}", "none"),
        ("{{ tags | join(', ') }}", "a, b"),
        ("{{ tags | length }}", "2"),
        ("{{ product | tojson }}", '{"price": 12.5, "items": "data, not a method"}'),
        ("{{ name | replace('Anna', 'Eve') }}", "Eve Bell"),
        ("{{ name | truncate(5) }}", "Anna…"),
        ("{{ name | truncate(9) }}", "Anna Bell"),
        ("line\r\nend {{ count }}\n", "line\r\nend 3\n"),
    ],
)
def test_it_renders(source: str, expected: str) -> None:
    variables: dict[str, JsonValue] = {
        "name": "Anna Bell",
        "product": {"price": 12.5, "items": "data, not a method"},
        "tags": ["a", "b"],
        "count": 3,
        "yes": True,
        "nothing": None,
        "empty": "",
    }
    assert Template(source).render(variables) == expected


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__ }}",
        "{{ x.__class__.__mro__ }}",
        "{{ x['__class__'] }}",
        "{{ __import__ }}",
        "{{ x() }}",
        "{{ x.upper() }}",
        "{{ 'a' * 1000000000 }}",
        "{{ 2 ** 99 }}",
        "{{ a + b }}",
        "{{ a ~ b }}",
        "{{ a if b else c }}",
        "{{ a == b }}",
        "{{ not a }}",
        "{{ [1] }}",
        "{{ {'a': 1} }}",
        "{{ a, b }}",
        "{{ x[1:2] }}",
        "{{ x[y] }}",
        "{{ x[-1] }}",
        "{{ x[1.5] }}",
        "{{ x[true] }}",
        "{{ 5 }}",
        "{{ x | map('upper') }}",
        "{{ x | attr('y') }}",
        "{{ x | default(y) }}",
        "{{ x | default(value='y') }}",
        "{{ x | default(*y) }}",
        "{{ x | replace('', 'y') }}",
        "{{ x | truncate(0) }}",
        "{{ x | truncate(true) }}",
        "{{ x | join(3) }}",
        "{{ x is defined }}",
        "{{- x }}",
        "{{ x -}}",
        "{% for a in b %}{% endfor %}",
        "{% raw %}x{% endraw %}",
        "{# note #}",
        "{{ x",
        "{{ 'x }}",
        "{{ }}",
        "{{ x[" + "9" * 5_001 + "] }}",
        "{{ x | truncate(" + "9" * 5_001 + ") }}",
        "{{ x y }}",
        "{{ " + "(" * 5_000 + "x" + ")" * 5_000 + " }}",
        "{{ x" + " | trim" * 13 + " }}",
        "{{ x }}" * 501,
    ],
)
def test_it_refuses(source: str) -> None:
    assert "A template takes `{{ name }}`" in refusal(source)


def test_a_refusal_names_line_column_and_reason() -> None:
    message = refusal("first\nthen {{ ok }} and {{ x | shout }}")
    assert message.startswith("template 2:19: `{{ x | shout }}`: there is no filter `shout`")


def test_a_wrong_argument_shows_the_form() -> None:
    assert 'write the filter as `replace("old", "new")`' in refusal("{{ x | replace('a') }}")


def test_a_block_is_named() -> None:
    assert "template 1:3: `{%` starts a block" in refusal("a {% if x %}")


def test_a_long_source_is_refused() -> None:
    assert "at most 1,048,576" in refusal("x" * 1_048_577)


def test_a_missing_variable_names_those_that_exist() -> None:
    message = failure("Hello\n{{ nam }}", name="x", age=3)
    assert message.startswith("there is no `nam`; there is: age, name (template 2:1) | Correct the name")


def test_a_missing_field_names_its_whole_path() -> None:
    assert "there is no `product.prize`; there is: price" in failure("{{ product.prize }}", product={"price": 1})


def test_an_index_beyond_the_end_is_named() -> None:
    assert "there is no `tags[2]`; there is: 0 to 1" in failure("{{ tags[2] }}", tags=["a", "b"])


def test_null_is_not_text() -> None:
    assert '`x` is null (template 1:1) | Give a default: `{{ x | default("…") }}`' in failure("{{ x }}", x=None)


@pytest.mark.parametrize(("value", "kind"), [([1], "a list"), ({"a": 1}, "a mapping")])
def test_a_container_is_not_text(value: JsonValue, kind: str) -> None:
    assert f"`x` is {kind}, not text" in failure("{{ x }}", x=value)


def test_a_text_has_nothing_inside() -> None:
    assert "`x` has no `upper` inside it" in failure("{{ x.upper }}", x="text")


def test_names_and_required_names() -> None:
    template = Template("{{ a }} {{ b.c | upper }} {{ d | default('x') }} {{ e | trim | default('x') }} {{ 'k' }}")
    assert (sorted(template.names), sorted(template.required)) == (["a", "b", "d", "e"], ["a", "b", "e"])


@given(st.text())
def test_a_value_comes_out_literally(value: str) -> None:
    assert Template("<{{ x }}>").render({"x": value}) == f"<{value}>"


@given(st.sampled_from(["{{ y }}", "{% raw %}", "{# c #}", "{{ x }}", "}}{{", "{{ 7 * 7 }}"]), st.text(max_size=9))
def test_template_syntax_in_a_value_is_text(syntax: str, around: str) -> None:
    value = around + syntax + around
    assert Template("{{ x }}").render({"x": value, "y": "no"}) == value


@given(st.text(alphabet=st.characters(exclude_characters="{", codec="utf-8")))
def test_text_without_opening_braces_is_itself(text: str) -> None:
    assert Template(text).render({}) == text


@given(st.text(max_size=40))
def test_any_source_either_parses_or_is_refused(source: str) -> None:
    with suppress(TemplateError):
        assert Template("{{" + source + "}}").source


@pytest.mark.parametrize(
    ("source", "variables"),
    [
        ("{{ x }}{{ x }}{{ x }}", {"x": "a" * 1_000_000}),
        ("{{ x | replace('a', '" + "b" * 1000 + "') | replace('b', '" + "c" * 1000 + "') }}", {"x": "a" * 100_000}),
        ("{{ x | join('" + "s" * 500_000 + "') }}", {"x": ["a"] * 500_000}),
        ("{{ x | tojson" + " | tojson" * 11 + " }}", {"x": '"\\' * 10_000}),
        ("{{ x | upper }}", {"x": "ß" * 2_000_000}),
        ("{{ x }}", {"x": "€" * 1_000_000}),
    ],
)
def test_a_bomb_stops_at_the_cap_at_once(source: str, variables: dict[str, JsonValue]) -> None:
    start = time.process_time()
    assert "longer than 2,097,152 bytes" in failure(source, **variables)
    assert time.process_time() - start < 2

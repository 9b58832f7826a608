"""Prompt templates: `{{ name }}`, `{{ row.field[0] | filter }}`, and nothing that can run.

Jinja2 parses each expression, so the syntax is the one people know; its tree is then reduced to a name, a chain of
lookups in data, and named filters with constant arguments. Anything else is refused when the template is read.
Values are data: they are put in once, and braces inside them stay braces. What a render may produce is bounded
before it is produced.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from jinja2 import Environment, TemplateSyntaxError, nodes

from batchrun.errors import TemplateError
from batchrun.jobfile.filters import FILTERS, MAX_RENDERED, Constant, Missing, as_text, check_size
from batchrun.messages import JsonValue
from batchrun.showing import clean, listing

MAX_SOURCE = 1_048_576
MAX_EXPRESSIONS = 500
MAX_STEPS = 12

_OPENING = re.compile(r"\{\{|\{%|\{#")
_EXPRESSION = re.compile(r"""\{\{(?:"(?:\\.|[^"\\])*+"|'(?:\\.|[^'\\])*+'|[^"'}]|\}(?!\}))*+\}\}""", re.DOTALL)
_ALLOWED = (
    "A template takes `{{ name }}`, `{{ name.field }}`, `{{ name[0] }}` and the filters "
    + listing(sorted(FILTERS))
    + '; write braces that are meant as text as `{{ "{{" }}`'
)
# Only the parser is used: nothing is compiled, so there are no globals, loaders or escapes to think about.
_PARSER = Environment(autoescape=False)  # noqa: S701


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    key: str | int


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    name: str
    arguments: tuple[Constant, ...]


Step = Lookup | Filter


@dataclass(frozen=True, slots=True, kw_only=True)
class Expression:
    name: str | None
    """The variable it starts from; None for a constant text."""
    constant: str
    steps: tuple[Step, ...]
    place: str
    """`line:column` in the template."""

    @property
    def optional(self) -> bool:
        """Whether a default stands behind the lookups, so that the variable may be absent."""
        first = next((step for step in self.steps if isinstance(step, Filter)), None)
        return first is not None and first.name == "default"


class Template:
    """A parsed template. Raises TemplateError, with line and column, for anything but names, lookups and filters."""

    def __init__(self, source: str) -> None:
        if len(source) > MAX_SOURCE:
            message = f"the template has {len(source):,} characters; at most {MAX_SOURCE:,} are read"
            raise TemplateError(message, code="template", remedy="Put long texts into the rows")
        self.source = source
        self._pieces = _split(source)
        expressions = [piece for piece in self._pieces if isinstance(piece, Expression)]
        self.names = frozenset(piece.name for piece in expressions if piece.name is not None)
        """Every variable the template mentions."""
        self.required = frozenset(piece.name for piece in expressions if piece.name is not None and not piece.optional)
        """Those among them that must be there, having no default."""
        self.text = "".join(piece for piece in self._pieces if isinstance(piece, str))
        """What stands outside of expressions."""

    def render(self, variables: Mapping[str, JsonValue]) -> str:
        """Fill in `variables`.

        Raises TemplateError where a variable is missing, null, a list or a mapping, and where the result would be
        longer than MAX_RENDERED bytes of UTF-8.
        """
        parts: list[str] = []
        size = 0
        for piece in self._pieces:
            text = piece if isinstance(piece, str) else _fill(piece, variables)
            size += len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))
            check_size(size)
            parts.append(text)
        return "".join(parts)


def _split(source: str) -> list[str | Expression]:
    pieces: list[str | Expression] = []
    position = count = 0
    while opening := _OPENING.search(source, position):
        start = opening.start()
        match = _EXPRESSION.match(source, start) if opening[0] == "{{" else None
        if match is None:
            raise _refused_at(source, start, _opening_problem(opening[0]))
        pieces += [source[position:start], _parse(match[0], source, start)]
        position, count = match.end(), count + 1
        if count > MAX_EXPRESSIONS:
            raise _refused_at(source, start, f"more than {MAX_EXPRESSIONS} expressions")
    pieces.append(source[position:])
    return [piece for piece in pieces if piece != ""]


def _opening_problem(opening: str) -> str:
    if opening == "{{":
        return "`{{` is not closed by `}}`, or a quote inside is not closed"
    return f"`{opening}` starts a {'comment' if opening == '{#' else 'block'}, which a prompt can't have"


def _parse(text: str, source: str, start: int) -> Expression:
    if text[2] in "-+" or text[-3] in "-+":
        raise _refused_at(source, start, "`{{-` and `-}}` are not allowed")
    try:
        body = _PARSER.parse(text).body
    except TemplateSyntaxError as error:
        raise _refused_at(source, start, f"`{clean(text)}`: {clean(error.message or '')}") from error
    except RecursionError as error:
        raise _refused_at(source, start, "nested too deeply") from error
    except ValueError as error:  # Python reads no number of thousands of digits
        raise _refused_at(source, start, "a number is too long") from error
    output = body[0] if len(body) == 1 else None
    if not isinstance(output, nodes.Output) or len(output.nodes) != 1:
        raise _refused_at(source, start, f"`{clean(text)}` is not one value")
    return _reduce(output.nodes[0], text, source, start)


def _reduce(node: nodes.Expr, text: str, source: str, start: int) -> Expression:
    """Walk from the outermost filter or lookup inwards to the name."""
    steps: list[Step] = []
    while isinstance(node, nodes.Filter | nodes.Getattr | nodes.Getitem):
        step, inner = _filter(node) if isinstance(node, nodes.Filter) else _lookup(node)
        if isinstance(step, str) or inner is None:
            raise _refused_at(source, start, f"`{clean(text)}`: {step}")
        steps.append(step)
        node = inner
    line, column = _position(source, start)
    if len(steps) > MAX_STEPS:
        raise _refused_at(source, start, f"more than {MAX_STEPS} lookups and filters in one expression")
    ordered = tuple(reversed(steps))
    if isinstance(node, nodes.Const) and isinstance(node.value, str):
        return Expression(name=None, constant=node.value, steps=ordered, place=f"{line}:{column}")
    if isinstance(node, nodes.Name) and not node.name.startswith("__"):
        return Expression(name=node.name, constant="", steps=ordered, place=f"{line}:{column}")
    raise _refused_at(source, start, f"`{clean(text)}` is more than a name with lookups and filters")


def _lookup(node: nodes.Getattr | nodes.Getitem) -> tuple[Lookup | str, nodes.Expr | None]:
    key = node.attr if isinstance(node, nodes.Getattr) else _constant(node.arg)
    if not isinstance(key, str | int) or isinstance(key, bool):
        return "only a constant text or a whole number can stand in brackets", None
    if isinstance(key, str) and key.startswith("__"):
        return f"`{clean(key)}` can't be looked up", None
    return Lookup(key=key), node.node


def _filter(node: nodes.Filter) -> tuple[Filter | str, nodes.Expr | None]:
    allowed = FILTERS.get(node.name)
    if allowed is None:
        return f"there is no filter `{clean(node.name)}`", None
    arguments = [argument.value for argument in node.args if isinstance(argument, nodes.Const)]
    if len(arguments) < len(node.args) or node.kwargs or node.dyn_args or node.dyn_kwargs:
        return f"the filter `{node.name}` takes constants only, without names", None
    if not allowed.accepts(tuple(arguments)):
        return f"write the filter as `{allowed.form}`", None
    return Filter(name=node.name, arguments=tuple(arguments)), node.node


def _constant(node: nodes.Node) -> object:
    return node.value if isinstance(node, nodes.Const) else None


def _fill(expression: Expression, variables: Mapping[str, JsonValue]) -> str:
    value: JsonValue | Missing = expression.constant
    if expression.name is not None:
        if expression.name in variables:
            value = variables[expression.name]
        else:
            value = Missing(name=expression.name, there=tuple(variables))
    label = expression.name or "the text"
    try:
        for step in expression.steps:
            if isinstance(step, Lookup):
                value, label = _look_up(value, step.key, label)
            else:
                value = FILTERS[step.name].apply(value, step.arguments, label)
        return as_text(value, label)
    except TemplateError as error:
        raise TemplateError(
            f"{error.message} (template {expression.place})", code=error.code, remedy=error.remedy
        ) from error


def _look_up(value: JsonValue | Missing, key: str | int, label: str) -> tuple[JsonValue | Missing, str]:
    name = f"{label}.{key}" if isinstance(key, str) else f"{label}[{key}]"
    if isinstance(value, Missing):
        return value, name
    if isinstance(value, Mapping) and isinstance(key, str):
        return (value[key] if key in value else Missing(name=name, there=tuple(value))), name
    if isinstance(value, list | tuple) and isinstance(key, int):
        there = f"0 to {len(value) - 1}" if value else "an empty list"
        return (value[key] if 0 <= key < len(value) else Missing(name=name, there=(there,))), name
    if value is None:
        return Missing(name=name, there=()), name
    raise TemplateError(
        f"`{clean(label)}` has no `{clean(str(key))}` inside it", code="template", remedy="Use it as it is"
    )


def _position(source: str, index: int) -> tuple[int, int]:
    return source.count("\n", 0, index) + 1, index - source.rfind("\n", 0, index)


def _refused_at(source: str, index: int, message: str) -> TemplateError:
    line, column = _position(source, index)
    return TemplateError(f"template {line}:{column}: {message}", code="template", remedy=_ALLOWED)


__all__ = ["MAX_RENDERED", "Template"]

"""What a job asks for beside its prompt: messages instead of it, the form of the answers, tools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, JsonValue, PlainValidator, WithJsonSchema, field_validator

from batchrun import messages
from batchrun.errors import UsageError
from batchrun.jobfile.quantities import refusal
from batchrun.jobfile.sections import Section, Text, parsed

OnInvalid = Literal["keep", "fail", "ask_again"]
ASK_AGAIN: OnInvalid = "ask_again"
_CHOICES = ("auto", "none", "required")


class MessageSpec(Section):
    """A message of the conversation that is sent."""

    role: Literal["system", "user", "assistant"]
    """Who says it: system, user or assistant."""
    content: Text
    """What is said: a template like the prompt."""

    @field_validator("content")
    @classmethod
    def _is_template(cls, source: str) -> str:
        parsed(source)
        return source


def _check_messages(messages: Sequence[MessageSpec]) -> Sequence[MessageSpec]:
    if messages[-1].role != "user":
        raise refusal(f"the last message is of role {messages[-1].role}", "End with what the user asks")
    if any(message.role == "system" for message in messages[1:]):
        raise refusal("a system message stands behind others", "Put it first, and only one")
    return messages


Messages = Annotated[
    tuple[MessageSpec, ...], Field(strict=False, min_length=1, max_length=200), AfterValidator(_check_messages)
]


def _check_schema(value: object) -> dict[str, JsonValue]:
    if not isinstance(value, dict):
        raise refusal("must be a JSON Schema, or the path of a .json file with one", "Write `{type: object, …}`")
    try:
        check_response_schema(value)
    except UsageError as error:
        raise refusal(error.message, error.remedy) from error
    return value


def check_response_schema(schema: Mapping[str, JsonValue] | Mapping[str, messages.JsonValue]) -> None:
    """Raises UsageError."""
    from batchrun.shape import check_schema  # takes 0.1 s, which most job files needn't wait for

    check_schema(schema)


ResponseSchema = Annotated[
    dict[str, JsonValue],
    PlainValidator(_check_schema),
    WithJsonSchema({"anyOf": [{"type": "object"}, {"type": "string", "minLength": 1}]}),
]


def _check_tools(tools: Sequence[dict[str, JsonValue]]) -> Sequence[dict[str, JsonValue]]:
    names = tool_names(tools)
    if None in names:
        raise refusal(
            f"entry {names.index(None)} names no function",
            "Write `{type: function, function: {name: …, description: …, parameters: {…}}}`",
        )
    if len(set(names)) < len(names):
        raise refusal("two tools have the same name", "Give each a name of its own")
    return tools


def tool_names(tools: Sequence[dict[str, JsonValue]]) -> list[str | None]:
    """The name of each function; None for an entry that isn't one."""
    functions = [tool.get("function") if tool.get("type") == "function" else None for tool in tools]
    names = [function.get("name") if isinstance(function, dict) else None for function in functions]
    return [name if isinstance(name, str) and name else None for name in names]


ToolList = Annotated[
    tuple[dict[str, JsonValue], ...],
    Field(strict=False, min_length=1, max_length=128),
    AfterValidator(_check_tools),
]


def _check_choice(value: object) -> str | dict[str, JsonValue]:
    if value in _CHOICES and isinstance(value, str):
        return value
    if isinstance(value, dict) and tool_names([value]) != [None]:
        return value
    remedy = "Write auto, none, required, or `{type: function, function: {name: …}}`"
    raise refusal("is no choice of a tool", remedy)


ToolChoice = Annotated[
    str | dict[str, JsonValue],
    PlainValidator(_check_choice),
    WithJsonSchema({"anyOf": [{"enum": [*_CHOICES]}, {"type": "object"}]}),
]

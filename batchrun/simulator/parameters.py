"""Reads the parameters of a chat request and refuses what the service would refuse (contract 2.3, 8.1.2)."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from batchrun.simulator.models import Model, Thinking
from batchrun.simulator.refusals import Refusal, invalid, malformed

Fields = Mapping[str, object]

FUNCTION: Final = "function"
JSON_FORMS: Final = ("json_object", "json_schema")


@dataclass(frozen=True, kw_only=True, slots=True)
class Tool:
    """The function that the answer is to call."""

    name: str
    schema: object
    """Of its arguments."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameters:
    stream: bool
    include_usage: bool
    thinking: bool
    thinking_limit: int
    """Most reasoning tokens; 0 when the model does not think."""
    max_tokens: int
    """Most answer tokens, reasoning not counted."""
    json_answer: bool
    schema: object
    """The JSON schema that the answer is to fit; None when any object will do."""
    tool: Tool | None
    """None for an answer in words."""
    high_resolution: bool
    seed: int
    incremental: bool = True
    """A chunk holds the new text only, not all of it so far (native)."""
    text_form: bool = False
    """The answer is to stand in `output.text` and not in choices (native)."""
    max_frames: bool = False
    """A video part may limit its frames (native)."""
    context: int | None = None
    """Most tokens of the input and the greatest answer together (Moonshot)."""


def read_fields(body: bytes) -> dict[str, object]:
    """The request body as an object."""
    try:
        document: object = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise malformed(f"The request body is not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise malformed("The request body must be a JSON object.")
    return document


def model_name(fields: Fields) -> str:
    name = fields.get("model")
    if not isinstance(name, str) or not name:
        raise malformed("You must provide a model parameter.", code="BadRequest.EmptyModel")
    return name


def read_parameters(fields: Fields, model: Model) -> Parameters:
    check_forbidden(fields, model)
    check_ranges(fields)
    thinking = wants_thinking(fields, model)
    stream = flag(fields, "stream") or False
    if flag(fields, "enable_search") and model.web_search is False:
        raise invalid(f"The model {model.name} does not support the parameter enable_search.", param="enable_search")
    if model.stream_only and not stream:
        raise invalid("This model only supports stream mode, please set stream to true.", param="stream")
    return Parameters(
        stream=stream,
        include_usage=wants_usage(fields, stream=stream),
        thinking=thinking,
        thinking_limit=thinking_limit(fields, model) if thinking else 0,
        max_tokens=whole(fields, "max_tokens", 1, model.max_output) or model.max_output,
        json_answer=wants_json(fields, model, thinking=thinking),
        schema=wanted_schema(fields),
        tool=wanted_tool(fields),
        high_resolution=flag(fields, "vl_high_resolution_images") or False,
        seed=whole(fields, "seed", 0, 2**31 - 1) or 0,
    )


def check_forbidden(fields: Fields, model: Model) -> None:
    for name in sorted(model.forbidden):
        if fields.get(name) is not None:
            raise invalid(f"The parameter {name} must not be sent to {model.name}.", param=name)


def check_ranges(fields: Fields) -> None:
    number(fields, "temperature", "[0, 2)", lambda value: 0 <= value < 2)
    number(fields, "top_p", "(0, 1]", lambda value: 0 < value <= 1)
    number(fields, "presence_penalty", "[-2, 2]", lambda value: -2 <= value <= 2)
    choices = whole(fields, "n", 1, 4)
    if choices not in (None, 1):
        raise invalid("The parameter n must be 1 for this model.", param="n")


def wants_usage(fields: Fields, *, stream: bool) -> bool:
    options = fields.get("stream_options")
    if options is None:
        return False
    if not stream:
        raise malformed("The parameter stream_options is only allowed when stream is true.")
    if not isinstance(options, dict):
        raise malformed("The parameter stream_options must be an object.")
    return flag(options, "include_usage") or False


def wants_thinking(fields: Fields, model: Model) -> bool:
    switch = flag(fields, "enable_thinking")
    if switch is not None and switch not in model.thinking_switch:
        if model.thinking is Thinking.ALWAYS and model.thinking_switch:
            raise invalid("The value of the enable_thinking parameter is restricted to True.", param="enable_thinking")
        raise Refusal(
            status=400,
            code="InvalidParameter.NotSupportEnableThinking",
            message=f"The model {model.name} does not support the parameter enable_thinking.",
            param="enable_thinking",
            model_side=True,
        )
    return model.thinking is Thinking.ALWAYS or switch is True


def thinking_limit(fields: Fields, model: Model) -> int:
    if fields.get("thinking_budget") is not None and not model.thinking_budget:
        raise invalid(f"The parameter thinking_budget is not supported by {model.name}.")
    return whole(fields, "thinking_budget", 1, model.max_thinking) or model.max_thinking


def wants_json(fields: Fields, model: Model, *, thinking: bool) -> bool:
    form = fields.get("response_format")
    if form is None:
        return False
    kind = form.get("type") if isinstance(form, dict) else None
    if kind == "text":
        return False
    if kind not in JSON_FORMS:
        raise invalid("response_format.type must be text, json_object or json_schema.")
    if not model.json_mode:
        raise invalid(f"The model {model.name} does not support structured output.", param="response_format")
    if thinking and not model.json_while_thinking:
        raise invalid("JSON mode is not supported when enable_thinking is true.", param="response_format")
    return True


def wanted_schema(fields: Fields) -> object:
    form = fields.get("response_format")
    if not isinstance(form, dict) or form.get("type") != "json_schema":
        return None
    holder = form.get("json_schema")
    schema = holder.get("schema") if isinstance(holder, dict) else None
    if not isinstance(schema, dict):
        raise invalid("response_format.json_schema.schema must be an object.", param="response_format")
    return schema


def wanted_tool(fields: Fields) -> Tool | None:
    """The function that `tool_choice` names, else the first one; none once the request brings what a tool said."""
    given, choice = fields.get("tools"), fields.get("tool_choice", "auto")
    if given is None:
        return None
    if not isinstance(given, list) or not given:
        raise invalid("tools must be a list of functions that is not empty.", param="tools")
    tools = [read_tool(entry) for entry in given]
    if choice in (None, "auto", "none", "required"):
        messages = fields.get("messages")
        last = messages[-1] if isinstance(messages, list) and messages else None
        said = isinstance(last, dict) and last.get("role") == "tool"
        return None if choice == "none" or (said and choice != "required") else tools[0]
    wanted = read_tool(choice).name
    found = next((tool for tool in tools if tool.name == wanted), None)
    if found is None:
        raise invalid(f"tool_choice names {wanted[:80]}, which is none of the tools.", param="tool_choice")
    return found


def read_tool(entry: object) -> Tool:
    function = entry.get(FUNCTION) if isinstance(entry, dict) and entry.get("type") == FUNCTION else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(function, dict) or not isinstance(name, str) or not name:
        raise invalid("A tool must be an object of the type function, whose function has a name.", param="tools")
    return Tool(name=name, schema=function.get("parameters"))


def flag(fields: Fields, name: str) -> bool | None:
    value = fields.get(name)
    if value is None or isinstance(value, bool):
        return value
    raise malformed(f"The parameter {name} must be true or false.")


def whole(fields: Fields, name: str, lowest: int, highest: int) -> int | None:
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
        raise invalid(f"Range of {name} should be [{lowest}, {highest}].", param=name)
    return value


def number(fields: Fields, name: str, interval: str, lies_within: Callable[[float], bool]) -> None:
    value = fields.get(name)
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not lies_within(value):
        raise invalid(f"Range of {name} should be {interval}.", param=name)

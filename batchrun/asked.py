"""What a job asks of its model beside the messages: the form of the answers, and tools, as the catalogue allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from batchrun.catalogue import Model, Structured
from batchrun.errors import UsageError
from batchrun.jobfile.asking import ASK_AGAIN
from batchrun.jobfile.spec import JobSpec
from batchrun.jobfile.template import Template
from batchrun.messages import JsonValue

WORD = "json"
"""Must stand in a message, in any case, where JSON of any form is asked for (contract 8.1.2)."""
NAME = "answer"
"""Of the schema, as the wire form wants one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    params: Mapping[str, JsonValue]
    """Of the request, beside the job's own."""
    notes: Sequence[str]
    """What the user should know of what isn't sent."""


def asked_of(spec: JobSpec, model: Model, templates: Sequence[Template]) -> Asked:
    """Raises UsageError for tools where the model can't call any."""
    params, notes = tools_of(spec, model)
    if spec.response_schema is not None:
        thinks = model.may_think_by(None if spec.thinking is None else spec.thinking.enabled)
        form = model.structured or Structured()
        reason = why_not(spec, model, form, templates, thinks=thinks)
        if reason:
            notes.append(f"response_schema isn't sent, only checked: {reason}")
        else:
            params["response_format"] = format_of(form, spec.response_schema)
        if form.form != "json_schema" or reason:
            notes.append("the model isn't told the schema: say in the prompt which fields you want")
        if spec.on_invalid == ASK_AGAIN and spec.retry.attempts > 1:
            notes.append(f"answers that don't fit are bought again: an item may cost up to {spec.retry.attempts} calls")
    return Asked(params=params, notes=notes)


def tools_of(spec: JobSpec, model: Model) -> tuple[dict[str, JsonValue], list[str]]:
    if spec.tools is None:
        return {}, []
    if model.tools is False:
        raise UsageError(
            f"{spec.model} at {spec.provider} can't call functions",
            code="model-without-tools",
            remedy="delete `tools`, or choose another model",
        )
    params: dict[str, JsonValue] = {"tools": list(spec.tools)}
    if spec.tool_choice is not None:
        params["tool_choice"] = spec.tool_choice
    return params, [] if model.tools else [f"whether {spec.model} can call functions isn't known"]


def why_not(spec: JobSpec, model: Model, form: Structured, templates: Sequence[Template], *, thinks: bool) -> str:
    """Why the form of the answers can't be sent; empty where it can."""
    if model.structured is None:
        return f"whether {spec.model} at {spec.provider} has structured output isn't known"
    if form.form == "none":
        return f"{spec.model} at {spec.provider} has no structured output"
    if thinks and not form.while_thinking:
        return f"{spec.model} takes it only without thinking"
    if form.form == "json_object" and not any(WORD in template.text.lower() for template in templates):
        return f"{spec.model} takes it only where the prompt has the word JSON; add for example: Answer in JSON."
    return ""


def format_of(form: Structured, schema: Mapping[str, JsonValue]) -> JsonValue:
    if form.form == "json_object":
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": NAME, "schema": schema}}

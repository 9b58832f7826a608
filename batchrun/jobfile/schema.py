"""The JSON Schema of a job file, for editors, which show its descriptions and complain while one types.

It knows the shape of a file: keys, types, bounds. What needs the catalogue, the rows or the templates is only said by
the reader. Descriptions are the texts below the classes and fields of `sections` and `spec`.
"""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import pairwise
from types import ModuleType
from typing import Any, TypeAlias

from batchrun.jobfile import asking, sections, spec
from batchrun.jobfile.quantities import format_duration
from batchrun.jobfile.sections import Section

Schema: TypeAlias = dict[str, Any]  # as pydantic returns it

IDENTIFIER = "urn:batchrun:job-file:1"
SOURCES = ("images", "videos", "rows", "requests", "urls", "items")
DEFAULTS = "What every job takes over, unless it says something else itself. Mappings are merged key by key."
PARTIAL = {"": "JobSpec", "thinking": "ThinkingSpec", "budget": "BudgetSpec", "output": "OutputSpec"}
"""Where keys must be there that `defaults` may give: the job itself, and its sections."""

KEYS = {"parameters": "params"}
OF_REQUESTS: Schema = {"properties": {"inputs": {"required": ["requests"]}}, "required": ["inputs"]}
REQUESTS_SAY_ALL: Schema = {
    "if": OF_REQUESTS,
    "then": {"properties": {KEYS.get(field, field): {"type": "null"} for field in spec.OF_A_REQUEST}},
}
NOT_BOTH: Schema = {
    "not": {
        "properties": {key: {"not": {"type": "null"}} for key in ("prompt", "messages")},
        "required": ["prompt", "messages"],
    }
}
ASKED: Schema = {"anyOf": [{"required": ["prompt"]}, {"required": ["messages"]}, OF_REQUESTS]}
PROMPT_OR_REQUESTS: Schema = {
    "if": {"properties": {"defaults": ASKED}, "required": ["defaults"]},
    "else": {"properties": {"jobs": {"items": ASKED}}},
}

EXAMPLES: Mapping[str, Sequence[object]] = {
    "JobSpec.name": ["caption-catalogue"],
    "JobSpec.provider": ["model-studio/singapore", "simulator/model-studio-singapore"],
    "JobSpec.model": ["qwen3-vl-plus"],
    "JobSpec.prompt": ["Describe {{ filename }} in one sentence."],
    "JobSpec.messages": [[{"role": "user", "content": "Describe {{ filename }} in one sentence."}]],
    "JobSpec.response_schema": ["caption.schema.json"],
    "JobSpec.tool_choice": ["auto"],
    "JobSpec.tags": [["spring", "catalogue"]],
    "InputsSpec.images": ["photos", "photos/**/*.jpg"],
    "InputsSpec.rows": ["products.csv", "questions.jsonl"],
    "InputsSpec.requests": ["openai-batch.jsonl"],
    "InputsSpec.urls": ["pictures.txt"],
    "InputsSpec.items": [[{"id": "chess", "product": "a hand-carved chess set"}]],
    "ParamsSpec.max_tokens": [200],
    "ParamsSpec.stop": ["END"],
    "ParamsSpec.extra": [{"min_p": 0.1}],
    "ThinkingSpec.budget": [500],
    "LimitsSpec.concurrency": [64],
    "LimitsSpec.requests_per_minute": [600],
    "LimitsSpec.tokens_per_minute": [1_000_000],
    "OutputSpec.sidecar": ["{{ stem }}.txt"],
    "OutputSpec.folder": ["captions"],
}


def job_schema() -> Schema:
    """JSON Schema, draft 2020-12, of a job file."""
    document = spec.JobsDocument.model_json_schema(by_alias=True)
    definitions: Schema = document.pop("$defs")
    models = {model.__name__: model for model in sections_of(sections, asking, spec)}
    described = {
        name: definition if name == "JsonValue" else describe(definition, models[name])
        for name, definition in definitions.items()
    }
    described["InputsSpec"]["oneOf"] = [
        {"required": [source], "properties": {source: {"not": {"type": "null"}}}} for source in SOURCES
    ]
    required = [(key, name) for key, section in PARTIAL.items() for name in described[section].pop("required")]
    job = {**described["JobSpec"], "required": ["name"], **REQUESTS_SAY_ALL, **NOT_BOTH}
    described["JobSpec"] = job
    described["Defaults"] = {
        **described["JobSpec"],
        "description": DEFAULTS,
        "properties": {key: value for key, value in job["properties"].items() if key != "name"},
    }
    for key in ("required", *REQUESTS_SAY_ALL, *NOT_BOTH):
        del described["Defaults"][key]
    properties = describe(document, spec.JobsDocument)["properties"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": IDENTIFIER,
        "title": "Job file of batchrun",
        "description": "What to call a model for, and how.",
        "type": "object",
        "additionalProperties": False,
        "required": ["version", "jobs"],
        "properties": {
            "version": properties["version"],
            "defaults": {"$ref": "#/$defs/Defaults", "description": DEFAULTS},
            "jobs": properties["jobs"],
        },
        "allOf": [*(unless_default(section, key) for section, key in required if key != "name"), PROMPT_OR_REQUESTS],
        "$defs": dict(sorted(described.items())),
    }


def sections_of(*modules: ModuleType) -> Iterator[type[Section]]:
    for module in modules:
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, Section):
                yield value


def describe(definition: Schema, model: type[Section]) -> Schema:
    """The definition of a section with what is written about it and its fields, without what nobody needs."""
    texts = docstrings(model)
    required = definition.get("required", [])
    properties: Schema = {}
    for name, field in model.model_fields.items():
        key = field.alias or name
        made = without_null(definition["properties"][key])
        section = next((part for part in sections_of(sections) if made.get("$ref", "").endswith(part.__name__)), None)
        made["description"] = texts.get(name) or flat((section and section.__doc__) or "")
        if not field.is_required() and field.default_factory is None and field.default is not None:
            made["default"] = plain(field.default)
        if examples := EXAMPLES.get(f"{model.__name__}.{key}"):
            made["examples"] = list(examples)
        properties[key] = made if key in required else or_null(made)
    rest = {key: value for key, value in definition.items() if key != "title"}
    return {**rest, "description": flat(model.__doc__ or ""), "properties": properties}


def without_null(made: Schema) -> Schema:
    """The schema of a field that may be left out, as pydantic makes it, without what it adds for that."""
    made = {key: value for key, value in made.items() if key not in ("title", "default")}
    kinds = [kind for kind in made.pop("anyOf", []) if kind != {"type": "null"}]
    if len(kinds) > 1:
        return {**made, "anyOf": kinds}
    return {**made, **kinds[0]} if kinds else made


def or_null(made: Schema) -> Schema:
    """An explicit null takes a default back."""
    if isinstance(made.get("type"), str):
        return {**made, "type": [made["type"], "null"]}
    told: Schema = {key: made.pop(key) for key in ("description", "default", "examples") if key in made}
    return {**told, "anyOf": [*(made.pop("anyOf", None) or [made]), {"type": "null"}]}


def unless_default(section: str, key: str, *, but: Schema | None = None) -> Schema:
    """A key that each job must have, in `section` or directly, where `defaults` doesn't have it; `but` describes jobs
    that can do without it."""
    wanted: Schema = {"required": [key]}
    given = {"properties": {section: wanted}, "required": [section]} if section else wanted
    of_a_job: Schema = {"properties": {section: wanted}} if section else wanted
    if but is not None:
        of_a_job = {"anyOf": [of_a_job, but]}
    return {
        "if": {"properties": {"defaults": given}, "required": ["defaults"]},
        "else": {"properties": {"jobs": {"items": of_a_job}}},
    }


def docstrings(model: type[Section]) -> dict[str, str]:
    """The texts below the fields. Read only here: it takes longer than reading a job file."""
    [definition] = ast.parse(inspect.getsource(model)).body
    body = definition.body if isinstance(definition, ast.ClassDef) else []
    return {
        field.target.id: flat(text.value.value)
        for field, text in pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }


def flat(text: str) -> str:
    return " ".join(text.split())


def plain(value: object) -> object:
    return format_duration(value) if isinstance(value, timedelta) else json.loads(json.dumps(value))

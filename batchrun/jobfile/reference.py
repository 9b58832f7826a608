"""The reference of the job file, docs/jobfile.md, made from its schema."""

from __future__ import annotations

import json
from collections.abc import Iterator

from batchrun.jobfile.filters import FILTERS
from batchrun.jobfile.schema import Schema

HEAD = """\
# The job file

<!-- Made by: batchrun schema --format markdown --out docs/jobfile.md -->

A job file is YAML 1.2 (or JSON) in UTF-8: `version: 1`, perhaps `defaults`, and a list of `jobs`. `no`, `12:30` and
dates are text in it. Anchors, aliases, merge keys, tags and unknown keys are refused: nothing that is written is
silently ignored. Paths are relative to the folder of the file. A tour is [jobs.example.yaml](../jobs.example.yaml).

An explicit `null` takes a default back. Durations are written `90s`, `1h30m` or `2d`, money `5.00 USD`.

Editors that know the YAML language server complete and check a job file that begins with this line;
`batchrun schema --out batchrun-jobs.schema.json` writes the file that it names:

```yaml
# yaml-language-server: $schema=./batchrun-jobs.schema.json
```
"""
TAIL = """\
## Templates

`prompt`, `system` and `sidecar` are templates: `{{ name }}`, `{{ name.field }}` and `{{ name[0] }}` are replaced by the
item's own values, which are data: braces inside them stay braces. Nothing in a template can run. Filters, as in
`{{ title | trim | lower }}`:

| Filter |
|---|
"""
IDENTITY = """
## What may change

`provider`, `model`, `system`, `prompt`, `messages`, `params`, `thinking`, `response_schema`, `tools`, `tool_choice` and
`media` make an answer the answer to this request: when one of them changes after the job was loaded, loading it again
is refused with the difference shown, and the changed job needs a new name. All else takes effect when the file is
loaded again, also while the job runs; so do `check_urls` and `upload` of `media`, which say how media travel.
"""
PARTS = {"messages": {"role", "content"}}
"""Keys that each entry of a list must have."""
JOB_SECTIONS = ("inputs", "messages", "params", "thinking", "media", "limits", "retry", "timeouts", "budget", "output")


def reference(schema: Schema) -> str:
    """The reference as Markdown."""
    definitions = schema["$defs"]
    job, required = definitions["JobSpec"], required_keys(schema)
    parts = [HEAD, *section("The file", "", schema, set(schema["required"]))]
    parts += section("A job", job["description"], job, {"name", *required.get("", ())})
    for key in JOB_SECTIONS:
        definition = definitions["MessageSpec" if key == "messages" else target(job["properties"][key])]
        needed = required.get(key, set()) | PARTS.get(key, set())
        parts += section(f"`{key}`", definition["description"], definition, needed)
    filters = "\n".join(f"| `{cell(rule.form)}` |" for rule in FILTERS.values())
    return "\n".join([*parts, TAIL + filters + "\n" + IDENTITY])


def required_keys(schema: Schema) -> dict[str, set[str]]:
    """By section of a job, the keys that it must have if `defaults` hasn't; those of the job itself under ``."""
    found: dict[str, set[str]] = {}
    for entry in schema["allOf"]:
        of_a_job = entry["else"]["properties"]["jobs"]["items"]
        if "anyOf" in of_a_job:
            continue  # one of several keys
        [(name, wanted)] = of_a_job["properties"].items() if "properties" in of_a_job else [("", of_a_job)]
        found.setdefault(name, set()).update(wanted["required"])
    return found


def section(title: str, description: str, definition: Schema, required: set[str]) -> Iterator[str]:
    yield f"## {title}\n"
    if description:
        yield f"{description}\n"
    if not definition["properties"]:
        return
    yield "| Key | Value | Without it | |\n|---|---|---|---|"
    for key, made in definition["properties"].items():
        default = "must be there" if key in required else code(made["default"]) if made.get("default", []) != [] else ""
        yield f"| `{key}` | {kind(made)} | {default} | {cell(made['description'])}{examples(made)} |"
    yield ""


def target(made: Schema) -> str:
    """The name of the section that a key holds."""
    reference_of = made.get("$ref") or next(part["$ref"] for part in made["anyOf"] if "$ref" in part)
    return str(reference_of).rpartition("/")[2]


def kind(made: Schema) -> str:
    """What may be written, in words."""
    if "const" in made:
        return code(made["const"])
    if "enum" in made:
        return " or ".join(code(value) for value in made["enum"] if value is not None)
    kinds = made.get("type", [])
    names = [name for name in ([kinds] if isinstance(kinds, str) else kinds) if name != "null"]
    if names:
        return KINDS.get(names[0], names[0]) + bounds(made)
    if "$ref" in made:
        return "mapping"
    parts = [part for part in made["anyOf"] if part != {"type": "null"}]
    return " or ".join(kind(part) for part in parts)


KINDS = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "`true` or `false`",
    "array": "list",
    "object": "mapping",
}


def bounds(made: Schema) -> str:
    low, high = made.get("minimum"), made.get("maximum")
    if made.get("exclusiveMinimum") is not None:
        return f" above {made['exclusiveMinimum']}, at most {high:,}"
    return "" if low is None or high is None else f", {low:,} to {high:,}"


def examples(made: Schema) -> str:
    found = made.get("examples", [])
    return f" Such as {', '.join(code(example) for example in found)}." if found else ""


def code(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"`{cell(text)}`"


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")

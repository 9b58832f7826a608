"""Which JSON a prompt asks for in words, as vendors' recipes do: an example of it, or the names of its fields.

A model understands any wording. This understands three, and takes all else for a question that text answers:

* an example or a schema in the prompt: `{"events": [{"start": "00:00:00", "text": "…"}]}`;
* names behind the word JSON: `Answer in JSON with shop, total and currency.`;
* names in quotes or with an underscore anywhere: `start_time, end_time, event … in JSON`.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Final

from batchrun.simulator.schemas import BOXES, ENDS, STARTS

LONGEST_PROMPT: Final = 20_000
MOST_EXAMPLES: Final = 10
NUMBERS: Final = frozenset({"amount", "count", "number", "pages", "price", "quantity", "score", "total"})
LIST_NAMES: Final = frozenset({"events", "objects", "items", "list"})
"""Of what holds the objects, beside the names of their fields."""

_NAME: Final = r"""(?:`[^`\n]{1,40}`|"[^"\n]{1,40}"|'[^'\n]{1,40}'|[A-Za-z_][A-Za-z0-9_]{0,39})"""
_COMMA: Final = r"(?:[ \t]*[,、，][ \t]*(?:and[ \t]+)?|[ \t]+and[ \t]+)"
_RUN: Final = re.compile(rf"(?<![A-Za-z0-9_]){_NAME}(?:{_COMMA}{_NAME})+")
_EACH: Final = re.compile(_NAME)
_JSON: Final = re.compile("json", re.IGNORECASE)


def wanted_schema(texts: Sequence[str]) -> Mapping[str, object] | None:
    """The schema of the JSON that the last of these texts to ask for any wants; None where none does."""
    for text in reversed(texts):
        prompt = text[:LONGEST_PROMPT]
        word = _JSON.search(prompt)
        if word is None:
            continue
        found = next(examples(prompt), None) or of_names(named(prompt, word.end()))
        if found is not None:
            return found
    return None


def examples(prompt: str) -> Iterator[Mapping[str, object]]:
    """Schemas of the objects that stand in the prompt, and schemas that do."""
    decoder = json.JSONDecoder()
    for start in islice(re.finditer(r"[{\[]", prompt), MOST_EXAMPLES):
        try:
            value, _ = decoder.raw_decode(prompt, start.start())
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) and isinstance(value.get("properties"), dict):
            yield value
        elif value and (isinstance(value, dict) or isinstance(value[0], dict)):
            yield like(value)


def like(value: object) -> Mapping[str, object]:
    """A schema that `value` fits, and what looks like it."""
    match value:
        case dict():
            return {"type": "object", "properties": {name: like(inner) for name, inner in value.items()}}
        case list():
            return {"type": "array", "items": like(value[0]) if value else {}}
        case bool():
            return {"type": "boolean"}
        case int():
            return {"type": "integer"}
        case float():
            return {"type": "number"}
        case None:
            return {"type": "null"}
    return {"type": "string"}


def named(prompt: str, behind: int) -> list[str]:
    """The longest list of names; `behind` is where the word JSON ends."""
    best: list[str] = []
    for run in _RUN.finditer(prompt):
        marked = any(mark in run[0] for mark in "`\"'_")
        names = [name.strip("`\"'") for name in _EACH.findall(run[0]) if name != "and"]
        if (run.start() >= behind or marked) and len(names) >= len(best):
            best = names
    return best


def of_names(names: Sequence[str]) -> Mapping[str, object] | None:
    """Objects with these fields; a list of them where each has a time or a place. None where there are no names."""
    fields = {name: of_name(name) for name in names if name.lower() not in LIST_NAMES}
    if not fields:
        return None
    one = {"type": "object", "properties": fields}
    lowered = {name.lower() for name in fields}
    if lowered & STARTS and lowered & ENDS:
        return {"type": "object", "properties": {"events": {"type": "array", "items": one}}}
    return {"type": "array", "items": one} if lowered & BOXES else one


def of_name(name: str) -> Mapping[str, object]:
    if name.lower() in BOXES:
        return {"type": "array", "items": {"type": "integer"}}
    return {"type": "number" if name.lower() in NUMBERS else "string"}

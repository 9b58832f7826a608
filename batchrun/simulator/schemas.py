"""A value that fits a JSON schema, for requests that ask for structured output by one."""

from collections.abc import Mapping
from typing import Final

DEEPEST: Final = 20
MOST_VALUES: Final = 2_000
MOST_ITEMS: Final = 20


def sample(schema: object, text: str) -> object:
    """A value of the schema's shape, with `text` where it asks for a string."""
    return Sampler(schema, text).value(schema, 0)


class Sampler:
    """Follows local references into the schema that it was made with."""

    def __init__(self, root: object, text: str) -> None:
        self.root = root
        self.text = text
        self.values = 0

    def value(self, schema: object, depth: int) -> object:
        self.values += 1
        if not isinstance(schema, Mapping) or depth > DEEPEST or self.values > MOST_VALUES:
            return None
        if "const" in schema:
            return schema["const"]
        for key in ("enum", "anyOf", "oneOf", "allOf"):
            choices = schema.get(key)
            if isinstance(choices, list) and choices:
                return choices[0] if key == "enum" else self.value(choices[0], depth + 1)
        if isinstance(schema.get("$ref"), str):
            return self.value(self.target(schema["$ref"]), depth + 1)
        return self.of_type(schema, depth)

    def of_type(self, schema: Mapping[str, object], depth: int) -> object:
        kind = schema.get("type", "object" if "properties" in schema else "string")
        match kind[0] if isinstance(kind, list) and kind else kind:
            case "object":
                properties = schema.get("properties")
                members = properties.items() if isinstance(properties, Mapping) else ()
                return {name: self.value(inner, depth + 1) for name, inner in members}
            case "array":
                fewest = schema.get("minItems")
                count = min(max(fewest, 1), MOST_ITEMS) if isinstance(fewest, int) else 1
                return [self.value(schema.get("items"), depth + 1) for _ in range(count)]
            case "integer" | "number":
                lowest = schema.get("minimum", 1)
                return lowest if isinstance(lowest, int | float) else 1
            case "boolean":
                return True
            case "null":
                return None
        longest = schema.get("maxLength")
        return self.text[:longest] if isinstance(longest, int) else self.text

    def target(self, reference: str) -> object:
        place: object = self.root
        for step in reference.removeprefix("#").strip("/").split("/"):
            if step and isinstance(place, Mapping):
                place = place.get(step.replace("~1", "/").replace("~0", "~"))
        return place

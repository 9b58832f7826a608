"""A value that fits a JSON schema, for requests that ask for structured output by one.

Names say what a model would have looked for: times lie within the video, boxes within the picture, all else is text.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

DEEPEST: Final = 20
MOST_VALUES: Final = 2_000
MOST_ITEMS: Final = 20
STARTS: Final = frozenset({"start", "start_time", "begin", "time", "timestamp"})
ENDS: Final = frozenset({"end", "end_time", "stop"})
BOXES: Final = frozenset({"bbox", "bbox_2d", "box", "bounding_box"})
LABELS: Final = frozenset({"label", "name", "title", "category", "type"})
TEXTS: Final = frozenset({"", "answer", "caption", "description", "event", "summary", "text"})
"""What has whole sentences; any other text is short."""
BOXES_SHOWN: Final = 2


class Scene(NamedTuple):
    """What happens from one second of a video to another."""

    start: int
    end: int
    text: str


class Seen(NamedTuple):
    """What a value is made of."""

    text: str
    label: str
    scenes: Sequence[Scene]
    """At least one."""
    width: int
    height: int
    """Of what boxes lie in."""


def clock(seconds: int) -> str:
    return f"{seconds // 3600:02}:{seconds % 3600 // 60:02}:{seconds % 60:02}"


def sample(schema: object, seen: Seen) -> object:
    """A value of the schema's shape."""
    return Sampler(schema, seen).value(schema, 0)


class Sampler:
    """Follows local references into the schema that it was made with."""

    def __init__(self, root: object, seen: Seen) -> None:
        self.root = root
        self.seen = seen
        self.values = 0
        self.scene: Scene | None = None
        """The one that the entry of a list tells of; None outside of such a list."""
        self.entry = 0
        """The number of the entry."""

    def value(self, schema: object, depth: int, name: str = "") -> object:
        self.values += 1
        if not isinstance(schema, Mapping) or depth > DEEPEST or self.values > MOST_VALUES:
            return None
        if "const" in schema:
            return schema["const"]
        for key in ("enum", "anyOf", "oneOf", "allOf"):
            choices = schema.get(key)
            if isinstance(choices, list) and choices:
                return choices[0] if key == "enum" else self.value(choices[0], depth + 1, name)
        if isinstance(schema.get("$ref"), str):
            return self.value(self.target(schema["$ref"]), depth + 1, name)
        return self.of_type(schema, depth, name)

    def of_type(self, schema: Mapping[str, object], depth: int, name: str) -> object:
        kind = schema.get("type", "object" if "properties" in schema else "string")
        match kind[0] if isinstance(kind, list) and kind else kind:
            case "object":
                return {key: self.value(inner, depth + 1, key) for key, inner in members(schema).items()}
            case "array":
                return self.entries(schema, depth, name)
            case "integer" | "number":
                return bounded(schema, self.number(name))
            case "boolean":
                return True
            case "null":
                return None
        return fitted(schema, self.words(name))

    def entries(self, schema: Mapping[str, object], depth: int, name: str) -> list[object]:
        if name.lower() in BOXES:
            return [bounded({}, side) for side in self.box()]
        items = schema.get("items")
        inner = self.target(items["$ref"]) if isinstance(items, Mapping) and "$ref" in items else items
        names = {key.lower() for key in members(inner)}
        scenes: Sequence[Scene | None] = [None] * (BOXES_SHOWN if names & BOXES else 1)
        if names & STARTS:
            scenes = self.seen.scenes
        before = self.scene, self.entry
        found = []
        for number in range(how_many(schema, len(scenes))):
            self.scene, self.entry = scenes[number % len(scenes)] or self.scene, number
            found.append(self.value(inner, depth + 1))
        self.scene, self.entry = before
        return found

    def number(self, name: str) -> int:
        if name.lower() in STARTS:
            return self.span().start
        return self.span().end if name.lower() in ENDS else 1

    def words(self, name: str) -> str:
        if name.lower() in STARTS | ENDS:
            return clock(self.number(name))
        if name.lower() in LABELS:
            return self.seen.label
        if name.lower() not in TEXTS:
            return f"a simulated {name}"
        return self.seen.text if self.scene is None else self.scene.text

    def span(self) -> Scene:
        """Outside of a list the whole of the video."""
        scenes = self.seen.scenes
        return self.scene or Scene(scenes[0].start, scenes[-1].end, self.seen.text)

    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right, bottom: within a thousand, and within the picture where that is smaller."""
        width, height = min(self.seen.width, 1_000), min(self.seen.height, 1_000)
        left = width * (1 + 4 * (self.entry % 2)) // 10
        return left, height // 10, left + width * 3 // 10, height * 6 // 10

    def target(self, reference: str) -> object:
        place: object = self.root
        for step in reference.removeprefix("#").strip("/").split("/"):
            if step and isinstance(place, Mapping):
                place = place.get(step.replace("~1", "/").replace("~0", "~"))
        return place


def members(schema: object) -> Mapping[str, object]:
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    return properties if isinstance(properties, Mapping) else {}


def how_many(schema: Mapping[str, object], wanted: int) -> int:
    fewest, most = schema.get("minItems"), schema.get("maxItems")
    if isinstance(fewest, int):
        wanted = max(wanted, min(fewest, MOST_ITEMS))
    return min(wanted, most) if isinstance(most, int) else wanted


def bounded(schema: Mapping[str, object], value: float) -> float:
    """The nearest number that the schema allows."""
    lowest, above = limit(schema, "minimum"), limit(schema, "exclusiveMinimum")
    highest, below = limit(schema, "maximum"), limit(schema, "exclusiveMaximum")
    whole = schema.get("type") != "number"
    if lowest is not None and value < lowest:
        value = math.ceil(lowest) if whole else lowest
    if above is not None and value <= above:
        value = math.floor(above) + 1
    if highest is not None and value > highest:
        value = math.floor(highest) if whole else highest
    if below is not None and value >= below:
        value = math.ceil(below) - 1 if whole else between(lowest, above, below)
    return value


def between(lowest: float | None, above: float | None, below: float) -> float:
    """A number below `below`, not beneath the others."""
    floors = [bound for bound in (lowest, above) if bound is not None]
    return (max(floors) + below) / 2 if floors else below - 1


def limit(schema: Mapping[str, object], key: str) -> float | None:
    bound = schema.get(key)
    return bound if isinstance(bound, int | float) and not isinstance(bound, bool) else None


def fitted(schema: Mapping[str, object], text: str) -> str:
    shortest, longest = schema.get("minLength"), schema.get("maxLength")
    if isinstance(shortest, int) and len(text) < min(shortest, 10_000):
        text = (text + " ") * (min(shortest, 10_000) // (len(text) + 1) + 1)
    return text[:longest] if isinstance(longest, int) and longest >= 0 else text

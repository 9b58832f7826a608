"""Answers in the form that a request demands or its prompt asks for, about what was really sent."""

import json
from itertools import pairwise
from typing import Any

import jsonschema
import pytest

from .raw import Client, Json

FRAME = "https://pictures.example/frame.jpg"
VIDEO: Json = {"type": "video", "video": [FRAME] * 30, "fps": 1}
"""Of 30 seconds."""
IMAGE: Json = {"type": "image_url", "image_url": {"url": FRAME}}


def said(client: Client, prompt: str, *media: Json, **changes: object) -> str:
    messages = [{"role": "user", "content": [*media, {"type": "text", "text": prompt}]}]
    document: Any = client.ask(client.body(messages=messages, **changes)).json()
    text: str = document["choices"][0]["message"]["content"]
    return text


def seconds(clock: str) -> int:
    hours, minutes, rest = (int(part) for part in clock.split(":"))
    return hours * 3600 + minutes * 60 + rest


@pytest.mark.parametrize(
    ("prompt", "names"),
    [
        (
            "Describe what the person does. Output in JSON format with start_time, end_time, and event. "
            "Use the format HH:mm:ss for the timestamps.",
            ["start_time", "end_time", "event"],
        ),
        (
            "何が起こりますか。start_time、end_time、event を含む JSON 形式で出力してください。",
            ["start_time", "end_time", "event"],
        ),
        ("What happens? Answer in JSON: events, a list of objects with start, end and text.", ["start", "end", "text"]),
        ('As JSON: {"events": [{"start": "00:00:00", "end": "00:00:05", "text": "…"}]}', ["start", "end", "text"]),
    ],
)
def test_events_follow_each_other_within_the_video(client: Client, prompt: str, names: list[str]) -> None:
    events = json.loads(said(client, prompt, VIDEO))["events"]
    assert [list(event) for event in events] == [names] * len(events)
    ends = [seconds(event[names[1]]) for event in events]
    assert [seconds(event[names[0]]) for event in events] == [0, *ends[:-1]]
    assert ends[-1] == 30
    assert len(events) > 1


@pytest.mark.parametrize("kind", ["number", "integer"])
def test_times_that_a_schema_wants_as_numbers_are_seconds(client: Client, kind: str) -> None:
    event = {"type": "object", "properties": {"start": {"type": kind}, "end": {"type": kind, "exclusiveMinimum": 0}}}
    schema = {"type": "object", "properties": {"events": {"type": "array", "items": {"$ref": "#/$defs/event"}}}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {**schema, "$defs": {"event": event}}}}
    events = json.loads(said(client, "Events", VIDEO, response_format=form))["events"]
    assert (events[0]["start"], events[-1]["end"]) == (0, 30)
    assert all(one["end"] == after["start"] for one, after in pairwise(events))


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "minimum": 2.5, "maximum": 3},
        {"type": "integer", "exclusiveMaximum": 0},
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.5},
        {"type": "number", "maximum": 0.25},
        {"type": "string", "minLength": 500, "maxLength": 501},
        {"type": "array", "items": {"type": "string"}, "minItems": 3, "maxItems": 4},
        {"type": "array", "items": {"type": "string"}, "maxItems": 0},
        {"type": "object", "properties": {"start": {"type": "string"}, "bbox_2d": {"type": "array"}}},
    ],
)
def test_an_answer_fits_the_bounds_of_its_schema(client: Client, schema: Json) -> None:
    whole = {"type": "object", "properties": {"value": schema}, "required": ["value"]}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": whole}}
    jsonschema.validate(json.loads(said(client, "Value", IMAGE, response_format=form)), whole)


def test_fields_that_a_prompt_names(client: Client) -> None:
    prompt = "Read the ticket: ['Train Number', 'Fare']. Output in JSON."
    form = {"type": "json_object"}
    wanted = {"Train Number": "a simulated Train Number", "Fare": "a simulated Fare"}
    assert json.loads(said(client, prompt, IMAGE)) == wanted
    assert json.loads(said(client, prompt, IMAGE, response_format=form)) == wanted


def test_boxes_lie_within_the_picture(client: Client) -> None:
    found = json.loads(said(client, "Find each sign. Answer in JSON with label and bbox_2d.", IMAGE))
    assert len(found) == 2
    for one in found:
        left, top, right, bottom = one["bbox_2d"]
        assert 0 <= left < right <= 1_000
        assert 0 <= top < bottom <= 768


@pytest.mark.parametrize("prompt", ["Describe the colours, the shapes and the light. Not as JSON.", "Is it JSON?"])
def test_prose_is_no_list_of_fields(client: Client, prompt: str) -> None:
    assert said(client, prompt, IMAGE).startswith("A 1024 by 768 pixel")


def test_lines_with_times(client: Client) -> None:
    lines = said(client, "What happens? One line for each event, as 00:00:00 - 00:00:05 text.", VIDEO).splitlines()
    assert lines[0].startswith("00:00:00 - ")
    assert " - 00:00:30 A simulated scene" in lines[-1]


def test_a_summary_of_notes_has_their_times(client: Client) -> None:
    notes = '[{"start": "00:10:00", "end": "00:10:05", "text": "A dog."}]\n00:10:05 - 00:10:09 A cat.'
    assert said(client, f"Merge these.\n\n{notes}").splitlines()[2:] == [
        "- 00:10:00 - 00:10:05 A dog.",
        "- 00:10:05 - 00:10:09 A cat.",
    ]


def test_a_page_as_markdown(client: Client) -> None:
    text = said(client, "qwenvl markdown", IMAGE)
    assert text.startswith("# ")
    assert "| Width | 1024 |" in text

"""Events out of answers, their times in the whole video, and subtitles that no answer can break."""

from __future__ import annotations

import re

import pytest

from batchrun.messages import JsonValue
from batchrun.segments.timeline import Event, events_in, moved, srt, text_in_video, with_moved_events

BLOCK = re.compile(r"(\d+)\n(\d\d:\d\d:\d\d,\d{3}) --> (\d\d:\d\d:\d\d,\d{3})\n((?:[^\n]+\n)+)(?:\n|\Z)")


def event(start: float, end: float, text: str = "x") -> Event:
    return Event(start=start, end=end, text=text)


@pytest.mark.parametrize(
    "parsed",
    [
        {"events": [{"start": 61, "end": 62.5, "description": "a dog"}]},
        {"events": [{"start": "00:01:01", "end": "00:01:02.5", "description": "a dog"}]},
        {"events": [{"start_time": "01:01", "end_time": "01:02.500", "event": "a dog"}]},
        [{"start": "61", "end": "62.5s", "text": "a dog"}],
    ],
)
def test_structured_events_in_the_forms_that_models_use(parsed: object) -> None:
    assert events_in("", parsed) == [event(61, 62.5, "a dog")]  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ['{"events": [%s]}', "[%s]", "```json\n[%s]\n```", '```\n{"events": [%s]}```'])
def test_events_in_a_text_that_is_json(text: str) -> None:
    found = events_in(text % '{"start": 1, "end": 2, "description": "a dog"}', None)
    assert found == [event(1, 2, "a dog")]


@pytest.mark.parametrize(
    "line",
    [
        "00:01:00 - 00:02:30 a dog",
        "00:01:00-00:02:30: a dog",
        "00:01:00 – 00:02:30 — a dog",
        "- 00:01:00 - 00:02:30 a dog",
        "- **00:01:00 - 00:02:30**: a dog",
        "1. [00:01:00 - 00:02:30] a dog",
        "[01:00 --> 02:30] a dog",
        "### 00:01:00 to 00:02:30 | a dog",
        "(00:01:00.000 - 00:02:30,000) a dog",
    ],
)
def test_events_in_lines_with_times(line: str) -> None:
    assert events_in(f"Here it is:\n\n{line}\n\nThat's all.", None) == [event(60, 150, "a dog")]


def test_lines_below_a_time_belong_to_it_up_to_a_blank_one() -> None:
    assert events_in("## 00:00:00 - 00:00:05\nFirst.\nMore.\n\nNot this.", None) == [event(0, 5, "First.\nMore.")]


@pytest.mark.parametrize(
    "text", ["no times", "00:01:00 only one", "00:02:00 - 00:01:00 backwards", "00:99:00 - 00:99:30 no time", "", "{["]
)
def test_no_events_where_there_are_none(text: str) -> None:
    assert events_in(text, None) == []


@pytest.mark.parametrize(
    "one",
    [
        {"start": -1, "end": 2, "description": "x"},
        {"start": 3, "end": 2, "description": "x"},
        {"start": float("nan"), "end": 2, "description": "x"},
        {"start": True, "end": 2, "description": "x"},
        {"start": 1, "end": 10**12, "description": "x"},
        {"start": 1, "end": 2, "description": " "},
        {"start": 1, "end": 2},
        "x",
    ],
)
def test_a_structured_event_that_makes_no_sense_is_passed_over(one: JsonValue) -> None:
    assert events_in("", {"events": [one]}) == []


def test_times_of_a_part_are_moved_by_where_it_begins() -> None:
    assert moved([event(0, 30), event(590, 600)], 600, 1200) == [event(600, 630), event(1190, 1200)]


def test_times_that_the_model_has_moved_itself_stay() -> None:
    assert moved([event(600, 630), event(1190, 1200)], 600, 1200) == [event(600, 630), event(1190, 1200)]


def test_an_event_beyond_the_end_of_its_part_is_moved_too() -> None:
    assert moved([event(0, 30), event(590, 640)], 600, 1200) == [event(600, 630), event(1190, 1240)]


def test_a_structured_answer_keeps_its_other_fields() -> None:
    parsed = {"title": "T", "events": [{"start": 5, "end": "00:00:09", "description": "d", "who": "A"}]}
    assert with_moved_events(parsed, 60, 120) == {  # type: ignore[arg-type]
        "title": "T",
        "events": [{"start": "00:01:05", "end": "00:01:09", "description": "d", "who": "A"}],
    }


def test_an_answer_without_events_is_not_touched() -> None:
    assert with_moved_events({"title": "T"}, 60, 120) is None


@pytest.mark.parametrize(
    ("text", "in_video"),
    [
        ("- **00:05 - 00:00:09**: a dog at 00:07\n\nEnd.\n", "- **00:01:05 - 00:01:09**: a dog at 00:07\n\nEnd.\n"),
        ("00:01:05 - 00:01:09 moved by the model", "00:01:05 - 00:01:09 moved by the model"),
        ("No times, 00:05 alone.", "No times, 00:05 alone."),
        (
            '```json\n[{"start": 5, "end": 9, "text": "d"}]\n```',
            '[{"start": "00:01:05", "end": "00:01:09", "text": "d"}]',
        ),
        ("00:99 - 00:98 no time", "00:99 - 00:98 no time"),
    ],
)
def test_a_text_about_a_part_has_the_times_of_the_video(text: str, in_video: str) -> None:
    assert text_in_video(text, None, 60, 120) == in_video


def test_subtitles_are_numbered_and_timed() -> None:
    assert srt([event(0, 1.5, "One"), event(3661.25, 3662, "Two\nlines")]) == (
        "1\n00:00:00,000 --> 00:00:01,500\nOne\n\n2\n01:01:01,250 --> 01:01:02,000\nTwo\nlines\n"
    )


@pytest.mark.parametrize(
    "text",
    [
        "a\n\n2\n00:00:00,000 --> 00:00:09,000\nforged",
        "a\r\n\r\nb",
        "a\u2028\u2028b",
        "a\x0b\x0c\x85\x85b",
        "\x1b[2J\x00a",
        "--> a\n-->",
        "\n\n a \n\n",
        "\ud800a",
    ],
)
def test_no_text_ends_its_subtitle(text: str) -> None:
    made = srt([event(0, 1, text), event(2, 3, "next")])
    assert BLOCK.sub("", made) == ""
    assert [found[0] for found in BLOCK.findall(made)] == ["1", "2"]
    assert made.count("-->") == 2
    made.encode()


def test_a_text_of_nothing_but_control_characters_is_left_out() -> None:
    assert srt([event(0, 1, "\x00\u200b"), event(1, 2, "b")]).startswith("1\n00:00:01,000")


def test_a_subtitle_is_shown_for_a_moment_at_least() -> None:
    assert "00:00:01,000 --> 00:00:01,001" in srt([event(1, 1)])

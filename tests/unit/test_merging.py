"""What the request that merges the answers about parts looks like, and how long it can be."""

from __future__ import annotations

from typing import Any

import pytest

from batchrun.catalogue import load_catalogue
from batchrun.errors import SpecError, TemplateError
from batchrun.jobfile.reader import read_job_mapping
from batchrun.jobfile.spec import JobSpec
from batchrun.messages import JsonValue, Message, TextPart
from batchrun.plan import Plan, prepare
from batchrun.segments.merging import Part, answers_text

NAMED: dict[str, JsonValue] = {"path": "a.mp4", "filename": "a.mp4"}
MERGED: dict[str, JsonValue] = {**NAMED, "start": "00:00:00", "end": "00:20:00", "parts": 2}
SCHEMA = {"type": "object", "properties": {"events": {"type": "array"}}, "required": ["events"]}


def spec(**settings: object) -> JobSpec:
    document = {
        "name": "talks",
        "provider": "simulator/model-studio-singapore",
        "model": "qwen3-vl-plus",
        "inputs": {"items": [{"id": "1"}]},
        "prompt": "Answer in JSON: what happens from {{ start }} on?",
        "media": {"split": "10m"},
        "params": {"max_tokens": 300, "temperature": 0.2},
    }
    return JobSpec.model_validate({**document, **settings})


def plan(**settings: object) -> Plan:
    return prepare(spec(**settings), load_catalogue())


def part(start: float, text: str | None, *, parsed: Any = None, tokens: int | None = 10) -> Part:
    return Part(custom_id=f"a#{start}", start=start, end=start + 600, text=text, parsed=parsed, tokens=tokens)


def texts(made: Plan, answers: str) -> list[tuple[str, str]]:
    request = made.request({**MERGED, "answers": answers}, [])
    found: list[tuple[str, str]] = []
    for message in request.messages:
        assert isinstance(message, Message)
        (said,) = message.parts
        assert isinstance(said, TextPart)
        found.append((message.role, said.text))
    return found


def test_answers_stand_in_order_below_their_times() -> None:
    assert answers_text([part(0, " One.\n"), part(600, "Two.")], None) == (
        "[00:00:00 - 00:10:00]\nOne.\n\n[00:10:00 - 00:20:00]\nTwo."
    )


def test_structured_events_have_the_times_of_the_video() -> None:
    parsed = {"events": [{"start": 5, "end": 9, "description": "d"}]}
    assert '"start": "00:10:05", "end": "00:10:09"' in answers_text([part(600, "{}", parsed=parsed)], None)


def test_lines_with_times_have_the_times_of_the_video() -> None:
    assert answers_text([part(600, "00:00:05 - 00:00:09 A dog.")], None).endswith("\n00:10:05 - 00:10:09 A dog.")


def test_answers_that_are_too_long_for_the_model_make_no_request() -> None:
    parts = [part(0, "x", tokens=600), part(600, "x" * 2_000, tokens=None)]
    assert answers_text(parts, 1_100)
    with pytest.raises(TemplateError, match="its 2 parts have about 1,100 tokens, and the model reads 1,099"):
        answers_text(parts, 1_099)


def test_an_answer_that_is_gone_makes_no_request() -> None:
    with pytest.raises(TemplateError, match="its part a#0 is gone"):
        answers_text([part(0, None)], None)


def test_the_default_asks_for_a_summary_of_the_answers() -> None:
    ((role, text),) = texts(plan(), "THE ANSWERS")
    assert role == "user"
    assert "a.mp4, which lasts 00:20:00" in text
    assert text.rstrip().endswith("THE ANSWERS")


def test_answers_are_data_and_not_templates() -> None:
    assert texts(plan(merge_prompt="{{ answers }}"), "{{ path }} {% x %}") == [("user", "{{ path }} {% x %}")]


def test_the_system_message_holds_for_the_merge_too() -> None:
    made = plan(system="Write English.", merge_prompt="{{ parts }}: {{ answers }}")
    assert texts(made, "A") == [("system", "Write English."), ("user", "2: A")]


def test_examples_of_answers_about_parts_are_not_sent_with_the_merge() -> None:
    conversation = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": "{{ start }}"},
    ]
    made = plan(prompt=None, messages=conversation, merge_prompt="{{ answers }}")
    assert texts(made, "A") == [("system", "S"), ("user", "A")]


def test_schema_and_tools_are_for_the_parts_alone() -> None:
    made = plan(response_schema=SCHEMA)
    of_a_part = {**MERGED, "part": 1}
    assert made.shape_of(of_a_part) is not None
    assert made.shape_of(MERGED) is None
    assert "response_format" in made.request(of_a_part, []).params
    assert made.request({**MERGED, "answers": ""}, []).params == {"max_tokens": 300, "temperature": 0.2}


def test_the_bound_holds_for_the_longest_answers() -> None:
    made = plan(merge_prompt="{{ answers }}")
    longest = answers_text([part(0, "x" * 300), part(600, "x" * 300)], None)
    bound = made.merged_bound(MERGED)
    assert bound is not None
    assert len(longest.encode()) <= bound <= 2 * 300 + 1_000


def test_answers_that_are_put_in_twice_count_twice() -> None:
    once, twice = (plan(merge_prompt=text).merged_bound(MERGED) for text in ("{{ answers }}", "{{ answers }}" * 2))
    assert once is not None
    assert twice is not None
    assert twice - once >= 600


def test_continued_answers_may_be_longer() -> None:
    plain = plan().merged_bound(MERGED)
    longer = plan(on_truncated="continue").merged_bound(MERGED)
    assert plain is not None
    assert longer is not None
    assert longer >= plain + 3 * 2 * 300


def test_nothing_merges_without_a_split() -> None:
    made = plan(media={}, prompt="x")
    assert not made.merges(MERGED)


def refused(**settings: object) -> str:
    job = {**spec().snapshot(), **settings}
    with pytest.raises(SpecError) as caught:
        read_job_mapping({"version": 1, "jobs": [job]})
    return str(caught.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"media": {}, "merge_prompt": "{{ answers }}"}, "nothing to merge without `media.split`"),
        ({"merge_prompt": "Sum it up."}, "the answers about the parts are missing"),
        ({"merge_prompt": "{% x %}"}, "merge_prompt"),
        ({"media": {"split": "1s"}}, "from 2s to 24h"),
        ({"media": {"split": "10"}}, "must be a duration"),
        ({"inputs": {"images": "photos"}, "prompt": "x"}, "no videos to split in `inputs.images`"),
    ],
)
def test_what_a_job_file_can_not_say(settings: dict[str, object], words: str) -> None:
    assert words in refused(**settings)


def test_the_default_merge_is_part_of_the_identity() -> None:
    assert "{{ answers }}" in str(spec().identity()["merge_prompt"])
    assert "merge_prompt" not in spec(media={}).identity()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"prompt": "{{ answers }}"}, "there is no `answers` for this source"),
        ({"merge_prompt": "{{ part }}: {{ answers }}"}, "there is no `part` for this source"),
        ({"media": {}, "prompt": "{{ start }}"}, "there is no `start` for this source"),
    ],
)
def test_variables_that_there_are_not(settings: dict[str, object], words: str) -> None:
    assert words in refused(inputs={"videos": "talks/*.mp4"}, **settings)

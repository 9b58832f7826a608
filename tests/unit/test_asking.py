"""Schemas, tools and messages of a job file: what is refused, and what goes out in both wire forms."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from batchrun.catalogue import Catalogue, Structured, load_catalogue
from batchrun.errors import SpecError, UsageError
from batchrun.jobfile.reader import read_job_file, read_job_mapping
from batchrun.jobfile.spec import JobSpec, differences, stored_spec
from batchrun.messages import ImagePart, JsonValue
from batchrun.plan import Plan, prepare

SCHEMA: dict[str, JsonValue] = {"type": "object", "properties": {"title": {"const": None}}}
TOOL: dict[str, JsonValue] = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
TALK: list[JsonValue] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "A cup?"},
    {"role": "assistant", "content": "Cup"},
    {"role": "user", "content": "A {{ product }}?"},
]
COMPAT, NATIVE = "model-studio/beijing", "dashscope/beijing"


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return load_catalogue()


def job(**fields: object) -> JobSpec:
    fixed = {"name": "j", "provider": COMPAT, "model": "qwen3-vl-plus", "inputs": {"items": [{"id": "a"}]}}
    asked = {} if "messages" in fields else {"prompt": "Describe it as JSON."}
    return JobSpec.model_validate({**fixed, **asked, **fields})


def mapping(**fields: object) -> dict[str, object]:
    fixed = {"name": "j", "provider": COMPAT, "model": "qwen3-vl-plus", "inputs": {"items": [{"id": "a"}]}}
    return {"version": 1, "jobs": [{**fixed, **fields}]}


def refused(**fields: object) -> str:
    with pytest.raises(SpecError) as raised:
        read_job_mapping(mapping(**fields))
    return str(raised.value)


def with_form(catalogue: Catalogue, form: Structured | None, *, tools: bool | None = None) -> Catalogue:
    endpoint = catalogue.endpoint(COMPAT)
    model = replace(endpoint.models["qwen3-vl-plus"], structured=form, tools=tools)
    changed = replace(endpoint, models={**endpoint.models, model.id: model})
    return replace(catalogue, endpoints={**catalogue.endpoints, COMPAT: changed})


def sent(plan: Plan, *images: str, **variables: JsonValue) -> dict[str, JsonValue]:
    body = plan.dialect.encode(plan.request(variables, [ImagePart(source=image) for image in images]), plan.model.rules)
    document = json.loads(b"".join(piece for piece in body.pieces if isinstance(piece, bytes)))
    assert isinstance(document, dict)
    return document


# Schemas


def test_json_mode_goes_out_in_the_compat_form(catalogue: Catalogue) -> None:
    plan = prepare(job(response_schema=SCHEMA), catalogue)
    assert sent(plan)["response_format"] == {"type": "json_object"}


def test_json_mode_goes_out_in_the_native_form(catalogue: Catalogue) -> None:
    body = sent(prepare(job(provider=NATIVE, response_schema=SCHEMA), catalogue))
    assert "response_format" not in body
    assert body["parameters"] == {"incremental_output": True, "response_format": {"type": "json_object"}}


def test_the_schema_goes_to_a_model_that_takes_one_whatever_the_prompt_says(catalogue: Catalogue) -> None:
    known = with_form(catalogue, Structured(form="json_schema"))
    plan = prepare(job(response_schema=SCHEMA, prompt="Describe it."), known)
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
    assert (sent(plan)["response_format"], plan.notes) == (wanted, ())


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"prompt": "Describe it."}, "only where the prompt has the word JSON"),
        ({"thinking": {"enabled": True}}, "only without thinking"),
        ({"model": "kimi-k2.5"}, "kimi-k2.5 at model-studio/beijing has no structured output"),
        ({"model": "Moonshot-Kimi-K2-Instruct"}, "has no structured output"),
        ({"model": "qwen3-vl-235b-a22b-instruct"}, "isn't known"),
    ],
)
def test_what_the_model_does_not_take_is_not_sent_and_told(
    catalogue: Catalogue, changes: dict[str, object], why: str
) -> None:
    plan = prepare(job(response_schema=SCHEMA, **changes), catalogue)
    assert "response_format" not in sent(plan)
    assert why in plan.notes[0]
    assert plan.shape is not None


def test_a_model_that_always_thinks_gets_what_its_page_says_it_takes(catalogue: Catalogue) -> None:
    plan = prepare(job(model="kimi-k2-thinking", response_schema=SCHEMA), catalogue)
    assert sent(plan)["response_format"] == {"type": "json_object"}


def test_the_word_may_stand_in_any_message(catalogue: Catalogue) -> None:
    plan = prepare(job(response_schema=SCHEMA, prompt="Describe it.", system="Answer in json."), catalogue)
    assert "response_format" in sent(plan)


def test_a_changed_schema_is_another_job() -> None:
    one, other = (job(response_schema={"type": kind}).identity() for kind in ("object", "array"))
    assert differences(one, other) == [("response_schema.type", "object", "array")]


def test_on_invalid_may_change_while_the_job_runs() -> None:
    assert job(response_schema=SCHEMA, on_invalid="fail").identity() == job(response_schema=SCHEMA).identity()


def test_a_job_without_these_has_the_identity_that_it_always_had() -> None:
    keys = {"provider", "model", "system", "prompt", "thinking", "media", "params"}
    assert job().identity().keys() == keys


def test_null_in_a_schema_stays_null() -> None:
    spec = job(response_schema=SCHEMA)
    assert stored_spec(spec.snapshot()) == spec
    assert read_job_mapping(mapping(prompt="x", response_schema=SCHEMA)).jobs[0].response_schema == SCHEMA


def test_a_schema_may_stand_in_a_file_beside_the_job_file(tmp_path: Path) -> None:
    (tmp_path / "form.json").write_text(json.dumps(SCHEMA), encoding="utf-8")
    text = json.dumps(mapping(prompt="x") | {"defaults": {"response_schema": "form.json"}})
    (tmp_path / "jobs.yaml").write_text(text, encoding="utf-8")
    assert read_job_file(tmp_path / "jobs.yaml").jobs[0].response_schema == SCHEMA


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "jobs[0].response_schema: form.json can't be opened: No such file or directory"),
        ("{", "jobs[0].response_schema: form.json is not JSON at line 1"),
        ("[]", "jobs[0].response_schema: form.json is not a JSON Schema"),
        ('{"type": "objekt"}', "jobs[0].response_schema: form.json: type: 'objekt' is not valid"),
        ('{"description": "sk-0123456789abcdef0123456789"}', "form.json holds what looks like a key"),
    ],
)
def test_a_file_that_is_no_schema_is_told_with_its_place(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "form.json").write_text(content, encoding="utf-8")
    path = tmp_path / "jobs.yaml"
    path.write_text(json.dumps(mapping(prompt="x", response_schema="form.json")), encoding="utf-8")
    with pytest.raises(SpecError) as raised:
        read_job_file(path)
    assert f"{path}:1:" in str(raised.value)
    assert message in str(raised.value)


def test_an_inline_schema_is_refused_with_the_place_in_it() -> None:
    found = refused(prompt="x", response_schema={"properties": {"a": {"pattern": "(?=a)"}}})
    assert "jobs[0].response_schema: properties.a.pattern: the pattern can't be matched" in found


def test_a_form_of_the_vendors_own_beside_a_schema_is_refused() -> None:
    found = refused(prompt="x", response_schema={}, params={"extra": {"response_format": {"type": "json_object"}}})
    assert "`params.extra.response_format` asks for another form" in found


def test_a_job_that_asks_again_says_what_that_may_cost(catalogue: Catalogue) -> None:
    spec = job(response_schema=SCHEMA, on_invalid="ask_again", retry={"attempts": 3})
    assert prepare(spec, catalogue).notes[-1].endswith("an item may cost up to 3 calls")


# Tools


@pytest.mark.parametrize("provider", [COMPAT, NATIVE])
def test_tools_go_out_as_they_are(catalogue: Catalogue, provider: str) -> None:
    spec = job(provider=provider, model="kimi-k2.5", tools=[TOOL], tool_choice="auto")
    plan = prepare(spec, catalogue)
    body = sent(plan)
    fields = body["parameters"] if provider == NATIVE else body
    assert isinstance(fields, dict)
    assert (fields["tools"], fields["tool_choice"], plan.notes) == ([TOOL], "auto", ())


def test_tools_count_in_the_bound_of_the_input(catalogue: Catalogue) -> None:
    with_tools, without = (prepare(job(model="kimi-k2.5", **tools), catalogue) for tools in ({"tools": [TOOL]}, {}))
    bounds = [plan.input_bound(plan.texts({}), 0) for plan in (with_tools, without)]
    assert bounds[0] is not None
    assert bounds[1] is not None
    assert bounds[0] - bounds[1] >= len(json.dumps([TOOL]))


def test_tools_of_a_model_without_functions_are_refused(catalogue: Catalogue) -> None:
    with pytest.raises(UsageError) as raised:
        prepare(job(tools=[TOOL]), with_form(catalogue, None, tools=False))
    assert raised.value.code == "model-without-tools"


def test_where_it_is_not_known_tools_go_out_with_a_note(catalogue: Catalogue) -> None:
    plan = prepare(job(tools=[TOOL]), catalogue)
    assert "tools" in sent(plan)
    assert plan.notes == ("whether qwen3-vl-plus can call functions isn't known",)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tools": [{"type": "function"}]}, "tools: entry 0 names no function"),
        ({"tools": [TOOL, TOOL]}, "two tools have the same name"),
        ({"tools": []}, "must not be empty"),
        ({"tool_choice": "auto"}, "there are no tools to choose from"),
        ({"tools": [TOOL], "tool_choice": "maybe"}, "is no choice of a tool"),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "time"}}},
            "no tool is called time",
        ),
        ({"params": {"tools": [TOOL]}}, "It belongs under `each job`"),
        ({"params": {"n": 2}}, "`n` does not work yet in this version"),
    ],
)
def test_tools_that_make_no_sense_are_refused(fields: dict[str, object], message: str) -> None:
    assert message in refused(prompt="x", **fields)


# Messages


def test_messages_go_out_in_the_compat_form_with_the_pictures_in_the_last(catalogue: Catalogue) -> None:
    plan = prepare(job(messages=TALK), catalogue)
    assert sent(plan, "https://example.org/a.png", product="boat")["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "A cup?"},
        {"role": "assistant", "content": "Cup"},
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
                {"type": "text", "text": "A boat?"},
            ],
        },
    ]


def test_messages_go_out_in_the_native_form(catalogue: Catalogue) -> None:
    body = sent(prepare(job(provider=NATIVE, messages=TALK), catalogue), "https://example.org/a.png", product="boat")
    assert body["input"] == {
        "messages": [
            {"role": "system", "content": [{"text": "Be brief."}]},
            {"role": "user", "content": [{"text": "A cup?"}]},
            {"role": "assistant", "content": [{"text": "Cup"}]},
            {"role": "user", "content": [{"image": "https://example.org/a.png"}, {"text": "A boat?"}]},
        ]
    }


def test_system_and_prompt_are_the_same_as_two_messages(catalogue: Catalogue) -> None:
    short = prepare(job(system="Be brief.", prompt="A {{ x }}?"), catalogue)
    talk = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "A {{ x }}?"}]
    assert sent(short, x=1) == sent(prepare(job(messages=talk), catalogue), x=1)


def test_messages_are_part_of_the_identity() -> None:
    one = job(messages=TALK).identity()
    assert one["messages"] == TALK
    assert job(messages=TALK[1:]).identity() != one


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "`prompt` is missing"),
        ({"prompt": "x", "messages": TALK}, "prompt: the job has messages"),
        ({"system": "x", "messages": TALK}, "messages: the job has a system message beside them"),
        ({"messages": TALK[:3]}, "the last message is of role assistant"),
        ({"messages": [*TALK[1:3], *TALK]}, "a system message stands behind others"),
        ({"messages": []}, "must not be empty"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role: the text `tool` can't stand here"),
        ({"messages": [{"role": "user", "content": "{% if %}"}]}, "messages[0].content: template 1:1"),
        ({"messages": [{"role": "user"}]}, "`content` is missing"),
        ({"messages": TALK, "inputs": {"requests": "b.jsonl"}}, "each line of `inputs.requests` is a whole request"),
        ({"messages": TALK, "inputs": {"images": "photos"}}, "messages[3].content: there is no `product`"),
    ],
)
def test_messages_that_make_no_sense_are_refused(fields: dict[str, object], message: str) -> None:
    assert message in refused(**fields)

"""Lines of OpenAI batch files: what they become, and what is refused, each with its line."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path

import jsonschema
import pytest
from pydantic import JsonValue

from batchrun import messages
from batchrun.bodies import taken_apart, written_messages, written_texts, written_thinking
from batchrun.catalogue import load_catalogue
from batchrun.dialects.base import ModelRules
from batchrun.dialects.compat_request import encode
from batchrun.errors import SpecError
from batchrun.jobfile.reader import read_job_file
from batchrun.jobfile.schema import job_schema
from batchrun.jobfile.spec import JobSpec
from batchrun.loading.itemising import to_be_sent
from batchrun.messages import ChatRequest, Thinking
from batchrun.plan import prepare
from batchrun.rows.inputs import Row, media_root, read_rows
from batchrun.rows.references import MediaRef, MediaRoot
from batchrun.rows.requests import MAX_LINE

MODEL = "qwen3-vl-plus"
MP4 = "data:video/mp4;base64," + b64encode(b"\0\0\0\x18ftypmp42" + bytes(12)).decode()
PIXEL = "data:image/png;base64,iVBORw0KGgo="
CAT = "https://example.com/cat.jpg?signature=1"
FILM = "https://example.com/film.mp4?signature=1"


def user(content: JsonValue = "Who are you?", **fields: JsonValue) -> dict[str, JsonValue]:
    return {"role": "user", "content": content, **fields}


def body(*messages: JsonValue, **fields: JsonValue) -> dict[str, JsonValue]:
    return {"model": MODEL, "messages": list(messages) or [user()], **fields}


def line(asked: JsonValue, **fields: JsonValue) -> str:
    whole = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": asked, **fields}
    return json.dumps({name: value for name, value in whole.items() if value is not None}, ensure_ascii=False)


def parts(*content: JsonValue) -> dict[str, JsonValue]:
    return body(user(list(content)))


def image(url: JsonValue = CAT, **fields: JsonValue) -> dict[str, JsonValue]:
    return {"type": "image_url", "image_url": {"url": url}, **fields}


def video(url: JsonValue = FILM, **fields: JsonValue) -> dict[str, JsonValue]:
    return {"type": "video_url", "video_url": {"url": url}, **fields}


def frames(*urls: JsonValue, **fields: JsonValue) -> dict[str, JsonValue]:
    return {"type": "video", "video": list(urls), **fields}


def job(**settings: object) -> JobSpec:
    document = {"name": "j", "provider": "model-studio/singapore", "model": MODEL, "inputs": {"requests": "b.jsonl"}}
    return JobSpec.model_validate({**document, **settings})


PLAN = prepare(job(), load_catalogue())


def apart(asked: Mapping[str, JsonValue]) -> tuple[Mapping[str, messages.JsonValue], list[MediaRef]]:
    return taken_apart(asked, MediaRoot(Path(__file__).parent).refer)


def read(folder: Path, content: str | bytes) -> list[Row]:
    (folder / "b.jsonl").write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_rows(job(), folder))


def problems(folder: Path, content: str | bytes) -> list[str]:
    with pytest.raises(SpecError) as caught:
        read(folder, content)
    return [str(problem).removeprefix(f"{folder}/b.jsonl:") for problem in caught.value.problems]


# What a line becomes


def test_the_fields_of_the_body_are_the_variables(tmp_path: Path) -> None:
    (row,) = read(tmp_path, line(body(max_tokens=5, top_p=0.5, stream=False)))
    assert row.variables == {"messages": [user()], "max_tokens": 5, "top_p": 0.5}
    assert (row.custom_id, row.media, row.place, row.line) == ("1", (), "b.jsonl:1", 1)


def test_pictures_are_media_and_stand_no_more_in_the_messages(tmp_path: Path) -> None:
    (row,) = read(tmp_path, line(parts(image(), {"type": "text", "text": "and"}, image(PIXEL, max_pixels=9))))
    assert [reference.url for reference in row.media] == [CAT, PIXEL]
    assert CAT not in json.dumps(row.variables)
    assert "base64" not in json.dumps(row.variables)


def test_a_video_says_its_own_rate_and_may_lie_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes(b"12345")
    (row,) = read(tmp_path, line(parts(video("film.mp4", fps=0.5), frames(CAT, PIXEL), image("film.mp4"))))
    assert row.media == (
        MediaRef(kind="video", path="film.mp4", size=5, fps=0.5),
        MediaRef(kind="frames", frames=(MediaRef(url=CAT), MediaRef(url=PIXEL))),
        MediaRef(path="film.mp4", size=5),
    )
    assert "fps" not in json.dumps(row.variables)


@pytest.mark.parametrize("end", ["\n", "\r\n", ""])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_ends_and_a_byte_order_mark_are_no_part_of_the_requests(tmp_path: Path, mark: str, end: str) -> None:
    lines = end.join([line(body()), line(body(), custom_id="2")]) if end else line(body())
    assert [row.custom_id for row in read(tmp_path, mark + lines + end)] == (["1", "2"] if end else ["1"])


def test_the_media_root_is_the_folder_of_the_file(tmp_path: Path) -> None:
    assert media_root(job(), tmp_path) == tmp_path.resolve()


BODIES = [
    body(),
    body(
        user("{{ name }} {% raw %} {#"), temperature=0.1, seed=7, stop=["\n\n"], response_format={"type": "json_object"}
    ),
    body({"role": "system", "content": "Be short."}, user(), {"role": "assistant", "content": "A."}, user("Why?")),
    body(user([{"type": "text", "text": "one part stays a list", "cache_control": {"type": "ephemeral"}}])),
    parts(image(CAT, min_pixels=4, max_pixels=9), {"type": "text", "text": "Describe."}, image(PIXEL)),
    parts({"type": "image_url", "image_url": {"url": CAT, "detail": "low"}}),
    parts(video(fps=2), {"type": "text", "text": "Summarise."}, video(MP4), image(), video(total_pixels=9_000_000)),
    parts(frames(CAT, PIXEL, CAT, PIXEL, fps=0.5), frames(*[CAT] * 5)),
    body({"role": "developer", "content": "x"}, user("y", name="Ann"), unheard_of={"of": [1, 2.5, None]}),
    body(
        user("What is the weather?"),
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "t", "type": "function", "function": {"name": "weather", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "t", "content": "rain"},
        tools=[{"type": "function", "function": {"name": "weather", "parameters": {"properties": {"api_key": {}}}}}],
        tool_choice="auto",
        n=1,
    ),
    body(user(), {"role": "assistant", "content": "It was", "partial": True}, stop=None),
]


@pytest.mark.parametrize("asked", BODIES)
def test_the_request_is_the_body(tmp_path: Path, asked: Mapping[str, JsonValue]) -> None:
    (row,) = read(tmp_path, line(dict(asked)))
    variables = json.loads(json.dumps(row.variables))  # as a database keeps it
    media = [to_be_sent(PLAN, reference) for reference in row.media]
    params = {name: value for name, value in variables.items() if name != "messages"}
    request = ChatRequest(
        model=MODEL, messages=written_messages(variables, media), params=params, thinking=None, stream=False
    )
    pieces = encode(request, ModelRules()).pieces
    assert json.loads(b"".join(piece for piece in pieces if isinstance(piece, bytes))) == asked


def test_a_long_data_url_is_a_piece_of_its_own() -> None:
    url = "data:image/png;base64," + "A" * 400_000
    variables, media = apart(parts(image(url), image(CAT)))
    request = ChatRequest(
        model=MODEL, messages=written_messages(variables, [to_be_sent(PLAN, one) for one in media]), stream=False
    )
    pieces = encode(request, ModelRules()).pieces
    assert url.encode() in pieces
    assert json.loads(b"".join(piece for piece in pieces if isinstance(piece, bytes)))["messages"] == [
        user([image(url), image(CAT)])
    ]


def test_texts_hold_all_that_makes_a_request_another_one() -> None:
    before = written_texts(apart(body(max_tokens=5))[0])
    assert written_texts(apart(body(max_tokens=6))[0]) != before
    assert written_texts(apart(body(user("Who?"), max_tokens=5))[0]) != before
    assert written_texts(apart(body(max_tokens=5, enable_thinking=True))[0]) != before
    assert written_texts(apart(body(max_tokens=5, stream=True))[0]) == before


@pytest.mark.parametrize(
    ("fields", "by_default", "expected"),
    [
        ({}, True, None),
        ({"enable_thinking": None}, True, None),
        ({"enable_thinking": False}, True, Thinking(enabled=False)),
        ({"enable_thinking": True, "thinking_budget": 9}, False, Thinking(enabled=True, budget=9)),
        ({"thinking_budget": 9}, True, Thinking(enabled=True, budget=9)),
        ({"thinking_budget": 9}, False, Thinking(enabled=False, budget=9)),
        ({"thinking": {"type": "enabled"}}, False, Thinking(enabled=True)),
        ({"thinking": {"type": "disabled"}}, True, Thinking(enabled=False)),
    ],
)
def test_thinking_in_either_spelling(
    fields: Mapping[str, JsonValue], by_default: bool, expected: Thinking | None
) -> None:
    assert written_thinking(fields, by_default=by_default) == expected


# What is refused

WRONG_LINES = [
    (line(body(), custom_id=None), "the line has no `custom_id`. Write {"),
    (line(body(), method=None), "the line has no `method`"),
    (line(None), "the line has no `body`"),
    (line(body(), custom_id=7), "`custom_id` is 7, not text. Write it in quotes"),
    (line(body(), custom_id=""), "the id is empty"),
    (line(body(), custom_id="é" * 200), "is longer than 256 bytes. Shorten it"),
    (line(body(), custom_id="a\nb"), "has a control character"),
    (line(body(), method="GET"), "`method` is `GET`. Write `POST`"),
    (
        line(body(), url="/v1/embeddings"),
        "`url` is `/v1/embeddings`. Only chat completions can be run: write `/v1/chat",
    ),
    (line(body(), url=["/v1/chat/completions"]), "`url` is a list"),
    (line(body(), metadata={}), "unknown key `metadata` beside the body. Known here: custom_id, method, url, body"),
    (line("hello"), "`body` is the text `hello`, not a mapping"),
    (line({**body(), "model": "qwen-max"}), f"body.model: the line asks for `qwen-max`, the job for `{MODEL}`. Write"),
    (line({"messages": [user()]}), f"body.model: the line names no model, the job for `{MODEL}`"),
    (line({"model": MODEL}), "body.messages is missing"),
    (line({"model": MODEL, "messages": []}), "body.messages is empty"),
    (line({"model": MODEL, "messages": "hi"}), "body.messages is `hi`"),
    (line(body("hi")), "body.messages[0] is the text `hi`"),
    (line(body({"content": "hi"})), "body.messages[0].role is missing. Known here: system, developer, user, assistant"),
    (line(body(user(), {"role": "boss", "content": "hi"})), "body.messages[1].role is `boss`"),
    (line(body(user(None))), "body.messages[0].content is missing"),
    (line(body(user([]))), "body.messages[0].content is empty"),
    (line(body(user(7))), "body.messages[0].content is 7"),
    (line(body({"role": "assistant", "content": None})), "body.messages[0].content is missing"),
    (line(body({"role": "assistant", "content": "x", "function_call": {}})), "holds a part that isn't understood"),
    (line(parts("hi")), "body.messages[0].content[0] is no part with a `type`"),
    (line(parts({"type": "text"})), "body.messages[0].content[0].text is missing"),
    (line(parts({"type": "image_url", "image_url": CAT})), "body.messages[0].content[0].image_url has no `url`"),
    (line(parts({"type": "video_url", "video_url": {}})), 'video_url has no `url`. Write {"video_url": {"url": "'),
    (line(parts(frames())), "content[0].video is no list of pictures. Write the addresses of its pictures"),
    (line(parts({"type": "video", "video": FILM})), "a video file is a part `video_url`"),
    (line(parts(frames(CAT, 7))), "content[0].video is no list of pictures"),
    (line(parts(video(fps=11))), "content[0].fps is 11. Write a number from 0.1 to 10, or delete it"),
    (line(parts(frames(CAT, fps="2"))), "content[0].fps is `2`"),
    (line(parts(video(fps=True))), "content[0].fps is true"),
    (line(parts(video(max_frames=8))), "content[0].max_frames: this can't stand beside a video. It doesn't exist"),
    (line(parts(video("film.mp4"))), "`film.mp4` can't be read below"),
    (line(parts(video("../film.mp4"))), "`../film.mp4` leads out of its folder"),
    (line(parts(video(PIXEL))), "the data URL doesn't start with `data:video/…;base64,`"),
    (
        line(parts({"type": "input_audio"})),
        "a part of the type `input_audio` isn't understood. Known here: text, image",
    ),
    (line(parts(image("cat.jpg"))), "`cat.jpg` can't be read below"),
    (line(parts(image("file:///etc/passwd"))), "has a scheme other than http, https or data"),
    (line(parts(image("/etc/passwd"))), "`/etc/passwd` is not relative"),
    (line(parts(image("https://u:p@host/a.jpg"))), "the URL has a user name or password"),
    (line(parts(image("data:image/png;base64,?"))), "the data URL is not valid base64"),
    (line(parts(image("data:text/plain,hi"))), "the data URL doesn't start with `data:image/…;base64,`"),
    (line(body(stream_options={"include_usage": True})), "body.stream_options: this can't stand in a body. Delete it"),
    (line(body(extra_body={"top_k": 1})), "body.extra_body: this can't stand in a body. Write its fields directly"),
    (line(body(max_pixels=9)), "body.max_pixels: this can't stand in a body. Write it into the image part"),
    (line(body(fps=2)), "body.fps: this can't stand in a body. Write it into the part of the video"),
    (line(body(incremental_output=True)), "native wire form only"),
    (line(body(logprobs=True)), "body.logprobs: what it asks for would be lost"),
    (line(body(functions=[{}])), "body.functions: what it asks for would be lost. Write `tools` instead"),
    (line(body(modalities=["text", "audio"])), "body.modalities: only text is kept in this version"),
    (line(body(n=2)), "body.n: one line gets one answer. Delete it; repeat the line under other ids"),
    (line(body(stream="yes")), "body.stream is the text `yes`"),
    (line(body(max_tokens="200")), "body.max_tokens is the text `200`. Write a whole number of 1 or more"),
    (line(body(max_completion_tokens=0)), "body.max_completion_tokens is 0"),
    (line(body(max_tokens=True)), "body.max_tokens is true"),
    (line(body(enable_thinking="true")), "body.enable_thinking is the text `true`"),
    (line(body(thinking={"type": "enabled", "budget_tokens": 9})), "body.thinking is a mapping that isn't understood"),
    (line(body(thinking={"type": "enabled"}, enable_thinking=True)), "it says the same as `enable_thinking`"),
    (line(body(api_key="x")), "body.api_key: this can't be sent with a request. Keys belong in the environment"),
    (line(body(base_url="https://x")), "body.base_url: this can't be sent with a request"),
    (line(body(metadata={"a": ["sk-0123456789abcdef"]})), "body.metadata: this has something inside that looks like"),
    (line(body(user="sk-0123456789abcdef")), "body.user: this holds what looks like a key"),
    ('{"custom_id": "1", "custom_id": "2"}', "the key `custom_id` stands twice in an object"),
    ('{"custom_id": NaN}', "NaN is not JSON"),
    ("[]", "the line holds a list, not an object"),
    (line(body())[:-9], "not JSON: "),
    (line(body())[:-1] + ', "x": "\\ud800"}', "a text holds a NUL or half a surrogate pair"),
]


@pytest.mark.parametrize(("wrong", "expected"), WRONG_LINES)
def test_a_line_that_can_not_be_carried_out_is_refused(tmp_path: Path, wrong: str, expected: str) -> None:
    good = line(body(), custom_id="good")
    (problem,) = problems(tmp_path, f"{good}\n{wrong}\n")
    assert problem.startswith("2: inputs.requests: ")
    assert expected in problem


@pytest.mark.parametrize("harmless", [{"logprobs": False}, {"functions": None}, {"n": None}, {"modalities": ["text"]}])
def test_what_asks_for_nothing_passes(tmp_path: Path, harmless: Mapping[str, JsonValue]) -> None:
    (row,) = read(tmp_path, line(body(**harmless)))
    assert row.variables.items() >= harmless.items()


def test_no_key_is_shown(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, line(body(), url="sk-0123456789abcdef0123"))
    assert "0123456789" not in problem


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    wrong = [line(body(), method="GET"), line(body(n=2)), "{", line(parts(image("x")))]
    assert [problem.partition(":")[0] for problem in problems(tmp_path, "\n".join(wrong))] == ["1", "2", "3", "4"]


def test_after_twenty_problems_the_reading_stops(tmp_path: Path) -> None:
    found = problems(tmp_path, f"{line(body(), method='GET')}\n" * 30)
    assert len(found) == 21
    assert "perhaps more" in found[-1]


def test_a_line_as_long_as_the_vendor_takes_is_read(tmp_path: Path) -> None:
    text = "x" * (MAX_LINE - len(line(body(user("")))))
    assert len(read(tmp_path, line(body(user(text))))) == 1


def test_a_longer_line_is_refused_and_the_next_one_read(tmp_path: Path) -> None:
    long = line(body(user("x" * MAX_LINE)))
    assert problems(tmp_path, f"{long}\n{line(body(), method='GET')}\n") == [
        "1: inputs.requests: the line is longer than 6,291,456 bytes. "
        "Name pictures and videos by their URLs, or by their paths relative to the folder of this file",
        "2: inputs.requests: `method` is `GET`. Write `POST`",
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "there are no rows in it. Add rows, or take the job out"),
        (b"\n\r\n \n", "there are no rows in it"),
        (line(body()).encode("utf-16"), "1: inputs.requests: the file is UTF-16 or UTF-32, not UTF-8"),
        (b'{"custom_id": "caf\xe9"}', "1: inputs.requests: the byte 0xE9 is not UTF-8 (is the file Latin-1?)"),
        (f"{line(body())}\n\ufeff{line(body())}".encode(), "2: inputs.requests: not JSON"),
    ],
)
def test_files_that_hold_no_requests(tmp_path: Path, content: bytes, expected: str) -> None:
    assert expected in problems(tmp_path, content)[-1]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"b\.jsonl: inputs\.requests: can't be opened"):
        list(read_rows(job(), tmp_path))


# The job file

JOBS = """\
version: 1
jobs:
  - name: moved
    provider: model-studio/singapore
    model: qwen3-vl-plus
    inputs: {requests: b.jsonl}
"""


def job_file(folder: Path, more: str = "", *, text: str = JOBS) -> JobSpec:
    (folder / "jobs.yaml").write_text(text + more)
    return read_job_file(folder / "jobs.yaml").jobs[0]


def test_a_job_of_requests_has_no_prompt_and_survives_its_snapshot(tmp_path: Path) -> None:
    spec = job_file(tmp_path, "    budget: {max_cost: 1 USD}\n    priority: 3\n")
    assert spec.prompt is None
    assert JobSpec.model_validate(spec.snapshot()) == spec


@pytest.mark.parametrize(
    ("more", "field", "remedy"),
    [
        ("prompt: x", "prompt", "Delete it; `prompt: null` takes a default back"),
        ("system: x", "system", "Delete it; `system: null` takes a default back"),
        ("params: {max_tokens: 5}", "params", "Delete it; `params: null` takes a default back"),
        ("thinking: {enabled: true}", "thinking", "Delete it; `thinking: null` takes a default back"),
        ('output: {sidecar: "{{ a }}.txt"}', "output", "Delete it; `batchrun export JOB --format openai` writes"),
    ],
)
def test_what_the_lines_say_can_not_be_said_again(tmp_path: Path, more: str, field: str, remedy: str) -> None:
    with pytest.raises(SpecError) as caught:
        job_file(tmp_path, f"    {more}\n")
    (problem,) = caught.value.problems
    assert (problem.line, problem.field) == (7, f"jobs[0].{field}")
    assert problem.remedy.startswith(remedy)


def test_defaults_can_be_taken_back(tmp_path: Path) -> None:
    text = JOBS.replace("jobs:", "defaults: {prompt: x, params: {max_tokens: 5}, thinking: {enabled: true}}\njobs:")
    assert job_file(tmp_path, "    prompt: null\n    params: null\n    thinking: null\n", text=text).prompt is None


def test_a_missing_prompt_is_told_together_with_other_problems(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        job_file(
            tmp_path, "    limits: {concurrency: 0}\n", text=JOBS.replace("{requests: b.jsonl}", "{rows: b.jsonl}")
        )
    assert [problem.field for problem in caught.value.problems] == ["jobs[0].prompt", "jobs[0].limits.concurrency"]
    assert "or messages, or `inputs: {requests: …}`" in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "valid"),
    [
        ({"inputs": {"requests": "b.jsonl"}}, True),
        ({"inputs": {"requests": "b.jsonl"}, "prompt": "x"}, False),
        ({"inputs": {"requests": "b.jsonl"}, "params": {"max_tokens": 5}}, False),
        ({"inputs": {"rows": "b.jsonl"}, "prompt": "x"}, True),
        ({"inputs": {"rows": "b.jsonl"}}, False),
    ],
)
def test_the_schema_asks_for_a_prompt_where_the_reader_does(fields: dict[str, JsonValue], valid: bool) -> None:
    job = {"name": "j", "provider": "p", "model": "m", **fields}
    assert jsonschema.Draft202012Validator(job_schema()).is_valid({"version": 1, "jobs": [job]}) is valid

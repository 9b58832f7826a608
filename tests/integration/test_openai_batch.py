"""OpenAI batch files in and out: a job moves from a vendor's batch service to batchrun and back, and stays the same."""

from __future__ import annotations

import http.client
import http.server
import json
import subprocess
import sys
from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from openai.types.chat import ChatCompletion
from pydantic import JsonValue

from batchrun.bodies import taken_apart
from batchrun.catalogue import load_catalogue
from batchrun.counting.tokens import Between
from batchrun.errors import ChangedError, SpecError, UsageError
from batchrun.estimating import estimate_all
from batchrun.jobfile.spec import JobFile, JobSpec
from batchrun.loading.itemising import batches
from batchrun.loading.needs import Needs
from batchrun.output.export import ExportSummary, Format, export
from batchrun.plan import plan_of, prepare
from batchrun.rows.inputs import Row
from batchrun.rows.references import MediaRef, MediaRoot
from batchrun.running import RunEnd
from batchrun.simulator import Running
from batchrun.states import State
from batchrun.tables import answers, jobs, usage
from tests.clips import write_clip
from tests.integration.recording import recording, stream
from tests.integration.running import (
    KEY,
    MODEL,
    NATIVE,
    ORACLE_REGION,
    PATIENCE,
    REAL,
    SERIAL,
    Bench,
    check_money,
    faulty,
    job,
    opened_bench,
)
from tests.pictures import png

pytestmark = pytest.mark.usefixtures("nothing_left_behind")

Line = dict[str, JsonValue]
PICTURES = Path(__file__).parents[2] / "batchrun" / "demo" / "pictures"
OUTPUT_PRICE = Decimal("0.0000016")
"""USD for a token of output, contract 8.4."""


def asked(text: str, **fields: JsonValue) -> Line:
    """A body whose text no other test has."""
    return {"model": MODEL, "messages": [{"role": "user", "content": f"{text} {next(SERIAL)}"}], **fields}


def write(folder: Path, bodies: Sequence[Line], name: str = "batch.jsonl") -> None:
    lines = [
        {"custom_id": f"r-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        for number, body in enumerate(bodies)
    ]
    (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def moved(name: str = "moved", *, fault: str = "", source: str = "batch.jsonl", **settings: object) -> JobSpec:
    document = {"name": name, "provider": faulty(fault), "model": MODEL, "inputs": {"requests": source}}
    return JobSpec.model_validate({**document, **settings})


def exported(bench: Bench, form: Format, name: str, job: str = "moved", **options: object) -> ExportSummary:
    return export(
        bench.engine,
        job,
        form,
        bench.folder / name,
        plan_of=lambda row: plan_of(row, bench.catalogue),
        **options,  # type: ignore[arg-type]  # passed on
    )


def lines_of(path: Path) -> dict[str, Any]:
    """The lines of a file by their custom_id."""
    return {line["custom_id"]: line for line in map(json.loads, path.read_text(encoding="utf-8").splitlines())}


def completions(path: Path) -> dict[str, ChatCompletion]:
    """The bodies of an output file, as the SDK reads them."""
    return {
        custom_id: ChatCompletion.model_validate(line["response"]["body"]) for custom_id, line in lines_of(path).items()
    }


def answer_to(bench: Bench, body: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
    """What the simulator says to exactly this body, in a region of its own."""
    address = urlsplit(bench.simulator.base_url(ORACLE_REGION, "ttft=0+tps=0"))
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=PATIENCE)
    headers = {"authorization": f"Bearer {KEY}"}
    connection.request("POST", f"{address.path}/chat/completions", json.dumps({**body, "stream": False}), headers)
    choice: Mapping[str, JsonValue] = json.loads(connection.getresponse().read())["choices"][0]
    connection.close()
    return choice


def varied() -> list[Line]:
    picture: Line = {"type": "image_url", "image_url": {"url": "https://example.com/a.jpg"}}
    film: Line = {"type": "video_url", "video_url": {"url": "https://example.com/a.mp4"}, "fps": 1}
    frames: Line = {"type": "video", "video": ["https://example.com/a.jpg"] * 4, "fps": 0.5}
    watched = asked("Watch.", max_tokens=200)
    watched["messages"] = [{"role": "user", "content": [film, {"type": "text", "text": f"{next(SERIAL)}"}, frames]}]
    several = asked("Look.", max_tokens=200)
    several["messages"] = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "One {{ brace }}"},
        {"role": "assistant", "content": "Two"},
        {"role": "user", "content": [picture, {"type": "text", "text": f"Three {next(SERIAL)}"}, picture]},
    ]
    return [
        asked("plain", temperature=0.5, seed=7, stream=False),
        asked("thinks", enable_thinking=True, thinking_budget=200),
        asked("does not think", enable_thinking=False),
        asked("is cut", max_tokens=3),
        several,
        watched,
    ]


# There and back


def test_a_job_comes_back_with_the_ids_texts_and_tokens_that_were_served(bench: Bench) -> None:
    bodies = varied()
    write(bench.folder, bodies)
    ids = bench.load(moved())
    bench.run(ids)
    exported(bench, "openai", "out.jsonl")
    found, billed = completions(bench.folder / "out.jsonl"), {row.chat_id: row for row in bench.book()}
    assert list(found) == [f"r-{number}" for number in range(len(bodies))]
    for completion, body in zip(found.values(), bodies, strict=True):
        (choice,), usage = completion.choices, completion.usage
        expected = answer_to(bench, body)
        message = expected["message"]
        assert isinstance(message, dict)
        assert (choice.finish_reason, choice.message.content) == (expected["finish_reason"], message["content"])
        assert (choice.message.model_extra or {}).get("reasoning_content") == message.get("reasoning_content")
        row = billed[completion.id]
        assert usage is not None
        assert (usage.prompt_tokens, usage.completion_tokens) == (row.billed.input, row.billed.output)
        assert usage.total_tokens == row.billed.input + row.billed.output
        details = usage.completion_tokens_details
        assert ((details and details.reasoning_tokens) or 0) == row.billed.reasoning
    assert [choice.finish_reason for item in found.values() for choice in item.choices].count("length") == 1
    check_money(bench, ids)


def test_an_output_line_has_the_form_of_the_vendors(sqlite_bench: Bench) -> None:
    write(sqlite_bench.folder, [asked("form")])
    sqlite_bench.go(moved())
    exported(sqlite_bench, "openai", "out.jsonl")
    (line,) = lines_of(sqlite_bench.folder / "out.jsonl").values()
    assert list(line) == ["id", "custom_id", "response", "error"]
    assert str(line["id"]).startswith("batch_req_")
    assert line["error"] is None
    assert list(line["response"]) == ["status_code", "request_id", "body"]
    assert line["response"]["status_code"] == 200
    assert (line["response"]["body"]["object"], line["response"]["body"]["model"]) == ("chat.completion", MODEL)


def test_two_exports_are_the_same(sqlite_bench: Bench) -> None:
    write(sqlite_bench.folder, [asked("same"), asked("again")])
    sqlite_bench.go(moved())
    assert exported(sqlite_bench, "openai", "a.jsonl").sha256 == exported(sqlite_bench, "openai", "b.jsonl").sha256


def test_the_same_file_buys_nothing_twice(bench: Bench) -> None:
    write(bench.folder, varied())
    bench.go(moved())
    before = len(bench.book())
    assert bench.go(moved()).tally.calls == 0
    assert len(bench.book()) == before == len(varied())


def test_a_line_that_is_new_is_bought_alone(sqlite_bench: Bench) -> None:
    bodies = varied()
    write(sqlite_bench.folder, bodies)
    sqlite_bench.go(moved())
    write(sqlite_bench.folder, [*bodies, asked("new")])
    assert sqlite_bench.go(moved()).tally.calls == 1


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"max_tokens": 9}, "max_tokens was 5, now 9"),
        ({"enable_thinking": True}, "enable_thinking was nothing, now true"),
        ({"messages": [{"content": "x" * 500 + "after", "role": "user"}]}, "now …" + "x" * 40 + 'after", "role": "us'),
    ],
)
def test_a_line_that_changed_after_it_was_called_is_refused_and_shown(
    sqlite_bench: Bench, change: Line, told: str
) -> None:
    body = asked("changes", max_tokens=5, messages=[{"content": "x" * 600, "role": "user"}])
    write(sqlite_bench.folder, [body])
    sqlite_bench.go(moved())
    write(sqlite_bench.folder, [{**body, **change}])
    with pytest.raises(ChangedError) as caught:
        sqlite_bench.load(moved())
    assert told in caught.value.message


def test_what_only_says_how_the_answer_comes_may_change(sqlite_bench: Bench) -> None:
    body = asked("streams")
    write(sqlite_bench.folder, [body])
    sqlite_bench.go(moved())
    write(sqlite_bench.folder, [{**body, "stream": True}])
    assert sqlite_bench.loaded(moved())[0].unchanged == 1


# The wire


STREAMED = {"stream": True, "stream_options": {"include_usage": True}}
LONG_PICTURE = "data:image/png;base64," + b64encode(png(64, 64, 150_000)).decode()
BODIES: list[Line] = [
    {"model": MODEL, "messages": [{"role": "user", "content": '{{ x }} {% if %} \u2028 é " \\ \n'}]},
    {"model": MODEL, "messages": [{"role": "user", "content": "a"}], "stop": ["b"], "x_new": {"deep": [1.5, None]}},
    {"model": MODEL, "messages": [{"role": "user", "content": "c"}], "enable_thinking": True, "thinking_budget": 9},
    {
        "model": MODEL,
        "messages": [
            {"role": "system", "content": "s"},
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": LONG_PICTURE, "detail": "low"}, "max_pixels": 65_536},
                    {"type": "text", "text": "d"},
                    {"type": "image_url", "image_url": {"url": "https://example.com/a.jpg?b=c"}},
                    {"type": "video_url", "video_url": {"url": "https://example.com/a.mp4"}, "fps": 0.5},
                    {"type": "video", "video": [LONG_PICTURE, *["https://example.com/a.jpg"] * 3], "fps": 2},
                ],
            },
        ],
        "max_tokens": 7,
    },
    {
        "model": MODEL,
        "messages": [
            {"role": "user", "content": "e"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": "t", "content": "g"},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
    },
]


def test_what_leaves_is_the_body_and_how_it_is_streamed(bench: Bench) -> None:
    write(bench.folder, [{**body, "stream": False} for body in BODIES])
    with recording(bench, stream({"content": "yes"})) as received:
        assert bench.go(moved(limits={"concurrency": 1})).exit_code == 0
    assert [json.loads(body) for body in received] == [{**body, **STREAMED} for body in BODIES]


@pytest.mark.parametrize("like", [REAL, NATIVE])
def test_files_beside_the_batch_file_are_sent_and_billed(
    sqlite_url: str, tmp_path: Path, simulator: Running, like: str
) -> None:
    write_clip(tmp_path / "a.mp4", seconds=4)
    (tmp_path / "a.png").write_bytes(png(64, 64))
    parts: list[JsonValue] = [
        {"type": "video_url", "video_url": {"url": "a.mp4"}, "fps": 1},
        {"type": "image_url", "image_url": {"url": "a.png"}},
        {"type": "video", "video": ["a.png"] * 6},
        {"type": "text", "text": f"What happens? {next(SERIAL)}"},
    ]
    with opened_bench(sqlite_url, tmp_path, simulator, like=like) as bench:
        write(tmp_path, [{"model": MODEL, "messages": [{"role": "user", "content": parts}]}])
        ids = bench.load(moved("file", media={"video": "file"}), moved("frames", media={"video": "frames"}))
        bench.run(ids)
        for job_id in ids:
            (row,) = bench.rows(usage, usage.c.job_id == job_id)
            assert row.video_tokens == (2 * 70 + 2) + (3 * 64 + 2)  # 4 frames of 10×7, 6 of 8×8; two on a grid
        check_money(bench, ids)


def test_calls_to_tools_are_kept_with_their_arguments(bench: Bench) -> None:
    def call(**fields: JsonValue) -> JsonValue:
        return {"tool_calls": [{"index": 0, **fields}]}

    write(bench.folder, [asked("weather?", tools=[{"type": "function", "function": {"name": "weather"}}])])
    answer = stream(
        call(id="call_1", type="function", function={"name": "weather", "arguments": '{"ci'}),
        call(function={"arguments": 'ty": "Kyōto"}'}),
        {"tool_calls": [{"index": 1, "id": "call_2", "function": {"name": "time", "arguments": "{}"}}]},
        finish="tool_calls",
    )
    with recording(bench, answer):
        assert bench.go(moved()).exit_code == 0
    exported(bench, "openai", "out.jsonl")
    (choice,) = completions(bench.folder / "out.jsonl")["r-0"].choices
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
    assert [(made.id, made.type) for made in choice.message.tool_calls or []] == [
        ("call_1", "function"), ("call_2", "function"),
    ]  # fmt: skip
    found = [made.function for made in choice.message.tool_calls or [] if made.type == "function"]
    assert [(made.name, made.arguments) for made in found] == [("weather", '{"city": "Kyōto"}'), ("time", "{}")]


def test_an_answer_without_calls_to_tools_has_none(sqlite_bench: Bench) -> None:
    write(sqlite_bench.folder, [asked("none")])
    sqlite_bench.go(moved())
    assert [row.tool_calls for row in sqlite_bench.rows(answers)] == [None]


# Money


def test_each_call_reserves_what_its_own_line_allows(bench: Bench) -> None:
    write(
        bench.folder,
        [
            asked("short", max_tokens=100),
            asked("large", max_tokens=1_000),
            asked("thinks", max_tokens=100, enable_thinking=True, thinking_budget=500),
            asked("either", max_tokens=100, max_completion_tokens=1_000),
        ],
    )
    ids = bench.load(moved(budget={"max_cost": "1 USD"}))
    bench.run(ids)
    short, large, thinks, either = (row.reserved for row in bench.attempts_of(ids[0]))
    near = Decimal("0.00002")  # what some bytes more of input may cost
    assert abs(large - short - 900 * OUTPUT_PRICE) < near
    assert abs(thinks - short - 500 * OUTPUT_PRICE) < near
    assert abs(either - large) < near
    check_money(bench, ids)


def test_a_line_without_a_bound_reserves_the_longest_answer_of_the_model(sqlite_bench: Bench) -> None:
    write(sqlite_bench.folder, [asked("endless")])
    ids = sqlite_bench.load(moved(budget={"max_cost": "1 USD"}))
    sqlite_bench.run(ids)
    assert sqlite_bench.attempts_of(ids[0])[0].reserved > 32_768 * OUTPUT_PRICE


def test_the_cap_holds_for_lines_of_any_length(bench: Bench) -> None:
    write(bench.folder, [asked(f"n{number}", max_tokens=50 if number % 2 else 400) for number in range(60)])
    ids = bench.load(moved(budget={"max_cost": "0.003 USD"}))
    end = bench.run(ids)
    row = bench.job_row(ids[0])
    assert end.exit_code == 3
    assert 0 < row.spent + row.reserved <= row.cap
    assert bench.states(ids[0])["done"] > 0


def test_tools_and_schemas_count_as_input(sqlite_bench: Bench) -> None:
    long: Line = {"type": "function", "function": {"name": "f", "description": "d" * 5_000}}
    write(sqlite_bench.folder, [asked("plain"), asked("tools", tools=[long])])
    (job_id,) = sqlite_bench.load(moved())
    plain, tools = (item.input_bound for item in sqlite_bench.items_of(job_id))
    assert tools - plain > 5_000


def test_a_picture_counts_as_the_largest_one(sqlite_bench: Bench) -> None:
    picture: Line = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 40_000}}
    body = asked("look")
    write(sqlite_bench.folder, [{**body, "messages": [{"role": "user", "content": [picture, picture]}]}])
    (job_id,) = sqlite_bench.load(moved())
    assert 2 * 16_386 < sqlite_bench.items_of(job_id)[0].input_bound < 2 * 16_386 + 500


def test_how_many_calls_a_budget_lets_through_is_told_by_the_dearest_line(sqlite_bench: Bench) -> None:
    write(
        sqlite_bench.folder, [asked(f"n{number}", max_tokens=9) for number in range(9)] + [asked("x", max_tokens=900)]
    )
    (loaded,) = sqlite_bench.loaded(moved(budget={"max_cost": "0.004 USD"}))
    (note,) = loaded.notes
    assert "lets 2 calls be in flight at once" in note
    assert "lower max_tokens or raise the budget" in note


# Refused with the help of the catalogue, each with its line


def refused(bench: Bench, spec: JobSpec) -> list[str]:
    with pytest.raises(SpecError) as caught:
        bench.load(spec)
    assert bench.rows(jobs) == []
    return [str(problem).removeprefix(f"{bench.folder}/") for problem in caught.value.problems]


def test_what_the_model_does_not_take_is_refused_before_any_call(sqlite_bench: Bench) -> None:
    write(
        sqlite_bench.folder,
        [
            {**asked("fine"), "model": "kimi-k2-thinking", "enable_thinking": True},
            {**asked("budget"), "model": "kimi-k2-thinking", "thinking_budget": 5},
            {**asked("off"), "model": "kimi-k2-thinking", "enable_thinking": False},
            {**asked("sampling"), "model": "kimi-k2-thinking", "top_p": 0.5},
        ],
    )
    assert refused(sqlite_bench, moved(provider="model-studio/beijing", model="kimi-k2-thinking")) == [
        "batch.jsonl:2: inputs.requests: kimi-k2-thinking takes no thinking budget. Leave the budget out.",
        "batch.jsonl:3: inputs.requests: kimi-k2-thinking always thinks here; there is nothing to switch it off with. "
        "Leave `thinking` out, or choose a model that answers directly.",
        "batch.jsonl:4: inputs.requests: kimi-k2-thinking doesn't take the parameter `top_p`. Remove `top_p`.",
    ]


def test_thinking_is_written_as_the_model_wants_it(sqlite_bench: Bench) -> None:
    write(sqlite_bench.folder, [{**asked("off"), "thinking": {"type": "disabled"}}])
    with recording(sqlite_bench, stream({"content": "yes"})) as received:
        sqlite_bench.go(moved())
    assert json.loads(received[0])["enable_thinking"] is False
    assert "thinking" not in json.loads(received[0])


def test_a_budget_of_thinking_without_thinking_is_refused(sqlite_bench: Bench) -> None:
    write(sqlite_bench.folder, [asked("quiet", thinking_budget=5)])
    assert refused(sqlite_bench, moved()) == [
        "batch.jsonl:1: inputs.requests: A thinking budget is set, but thinking is off. "
        "Leave the budget out, or switch thinking on."
    ]


OWN = """
endpoints:
  own:
    dialect: compat
    base_url: http://127.0.0.1:9/v1
    key_env: []
    models:
      unbounded: {max_input: 1000, prices: [{currency: USD, tiers: [{input: 1, output: 2}]}]}
      blind: {images: false, max_output: 5}
"""


@pytest.fixture
def own(sqlite_bench: Bench, tmp_path: Path) -> Bench:
    (tmp_path / "own.yaml").write_text(OWN)
    sqlite_bench.catalogue = load_catalogue(tmp_path / "own.yaml")
    return sqlite_bench


def test_a_budget_needs_a_bound_in_every_line(own: Bench) -> None:
    bodies = [{**asked("bounded"), "model": "unbounded", "max_tokens": 5}, {**asked("endless"), "model": "unbounded"}]
    write(own.folder, bodies)
    assert refused(own, moved(provider="own", model="unbounded", budget={"max_cost": "1 USD"})) == [
        "batch.jsonl:2: inputs.requests: a budget needs a bound of the answer's length, and none is known for "
        "unbounded. Write `max_tokens` into the body"
    ]


def test_videos_that_can_not_be_sent_are_refused_with_their_lines(sqlite_bench: Bench) -> None:
    def watched(part: Line) -> Line:
        return {"model": MODEL, "messages": [{"role": "user", "content": [part]}]}

    film: Line = {"type": "video_url", "video_url": {"url": "https://example.com/a.mp4"}}
    write(sqlite_bench.folder, [watched({"type": "video", "video": ["https://example.com/a.jpg"] * 3})])
    (problem,) = refused(sqlite_bench, moved())
    assert problem.startswith("batch.jsonl:1: the list of frames has 3 pictures")
    write(sqlite_bench.folder, [watched(film)])
    (problem,) = refused(sqlite_bench, moved(media={"video": "frames"}))
    assert problem.startswith("batch.jsonl:1: inputs.requests: Pictures can only be taken out of local videos")
    with pytest.raises(SpecError, match=r"so media\.fps can't be given"):
        sqlite_bench.load(moved(media={"fps": 1}))


def test_a_video_with_bounds_of_its_own_is_reserved_for_by_the_longest_input(sqlite_bench: Bench) -> None:
    film: Line = {"type": "video_url", "video_url": {"url": "https://example.com/a.mp4"}, "max_pixels": 2_048_000}
    write(sqlite_bench.folder, [{"model": MODEL, "messages": [{"role": "user", "content": [film]}]}])
    (job_id,) = sqlite_bench.load(moved())
    assert sqlite_bench.items_of(job_id)[0].input_bound == 260_096


def test_a_picture_for_a_model_that_takes_none_is_refused(own: Bench) -> None:
    picture: Line = {"type": "image_url", "image_url": {"url": "https://example.com/a.jpg"}}
    write(own.folder, [{"model": "blind", "messages": [{"role": "user", "content": [picture]}]}])
    assert "takes no pictures" in refused(own, moved(provider="own", model="blind"))[0]


def test_an_id_that_stands_twice_is_refused(sqlite_bench: Bench) -> None:
    write(sqlite_bench.folder, [asked("one")])
    file = sqlite_bench.folder / "batch.jsonl"
    file.write_text(file.read_text() * 2)
    assert "batch.jsonl:2: the id 'r-0' stands twice in the source" in refused(sqlite_bench, moved())[0]


# Items without an answer


def failing(bench: Bench, *, fault: str, attempts: int = 1) -> RunEnd:
    bench.at(fault)
    write(bench.folder, [asked("fails")])
    return bench.go(moved(fault=fault, retry={"attempts": attempts, "max_elapsed": "1s"}))


def test_a_refused_item_stands_in_the_file_of_errors_with_its_status(sqlite_bench: Bench) -> None:
    failing(sqlite_bench, fault="400")
    summary = exported(sqlite_bench, "openai", "out.jsonl")
    (line,) = lines_of(sqlite_bench.folder / "out.errors.jsonl").values()
    assert (sqlite_bench.folder / "out.jsonl").read_bytes() == b""
    assert (summary.written, summary.unanswered) == (0, 1)
    assert summary.errors == sqlite_bench.folder / "out.errors.jsonl"
    assert line["error"]["code"] == "invalid"
    assert line["error"]["message"] == line["response"]["body"]["error"]["message"] != ""
    assert line["response"]["status_code"] == 400


def test_an_answer_that_broke_has_no_response(sqlite_bench: Bench) -> None:
    failing(sqlite_bench, fault="truncate=2")
    exported(sqlite_bench, "openai", "out.jsonl")
    (line,) = lines_of(sqlite_bench.folder / "out.errors.jsonl").values()
    assert line["response"] is None
    assert line["error"]["code"] == "incomplete"


def test_an_item_that_was_never_called_is_told_by_its_state(sqlite_bench: Bench) -> None:
    write(sqlite_bench.folder, [asked("waits")])
    sqlite_bench.load(moved())
    exported(sqlite_bench, "openai", "out.jsonl", states=[State.PENDING])
    (line,) = lines_of(sqlite_bench.folder / "out.errors.jsonl").values()
    assert line["error"] == {"code": "pending", "message": "not done yet"}
    assert str(line["id"]).startswith("batch_req_item_")


def test_without_errors_there_is_no_file_of_them(sqlite_bench: Bench) -> None:
    write(sqlite_bench.folder, [asked("fine")])
    sqlite_bench.go(moved())
    assert exported(sqlite_bench, "openai", "out.jsonl").errors is None
    assert not (sqlite_bench.folder / "out.errors.jsonl").exists()


def test_a_named_file_of_errors_is_written_in_any_case(sqlite_bench: Bench) -> None:
    write(sqlite_bench.folder, [asked("fine")])
    sqlite_bench.go(moved())
    exported(sqlite_bench, "openai", "out.jsonl", errors=sqlite_bench.folder / "bad.jsonl")
    assert (sqlite_bench.folder / "bad.jsonl").read_bytes() == b""


def test_errors_of_an_earlier_export_never_stay_beside_new_answers(sqlite_bench: Bench) -> None:
    write(sqlite_bench.folder, [asked("fine")])
    sqlite_bench.go(moved())
    (sqlite_bench.folder / "out.errors.jsonl").write_text("old")
    with pytest.raises(UsageError, match=r"out\.errors\.jsonl is there already"):
        exported(sqlite_bench, "openai", "out.jsonl")
    assert not (sqlite_bench.folder / "out.jsonl").exists()
    exported(sqlite_bench, "openai", "out.jsonl", overwrite=True)
    assert (sqlite_bench.folder / "out.errors.jsonl").read_text() == ""


def test_both_files_are_there_or_none(sqlite_bench: Bench) -> None:
    failing(sqlite_bench, fault="400")
    with pytest.raises(UsageError, match="can't write"):
        exported(sqlite_bench, "openai", "out.jsonl", errors=sqlite_bench.folder / "nowhere" / "errors.jsonl")
    assert not (sqlite_bench.folder / "out.jsonl").exists()


def test_one_file_can_not_be_both(sqlite_bench: Bench) -> None:
    failing(sqlite_bench, fault="400")
    with pytest.raises(UsageError, match="can't go into the same file"):
        exported(sqlite_bench, "openai", "out.jsonl", errors=sqlite_bench.folder / "out.jsonl")


def test_answers_of_any_job_can_be_exported(sqlite_bench: Bench) -> None:
    sqlite_bench.go(job("rows", 2))
    exported(sqlite_bench, "openai", "out.jsonl", "rows")
    assert list(completions(sqlite_bench.folder / "out.jsonl")) == ["0", "1"]


# What is left of a job, for a vendor's batch service


def captions(name: str = "captions") -> JobSpec:
    document = {"name": name, "provider": faulty(""), "model": MODEL, "inputs": {"images": "pictures"}}
    asked_for = {"system": "Be brief.", "prompt": "Describe {{ stem }}.", "params": {"max_tokens": 60, "seed": 3}}
    return JobSpec.model_validate({**document, **asked_for, "thinking": {"enabled": True, "budget": 30}})


@pytest.fixture
def pictures(sqlite_bench: Bench) -> Path:
    folder = sqlite_bench.folder / "pictures"
    folder.mkdir()
    for name in ("chessboard.jpg", "signature.png"):
        (folder / name).write_bytes((PICTURES / name).read_bytes())
    return folder


def test_a_job_written_as_requests_gets_the_same_answers(sqlite_bench: Bench, pictures: Path) -> None:
    first = sqlite_bench.load(captions())
    summary = exported(sqlite_bench, "openai-requests", "rest.jsonl", "captions")
    second = sqlite_bench.load(moved(source="rest.jsonl"))
    sqlite_bench.run([*first, *second])
    answered = sqlite_bench.answers_of(first[0])
    assert summary.written == len(list(pictures.iterdir())) == 2
    assert answered.keys() == {"chessboard.jpg", "signature.png"}
    assert sqlite_bench.answers_of(second[0]) == answered


def test_requests_come_out_as_they_went_in(bench: Bench) -> None:
    write(bench.folder, BODIES)
    bench.load(moved())
    exported(bench, "openai-requests", "rest.jsonl")
    before, after = (lines_of(bench.folder / name) for name in ("batch.jsonl", "rest.jsonl"))
    assert after == before


@pytest.mark.usefixtures("pictures")
def test_what_is_done_is_not_asked_for_again(sqlite_bench: Bench) -> None:
    sqlite_bench.go(captions())
    assert exported(sqlite_bench, "openai-requests", "rest.jsonl", "captions").written == 0


def test_a_picture_too_large_for_a_line_is_left_out_and_named(sqlite_bench: Bench, pictures: Path) -> None:
    large = (pictures / "chessboard.jpg").read_bytes()
    (pictures / "large.jpg").write_bytes(large + b"\0" * 5_000_000)
    (pictures / "text.jpg").write_text("no picture")
    sqlite_bench.load(captions())
    summary = exported(sqlite_bench, "openai-requests", "rest.jsonl", "captions")
    assert (summary.written, summary.left_out.number, summary.complete) == (2, 2, False)
    assert summary.left_out.shown[0].startswith("large.jpg: its line would have 6,")
    assert "no picture that can be sent" in summary.left_out.shown[1]


# Size


def test_rows_with_large_pictures_are_loaded_few_at_a_time() -> None:
    media = (MediaRef(url="data:image/png;base64," + "A" * 6_000_000),)
    rows = (Row(custom_id=str(number), variables={}, media=media, place="") for number in range(10))
    assert [len(batch) for batch in batches(rows)] == [3, 3, 3, 1]


LOADING = """
import json, resource, sys
from pathlib import Path
from batchrun.api import load

folder, count = Path(sys.argv[1]), int(sys.argv[2])
with (folder / "b.jsonl").open("w") as file:
    for number in range(count):
        body = {"model": "qwen3-vl-plus", "messages": [{"role": "user", "content": f"{number} " + "x" * 300}]}
        line = {"custom_id": str(number), "method": "POST", "url": "/v1/chat/completions", "body": body}
        file.write(json.dumps(line) + "\\n")
job = {"name": "j", "provider": "model-studio/singapore", "model": "qwen3-vl-plus", "inputs": {"requests": "b.jsonl"}}
(folder / "jobs.yaml").write_text(json.dumps({"version": 1, "jobs": [job]}))
(loaded,) = load(folder / "jobs.yaml", database=folder / "b.db")
print(loaded.added, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_a_long_file_needs_no_more_memory_than_a_short_one(tmp_path: Path) -> None:
    kilobytes = []
    for count in (500, 8_500):
        folder = tmp_path / str(count)
        folder.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", LOADING, str(folder), str(count)], capture_output=True, text=True, check=True
        )
        added, peak = map(int, done.stdout.split())
        assert added == count
        kilobytes.append(peak)
    assert kilobytes[1] - kilobytes[0] < 4_000  # as rows and items, the 8,000 lines more are over 20 MB


# Estimates


def test_the_estimate_encloses_the_bill_of_lines_of_any_kind(sqlite_bench: Bench) -> None:
    write(sqlite_bench.folder, varied())
    spec = moved()
    file = JobFile(version=1, jobs=(spec,), path=None)
    moment = datetime.now(UTC)
    told = estimate_all(file, sqlite_bench.catalogue, base=sqlite_bench.folder, engine=None, now=moment)
    sqlite_bench.go(spec)
    rows, made = sqlite_bench.book(), told.jobs[0]
    assert made.input_tokens.low <= sum(row.billed.input for row in rows) <= (made.input_tokens.high or 0)
    assert made.output_tokens.low <= sum(row.billed.output for row in rows) <= (made.output_tokens.high or 0)
    assert made.to_come is not None
    assert made.to_come.low <= sum(row.amount or 0 for row in rows) <= (made.to_come.high or 0)


def test_a_line_that_can_not_be_run_can_not_be_estimated(sqlite_bench: Bench) -> None:
    write(sqlite_bench.folder, [asked("fine"), asked("quiet", thinking_budget=5)])
    file = JobFile(version=1, jobs=(moved(),), path=None)
    moment = datetime.now(UTC)
    with pytest.raises(SpecError, match=r"batch\.jsonl:2: inputs\.requests: A thinking budget is set"):
        estimate_all(file, sqlite_bench.catalogue, base=sqlite_bench.folder, engine=None, now=moment)


def test_a_picture_with_bounds_of_its_own_may_become_larger_than_the_usual_ones(sqlite_bench: Bench) -> None:
    def tokens(**beside: JsonValue) -> Between:
        part: Line = {"type": "image_url", "image_url": {"url": "https://example.com/a.jpg"}, **beside}
        refer = MediaRoot(sqlite_bench.folder).refer
        variables, _ = taken_apart({"model": MODEL, "messages": [{"role": "user", "content": [part]}]}, refer)
        needs = Needs(prepare(moved(), sqlite_bench.catalogue), sqlite_bench.folder, datetime.now(UTC))
        found = needs.of(variables, [""], [{"url": "https://example.com/a.jpg"}])
        assert found is not None
        return found.input

    usual, sharp = tokens().high, tokens(max_pixels=16_384 * 32 * 32).high
    assert usual is not None
    assert sharp is not None
    assert usual < 16_384 < sharp

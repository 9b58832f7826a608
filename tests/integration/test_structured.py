"""Answers in a form: what fits is stored as a value, what doesn't goes the way that the job asks for, and each answer
that was bought stands in the ledger."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from batchrun.catalogue import Structured, load_catalogue
from batchrun.cli.results import print_item
from batchrun.database import connect, reading
from batchrun.errors import ChangedError
from batchrun.jobfile.spec import JobFile, JobSpec
from batchrun.loading.loader import load
from batchrun.output.documents import document
from batchrun.output.export import COLUMNS, record
from batchrun.output.sidecar import words
from batchrun.reports.cost import cost_by
from batchrun.reports.jobs import find_jobs
from batchrun.reports.results import ItemResult, results
from batchrun.reports.status import status
from batchrun.running import RunEnd, run
from batchrun.settings import Settings
from batchrun.states import State
from tests.integration.running import MODEL, Bench, check_money, check_reservations, faulty, job
from tests.integration.test_native_wire import KEY, SERVER, Server, answering, http

pytestmark = pytest.mark.usefixtures("nothing_left_behind")

APPLES = {
    "type": "object",
    "required": ["caption"],
    "properties": {"caption": {"type": "string", "pattern": "apple"}},
}
"""In JSON mode the simulator repeats words of the prompt in its `caption`."""


def fruits(name: str, **settings: object) -> JobSpec:
    """One item whose answer fits, and one whose answer doesn't."""
    prompts = [f"{name}: an apple, as JSON", f"{name}: a pear, as JSON"]
    return job(name, prompts, prompt="{{ text }} (in JSON)", response_schema=APPLES, **settings)


def items_of(bench: Bench, name: str) -> list[ItemResult]:
    with reading(bench.engine) as connection:
        [row] = find_jobs(connection, [name])
        return list(results(connection, row))


def check_bill(bench: Bench, job_id: int) -> None:
    """The report is the simulator's bill, to the last digit."""
    check_money(bench, [job_id])
    check_reservations(bench)
    with reading(bench.engine) as connection:
        [line] = cost_by(connection, "job", job_ids=[job_id])
    bill = sum((row.amount or Decimal(0) for row in bench.book()), Decimal(0))
    assert (line.cost_low, line.cost_high, line.calls) == (bill, bill, len(bench.book()))


@pytest.mark.parametrize("stream", [True, False])
def test_what_fits_is_stored_as_a_value_and_what_does_not_is_kept_and_counted(bench: Bench, stream: bool) -> None:
    [job_id] = bench.load(fruits("kept", stream=stream))
    end = bench.run([job_id])
    good, bad = items_of(bench, "kept")
    assert (good.state, good.parsed, good.error_kind) == (State.DONE, json.loads(good.text or ""), None)
    assert (bad.state, bad.parsed, bad.error_kind) == (State.DONE, None, "invalid_answer")
    assert json.loads(bad.text or "")["caption"]
    assert (bad.error or "").startswith("the answer doesn't fit: $.caption: ")
    assert (end.exit_code, end.jobs[0].unfit) == (0, 1)
    with reading(bench.engine) as connection:
        [told] = status(connection, ["kept"])
    assert (told.unfit, told.done, told.failed) == (1, 2, 0)
    check_bill(bench, job_id)


def test_what_does_not_fit_fails_where_the_job_wants_it_and_is_not_asked_again(bench: Bench) -> None:
    [job_id] = bench.load(fruits("strict", on_invalid="fail"))
    end = bench.run([job_id])
    good, bad = items_of(bench, "strict")
    assert (good.state, bad.state, bad.error_kind) == (State.DONE, State.FAILED, "invalid_answer")
    assert [attempt.text is not None for attempt in bad.attempts] == [True]
    assert (end.exit_code, len(bench.book())) == (1, 2)
    check_bill(bench, job_id)


def test_what_does_not_fit_is_asked_again_as_often_as_the_job_may_try(bench: Bench) -> None:
    spec = fruits("again", on_invalid="ask_again", retry={"attempts": 2})
    [job_id] = bench.load(spec)
    bench.run([job_id])
    good, bad = items_of(bench, "again")
    assert (len(good.attempts), good.state) == (1, State.DONE)
    assert [attempt.error_kind for attempt in bad.attempts] == ["invalid_answer"] * 2
    assert all(attempt.text and attempt.billed and attempt.cost_low == attempt.cost_high for attempt in bad.attempts)
    assert bad.state == State.FAILED
    check_bill(bench, job_id)


def test_a_job_whose_answers_never_fit_stops_after_ten(sqlite_bench: Bench) -> None:
    spec = job("never", 40, response_schema={"type": "null"}, on_invalid="fail", limits={"concurrency": 1})
    [job_id] = sqlite_bench.load(spec)
    end = sqlite_bench.run([job_id])
    assert (end.jobs[0].paused, end.jobs[0].states) == ("errors", {"failed": 10, "pending": 30})


def test_a_cut_answer_is_cut_whatever_the_form(sqlite_bench: Bench) -> None:
    sqlite_bench.run(sqlite_bench.load(fruits("cut", params={"max_tokens": 3}, on_invalid="fail")))
    assert {(item.state, item.parsed) for item in items_of(sqlite_bench, "cut")} == {(State.TRUNCATED, None)}


def test_the_vendor_is_held_to_the_schema_where_it_takes_one(bench: Bench) -> None:
    endpoint = bench.catalogue.endpoint(faulty(""))
    model = replace(endpoint.models[MODEL], structured=Structured(form="json_schema"))
    known = replace(endpoint, models={**endpoint.models, MODEL: model})
    bench.catalogue = replace(bench.catalogue, endpoints={**bench.catalogue.endpoints, known.name: known})
    schema = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer", "minimum": 7}}}
    [job_id] = bench.load(job("held", 2, response_schema=schema))
    bench.run([job_id])
    assert [item.parsed for item in items_of(bench, "held")] == [{"n": 7}] * 2
    check_bill(bench, job_id)


def test_an_export_has_the_values(sqlite_bench: Bench) -> None:
    sqlite_bench.run(sqlite_bench.load(fruits("told")))
    good, bad = (record(item) for item in items_of(sqlite_bench, "told"))
    assert good["parsed"] == json.loads(str(good["text"]))
    assert bad["parsed"] is None


def test_another_schema_is_refused_as_another_request_is(sqlite_bench: Bench) -> None:
    sqlite_bench.load(fruits("same"))
    changed = fruits("same").model_copy(update={"response_schema": {"type": "object"}})
    with pytest.raises(ChangedError, match=r"response_schema.properties"):
        sqlite_bench.load(changed)


def test_loading_tells_what_is_not_sent(sqlite_bench: Bench) -> None:
    [loaded] = sqlite_bench.loaded(job("mute", 1, response_schema=APPLES))
    assert "only where the prompt has the word JSON" in loaded.notes[0]


# Against a server that knows only bytes


class Turns(Server):
    """Gives one answer after the other."""

    turns: deque[bytes]

    def __getattribute__(self, name: str) -> object:
        return self.turns.popleft() if name == "answer" else super().__getattribute__(name)


def message(provider: str, text: str | None, reason: str = "stop", **fields: object) -> bytes:
    said = {"role": "assistant", "content": text, **fields}
    usage = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}
    document: Mapping[str, object] = {
        "id": "c-1",
        "choices": [{"index": 0, "finish_reason": reason, "message": said}],
        "usage": usage,
    }
    if provider == "here/native":
        output = {"choices": [{"finish_reason": reason, "message": {**said, "content": text or ""}}]}
        document = {"request_id": "c-1", "output": output, "usage": {"input_tokens": 9, "output_tokens": 5}}
    return http(json.dumps(document).encode(), content_type="application/json")


@contextmanager
def went(url: str, folder: Path, answers: list[bytes], **fields: object) -> Iterator[tuple[RunEnd, list[ItemResult]]]:
    """A job of one item against a server that gives these answers in turn."""
    engine = connect(url)
    given = {
        "name": "j",
        "model": "kimi-k2.5",
        "prompt": "Read it.",
        "stream": False,
        "inputs": {"items": [{"id": "a"}]},
    }
    spec = JobSpec.model_validate({**given, **fields})
    with answering(b"") as server:
        server.__class__ = Turns
        server.turns = deque(answers)  # type: ignore[attr-defined]
        (folder / "catalogue.yaml").write_text(SERVER.format(url=server.url), encoding="utf-8")
        catalogue = load_catalogue(folder / "catalogue.yaml")
        settings = Settings(database_url=url, catalogue=None, environment={"NATIVE_KEY": KEY})
        ids = [one.job_id for one in load(engine, JobFile(version=1, jobs=(spec,), path=None), catalogue, base=folder)]
        end = run(engine, ids, catalogue, settings)
        with reading(engine) as connection:
            yield end, list(results(connection, find_jobs(connection, ["j"])[0]))
    engine.dispose()


@pytest.mark.parametrize("provider", ["here/compat", "here/native"])
def test_an_answer_that_fits_at_the_second_time_is_the_items_answer(
    database_url: str, tmp_path: Path, provider: str
) -> None:
    answers = [message(provider, "A cup."), message(provider, 'Here:\n```json\n{"caption": "apple",}\n```')]
    schema: dict[str, object] = {"response_schema": APPLES, "on_invalid": "ask_again"}
    with went(database_url, tmp_path, answers, provider=provider, **schema) as (end, [item]):
        assert (item.state, item.parsed, item.error_kind) == (State.DONE, {"caption": "apple"}, None)
        assert item.text == 'Here:\n```json\n{"caption": "apple",}\n```'
        assert [attempt.outcome for attempt in item.attempts] == ["failed", "complete"]
        assert item.attempts[0].text == "A cup."
        assert (item.input_tokens, item.output_tokens, item.unknown_cost) == (18, 10, 0)
        assert (end.exit_code, end.tally.calls) == (0, 2)


def test_a_value_with_what_no_database_can_keep_is_kept(database_url: str, tmp_path: Path) -> None:
    answers = [message("here/compat", '{"caption": "apple \\u0000 \\ud83d"}')]
    with went(database_url, tmp_path, answers, provider="here/compat", response_schema=APPLES) as (_, [item]):
        assert item.parsed == {"caption": "apple � �"}


def test_an_answer_that_does_not_fit_can_be_read(sqlite_bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    sqlite_bench.go(fruits("read", on_invalid="fail"))
    for item in items_of(sqlite_bench, "read"):
        print_item(item)
    lines = capsys.readouterr().out.splitlines()
    assert lines[lines.index("  came:") + 1].startswith('    {"caption": "You wrote about this: read pear')


CALL = {"id": "call-1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}


@pytest.mark.parametrize("provider", ["here/compat", "here/native"])
@pytest.mark.parametrize("text", [None, ""])
def test_an_answer_that_only_calls_a_tool_is_done(
    database_url: str, tmp_path: Path, provider: str, text: str | None
) -> None:
    """Also where a form is asked for: there is no text to look at."""
    tool: dict[str, object] = {"type": "function", "function": {"name": "weather"}}
    fields: dict[str, object] = {"tools": [tool], "response_schema": APPLES, "on_invalid": "fail"}
    answers = [message(provider, text, "tool_calls", tool_calls=[CALL])]
    with went(database_url, tmp_path, answers, provider=provider, **fields) as (end, [item]):
        assert (item.state, item.text, item.tool_calls, item.parsed) == (State.DONE, "", [CALL], None)
        assert record(item)["tool_calls"] == [CALL]
        assert json.loads(str(COLUMNS["tool_calls"](item))) == [CALL]
        assert str(document(item, [])).startswith('# a\n\n- calls weather({"city": "Rome"})\n\n---\n')
        assert words(item) is None
        assert end.exit_code == 0


def test_tools_that_the_simulator_calls_are_billed_and_stored(sqlite_bench: Bench) -> None:
    function = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
    for stream in (True, False):
        end = sqlite_bench.go(
            job(f"calls-{stream}", ["Rome?"], tools=[{"type": "function", "function": function}], stream=stream)
        )
        [item] = items_of(sqlite_bench, f"calls-{stream}")
        assert (end.exit_code, item.state, item.finish_reason, item.text) == (0, State.DONE, "tool_calls", "")
        assert isinstance(item.tool_calls, list)
        called = item.tool_calls[0]["function"]
        assert (called["name"], list(json.loads(called["arguments"]))) == ("weather", ["city"])
    check_reservations(sqlite_bench)


def compat_stream() -> bytes:
    first = {"index": 0, "id": "call-1", "type": "function", "function": {"name": "weather", "arguments": '{"city": '}}
    rest = {"index": 0, "function": {"arguments": '"Rome"}'}}
    frames: list[object] = [
        {"choices": [{"index": 0, "delta": {"role": "assistant", "content": None, "tool_calls": [first]}}]},
        {"choices": [{"index": 0, "delta": {"tool_calls": [rest]}}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]},
        {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}},
    ]
    lines = [f"data: {json.dumps(frame)}\n\n" for frame in frames] + ["data: [DONE]\n\n"]
    return http("".join(lines).encode(), content_type="text/event-stream")


def native_stream() -> bytes:
    usage = {"input_tokens": 9, "output_tokens": 5}
    said = {"role": "assistant", "content": [], "tool_calls": [{"index": 0, **CALL}]}
    choices = [("null", said), ("tool_calls", {"role": "assistant", "content": []})]
    frames = [
        {"output": {"choices": [{"finish_reason": reason, "message": told}]}, "usage": usage, "request_id": "r"}
        for reason, told in choices
    ]
    lines = [f"id:{n}\nevent:result\n:HTTP_STATUS/200\ndata:{json.dumps(frame)}\n\n" for n, frame in enumerate(frames)]
    return http("".join(lines).encode(), content_type="text/event-stream")


@pytest.mark.parametrize(("provider", "answer"), [("here/compat", compat_stream()), ("here/native", native_stream())])
def test_a_streamed_call_of_a_tool_is_put_together(
    database_url: str, tmp_path: Path, provider: str, answer: bytes
) -> None:
    tool: dict[str, object] = {"type": "function", "function": {"name": "weather"}}
    with went(database_url, tmp_path, [answer], provider=provider, tools=[tool], stream=True) as (_, [item]):
        assert (item.state, item.text, item.tool_calls) == (State.DONE, "", [CALL])
        assert (item.input_tokens, item.output_tokens) == (9, 5)

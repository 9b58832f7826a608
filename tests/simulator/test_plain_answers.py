"""Answers that are not streamed (contract 4.1), and their faults."""

import gzip
import json
from typing import Any

import pytest

from batchrun.simulator import Options, start

from .raw import Client, tokens


def choice(body: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(body)["choices"][0]
    return found


def test_an_answer_has_the_members_of_the_contract(client: Client) -> None:
    document = client.ask(client.body()).json()
    assert list(document) == [
        "choices",
        "object",
        "usage",
        "created",
        "system_fingerprint",
        "model",
        "id",
    ]


def test_the_usage_told_is_the_usage_billed(client: Client) -> None:
    raw = client.ask(client.body(enable_thinking=True))
    usage = json.loads(raw.body)["usage"]
    assert {key: usage[key] for key in tokens(client.row(raw))} == tokens(client.row(raw))


def test_thinking_stands_beside_the_content(client: Client) -> None:
    message = choice(client.ask(client.body(enable_thinking=True)).body)["message"]
    assert sorted(message) == ["content", "reasoning_content", "role"]


def test_kimi_does_not_think_unless_asked(client: Client) -> None:
    raw = client.ask(client.body(model="kimi-k2.5"), region="beijing")
    assert "reasoning_content" not in choice(raw.body)["message"]


def test_kimi_thinking_always_thinks(client: Client) -> None:
    raw = client.ask(client.body(model="kimi-k2-thinking"), region="beijing")
    assert choice(raw.body)["message"]["reasoning_content"]


def test_a_partial_answer_has_its_header_and_no_finish_reason(client: Client) -> None:
    raw = client.ask(client.body(), fault="partial")
    assert raw.status == 200
    assert (raw.header("x-dashscope-partialresponse"), choice(raw.body)["finish_reason"]) == ("true", None)
    assert client.row(raw).complete is False


@pytest.mark.parametrize(
    ("fault", "end"),
    [("reset-after", "reset"), ("cut-after", "cut"), ("stall-after", "silent"), ("truncate", "whole")],
)
def test_a_body_that_stops_half_way(client: Client, fault: str, end: str) -> None:
    raw = client.ask(client.body(), fault=fault, quiet=0.2)
    assert (raw.end, raw.body[:10]) == (end, b'{"choices"')
    with pytest.raises(json.JSONDecodeError):
        json.loads(raw.body)


def test_a_broken_body_is_paid_in_full(client: Client) -> None:
    row = client.row(client.ask(client.body(), fault="cut-after+chunks=10"))
    assert (row.billed.output, row.complete, row.usage_sent) == (30, False, None)


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_the_body_is_the_same_in_each_framing(client: Client, framing: str) -> None:
    body = client.body()
    contents = {
        choice(client.ask(body, fault=f"framing={name}").body)["message"]["content"] for name in (framing, "length")
    }
    assert len(contents) == 1


def test_gzip(client: Client) -> None:
    raw = client.ask(client.body(), fault="gzip")
    assert choice(gzip.decompress(raw.body))["finish_reason"] == "stop"


@pytest.mark.parametrize(("fault", "usage"), [("usage=missing", "absent"), ("usage=null", None)])
def test_an_answer_without_usage(client: Client, fault: str, usage: object) -> None:
    raw = client.ask(client.body(), fault=fault)
    assert json.loads(raw.body).get("usage", "absent") == usage
    assert client.row(raw).amount


def test_json_mode_answers_with_an_object(client: Client) -> None:
    form = {"type": "json_object"}
    messages = [{"role": "user", "content": "Answer as JSON."}]
    raw = client.ask(client.body(response_format=form, messages=messages))
    assert isinstance(json.loads(choice(raw.body)["message"]["content"]), dict)


def test_a_schema_is_followed(client: Client) -> None:
    schema = {
        "type": "object",
        "properties": {
            "caption": {"type": "string", "maxLength": 12},
            "tags": {"type": "array", "minItems": 2, "items": {"$ref": "#/$defs/tag"}},
            "count": {"type": ["integer", "null"], "minimum": 3},
            "blurred": {"type": "boolean"},
        },
        "$defs": {"tag": {"enum": ["sea", "land"]}},
    }
    form = {"type": "json_schema", "json_schema": {"name": "picture", "schema": schema}}
    answer = json.loads(choice(client.ask(client.body(response_format=form)).body)["message"]["content"])
    assert answer == {"caption": "You wrote ab", "tags": ["sea", "sea"], "count": 3, "blurred": True}


def test_partial_mode_goes_on_where_the_text_stopped(client: Client) -> None:
    body = client.body()
    whole = choice(client.ask(body).body)["message"]["content"]
    messages = [*body["messages"], {"role": "assistant", "content": whole[:20], "partial": True}]  # type: ignore[misc]  # a list of messages
    rest = choice(client.ask({**body, "messages": messages}).body)["message"]["content"]
    assert whole[:20] + rest == whole


def test_an_answer_that_takes_too_long_is_cut_or_refused() -> None:
    slow = Options(ttft=0, tokens_per_second=1, plain_timeout=0.05, limits=False)
    with start(slow, environment={}) as running:
        client = Client(running)
        cut = client.ask(client.body(model="qwen-vl-max"))
        refused = client.ask(client.body(model="qwen3-vl-plus"))
    assert (cut.header("x-dashscope-partialresponse"), refused.error["code"]) == ("true", "RequestTimeOut")

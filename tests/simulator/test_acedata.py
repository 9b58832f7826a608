"""AceData's API (contract 4.5, 4.6, 7.1, 8.12): bytes, errors, and bills without a price."""

import json
import re
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from batchrun.simulator import Running

from .raw import Client, Json, Raw


class AceClient(Client):
    path = "kimi/chat/completions"

    def body(self, **changes: object) -> Json:
        return {**super().body(), "model": "kimi-k2.5", **changes}


@pytest.fixture
def client(simulator: Running) -> AceClient:
    return AceClient(simulator, "acedata")


def deltas(raw: Raw) -> list[dict[str, Any]]:
    chunks: list[Any] = list(raw.chunks)
    return [choice["delta"] for chunk in chunks for choice in chunk["choices"]]


def test_the_frames_are_those_of_the_contract(client: AceClient) -> None:
    raw = client.ask(client.body(stream=True), fault="chunks=3+think-chunks=3")
    text = '"[^"]+"'
    thought = f'"reasoning_content":{text},"reasoning":{text}'
    deltas = [
        '"content":"","role":"assistant"',
        thought,
        thought,
        f'"content":" [^"]+",{thought}',
        f'"content":{text}',
        f'"content":{text}',
    ]
    finishes = ["null"] * 5 + ['"stop"']
    choices = [
        rf'\[\{{"index":0,"delta":\{{{delta}\}},"logprobs":null,"finish_reason":{finish}\}}\],"usage":null'
        for delta, finish in zip(deltas, finishes, strict=True)
    ]
    choices.append(
        r'\[\],"usage":\{"prompt_tokens":\d+,"completion_tokens":18,"total_tokens":\d+,'
        r'"prompt_tokens_details":\{"cached_tokens_details":\{\}\},"completion_tokens_details":\{\}\}'
    )
    beginning = (
        r'\{"id":"chatcmpl-[0-9a-f]{16}","object":"chat\.completion\.chunk","created":\d+,"model":"kimi-k2\.5",'
        r'"system_fingerprint":null,"choices":'
    )
    expected = [*(rf"{beginning}{choice}\}}" for choice in choices), r"\[DONE\]"]
    assert [bool(re.fullmatch(form, frame)) for form, frame in zip(expected, raw.frames, strict=True)] == [True] * 8


def test_both_names_of_the_reasoning_say_the_same(client: AceClient) -> None:
    thoughts = [delta for delta in deltas(client.ask(client.body(stream=True))) if "reasoning" in delta]
    assert [delta["reasoning"] for delta in thoughts] == [delta["reasoning_content"] for delta in thoughts]
    assert thoughts


def test_the_usage_comes_unasked_and_is_the_bill(client: AceClient) -> None:
    raw = client.ask(client.body(stream=True))
    row = client.row(raw)
    [usage] = raw.usages
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (row.billed.input, row.billed.output)


def test_a_plain_answer_has_the_members_of_the_contract(client: AceClient) -> None:
    document: dict[str, Any] = dict(client.ask(client.body()).json())
    assert list(document) == ["id", "object", "created", "model", "choices", "usage"]
    message = document["choices"][0]["message"]
    assert list(message) == ["role", "content", "refusal", "reasoning_content", "reasoning", "tool_calls"]
    assert (message["reasoning"], message["refusal"], message["tool_calls"]) == (message["reasoning_content"], None, [])
    assert document["usage"]["prompt_tokens_details"] == {"cached_tokens_details": {}}


def test_streamed_and_plain_say_the_same_and_begin_with_a_blank(client: AceClient) -> None:
    body = client.body()
    plain: dict[str, Any] = dict(client.ask(body).json())
    content = plain["choices"][0]["message"]["content"]
    assert "".join(client.ask({**body, "stream": True}).deltas("content")) == content
    assert re.match(r" \S", content)


def test_nobody_knows_the_price(client: AceClient) -> None:
    row = client.row(client.ask(client.body()))
    assert (row.region, row.amount, row.billed.reasoning > 0) == ("acedata", None, True)


@pytest.mark.parametrize("stream", [True, False])
def test_the_reasoning_and_the_usage_may_be_left_out(client: AceClient, stream: bool) -> None:
    raw = client.ask(client.body(stream=stream), fault="no-reasoning+usage=missing")
    text = raw.body.decode()
    assert ('"reasoning' in text, '"prompt_tokens"' in text) == (False, False)
    assert client.row(raw).billed.reasoning > 0


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("400", 400, "token_mismatched"),
        ("404", 400, "api_not_implemented"),
        ("401", 401, "invalid_token"),
        ("403", 403, "disabled"),
        ("arrearage", 403, "used_up"),
        ("429-billing", 403, "used_up"),
        ("moderation", 403, "content_violation"),
        ("429", 429, "too_many_requests"),
        ("429-quota", 429, "too_many_requests"),
        ("500", 500, "api_error"),
        ("503", 503, "api_error"),
    ],
)
def test_errors_have_the_form_of_the_vendor(client: AceClient, fault: str, status: int, code: str) -> None:
    raw = client.ask(client.body(), fault=fault)
    document = raw.json()
    assert (raw.status, raw.error["code"], document["success"]) == (status, code, False)
    assert (sorted(document), document["trace_id"]) == (["error", "success", "trace_id"], raw.header("x-request-id"))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"model": "kimi-k9"}, "api_not_implemented"),
        ({"model": None}, "token_mismatched"),
        ({"messages": []}, "token_mismatched"),
        ({"enable_thinking": True}, "token_mismatched"),
        ({"messages": [{"role": "tool", "content": "x"}, {"role": "user", "content": "x"}]}, "token_mismatched"),
    ],
)
def test_refused_requests(client: AceClient, changes: Json, code: str) -> None:
    raw = client.ask(client.body(**changes))
    assert (raw.status, raw.error["code"]) == (400, code)


def test_a_conversation_may_begin_with_the_assistant(client: AceClient) -> None:
    messages = [{"role": "assistant", "content": "Hello!"}, {"role": "user", "content": "What model are you?"}]
    assert client.ask(client.body(messages=messages)).status == 200


def test_a_key_of_model_studio_is_refused(client: AceClient) -> None:
    raw = client.ask(client.body(), key=client.simulator.keys["beijing"])
    assert (raw.status, raw.error["code"]) == (401, "invalid_token")


@pytest.mark.parametrize("fault", ["crlf", "split=5+unicode", "comments", "mixed", "text-in-finish", "both-reasoning"])
def test_the_faults_of_a_stream_leave_its_text_as_it_is(client: AceClient, fault: str) -> None:
    body = client.body(stream=True, messages=[{"role": "user", "content": "The same."}])
    plain, broken = (client.ask(body, fault=f"unicode+{name}").body.decode() for name in ("framing=chunked", fault))
    assert spoken(broken) == spoken(plain)


def spoken(body: str) -> str:
    frames = re.findall(r"(?m)^data: (\{[^\r\n]*\})", body)
    choices = [choice for frame in frames for choice in json.loads(frame)["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def test_an_error_in_a_stream(client: AceClient) -> None:
    last = json.loads(client.ask(client.body(stream=True), fault="error-event=2").frames[-1])
    assert (last["success"], last["error"]["code"]) == (False, "api_error")


@pytest.fixture
def sdk(simulator: Running) -> Iterator[openai.OpenAI]:
    url, key = simulator.acedata_url(), simulator.keys["acedata"]
    with openai.OpenAI(base_url=url, api_key=key, max_retries=0) as made:
        yield made


def test_the_openai_sdk_reports_the_bill_of_a_plain_answer(sdk: openai.OpenAI, simulator: Running) -> None:
    answer = sdk.chat.completions.create(model="kimi-k2.5", messages=[{"role": "user", "content": "Hello"}])
    row = next(row for row in simulator.book() if row.chat_id == answer.id)
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (row.billed.input, row.billed.output)


def test_the_openai_sdk_reports_the_bill_of_a_stream(sdk: openai.OpenAI, simulator: Running) -> None:
    messages: Any = [{"role": "user", "content": "Hello"}]
    chunks = list(sdk.chat.completions.create(model="kimi-k2.5", messages=messages, stream=True))
    row = next(row for row in simulator.book() if row.chat_id == chunks[0].id)
    usage = chunks[-1].usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (row.billed.input, row.billed.output)


def test_the_openai_sdk_raises_for_an_empty_account(simulator: Running) -> None:
    url, key = simulator.acedata_url("arrearage"), simulator.keys["acedata"]
    with (
        openai.OpenAI(base_url=url, api_key=key, max_retries=0) as sdk,
        pytest.raises(openai.PermissionDeniedError) as caught,
    ):
        sdk.chat.completions.create(model="kimi-k2.5", messages=[{"role": "user", "content": "Hello"}])
    assert caught.value.code == "used_up"

"""Moonshot's own API (contract 8.5): where the usage stands, what is fixed, what is refused, what it costs."""

import json
import re
from base64 import b64decode
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import openai
import pytest

from batchrun.simulator import Running

from .raw import Client, Json, Raw
from .test_validation import data_url, looking


class MoonshotClient(Client):
    path = "v1/chat/completions"

    def body(self, **changes: object) -> Json:
        return {**super().body(), "model": "kimi-k2.5", **changes}


@pytest.fixture
def client(simulator: Running) -> MoonshotClient:
    return MoonshotClient(simulator, "moonshot")


def test_the_last_choice_carries_the_usage_and_no_delta(client: MoonshotClient) -> None:
    raw = client.ask(client.body(stream=True))
    row = client.row(raw)
    last: Any = raw.chunks[-1]
    usage = {"prompt_tokens": row.billed.input, "completion_tokens": row.billed.output, "cached_tokens": 0}
    usage["total_tokens"] = row.billed.input + row.billed.output
    assert last["choices"] == [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": usage}]
    assert (raw.frames[-1], "usage" in last) == ("[DONE]", False)


def test_the_usage_comes_again_where_it_was_asked_for(client: MoonshotClient) -> None:
    raw = client.ask(client.streamed())
    last, finish = raw.chunks[-1], raw.chunks[-2]
    choice: Any = finish["choices"]
    assert (last["choices"], last["usage"]) == ([], choice[0]["usage"])


def test_the_usage_may_be_missing(client: MoonshotClient) -> None:
    assert b"prompt_tokens" not in client.ask(client.streamed(), fault="usage=missing").body


@pytest.mark.parametrize(("switch", "thinks"), [({}, True), ({"type": "disabled"}, False), ({"type": "enabled"}, True)])
def test_it_thinks_unless_that_is_switched_off(client: MoonshotClient, switch: Json, thinks: bool) -> None:
    changes: dict[str, Any] = {"thinking": switch} if switch else {}
    raw = client.ask(client.body(stream=True, **changes))
    assert (bool(raw.deltas("reasoning_content")), client.row(raw).billed.reasoning > 0) == (thinks, thinks)


def test_cached_tokens_stand_at_the_top_and_have_their_own_price(client: MoonshotClient) -> None:
    raw = client.ask(client.body(thinking={"type": "disabled"}), fault="cached=50")
    usage: Any = raw.json()["usage"]
    fresh = usage["prompt_tokens"] - usage["cached_tokens"]
    cost = fresh * Decimal("0.60") + usage["cached_tokens"] * Decimal("0.10") + usage["completion_tokens"] * 3
    assert (usage["cached_tokens"] > 0, client.row(raw).amount) == (True, cost / 1_000_000)


def test_without_a_limit_the_answer_has_its_usual_length(client: MoonshotClient) -> None:
    raw = client.ask(client.body(stream=True, thinking={"type": "disabled"}), fault="overrun=1")
    assert client.row(raw).billed.output == 1_024


@pytest.mark.parametrize("name", ["max_completion_tokens", "max_tokens"])
def test_a_limit_cuts_the_answer(client: MoonshotClient, name: str) -> None:
    raw = client.ask(client.body(stream=True, thinking={"type": "disabled"}, **{name: 4}))
    assert (client.row(raw).billed.output, raw.finishes[-1]) == (4, "length")


@pytest.mark.parametrize(
    "holder", [{"url": data_url()}, data_url()], ids=["an object with the address", "the address alone"]
)
def test_a_picture_as_data(client: MoonshotClient, holder: object) -> None:
    part = {"type": "image_url", "image_url": holder}
    raw = client.ask(client.body(messages=[{"role": "user", "content": [part]}]))
    assert (raw.status, client.row(raw).billed.image > 0) == (200, True)


@pytest.mark.parametrize(
    ("changes", "status", "message"),
    [
        ({"temperature": 0.6}, 400, "only 1 is allowed"),
        ({"top_p": 0.9}, 400, "only 0.95"),
        ({"n": 2}, 400, "only 1"),
        ({"presence_penalty": 0.1}, 400, "only 0"),
        ({"thinking": {"type": "enabled", "budget_tokens": 5}}, 400, "thinking"),
        ({"thinking": True}, 400, "thinking"),
        ({"max_tokens": 262_144}, 400, "together"),
        ({"model": "qwen3-vl-plus"}, 404, "qwen3-vl-plus"),
        ({"messages": looking("https://x.example/a.jpg")}, 400, "only base64"),
        ({"messages": looking("ms://file-1")}, 404, "ms://file-1"),
        ({"messages": looking(data_url("BMP"))}, 400, "image/bmp"),
    ],
)
def test_refused_requests(client: MoonshotClient, changes: Json, status: int, message: str) -> None:
    raw = client.ask(client.body(**changes))
    assert (raw.status, sorted(raw.error), message in str(raw.error["message"])) == (status, ["message", "type"], True)


class FilesClient(Client):
    path = "v1/files"

    def upload(self, data: bytes, *, purpose: str = "image", mime: str = "image/jpeg", key: str | None = None) -> Raw:
        form = (
            b'--edge\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n' + purpose.encode() + b"\r\n"
            b'--edge\r\nContent-Disposition: form-data; name="file"; filename="a"\r\nContent-Type: ' + mime.encode()
        )
        request = self.request(form + b"\r\n\r\n" + data + b"\r\n--edge--\r\n", key=key)
        return self.exchange(request.replace(b"application/json", b"multipart/form-data; boundary=edge", 1))


def test_a_file_is_uploaded_once_and_named_by_its_id(client: MoonshotClient, simulator: Running) -> None:
    picture = data_url()
    made = FilesClient(simulator, "moonshot").upload(b64decode(picture.partition(",")[2]))
    assert (made.status, made.json()["object"]) == (200, "file")
    named, whole = (client.ask(client.body(messages=looking(url))) for url in (f"ms://{made.json()['id']}", picture))
    assert (named.status, client.row(named).billed.input) == (200, client.row(whole).billed.input)


@pytest.mark.parametrize(
    ("changes", "status", "message"),
    [
        ({"key": "sk-wrong"}, 401, "API key"),
        ({"purpose": "batch"}, 400, "purpose"),
        ({"mime": "image/bmp"}, 400, "image/bmp"),
        ({"purpose": "video"}, 400, "video format: image/jpeg"),
        ({"data": b""}, 400, "empty"),
    ],
)
def test_files_that_are_not_taken(simulator: Running, changes: dict[str, Any], status: int, message: str) -> None:
    raw = FilesClient(simulator, "moonshot").upload(**{"data": b"x", **changes})
    assert (raw.status, sorted(raw.error), message in str(raw.error["message"])) == (status, ["message", "type"], True)


@pytest.mark.parametrize(
    ("fault", "status", "kind"),
    [
        ("401", 401, "incorrect_api_key_error"),
        ("403", 403, "permission_denied_error"),
        ("404", 404, "resource_not_found_error"),
        ("429", 429, "rate_limit_reached_error"),
        ("529", 429, "engine_overloaded_error"),
        ("arrearage", 429, "exceeded_current_quota_error"),
        ("moderation", 400, "content_filter"),
        ("500", 500, "server_error"),
    ],
)
def test_errors_have_a_type_and_no_code(client: MoonshotClient, fault: str, status: int, kind: str) -> None:
    raw = client.ask(client.body(), fault=fault)
    assert (raw.status, raw.error["type"], "code" in raw.error) == (status, kind, False)


def test_a_rate_limit_says_when_to_come_again(client: MoonshotClient) -> None:
    assert re.search(r"try again after 1 seconds", str(client.ask(client.body(), fault="429").error["message"]))


def test_an_error_in_a_stream(client: MoonshotClient) -> None:
    last = json.loads(client.ask(client.body(stream=True), fault="error-event=2").frames[-1])
    assert last == {"error": {"type": "server_error", "message": "The server had an error."}}


@pytest.fixture
def sdk(simulator: Running) -> Iterator[openai.OpenAI]:
    url, key = simulator.moonshot_url(), simulator.keys["moonshot"]
    with openai.OpenAI(base_url=url, api_key=key, max_retries=0) as made:
        yield made


def test_the_openai_sdk_reports_the_bill(sdk: openai.OpenAI, simulator: Running) -> None:
    answer = sdk.chat.completions.create(model="kimi-k2.5", messages=[{"role": "user", "content": "Hello"}])
    row = next(row for row in simulator.book() if row.chat_id == answer.id)
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (row.billed.input, row.billed.output)

"""Native answers that are not streamed (contract 4.3), and the calls that cost the same through either protocol."""

import json
from typing import Any

import pytest

from batchrun.simulator import Options, Running, start

from .native import TEXT_PATH, NativeClient, looking, told, used
from .raw import Client, Json
from .test_validation import data_url
from .test_validation import looking as compat_looking


@pytest.fixture
def client(simulator: Running) -> NativeClient:
    return NativeClient(simulator, stream=False)


@pytest.fixture
def text_client(simulator: Running) -> NativeClient:
    return NativeClient(simulator, "beijing", path=TEXT_PATH, stream=False)


def choice(body: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(body)["output"]["choices"][0]
    return found


def test_a_multimodal_answer_has_a_list_and_no_total(client: NativeClient) -> None:
    document: dict[str, Any] = dict(client.ask(looking({"image": data_url()})).json())
    message = document["output"]["choices"][0]["message"]
    assert list(document) == ["output", "usage", "request_id"]
    assert (len(message["content"]), list(message["content"][0]), "total_tokens" in document["usage"]) == (
        1,
        ["text"],
        False,
    )
    assert document["usage"]["image_tokens"] == 302


def test_a_text_answer_has_a_string_and_a_total(text_client: NativeClient) -> None:
    document: dict[str, Any] = dict(text_client.ask(text_client.body(result_format="message")).json())
    message, usage = document["output"]["choices"][0]["message"], document["usage"]
    assert (type(message["content"]), type(message["reasoning_content"])) == (str, str)
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


def test_thinking_stands_beside_the_content(client: NativeClient) -> None:
    message = choice(client.ask(client.body(enable_thinking=True)).body)["message"]
    assert (type(message["content"]), bool(message["reasoning_content"])) == (list, True)


@pytest.mark.parametrize("parameters", [{}, {"result_format": "text"}])
def test_without_result_format_a_text_answer_has_the_old_form(text_client: NativeClient, parameters: Json) -> None:
    body = {**text_client.body(**parameters), "model": "Moonshot-Kimi-K2-Instruct"}
    output: Any = text_client.ask(body).json()["output"]
    assert (sorted(output), output["finish_reason"]) == (["finish_reason", "text"], "stop")


def test_parameters_may_be_missing(client: NativeClient) -> None:
    body = client.body()
    del body["parameters"]
    assert choice(client.ask(body).body)["finish_reason"] == "stop"


def test_the_usage_told_is_the_usage_billed(client: NativeClient) -> None:
    raw = client.ask(client.body(enable_thinking=True))
    assert used(json.loads(raw.body)["usage"]) == told(client.row(raw))


def test_a_partial_answer_has_its_header_and_no_finish_reason(client: NativeClient) -> None:
    raw = client.ask(client.body(), fault="partial")
    assert (raw.header("x-dashscope-partialresponse"), choice(raw.body)["finish_reason"]) == ("true", "null")
    assert client.row(raw).complete is False


def test_an_answer_that_takes_too_long_is_cut_or_refused() -> None:
    slow = Options(ttft=0, tokens_per_second=1, plain_timeout=0.05, limits=False)
    with start(slow, environment={}) as running:
        client = NativeClient(running, stream=False)
        cut = client.ask(looking({"text": "One."}, model="qwen-vl-max"))
        refused = client.ask(looking({"text": "One."}))
    assert cut.header("x-dashscope-partialresponse") == "true"
    assert (refused.status, refused.json()["code"]) == (500, "RequestTimeOut")


@pytest.mark.parametrize(
    ("fault", "usage"), [("usage=missing", "absent"), ("usage=null", None), ("usage=zero", (0, 0))]
)
def test_an_answer_with_another_usage(client: NativeClient, fault: str, usage: object) -> None:
    found = json.loads(client.ask(client.body(), fault=fault).body).get("usage", "absent")
    assert (used(found) if isinstance(found, dict) else found) == usage


def test_partial_mode_goes_on_where_the_text_stopped(client: NativeClient) -> None:
    body: dict[str, Any] = looking({"text": "Begin."})
    whole = choice(client.ask(body).body)["message"]["content"][0]["text"]
    body["input"]["messages"].append({"role": "assistant", "content": whole[:20], "partial": True})
    rest = choice(client.ask(body).body)["message"]["content"][0]["text"]
    assert whole[:20] + rest == whole


PICTURE = data_url()
VIDEO = "https://x.example/v.mp4"


@pytest.mark.parametrize(
    ("native", "compat", "settings"),
    [
        ({"image": PICTURE}, {"type": "image_url", "image_url": {"url": PICTURE}}, {}),
        (
            {"image": PICTURE, "max_pixels": 65_536},
            {"type": "image_url", "image_url": {"url": PICTURE}, "max_pixels": 65_536},
            {},
        ),
        ({"image": PICTURE}, {"type": "image_url", "image_url": {"url": PICTURE}}, {"vl_high_resolution_images": True}),
        ({"image": PICTURE}, {"type": "image_url", "image_url": {"url": PICTURE}}, {"enable_thinking": True}),
        ({"video": VIDEO, "fps": 1}, {"type": "video_url", "video_url": {"url": VIDEO}, "fps": 1}, {}),
        ({"video": [PICTURE] * 5, "fps": 2}, {"type": "video", "video": [PICTURE] * 5, "fps": 2}, {}),
        ({"text": "Some text."}, {"type": "text", "text": "Some text."}, {"max_tokens": 7, "seed": 5}),
    ],
)
@pytest.mark.parametrize("region", ["singapore", "virginia", "beijing"])
def test_the_same_request_costs_the_same_through_either(
    simulator: Running, native: Json, compat: Json, settings: dict[str, Any], region: str
) -> None:
    one, other = NativeClient(simulator, region, stream=False), Client(simulator, region)
    content = [compat, {"type": "text", "text": "Describe."}]
    messages = [{"role": "user", "content": content}]
    rows = [
        one.row(one.ask(looking(native, **settings))),
        other.row(other.ask(other.body(messages=messages, **settings))),
    ]
    assert rows[0].billed == rows[1].billed
    assert (rows[0].amount, rows[0].amount is None) == (rows[1].amount, False)


def test_the_same_request_gets_the_same_answer_through_either(simulator: Running, client: NativeClient) -> None:
    native = choice(client.ask(looking({"image": PICTURE})).body)["message"]["content"][0]["text"]
    other = Client(simulator)
    compat = json.loads(other.ask(other.body(messages=compat_looking(PICTURE))).body)
    assert compat["choices"][0]["message"]["content"] == native


def test_fewer_frames_of_a_video_cost_less(client: NativeClient) -> None:
    parts: list[Json] = [{"video": VIDEO, "fps": 2, "max_frames": 20}, {"video": VIDEO, "fps": 2}]
    assert [client.row(client.ask(looking(part))).billed.video for part in parts] == [5_942, 35_642]

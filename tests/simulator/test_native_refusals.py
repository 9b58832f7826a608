"""What the native protocol refuses, and in which form (contract 1.2, 2.3, 5, 8.1)."""

from decimal import Decimal
from typing import Any

import pytest

from batchrun.simulator import Options, Running, start

from .native import MULTIMODAL_PATH, TEXT_PATH, NativeClient, looking
from .raw import Client, Json
from .test_validation import data_url

ERRORS = [
    ("400", 400, "InvalidParameter"),
    ("moderation", 400, "DataInspectionFailed"),
    ("arrearage", 400, "Arrearage"),
    ("401", 401, "InvalidApiKey"),
    ("403", 403, "AccessDenied"),
    ("404", 404, "ModelNotFound"),
    ("429", 429, "Throttling.RateQuota"),
    ("429-burst", 429, "Throttling.BurstRate"),
    ("429-quota", 429, "Throttling.AllocationQuota"),
    ("429-billing", 429, "PostpaidBillOverdue"),
    ("500", 500, "InternalError"),
    ("500-algo", 500, "InternalError.Algo"),
    ("500-timeout", 500, "RequestTimeOut"),
    ("503", 503, "ModelUnavailable"),
    ("400-download", 400, "InvalidParameter"),
    ("403-unpurchased", 403, "AccessDenied.Unpurchased"),
    ("403-free-tier", 403, "AllocationQuota.FreeTierOnly"),
    ("404-region", 404, "model_not_supported"),
    ("500-system", 500, "SystemError"),
    ("503-serving", 503, "ModelServingError"),
    ("200-error", 200, "InternalError"),
    ("200-code", 200, "InternalError"),
]


@pytest.fixture
def client(simulator: Running) -> NativeClient:
    return NativeClient(simulator)


@pytest.fixture
def kimi(simulator: Running) -> NativeClient:
    return NativeClient(simulator, "beijing", path=TEXT_PATH, stream=False)


@pytest.mark.parametrize(("fault", "status", "code"), ERRORS)
def test_an_error_has_the_native_code_at_the_top(client: NativeClient, fault: str, status: int, code: str) -> None:
    raw = client.ask(client.body(), fault=fault)
    assert (raw.status, raw.json()["code"], bool(raw.json()["message"])) == (status, code, True)
    assert client.row(raw).amount == Decimal(0)


def test_an_error_has_three_members_and_the_id_of_its_header(client: NativeClient) -> None:
    raw = client.ask(client.body(), fault="429")
    assert list(raw.json()) == ["code", "message", "request_id"]
    assert raw.json()["request_id"] == raw.header("x-request-id")


def test_a_refused_stream_may_be_a_stream_of_one_error_event(client: NativeClient) -> None:
    raw = client.ask(client.body(), fault="moderation+in-stream")
    assert (raw.status, raw.header("content-type")) == (200, "text/event-stream;charset=UTF-8")
    assert raw.body.decode() == (
        'id:1\nevent:error\n:HTTP_STATUS/400\ndata:{"code":"DataInspectionFailed",'
        '"message":"Input or output data may contain inappropriate content.",'
        f'"request_id":"{raw.header("x-request-id")}"}}\n\n'
    )
    assert client.row(raw).amount == Decimal(0)


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("qwen3-vl-plus", TEXT_PATH),
        ("kimi-k2.5", TEXT_PATH),
        ("kimi-k2-thinking", MULTIMODAL_PATH),
        ("Moonshot-Kimi-K2-Instruct", MULTIMODAL_PATH),
    ],
)
def test_the_other_address_of_a_model_is_an_error(simulator: Running, model: str, path: str) -> None:
    client = NativeClient(simulator, "beijing", path=path, stream=False)
    raw = client.ask({**client.body(), "model": model})
    assert (raw.status, raw.json()["code"]) == (400, "InvalidParameter")
    assert "url error" in str(raw.json()["message"])


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"model": None}, 400, "BadRequest.EmptyModel"),
        ({"model": "gpt-x"}, 404, "ModelNotFound"),
        ({"model": "kimi-k2.5"}, 404, "ModelNotFound"),
        ({"input": None}, 400, "BadRequest.EmptyInput"),
        ({"input": {"messages": []}}, 400, "BadRequest.EmptyInput"),
        ({"input": {"messages": ["hello"]}}, 400, "InvalidParameter"),
        ({"parameters": []}, 400, "BadRequest.EmptyParameters"),
        ({"parameters": "all"}, 400, "BadRequest.EmptyParameters"),
    ],
)
def test_a_body_that_is_not_as_it_should_be(client: NativeClient, changes: Json, status: int, code: str | None) -> None:
    raw = client.ask({**client.body(), **changes})
    assert (raw.status, raw.json()["code"] if code else None) == (status, code)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"temperature": 2}, "[0, 2)"),
        ({"top_p": 0}, "(0, 1]"),
        ({"max_tokens": 32_769}, "[1, 32768]"),
        ({"enable_thinking": True, "incremental_output": False}, "incremental_output"),
        ({"enable_thinking": True, "result_format": "text"}, "result_format"),
        ({"result_format": "xml"}, "message, text"),
        ({"enable_thinking": True, "thinking_budget": 81_921}, "[1, 81920]"),
        ({"incremental_output": "yes"}, "true or false"),
    ],
)
def test_parameters_that_are_refused(client: NativeClient, parameters: Json, message: str) -> None:
    raw = client.ask(client.body(**parameters))
    assert (raw.status, raw.json()["code"]) == (400, "InvalidParameter")
    assert message in str(raw.json()["message"])


@pytest.mark.parametrize(
    ("model", "parameters", "code", "name"),
    [
        (
            "kimi-k2-thinking",
            {"enable_thinking": True},
            "InvalidParameter.NotSupportEnableThinking",
            "enable_thinking",
        ),
        (
            "Moonshot-Kimi-K2-Instruct",
            {"enable_thinking": False},
            "InvalidParameter.NotSupportEnableThinking",
            "enable_thinking",
        ),
        ("kimi-k2-thinking", {"top_p": 0.9}, "InvalidParameter", "top_p"),
        ("kimi-k2-thinking", {"presence_penalty": 0}, "InvalidParameter", "presence_penalty"),
        ("kimi-k2-thinking", {"thinking_budget": 10}, "InvalidParameter", "thinking_budget"),
        ("kimi-k2-thinking", {"enable_search": True}, "InvalidParameter", "enable_search"),
    ],
)
def test_parameters_that_kimi_must_not_get(
    kimi: NativeClient, model: str, parameters: Json, code: str, name: str
) -> None:
    raw = kimi.ask({**kimi.body(**parameters), "model": model})
    assert (raw.status, raw.json()["code"], name in str(raw.json()["message"])) == (400, code, True)


def test_a_web_search_by_the_model_that_has_it(kimi: NativeClient) -> None:
    assert kimi.ask({**kimi.body(enable_search=True), "model": "Moonshot-Kimi-K2-Instruct"}).status == 200


def test_kimi_k25_streams_its_thinking_only_incrementally(simulator: Running) -> None:
    client = NativeClient(simulator, "beijing")
    statuses = [
        client.ask(looking({"text": "x"}, model="kimi-k2.5", enable_thinking=True, **more)).status
        for more in ({}, {"incremental_output": True})
    ]
    assert statuses == [400, 200]


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"image": data_url(size=(10, 500))}, "larger than 10"),
        ({"image": data_url(size=(2211, 11))}, "ratio"),
        ({"image": data_url("GIF")}, "image/gif"),
        ({"image": data_url("PNG", mime="image/jpeg")}, "bytes are PNG"),
        ({"image": "data:image/jpeg;base64," + "A" * 10_485_764}, "10485760"),
        ({"image": "file:///tmp/a.jpg"}, "http, https"),
        ({"image": {"url": "https://x.example/a.jpg"}}, "address"),
        ({"image": "https://x.example/a.jpg", "video": "https://x.example/a.mp4"}, "one of the keys"),
        ({"type": "image_url", "image_url": {"url": "https://x.example/a.jpg"}}, "one of the keys"),
        ({"video": ["https://x.example/a.jpg"] * 3}, "4 to 2000"),
        ({"video": "https://x.example/a.mp4", "fps": 11}, "fps"),
        ({"video": "https://x.example/a.mp4", "max_frames": 2_001}, "max_frames"),
        ({"text": 5}, "text"),
    ],
)
def test_parts_that_are_refused(client: NativeClient, part: Json, message: str) -> None:
    raw = client.ask(looking(part))
    assert (raw.status, raw.json()["code"], message in str(raw.json()["message"])) == (400, "InvalidParameter", True)


def test_the_text_address_takes_no_lists(kimi: NativeClient) -> None:
    raw = kimi.ask(looking({"text": "x"}, model="kimi-k2-thinking"))
    assert (raw.status, "must be a text" in str(raw.json()["message"])) == (400, True)


@pytest.mark.parametrize("key", ["", "sk-wrong", "sk-sim-beijing"])
def test_another_key_is_refused(client: NativeClient, key: str) -> None:
    raw = client.ask(client.body(), key=key)
    assert (raw.status, raw.json()["code"]) == (401, "InvalidApiKey")


def test_both_protocols_share_one_limit() -> None:
    with start(Options(ttft=0, tokens_per_second=0, rpm=60), environment={}) as running:
        native, compat = NativeClient(running), Client(running)
        statuses = [client.ask(client.body()).status for client in (native, compat, native, compat)]
        last: Any = native.ask(native.body()).json()
    assert (statuses, last["code"]) == ([200, 200, 429, 429], "Throttling.RateQuota")


def test_a_redirect_leads_to_the_same_path_elsewhere(client: NativeClient) -> None:
    raw = client.ask(client.body(), fault="307=8099")
    assert raw.header("location") == f"http://localhost:8099/{MULTIMODAL_PATH}"

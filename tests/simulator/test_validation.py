"""What the service refuses of a request (contract 2.3, 5.1, 8.1), and what it counts of pictures."""

import base64
import io
from decimal import Decimal
from pathlib import Path

import pytest
from PIL import Image

from .raw import Client, Json

TOOL: Json = {
    "type": "function",
    "function": {
        "name": "look_up",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}, "year": {"type": "integer"}}},
    },
}
LECTURE = Path(__file__).parents[2] / "batchrun/demo/lectures/sunflowers.mp4"
CLIP = "data:video/mp4;base64," + base64.b64encode(LECTURE.read_bytes()).decode()


def data_url(form: str = "JPEG", size: tuple[int, int] = (640, 480), mime: str = "") -> str:
    file = io.BytesIO()
    Image.new("RGB", size, (10, 90, 200)).save(file, form)
    encoded = base64.b64encode(file.getvalue()).decode()
    return f"data:{mime or 'image/' + form.lower()};base64,{encoded}"


def looking(url: object, **part: object) -> list[Json]:
    picture = {"type": "image_url", "image_url": {"url": url}, **part}
    return [{"role": "user", "content": [picture, {"type": "text", "text": "Describe."}]}]


@pytest.mark.parametrize(
    ("changes", "status", "message"),
    [
        ({"model": None}, 400, "model"),
        ({"model": "gpt-x"}, 404, "gpt-x"),
        ({"model": "kimi-k2.5"}, 404, "kimi-k2.5"),
        ({"model": "qwen3-vl-flash-us"}, 404, "qwen3-vl-flash-us"),
        ({"messages": []}, 400, "messages"),
        ({"messages": "hello"}, 400, "messages"),
        ({"messages": [{"role": "user", "content": []}]}, 400, "messages[0]"),
        ({"messages": [{"role": "robot", "content": "x"}]}, 400, "role"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, 400, "role"),
        ({"messages": [{"role": "system", "content": "x"}]}, 400, "user"),
        (
            {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]},
            500,
            "last message",
        ),
        ({"temperature": 2}, 400, "[0, 2)"),
        ({"temperature": float("nan")}, 400, "temperature"),
        ({"top_p": 0}, 400, "(0, 1]"),
        ({"presence_penalty": -2.5}, 400, "[-2, 2]"),
        ({"n": 5}, 400, "[1, 4]"),
        ({"seed": 2**31}, 400, "seed"),
        ({"max_tokens": 0}, 400, "[1, 32768]"),
        ({"max_tokens": 32_769}, 400, "[1, 32768]"),
        ({"max_tokens": True}, 400, "max_tokens"),
        ({"stream": "yes"}, 400, "stream"),
        ({"stream_options": {"include_usage": True}}, 400, "stream_options"),
        ({"thinking_budget": 0, "enable_thinking": True}, 400, "[1, 81920]"),
        ({"thinking_budget": 81_921, "enable_thinking": True}, 400, "[1, 81920]"),
        ({"model": "qwen3-vl-235b-a22b-thinking", "enable_thinking": False}, 400, "restricted to True"),
        ({"model": "qwen-vl-max", "enable_thinking": True}, 400, "enable_thinking"),
        ({"model": "qvq-max"}, 400, "only supports stream mode"),
        ({"model": "qvq-plus", "stream": True, "enable_thinking": False}, 400, "restricted to True"),
        ({"response_format": {"type": "json_object"}}, 400, "word json"),
        ({"response_format": {"type": "xml"}}, 400, "json_object"),
        ({"messages": [{"role": "user", "content": "x" * 1_100_000}]}, 400, "[1, 260096]"),
        ({"tools": []}, 400, "tools"),
        ({"tools": [{"type": "function", "function": {}}]}, 400, "has a name"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}}, 400, "none of the tools"),
    ],
)
def test_refused_in_singapore(client: Client, changes: Json, status: int, message: str) -> None:
    raw = client.ask(client.body(**changes))
    assert (raw.status, message in str(raw.error["message"])) == (status, True)


@pytest.mark.parametrize(
    ("changes", "parameter"),
    [
        ({"model": "kimi-k2-thinking", "enable_thinking": True}, "enable_thinking"),
        ({"model": "kimi-k2-thinking", "top_p": 0.9}, "top_p"),
        ({"model": "kimi-k2-thinking", "presence_penalty": 0}, "presence_penalty"),
        ({"model": "Moonshot-Kimi-K2-Instruct", "enable_thinking": False}, "enable_thinking"),
        ({"model": "kimi-k2.5", "enable_thinking": True, "thinking_budget": 100}, "thinking_budget"),
        ({"model": "kimi-k2.5", "response_format": {"type": "json_object"}}, "structured output"),
        ({"model": "kimi-k2.5", "enable_search": True}, "enable_search"),
        ({"model": "Moonshot-Kimi-K2-Instruct", "enable_search": "yes"}, "enable_search"),
        ({"model": "kimi-k2-thinking", "messages": looking("https://x.example/a.jpg")}, "text only"),
    ],
)
def test_refused_of_kimi(client: Client, changes: Json, parameter: str) -> None:
    raw = client.ask(client.body(**changes), region="beijing")
    assert (raw.status, parameter in str(raw.error["message"])) == (400, True)


def test_a_web_search_by_the_model_that_has_it(client: Client) -> None:
    asked = client.body(model="Moonshot-Kimi-K2-Instruct", enable_search=True)
    assert client.ask(asked, region="beijing").status == 200


def test_json_mode_of_a_model_that_always_thinks(client: Client) -> None:
    messages = [{"role": "user", "content": "Answer as JSON."}]
    changes = {"model": "kimi-k2-thinking", "messages": messages, "response_format": {"type": "json_object"}}
    assert client.ask(client.body(**changes), region="beijing").status == 200


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (data_url(size=(10, 500)), "larger than 10"),
        (data_url(size=(2211, 11)), "ratio"),
        (data_url("GIF"), "image/gif"),
        (data_url("PNG", mime="image/jpeg"), "bytes are PNG"),
        (data_url(mime="image/jpg"), "image/jpg"),
        (data_url("WEBP", size=(4000, 1000)), "3840"),
        ("data:image/jpeg;base64,@@@@", "base64"),
        ("data:image/jpeg;base64,AAAA", "decoded"),
        ("data:image/jpeg,AAAA", "base64"),
        ("data:image/jpeg;base64," + "A" * 10_485_764, "10485760"),
        ("file:///tmp/a.jpg", "http, https"),
        ("", "url"),
        (None, "url"),
    ],
)
def test_refused_pictures(client: Client, url: object, message: str) -> None:
    raw = client.ask(client.body(messages=looking(url)))
    assert (raw.status, message in str(raw.error["message"])) == (400, True)


def test_a_model_side_refusal_carries_an_id(client: Client) -> None:
    raw = client.ask(client.body(max_tokens=0))
    assert str(raw.json()["id"]).startswith("chatcmpl-")
    assert str(raw.error["message"]).startswith("<400> InternalError.Algo.InvalidParameter: ")


@pytest.mark.parametrize(
    ("changes", "tokens"),
    [
        ({"messages": looking(data_url())}, 302),
        ({"messages": looking(data_url(size=(1024, 406)), max_pixels=1024 * 32 * 4)}, 7 * 17 + 2),
        ({"messages": looking(data_url("PNG", (100, 80)))}, 74),
        ({"messages": looking(data_url(size=(3840, 2160)))}, 2_481),
        ({"messages": looking(data_url(size=(3840, 2160))), "vl_high_resolution_images": True}, 8_162),
        ({"messages": looking("https://pictures.example/any.jpg")}, 32 * 24 + 2),
    ],
)
def test_pictures_are_counted_from_their_pixels(client: Client, changes: Json, tokens: int) -> None:
    assert client.row(client.ask(client.body(**changes))).billed.image == tokens


def test_the_caption_names_what_arrived(client: Client) -> None:
    raw = client.ask(client.body(messages=looking(data_url("WEBP", (333, 222)))))
    assert "A 333 by 222 pixel WEBP picture" in raw.body.decode()


def test_a_list_of_pictures_is_a_video(client: Client) -> None:
    part = {"type": "video", "video": [data_url(size=(1280, 720))] * 5, "fps": 2}
    row = client.row(client.ask(client.body(messages=[{"role": "user", "content": [part]}])))
    assert (row.billed.video, row.billed.image) == (1_784, 0)


def test_three_pictures_are_no_video(client: Client) -> None:
    part = {"type": "video", "video": [data_url()] * 3}
    assert client.ask(client.body(messages=[{"role": "user", "content": [part]}])).status == 400


def test_a_video_by_address_counts_as_a_minute(client: Client) -> None:
    part = {"type": "video_url", "video_url": {"url": "https://x.example/v.mp4"}, "fps": 2}
    row = client.row(client.ask(client.body(messages=[{"role": "user", "content": [part]}])))
    assert row.billed.video == 35_642


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"model": 5}'])
def test_a_body_that_is_no_request(client: Client, body: bytes) -> None:
    assert client.ask(body).status == 400


@pytest.mark.parametrize("key", ["", "sk-wrong", "sk-sim-beijing"])
def test_another_key_is_refused_and_booked_without_it(client: Client, key: str) -> None:
    raw = client.ask(client.body(), key=key)
    row = client.row(raw)
    assert (raw.status, raw.error["code"], row.status, row.amount) == (401, "invalid_api_key", 401, Decimal(0))
    assert not key or key not in row.to_json()

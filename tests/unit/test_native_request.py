"""Requests of the native dialect, in part and in what is refused. Whole ones stand in `tests/requests/native`."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from batchrun.catalogue import Catalogue, load_catalogue
from batchrun.dialects.base import ModelRules
from batchrun.dialects.native import Native
from batchrun.errors import ErrorKind, MediaError, ProviderError
from batchrun.media import open_media
from batchrun.messages import (
    ChatRequest,
    FramesPart,
    ImagePart,
    JsonValue,
    MediaPart,
    Message,
    Part,
    TextPart,
    Thinking,
    VideoPart,
    WrittenMessage,
)
from tests.unit.sending import plan_of, wire

NATIVE = Native("model-studio")
SEES = ModelRules(thinking="switchable", thinking_switch="enable_thinking", thinking_budget=True)
READS = ModelRules(native_task="text-generation")
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAIAAACQkWg2AAAAFklEQVR42mP4TyJgGNUwqmFUw9DVAAAJ0/AfXiOaiwAAAABJRU5ErkJggg=="
)
A, B = ImagePart(source="https://host/a.jpg"), ImagePart(source="https://host/b.png")


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return load_catalogue()


def request(
    *parts: Part, params: Mapping[str, JsonValue] | None = None, thinking: Thinking | None = None, stream: bool = False
) -> ChatRequest:
    message = Message(role="user", parts=parts)
    return ChatRequest(model="m", messages=(message,), params=params or {}, thinking=thinking, stream=stream)


def refusal(given: ChatRequest, rules: ModelRules = SEES) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        NATIVE.encode(given, rules)
    assert caught.value.kind is ErrorKind.INVALID
    return caught.value


@pytest.mark.parametrize("size", [69, 70, 71, 300_000])
def test_a_local_file_is_sent_as_its_own_bytes(tmp_path: Path, size: int) -> None:
    raw = PNG + b"\0" * (size - len(PNG) if size > len(PNG) else 0)
    (tmp_path / "a.jpg").write_bytes(raw)
    with open_media(tmp_path, "a.jpg") as media:
        body = NATIVE.encode(request(ImagePart(source=media), A, TextPart(text="Describe.")), SEES)
        bytes_sent = wire(body)
    address = "data:image/png;base64," + base64.b64encode(raw).decode()
    content = [{"image": address}, {"image": "https://host/a.jpg"}, {"text": "Describe."}]
    assert json.loads(bytes_sent) == {"model": "m", "input": {"messages": [{"role": "user", "content": content}]}}
    assert body.length == len(bytes_sent)


def test_pixel_bounds_stand_in_each_image_part() -> None:
    given = request(A, B, TextPart(text="Read."), params={"max_pixels": 9, "min_pixels": 4})
    bounds = {"min_pixels": 4, "max_pixels": 9}
    content = [{"image": "https://host/a.jpg"} | bounds, {"image": "https://host/b.png"} | bounds, {"text": "Read."}]
    assert json.loads(wire(NATIVE.encode(given, SEES)))["input"]["messages"][0]["content"] == content


def test_several_texts_of_a_message_are_one_text_in_text_generation() -> None:
    body = wire(NATIVE.encode(request(TextPart(text="a "), TextPart(text="b")), READS))
    assert json.loads(body)["input"] == {"messages": [{"role": "user", "content": "a b"}]}


def test_an_image_in_text_generation_is_refused() -> None:
    error = refusal(request(A, TextPart(text="x")), READS)
    assert error.message == "m takes text only in this wire form."
    assert "native_task" in error.remedy


@pytest.mark.parametrize("rules", [SEES, READS])
def test_the_same_request_gives_the_same_bytes_in_whatever_order_it_was_written(rules: ModelRules) -> None:
    one = request(TextPart(text="x"), params={"temperature": 0.5, "max_tokens": 9, "seed": 1}, stream=True)
    two = replace(one, params=dict(reversed(list(one.params.items()))))
    assert wire(NATIVE.encode(one, rules)) == wire(NATIVE.encode(two, rules))


def test_fields_stand_in_the_order_of_the_documentation() -> None:
    body = wire(NATIVE.encode(request(TextPart(text="x"), params={"seed": 1}, stream=True), READS))
    assert body == (
        b'{"model":"m","input":{"messages":[{"role":"user","content":"x"}]},'
        b'"parameters":{"result_format":"message","incremental_output":true,"seed":1}}'
    )


@pytest.mark.parametrize(
    ("thinking", "model", "parameters"),
    [
        (None, "qwen3-vl-plus", {}),
        (Thinking(enabled=False), "qwen3-vl-plus", {"enable_thinking": False}),
        (Thinking(enabled=True), "qwen3-vl-plus", {"enable_thinking": True}),
        (Thinking(enabled=True), "kimi-k2.5", {"enable_thinking": True}),
        (Thinking(enabled=True), "qwen3-vl-235b-a22b-thinking", {"enable_thinking": True}),
        (Thinking(enabled=True), "kimi-k2-thinking", {"result_format": "message"}),
        (Thinking(enabled=False), "Moonshot-Kimi-K2-Instruct", {"result_format": "message"}),
        (Thinking(enabled=False), "qwen-vl-max", {}),
    ],
)
def test_thinking_is_switched_where_the_model_has_a_switch(
    catalogue: Catalogue, thinking: Thinking | None, model: str, parameters: dict[str, object]
) -> None:
    rules = catalogue.model("dashscope/beijing", model).rules
    body = json.loads(wire(NATIVE.encode(request(TextPart(text="x"), thinking=thinking), rules)))
    assert body.get("parameters", {}) == parameters


@pytest.mark.parametrize("provider", ["dashscope/beijing", "model-studio/beijing"])
@pytest.mark.parametrize(
    ("model", "params", "thinking"),
    [
        ("kimi-k2.5", {}, Thinking(enabled=True, budget=9)),
        ("kimi-k2.5", {"thinking_budget": 9}, None),
        ("kimi-k2.5", {"response_format": {"type": "json_object"}}, None),
        ("kimi-k2.5", {"enable_search": True}, None),
        ("kimi-k2-thinking", {}, Thinking(enabled=False)),
        ("kimi-k2-thinking", {}, Thinking(enabled=True, budget=9)),
        ("kimi-k2-thinking", {"enable_thinking": True}, None),
        ("kimi-k2-thinking", {"top_p": 0.9}, None),
        ("kimi-k2-thinking", {"presence_penalty": 0.5}, None),
        ("Moonshot-Kimi-K2-Instruct", {}, Thinking(enabled=True)),
        ("Moonshot-Kimi-K2-Instruct", {"enable_thinking": False}, None),
        ("qwen-vl-max", {}, Thinking(enabled=True)),
        ("qwen3-vl-235b-a22b-thinking", {}, Thinking(enabled=False)),
        ("qwen3-vl-235b-a22b-instruct", {}, Thinking(enabled=True)),
    ],
)
def test_what_a_model_must_not_be_sent_is_refused_in_both_forms(
    catalogue: Catalogue, provider: str, model: str, params: dict[str, JsonValue], thinking: Thinking | None
) -> None:
    plan = plan_of(catalogue, {"provider": provider, "model": model, "prompt": "x"})
    with pytest.raises(ProviderError) as caught:
        plan.dialect.encode(request(TextPart(text="x"), params=params, thinking=thinking), plan.model.rules)
    assert caught.value.kind is ErrorKind.INVALID


WRITTEN_HERE = ["model", "input", "parameters", "result_format", "incremental_output", "stream", "stream_options"]
ELSEWHERE = ["messages", "enable_thinking", "thinking_budget", "thinking", "fps", "max_frames"]


@pytest.mark.parametrize("name", [*WRITTEN_HERE, *ELSEWHERE])
def test_parameters_that_have_another_place_are_refused(name: str) -> None:
    error = refusal(request(TextPart(text="x"), params={name: True}))
    assert (error.message, bool(error.remedy)) == (f"The parameter `{name}` can't be given in `params`.", True)


@pytest.mark.parametrize("value", [float("nan"), object(), "\ud800"])
def test_what_json_cant_say_is_refused(value: JsonValue) -> None:
    error = refusal(request(TextPart(text="x"), params={"seed": value}))
    assert error.message.startswith("The request can't be written as JSON: ")


def test_an_image_that_is_no_url_is_refused() -> None:
    with pytest.raises(MediaError, match="is no http, https or data URL"):
        NATIVE.encode(request(ImagePart(source="file:///etc/passwd")), SEES)


@pytest.mark.parametrize("text", ['"},{"role":"system"', "<|im_start|>", "\n\t\\", "\u2028", "漁船🚢", "\x00", ""])
def test_any_text_stays_text(text: str) -> None:
    body = json.loads(wire(NATIVE.encode(request(TextPart(text=text)), SEES)))
    assert body["input"]["messages"][0]["content"] == [{"text": text}]


# Messages that somebody wrote in the compatible form


def written(media: tuple[MediaPart, ...] = (), **fields: JsonValue) -> ChatRequest:
    message = WrittenMessage(fields={"role": "user", **fields}, media=media)
    return ChatRequest(model="m", messages=(message,), stream=False)


def written_content(given: ChatRequest, rules: ModelRules = SEES) -> object:
    return json.loads(wire(NATIVE.encode(given, rules)))["input"]["messages"][0]


def test_a_written_text_is_a_part_or_a_plain_text() -> None:
    given = written(content="Hi", name="ann")
    assert written_content(given) == {"role": "user", "content": [{"text": "Hi"}], "name": "ann"}
    assert written_content(given, READS) == {"role": "user", "content": "Hi", "name": "ann"}


@pytest.mark.parametrize(
    ("media", "part", "name"),
    [
        ((), {"type": "text", "text": "Hi"}, "image"),
        ((), {"type": "text", "text": "Hi"}, "video"),
        ((A,), {"type": "image_url", "image_url": {}}, "image"),
    ],
)
def test_no_medium_that_nobody_has_looked_at_stands_beside_another_part(
    media: tuple[MediaPart, ...], part: dict[str, JsonValue], name: str
) -> None:
    with pytest.raises(ProviderError, match=f"`{name}`"):
        NATIVE.encode(written(media, content=[{**part, name: "https://other/c.png"}]), SEES)


def test_written_parts_lose_their_type_and_keep_what_stands_beside_it() -> None:
    image: JsonValue = {"type": "image_url", "image_url": {"detail": "high"}, "max_pixels": 9}
    video: JsonValue = {"type": "video_url", "video_url": {}, "total_pixels": 9}
    listed: JsonValue = {"type": "video", "video": []}
    given = written(
        (
            ImagePart(source="https://host/a.jpg"),
            VideoPart(source="https://host/a.mp4", fps=2),
            FramesPart(sources=("https://host/b.jpg",) * 4, fps=0.5),
        ),
        content=[image, video, {"type": "text", "text": "Read."}, listed],
    )
    content = [
        {"image": "https://host/a.jpg", "max_pixels": 9},
        {"video": "https://host/a.mp4", "fps": 2, "total_pixels": 9},
        {"text": "Read."},
        {"video": ["https://host/b.jpg"] * 4, "fps": 0.5},
    ]
    assert written_content(given) == {"role": "user", "content": content}


def test_a_written_message_without_content_is_an_empty_one() -> None:
    calls: JsonValue = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    given = written(role="assistant", content=None, tool_calls=calls)
    assert written_content(given) == {"role": "assistant", "content": [], "tool_calls": calls}
    assert written_content(given, READS) == {"role": "assistant", "content": "", "tool_calls": calls}


def test_a_written_part_of_another_kind_is_refused() -> None:
    error = refusal(written(content=[{"type": "input_audio", "input_audio": {}}]))
    assert error.message == "A part of the type 'input_audio' can't be sent in this wire form."


def test_a_written_image_in_text_generation_is_refused() -> None:
    image: JsonValue = {"type": "image_url", "image_url": {}}
    assert refusal(written((ImagePart(source="https://host/a.jpg"),), content=[image]), READS).message.startswith(
        "m takes text only"
    )

"""Requests of the compat dialect: exact JSON, exact length, and what is refused before it is sent."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from batchrun.dialects.base import Body, ModelRules
from batchrun.dialects.compat import Compat
from batchrun.errors import ErrorKind, MediaError, ProviderError
from batchrun.media import open_media
from batchrun.messages import ChatRequest, ImagePart, JsonValue, Message, Part, TextPart, Thinking

COMPAT = Compat("model-studio")
PLAIN = ModelRules()
SWITCHABLE = ModelRules(thinking="switchable", thinking_switch="enable_thinking", thinking_budget=True)
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAIAAACQkWg2AAAAFklEQVR42mP4TyJgGNUwqmFUw9DVAAAJ0/AfXiOaiwAAAABJRU5ErkJggg=="
)
A, B = ImagePart(source="https://host/a.jpg"), ImagePart(source="https://host/b.png")


def request(
    *parts: Part, params: Mapping[str, JsonValue] | None = None, thinking: Thinking | None = None, stream: bool = False
) -> ChatRequest:
    message = Message(role="user", parts=parts)
    return ChatRequest(model="m", messages=(message,), params=params or {}, thinking=thinking, stream=stream)


def wire(body: Body) -> bytes:
    return b"".join(piece if isinstance(piece, bytes) else b"".join(piece.read_encoded()) for piece in body.pieces)


def sent(given: ChatRequest, rules: ModelRules = PLAIN) -> object:
    return json.loads(wire(COMPAT.encode(given, rules)))


def content(*parts: Part, **params: JsonValue) -> object:
    value = sent(request(*parts, params=params))
    assert isinstance(value, dict)
    return value["messages"][0]["content"]


def refusal(given: ChatRequest, rules: ModelRules = PLAIN) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        COMPAT.encode(given, rules)
    assert caught.value.kind is ErrorKind.INVALID
    return caught.value


def url(address: str) -> dict[str, object]:
    return {"type": "image_url", "image_url": {"url": address}}


def test_c1_text() -> None:
    body = wire(COMPAT.encode(request(TextPart(text="Who are you?")), PLAIN))
    assert body == b'{"model":"m","messages":[{"role":"user","content":"Who are you?"}]}'


def test_c2_one_image() -> None:
    got = content(A, TextPart(text="Describe the image."))
    assert got == [url("https://host/a.jpg"), {"type": "text", "text": "Describe the image."}]


def test_c2_text_before_the_image() -> None:
    assert content(TextPart(text="Describe."), A) == [{"type": "text", "text": "Describe."}, url("https://host/a.jpg")]


def test_c3_several_images() -> None:
    got = content(A, B, TextPart(text="Compare."))
    assert got == [url("https://host/a.jpg"), url("https://host/b.png"), {"type": "text", "text": "Compare."}]


@pytest.mark.parametrize("size", [69, 70, 71, 300_000])
def test_c6_a_local_file_is_sent_as_its_own_bytes(tmp_path: Path, size: int) -> None:
    raw = PNG + b"\0" * (size - len(PNG) if size > len(PNG) else 0)
    (tmp_path / "a.jpg").write_bytes(raw)
    with open_media(tmp_path, "a.jpg") as media:
        body = COMPAT.encode(request(ImagePart(source=media), TextPart(text="Describe.")), PLAIN)
        bytes_sent = wire(body)
    address = "data:image/png;base64," + base64.b64encode(raw).decode()
    expected = [{"role": "user", "content": [url(address), {"type": "text", "text": "Describe."}]}]
    assert json.loads(bytes_sent) == {"model": "m", "messages": expected}
    assert body.length == len(bytes_sent)


def test_several_local_files_keep_their_order(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    (tmp_path / "b.png").write_bytes(PNG + b"second")
    with open_media(tmp_path, "a.png") as a, open_media(tmp_path, "b.png") as b:
        got = content(ImagePart(source=a), TextPart(text="or"), ImagePart(source=b), A, ImagePart(source=a))
    first, second = (base64.b64encode(raw).decode() for raw in (PNG, PNG + b"second"))
    assert got == [
        url(f"data:image/png;base64,{first}"),
        {"type": "text", "text": "or"},
        url(f"data:image/png;base64,{second}"),
        url("https://host/a.jpg"),
        url(f"data:image/png;base64,{first}"),
    ]


def test_c9_high_resolution_stands_at_the_top() -> None:
    expected = [{"role": "user", "content": [url("https://host/a.jpg"), {"type": "text", "text": "Read."}]}]
    got = sent(request(A, TextPart(text="Read."), params={"vl_high_resolution_images": True}))
    assert got == {"model": "m", "messages": expected, "vl_high_resolution_images": True}


def test_c10_pixel_bounds_stand_in_each_image_part() -> None:
    got = content(A, B, TextPart(text="Read."), max_pixels=2_621_440, min_pixels=65_536)
    bounds = {"min_pixels": 65_536, "max_pixels": 2_621_440}
    assert got == [
        url("https://host/a.jpg") | bounds,
        url("https://host/b.png") | bounds,
        {"type": "text", "text": "Read."},
    ]


def test_c11_thinking_streamed() -> None:
    given = request(A, TextPart(text="Solve it."), thinking=Thinking(enabled=True, budget=81_920), stream=True)
    expected = [{"role": "user", "content": [url("https://host/a.jpg"), {"type": "text", "text": "Solve it."}]}]
    assert sent(given, SWITCHABLE) == {
        "model": "m",
        "messages": expected,
        "stream": True,
        "stream_options": {"include_usage": True},
        "enable_thinking": True,
        "thinking_budget": 81_920,
    }


def test_c12_turns_keep_their_roles() -> None:
    roles: list[Message] = [
        Message(role="system", parts=(TextPart(text="s"),)),
        Message(role="assistant", parts=(TextPart(text="a"),)),
        Message(role="user", parts=(TextPart(text="u"), TextPart(text="v"))),
    ]
    assert sent(ChatRequest(model="m", messages=tuple(roles), stream=False)) == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "assistant", "content": "a"},
            {"role": "user", "content": [{"type": "text", "text": "u"}, {"type": "text", "text": "v"}]},
        ],
    }


@pytest.mark.parametrize("text", ['"},{"role":"system"', "<|im_start|>", "\n\t\\", "\u2028", "漁船🚢", "\x00", ""])
def test_any_text_stays_text(text: str) -> None:
    assert content(TextPart(text=text)) == text


def test_the_same_request_gives_the_same_bytes_in_whatever_order_it_was_written() -> None:
    one = request(A, TextPart(text="x"), params={"temperature": 0.5, "max_tokens": 9, "seed": 1})
    two = request(A, TextPart(text="x"), params={"seed": 1, "max_tokens": 9, "temperature": 0.5})
    assert wire(COMPAT.encode(one, PLAIN)) == wire(COMPAT.encode(two, PLAIN))


def test_nested_and_read_only_params_are_written() -> None:
    params: Mapping[str, JsonValue] = MappingProxyType(
        {"response_format": MappingProxyType({"type": "json_object"}), "stop": ("a", "b")}
    )
    expected = {"response_format": {"type": "json_object"}, "stop": ["a", "b"]}
    got = sent(request(TextPart(text="x"), params=params))
    assert isinstance(got, dict)
    assert {name: got[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("thinking", "rules", "fields"),
    [
        (None, SWITCHABLE, {}),
        (Thinking(enabled=False), SWITCHABLE, {"enable_thinking": False}),
        (Thinking(enabled=True), SWITCHABLE, {"enable_thinking": True}),
        (
            Thinking(enabled=True),
            ModelRules(thinking="switchable", thinking_switch="thinking"),
            {"thinking": {"type": "enabled"}},
        ),
        (
            Thinking(enabled=False),
            ModelRules(thinking="switchable", thinking_switch="thinking"),
            {"thinking": {"type": "disabled"}},
        ),
        (Thinking(enabled=False), ModelRules(thinking="never"), {}),
        (Thinking(enabled=False), ModelRules(thinking="never", thinking_switch="enable_thinking"), {}),
        (Thinking(enabled=True), ModelRules(thinking="always"), {}),
        (
            Thinking(enabled=True),
            ModelRules(thinking="always", thinking_switch="enable_thinking"),
            {"enable_thinking": True},
        ),
        (Thinking(enabled=True, budget=5), ModelRules(thinking="always", thinking_budget=True), {"thinking_budget": 5}),
    ],
)
def test_thinking(thinking: Thinking | None, rules: ModelRules, fields: dict[str, object]) -> None:
    got = sent(request(TextPart(text="x"), thinking=thinking), rules)
    assert got == {"model": "m", "messages": [{"role": "user", "content": "x"}]} | fields


@pytest.mark.parametrize(
    ("thinking", "rules", "message"),
    [
        (Thinking(enabled=True), ModelRules(thinking="never"), "m can't think."),
        (
            Thinking(enabled=False),
            ModelRules(thinking="always"),
            "m always thinks here; there is nothing to switch it off with.",
        ),
        (
            Thinking(enabled=True),
            ModelRules(thinking="switchable"),
            "m has a thinking switch that the catalogue doesn't name.",
        ),
        (Thinking(enabled=True, budget=9), ModelRules(thinking="always"), "m takes no thinking budget."),
        (Thinking(enabled=False, budget=9), SWITCHABLE, "A thinking budget is set, but thinking is off."),
        (Thinking(enabled=True, budget=0), SWITCHABLE, "The thinking budget is 0; it counts tokens."),
    ],
)
def test_thinking_that_cant_be_had_is_refused(thinking: Thinking, rules: ModelRules, message: str) -> None:
    error = refusal(request(TextPart(text="x"), thinking=thinking), rules)
    assert (error.message, bool(error.remedy)) == (message, True)


def test_a_forbidden_parameter_is_refused() -> None:
    rules = ModelRules(thinking="always", forbidden=frozenset({"top_p", "presence_penalty"}))
    error = refusal(request(TextPart(text="x"), params={"top_p": 0.9}), rules)
    assert (error.message, error.remedy) == ("m doesn't take the parameter `top_p`.", "Remove `top_p`.")


WRITTEN_HERE = ["model", "messages", "stream", "stream_options", "enable_thinking", "thinking_budget", "thinking"]
NOT_HERE = ["fps", "max_frames", "incremental_output", "result_format"]


@pytest.mark.parametrize("name", [*WRITTEN_HERE, *NOT_HERE])
def test_parameters_that_have_another_place_are_refused(name: str) -> None:
    error = refusal(request(TextPart(text="x"), params={name: True}), SWITCHABLE)
    assert (error.message, bool(error.remedy)) == (f"The parameter `{name}` can't be given in `params`.", True)


def test_several_answers_to_one_item_are_refused() -> None:
    assert refusal(request(TextPart(text="x"), params={"n": 2})).message == "`n` asks for several answers to one item."


def test_one_answer_may_be_asked_for() -> None:
    assert sent(request(TextPart(text="x"), params={"n": 1})) == {
        "model": "m",
        "messages": [{"role": "user", "content": "x"}],
        "n": 1,
    }


@pytest.mark.parametrize("messages", [(), (Message(role="user", parts=()),)])
def test_an_empty_request_is_refused(messages: tuple[Message, ...]) -> None:
    assert (
        refusal(ChatRequest(model="m", messages=messages)).message
        == "The request has a message without text, picture or video."
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {"a": {1, 2}}, "\ud800"])
def test_what_json_cant_say_is_refused(value: JsonValue) -> None:
    error = refusal(request(TextPart(text="x"), params={"seed": value}))
    assert error.message.startswith("The request can't be written as JSON: ")


def test_a_broken_character_in_the_prompt_is_refused() -> None:
    assert "surrogates not allowed" in refusal(request(TextPart(text="x\ud800"))).message


def test_an_image_that_is_no_url_is_refused() -> None:
    with pytest.raises(MediaError, match="is no http, https or data URL"):
        COMPAT.encode(request(ImagePart(source="file:///etc/passwd")), PLAIN)


def test_the_path_below_the_base_url() -> None:
    assert COMPAT.path(PLAIN) == "/chat/completions"


RENAMING = ModelRules(max_tokens_as="max_completion_tokens")


@pytest.mark.parametrize(
    ("params", "fields"),
    [
        ({"max_tokens": 5, "seed": 1}, {"max_completion_tokens": 5, "seed": 1}),
        ({"max_completion_tokens": 6}, {"max_completion_tokens": 6}),
        ({"max_tokens": 5, "max_completion_tokens": 6}, {"max_tokens": 5, "max_completion_tokens": 6}),
        ({}, {}),
    ],
)
def test_max_tokens_goes_under_the_name_that_the_server_takes(
    params: dict[str, JsonValue], fields: dict[str, JsonValue]
) -> None:
    written = sent(request(TextPart(text="x"), params=params), RENAMING)
    assert written == {"model": "m", "messages": [{"role": "user", "content": "x"}], **fields}


def test_an_address_is_refused_where_none_is_fetched() -> None:
    error = refusal(request(A, TextPart(text="x")), ModelRules(media_urls=False))
    assert error.message == "m fetches no pictures from addresses here."
    assert error.remedy == "Download the pictures and name them by their paths, or write data URLs."


def test_a_data_url_is_sent_where_no_address_is_fetched() -> None:
    data = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    body = COMPAT.encode(request(ImagePart(source=data), TextPart(text="x")), ModelRules(media_urls=False))
    assert data.encode() in wire(body)

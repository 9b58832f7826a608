"""The compat dialect: what one event or one plain body means."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.answer import Delta, Usage
from batchrun.dialects.compat import Compat
from batchrun.dialects.usage import MAX_DEPTH
from batchrun.errors import CatalogueError, ErrorKind, ProviderError
from batchrun.messages import JsonValue
from batchrun.stream.fold import Fold

MODEL_STUDIO = Compat("model-studio")


def decode(value: object, event: bytes = b"") -> Delta:
    return MODEL_STUDIO.decode(event, json.dumps(value).encode())


def decode_delta(**delta: object) -> Delta:
    return decode({"choices": [{"index": 0, "delta": delta}]})


def plain(value: object, headers: dict[str, str] | None = None) -> Delta:
    return MODEL_STUDIO.decode_plain(json.dumps(value).encode(), headers or {})


def error_of(delta: Delta) -> ProviderError:
    assert delta.error is not None
    return delta.error


@pytest.mark.parametrize(
    ("delta", "text", "reasoning"),
    [
        ({"content": "a"}, "a", ""),
        ({"content": None, "reasoning_content": "b"}, "", "b"),
        ({"reasoning_content": "b", "reasoning": "b"}, "", "b"),
        ({"reasoning": "b"}, "", "b"),
        ({"reasoning_content": "b", "reasoning": "c"}, "", "b"),
        ({"reasoning_content": "", "reasoning": "c"}, "", "c"),
        ({"content": "a", "reasoning_content": "b", "reasoning": "b"}, "a", "b"),
        ({"content": [{"type": "text", "text": "a"}, {"text": "b"}, {"type": "other"}, "c", None]}, "abc", ""),
        ({"content": None, "refusal": "I can't."}, "I can't.", ""),
        ({"content": "", "role": "assistant", "tool_calls": [], "audio": None}, "", ""),
        ({}, "", ""),
    ],
)
def test_texts_of_a_chunk(delta: dict[str, object], text: str, reasoning: str) -> None:
    got = decode_delta(**delta)
    assert (got.text, got.reasoning) == (text, reasoning)


@pytest.mark.parametrize("given", [None, "", "null"])
def test_a_running_finish_reason_is_none(given: str | None) -> None:
    assert decode({"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": given}]}).finish_reason is None


@pytest.mark.parametrize("data", [b"[DONE]", b" [DONE] ", b"[DONE]\n"])
def test_the_marker(data: bytes) -> None:
    assert MODEL_STUDIO.decode(b"", data) == Delta(end=True)


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"choices": []},
        {"choices": None, "usage": None},
        {"type": "ping"},
        {"error": None},
        {"error": {"code": "", "message": ""}},
        {"code": 200},
        {"code": "", "message": ""},
    ],
)
def test_chunks_that_say_nothing(value: object) -> None:
    assert decode(value) == Delta()


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 9, "completion_tokens": 184}, {"input_tokens": 9, "output_tokens": 184}),
        ({"prompt_tokens": 0, "completion_tokens": 0}, {"input_tokens": 0, "output_tokens": 0}),
        ({"prompt_tokens": 5, "completion_tokens": None}, {"input_tokens": 5, "output_tokens": None}),
        ({"prompt_tokens": 5.0, "completion_tokens": 6.5}, {"input_tokens": 5, "output_tokens": None}),
        ({"prompt_tokens": -1, "completion_tokens": 3}, {"input_tokens": None, "output_tokens": 3}),
        ({"prompt_tokens": True, "completion_tokens": 3}, {"input_tokens": None, "output_tokens": 3}),
        ({"prompt_tokens": 10**30, "completion_tokens": 3}, {"input_tokens": None, "output_tokens": 3}),
        ({"input_tokens": 4, "output_tokens": 3}, {"input_tokens": 4, "output_tokens": 3}),
    ],
)
def test_counts(usage: dict[str, object], expected: dict[str, int | None]) -> None:
    got = decode({"choices": [], "usage": usage}).usage
    assert got is not None
    assert {name: getattr(got, name) for name in expected} == expected


@pytest.mark.parametrize("usage", [None, {}, {"total_tokens": 5}, {"prompt_tokens": "many"}, "much", [1], 7])
def test_what_counts_nothing_is_no_usage(usage: object) -> None:
    assert decode({"choices": [{"index": 0, "delta": {"content": "a"}}], "usage": usage}).usage is None


@pytest.mark.parametrize(
    ("details", "cached"),
    [
        ({"prompt_tokens_details": {"cached_tokens": 7}}, 7),
        ({"prompt_tokens_details": {"cached_tokens": 0}, "cached_tokens": 5}, 0),
        ({"cached_tokens": 7}, 7),
        ({"prompt_tokens_details": {"cached_tokens_details": {}}}, None),
        ({"prompt_tokens_details": {"cached_tokens_details": {"text_tokens": 3, "image_tokens": 4}}}, 7),
        ({"prompt_tokens_details": None}, None),
        ({}, None),
    ],
)
def test_cached_tokens_in_all_their_places(details: dict[str, object], cached: int | None) -> None:
    usage = decode({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 1} | details}).usage
    assert usage is not None
    assert usage.cached_tokens == cached


@pytest.mark.parametrize(
    "details",
    [
        {"cache_creation_input_tokens": 256, "cache_creation": {"ephemeral_5m_input_tokens": 256}},
        {"cache_creation": {"ephemeral_5m_input_tokens": 256}},
        {"cache_creation_input_tokens": 256},
    ],
)
def test_cache_write_tokens(details: dict[str, JsonValue]) -> None:
    given: dict[str, JsonValue] = {"prompt_tokens": 900, "completion_tokens": 1, "prompt_tokens_details": details}
    usage = decode({"choices": [], "usage": given}).usage
    assert usage == Usage(input_tokens=900, output_tokens=1, cache_write_tokens=256, raw=given)


def test_parts_of_the_usage() -> None:
    given: dict[str, JsonValue] = {
        "prompt_tokens": 1270,
        "completion_tokens": 382,
        "prompt_tokens_details": {"image_tokens": 1000, "video_tokens": 247, "text_tokens": 23},
        "completion_tokens_details": {"reasoning_tokens": 210},
    }
    expected = Usage(
        input_tokens=1270, output_tokens=382, reasoning_tokens=210, image_tokens=1000, video_tokens=247, raw=given
    )
    assert decode({"choices": [], "usage": given}).usage == expected


def test_usage_inside_the_choice() -> None:
    usage: dict[str, JsonValue] = {"prompt_tokens": 19, "completion_tokens": 13, "cached_tokens": 8}
    got = decode({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": usage}]}).usage
    assert got == Usage(input_tokens=19, output_tokens=13, cached_tokens=8, raw=usage)


def test_the_raw_usage_can_be_stored() -> None:
    data = b'{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"n\\u0000":["\\ud800",NaN,1e999]}}'
    usage = MODEL_STUDIO.decode(b"", data).usage
    assert usage is not None
    assert usage.raw == {"prompt_tokens": 1, "completion_tokens": 2, "n\ufffd": ["\ufffd", None, None]}


def test_what_is_nested_deep_in_the_raw_usage_is_left_out() -> None:
    nested = b"[" * 400 + b"]" * 400
    usage = MODEL_STUDIO.decode(b"", b'{"choices":[],"usage":{"prompt_tokens":1,"x":' + nested + b"}}").usage
    assert usage is not None
    assert (usage.input_tokens, json.dumps(usage.raw).count("[")) == (1, MAX_DEPTH)


@pytest.mark.parametrize(
    ("value", "kind", "message", "code", "request_id"),
    [
        (
            {"error": {"message": "Down", "type": "server_error", "code": None}},
            ErrorKind.SERVER,
            "server_error: Down",
            "server_error",
            None,
        ),
        ({"error": "Down"}, ErrorKind.SERVER, "Down", None, None),
        ({"error": {"code": 429, "message": "Slow"}}, ErrorKind.RATE_LIMITED, "HTTP 429: Slow", None, None),
        (
            {"error": {"message": "Bad", "type": "invalid_request_error"}},
            ErrorKind.INVALID,
            "invalid_request_error: Bad",
            "invalid_request_error",
            None,
        ),
        (
            {"error": {"message": "No", "code": "data_inspection_failed"}, "id": "chatcmpl-1", "request_id": "r-1"},
            ErrorKind.MODERATED,
            "data_inspection_failed: No",
            "data_inspection_failed",
            "r-1",
        ),
        (
            {"code": "Throttling.RateQuota", "message": "Slow", "request_id": "r-2"},
            ErrorKind.RATE_LIMITED,
            "Throttling.RateQuota: Slow",
            "Throttling.RateQuota",
            "r-2",
        ),
        (
            {"success": False, "error": {"code": "api_error", "message": "fetch failed"}, "trace_id": "t-1"},
            ErrorKind.SERVER,
            "api_error: fetch failed",
            "api_error",
            "t-1",
        ),
        ({"success": False}, ErrorKind.SERVER, "no message", None, None),
        ({"error": True, "message": "Down"}, ErrorKind.SERVER, "Down", None, None),
        (
            {"detail": [{"msg": "bad", "loc": ["body"]}]},
            ErrorKind.SERVER,
            '[{"msg": "bad", "loc": ["body"]}]',
            None,
            None,
        ),
        ({"error": {"message": "Odd"}, "choices": "none"}, ErrorKind.SERVER, "Odd", None, None),
    ],
)
def test_errors_inside_a_stream(
    value: object, kind: ErrorKind, message: str, code: str | None, request_id: str | None
) -> None:
    error = error_of(decode(value))
    assert (error.kind, error.message, error.http_status) == (kind, message, 200)
    assert (error.vendor_code, error.request_id) == (code, request_id)


def test_an_error_event_without_json_is_its_text() -> None:
    error = error_of(MODEL_STUDIO.decode(b"error", b"engine overloaded"))
    assert (error.kind, error.message) == (ErrorKind.SERVER, "engine overloaded")


def test_an_error_beside_text_keeps_the_text_and_the_usage() -> None:
    usage: dict[str, JsonValue] = {"prompt_tokens": 5, "completion_tokens": 1}
    choice = {"index": 0, "delta": {"content": "last words"}, "finish_reason": "error"}
    delta = decode({"error": {"message": "Down"}, "choices": [choice], "usage": usage})
    assert (delta.text, error_of(delta).message) == ("last words", "Down")
    assert delta.usage == Usage(input_tokens=5, output_tokens=1, raw=usage)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"choices":[{"delta":{"conte', 'isn\'t JSON, or is cut: \'{"choices":[{"delta":{"conte\''),
        (b"ping", "isn't JSON, or is cut: 'ping'"),
        (b"", "isn't JSON, or is cut: ''"),
        (b"[DONE", "isn't JSON, or is cut: '[DONE'"),
        (b"\x1b[31m\x00", "isn't JSON, or is cut: '[31m'"),
        (b'{"x":' + b"[" * 100_000, "isn't JSON, or is cut: '{\"x\":[["),
        (b"[]", "of another shape (Expected `object`, got `array`): '[]'"),
        (b"17", "of another shape (Expected `object`, got `int`): '17'"),
        (b'{"choices":"none"}', "of another shape (Expected `array | null`, got `str` - at `$.choices`)"),
        (b'{"choices":[{"delta":{"content":7}}]}', "got `int` - at `$.choices[0].delta.content`)"),
    ],
)
def test_what_cant_be_read(data: bytes, message: str) -> None:
    with pytest.raises(ProviderError) as caught:
        MODEL_STUDIO.decode(b"", data)
    assert caught.value.kind is ErrorKind.INCOMPLETE
    assert message in caught.value.message


USAGE: dict[str, JsonValue] = {
    "prompt_tokens": 9,
    "completion_tokens": 184,
    "prompt_tokens_details": {"cached_tokens_details": {}},
}
MESSAGE = {"role": "assistant", "content": " Hi!", "refusal": None, "reasoning_content": "So.", "reasoning": "So."}
ANSWER = {
    "id": "chatcmpl-b5d9e1b799c137e3",
    "object": "chat.completion",
    "created": 1770991864,
    "model": "kimi-k2.5",
    "choices": [{"index": 0, "message": MESSAGE, "logprobs": None, "finish_reason": "stop"}],
    "usage": USAGE,
}


def complete(delta: Delta) -> bool:
    fold = Fold()
    fold.feed(delta)
    return fold.answer().complete


def test_a_plain_answer() -> None:
    assert plain(ANSWER) == Delta(
        text=" Hi!",
        reasoning="So.",
        finish_reason="stop",
        usage=Usage(input_tokens=9, output_tokens=184, raw=USAGE),
        request_id="chatcmpl-b5d9e1b799c137e3",
        end=True,
    )


def test_a_plain_answer_is_complete() -> None:
    assert complete(plain(ANSWER))


@pytest.mark.parametrize(
    ("reason", "headers"),
    [
        (None, {}),
        ("stop", {"x-dashscope-partialresponse": "true"}),
        ("stop", {"X-DashScope-PartialResponse": "True"}),
        (None, {"x-dashscope-partialresponse": "true"}),
    ],
)
def test_a_plain_answer_that_the_vendor_cut(reason: str | None, headers: dict[str, str]) -> None:
    choice = {"index": 0, "message": {"content": "Half"}, "finish_reason": reason}
    delta = plain({"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 4}}, headers)
    assert (delta.text, complete(delta), error_of(delta).kind) == ("Half", False, ErrorKind.INCOMPLETE)
    assert error_of(delta).message == (
        "The vendor cut the answer, most likely at its own time limit, and sent what it had."
    )


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "The server answered 200 with an empty body."),
        (b" \r\n", "The server answered 200 with an empty body."),
        (b"<html><body>Log in</body></html>", "isn't JSON, or is cut: '<html><body>Log in</body></html>'"),
        (b'{"choices":[{"message":{"content":"Hal', "isn't JSON, or is cut"),
        (b"null", "of another shape"),
    ],
)
def test_a_plain_body_that_cant_be_read(body: bytes, message: str) -> None:
    with pytest.raises(ProviderError) as caught:
        MODEL_STUDIO.decode_plain(body, {})
    assert caught.value.kind is ErrorKind.INCOMPLETE
    assert message in caught.value.message


def test_a_plain_body_without_choices_is_an_error() -> None:
    delta = plain({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4}})
    assert error_of(delta).message == "The server answered 200 without any choice."


def test_a_plain_body_of_200_with_an_error_is_that_error() -> None:
    delta = plain({"code": "Arrearage", "message": "Overdue"}, {"X-Request-Id": "r-5"})
    assert (error_of(delta).kind, error_of(delta).request_id) == (ErrorKind.ARREARS, "r-5")


def test_an_unknown_error_table_is_refused() -> None:
    with pytest.raises(CatalogueError, match="There is no error table 'dashscope'") as raised:
        Compat("dashscope")
    assert raised.value.code == "error-table"


KEYS = ["choices", "delta", "message", "content", "reasoning_content", "finish_reason", "index", "id", "usage", "error"]
OTHER_KEYS = ["code", "type", "detail", "status", "prompt_tokens", "prompt_tokens_details", "cached_tokens", "text"]
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["stop", "\ud800", "\0"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from([*KEYS, *OTHER_KEYS]), inner),
    max_leaves=20,
)


@given(
    data=st.binary() | VALUES.map(lambda value: json.dumps(value).encode()),
    event=st.sampled_from([b"", b"error", b"x"]),
)
def test_any_event_is_read_or_refused_and_comes_to_texts_that_can_be_stored(data: bytes, event: bytes) -> None:
    fold = Fold()
    try:
        fold.feed(MODEL_STUDIO.decode(event, data))
    except ProviderError as error:
        assert error.kind is ErrorKind.INCOMPLETE  # noqa: PT017  (which of the two happens is up to the data)
    answer = fold.answer()
    (answer.text + answer.reasoning + (answer.finish_reason or "") + (answer.request_id or "")).encode()
    assert "\0" not in answer.text


@given(data=st.binary() | VALUES.map(lambda value: json.dumps(value).encode()))
def test_any_plain_body_is_read_or_refused(data: bytes) -> None:
    try:
        MODEL_STUDIO.decode_plain(data, {})
    except ProviderError as error:
        assert error.kind is ErrorKind.INCOMPLETE  # noqa: PT017  (which of the two happens is up to the data)


@given(data=st.binary() | VALUES.map(lambda value: json.dumps(value).encode()), status=st.integers(100, 599))
def test_any_error_answer_is_read(data: bytes, status: int) -> None:
    assert len(MODEL_STUDIO.read_error(status, {}, data).message.encode()) < 2500


# Calls to tools


def call(**fields: object) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": {"tool_calls": [fields]}}]}


def folded(*values: object) -> list[tuple[object, object]]:
    """Id and function of each call in the answer."""
    fold = Fold()
    for value in values:
        fold.feed(decode(value))
    return [(made["id"], made["function"]) for made in fold.answer().tool_calls]


def test_the_pieces_of_a_call_are_put_together() -> None:
    first = call(index=0, id="a", type="function", function={"name": "f", "arguments": ""})
    assert folded(first, *(call(index=0, function={"arguments": char}) for char in '{"x": 1}')) == [
        ("a", {"name": "f", "arguments": '{"x": 1}'})
    ]


def test_calls_that_come_mixed_stand_in_their_order() -> None:
    pieces = [call(index=1, id="b", function={"name": "g"}), call(index=0, id="a", function={"name": "f"})]
    pieces += [call(index=1, function={"arguments": "2"}), call(index=0, function={"arguments": "1"})]
    assert folded(*pieces) == [("a", {"name": "f", "arguments": "1"}), ("b", {"name": "g", "arguments": "2"})]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"id": "a", "function": {"name": "f", "arguments": {"x": 1}}}, ("a", {"name": "f", "arguments": '{"x": 1}'})),
        ({"index": None, "id": None, "function": None}, ("", {"name": "", "arguments": ""})),
        ({"function": {"name": "f", "arguments": None}}, ("", {"name": "f", "arguments": ""})),
    ],
)
def test_calls_of_another_shape_are_read_as_far_as_possible(fields: dict[str, object], expected: object) -> None:
    assert folded(call(**fields)) == [expected]


def test_what_is_no_list_of_calls_costs_no_answer() -> None:
    assert decode_delta(content="a", tool_calls={"odd": 1}) == Delta(text="a")


def test_a_plain_answer_has_its_calls() -> None:
    made = [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    fold = Fold()
    fold.feed(plain({"choices": [{"message": {"content": None, "tool_calls": made}, "finish_reason": "tool_calls"}]}))
    assert (list(fold.answer().tool_calls), fold.answer().complete, fold.has_content) == (made, True, True)

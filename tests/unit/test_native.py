"""The native dialect: what one event or one plain body means. Whole streams stand in `tests/streams/native`."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.answer import Delta, Usage
from batchrun.catalogue import load_catalogue
from batchrun.dialects.base import ModelRules
from batchrun.dialects.native import Native
from batchrun.errors import CatalogueError, ErrorKind, ProviderError
from batchrun.messages import JsonValue
from batchrun.pricing import cost_of
from batchrun.stream.fold import Fold
from batchrun.stream.sse import Splitter
from tests.unit.test_error_contract import MODEL_STUDIO_ROWS

NATIVE = Native("model-studio")
USAGE: dict[str, JsonValue] = {"input_tokens": 1271, "output_tokens": 55, "image_tokens": 1247}


def decode(value: object, event: bytes = b"result") -> Delta:
    return NATIVE.decode(event, json.dumps(value).encode())


def decode_message(message: object, finish_reason: str | None = "null") -> Delta:
    return decode({"output": {"choices": [{"message": message, "finish_reason": finish_reason}]}, "request_id": "r"})


def plain(value: object, headers: dict[str, str] | None = None) -> Delta:
    return NATIVE.decode_plain(json.dumps(value).encode(), headers or {})


def folded(*deltas: Delta) -> Fold:
    fold = Fold()
    for delta in deltas:
        fold.feed(delta)
    return fold


def error_of(delta: Delta) -> ProviderError:
    assert delta.error is not None
    return delta.error


def usage_of(usage: object) -> Usage | None:
    """What the last frame of a stream counts."""
    frame = {"output": {"choices": [{"message": {"content": ""}, "finish_reason": "stop"}]}, "usage": usage}
    return decode(frame).usage


def test_the_address_names_the_task() -> None:
    paths = [NATIVE.path(ModelRules()), NATIVE.path(ModelRules(native_task="text-generation"))]
    assert paths == [
        "/services/aigc/multimodal-generation/generation",
        "/services/aigc/text-generation/generation",
    ]


def test_a_stream_is_asked_for_in_a_header() -> None:
    assert NATIVE.headers(stream=True) == {"accept": "text/event-stream", "x-dashscope-sse": "enable"}
    assert NATIVE.headers(stream=False) == {"accept": "application/json"}


@pytest.mark.parametrize(
    ("message", "text", "reasoning"),
    [
        ({"content": "a"}, "a", ""),
        ({"content": [{"text": "a"}]}, "a", ""),
        ({"content": [{"text": "a"}, {"text": "b"}, {"image_hw": [[3, 4]]}, "c", None, {"text": None}]}, "abc", ""),
        ({"content": [], "reasoning_content": "b"}, "", "b"),
        ({"content": "", "reasoning_content": "b"}, "", "b"),
        ({"content": None, "reasoning_content": None}, "", ""),
        ({"content": [{"text": "a"}], "reasoning_content": "b"}, "a", "b"),
        ({"content": [], "reasoning_content": "", "role": "assistant", "tool_calls": []}, "", ""),
        ({}, "", ""),
    ],
)
def test_texts_of_a_frame_and_of_a_plain_answer(message: dict[str, object], text: str, reasoning: str) -> None:
    answer = {"output": {"choices": [{"message": message, "finish_reason": "stop"}]}}
    frame, whole = decode_message(message), plain(answer)
    assert (frame.text, frame.reasoning) == (whole.text, whole.reasoning) == (text, reasoning)


@pytest.mark.parametrize("given", [None, "", "null"])
def test_a_running_finish_reason_is_none(given: str | None) -> None:
    delta = decode_message({"content": "a"}, given)
    assert (delta.finish_reason, delta.end) == (None, False)


@pytest.mark.parametrize("reason", ["stop", "length", "tool_calls"])
def test_the_frame_with_a_finish_reason_is_the_last(reason: str) -> None:
    fold = folded(decode_message({"content": "a"}), decode_message({"content": "b"}, reason))
    assert (fold.complete, fold.ended, fold.text) == (True, True, "ab")


def test_the_form_text_has_no_choices() -> None:
    output = {"text": "a", "finish_reason": "stop", "choices": None}
    deltas = [decode({"output": output}), plain({"output": output})]
    assert [(delta.text, delta.finish_reason) for delta in deltas] == [("a", "stop")] * 2


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"output": None, "usage": None},
        {"output": {}},
        {"output": {"choices": []}},
        {"code": ""},
        {"code": 200, "output": {}},
        {"error": None},
    ],
)
def test_frames_that_say_nothing(value: object) -> None:
    delta = decode(value)
    assert (delta.text, delta.finish_reason, delta.usage, delta.error, delta.end) == ("", None, None, None, False)


def test_calls_to_tools_are_put_together_from_their_pieces() -> None:
    def piece(arguments: str, **more: str) -> dict[str, object]:
        return {"index": 0, "function": {"arguments": arguments, **more}}

    first, second = piece('{"a":', name="f") | {"id": "c"}, piece("1}")
    deltas = [decode_message({"content": "", "tool_calls": [call]}) for call in (first, second)]
    fold = folded(*deltas, decode_message({"content": ""}, "tool_calls"))
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    assert (fold.complete, fold.answer().tool_calls) == (True, (call,))


# What was counted


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"input_tokens": 9, "output_tokens": 156, "total_tokens": 165}, {"input_tokens": 9, "output_tokens": 156}),
        (USAGE, {"input_tokens": 1271, "output_tokens": 55, "image_tokens": 1247, "video_tokens": None}),
        ({"input_tokens": 9, "output_tokens": 1, "video_tokens": 5}, {"video_tokens": 5, "image_tokens": None}),
        (
            {"input_tokens": 9, "output_tokens": 1, "input_tokens_details": {"image_tokens": 6, "video_tokens": 2}},
            {"image_tokens": 6, "video_tokens": 2},
        ),
        (
            {"input_tokens": 9, "output_tokens": 8, "output_tokens_details": {"text_tokens": 1, "reasoning_tokens": 7}},
            {"output_tokens": 8, "reasoning_tokens": 7},
        ),
        (
            {
                "input_tokens": 9,
                "output_tokens": 8,
                "image_tokens": 6,
                "input_tokens_details": {"text_tokens": 3, "image_tokens": 6},
                "prompt_tokens_details": {"cached_tokens": 4},
            },
            {"input_tokens": 9, "image_tokens": 6, "cached_tokens": 4},
        ),
        ({"input_tokens": 9, "output_tokens": 8, "cached_tokens": 4}, {"cached_tokens": 4}),
        (
            {
                "input_tokens": 9,
                "output_tokens": 8,
                "input_tokens_details": {"image_tokens": 6},
                "prompt_tokens_details": {"image_tokens": None, "cached_tokens": 4},
            },
            {"image_tokens": 6, "cached_tokens": 4},
        ),
        ({"input_tokens": 9, "output_tokens": 8, "input_tokens_details": {"cached_tokens": 4}}, {"cached_tokens": 4}),
        ({"input_tokens": 9, "output_tokens": None}, {"input_tokens": 9, "output_tokens": None}),
        ({"input_tokens": -1, "output_tokens": 2.0}, {"input_tokens": None, "output_tokens": 2}),
        # The page's own example, which can't be: the image is longer than the whole input (contract T8).
        ({"input_tokens": 1277, "output_tokens": 81, "image_tokens": 2497}, {"input_tokens": 1277}),
    ],
)
def test_counts(usage: dict[str, JsonValue], expected: dict[str, int | None]) -> None:
    got = usage_of(usage)
    assert got is not None
    assert {name: getattr(got, name) for name in expected} == expected
    assert got.raw == usage


@pytest.mark.parametrize("usage", [None, {}, {"total_tokens": 5}, {"input_tokens": "many"}, "much", [1], 7])
def test_what_counts_nothing_is_no_usage(usage: object) -> None:
    assert usage_of(usage) is None


def running(output_tokens: int) -> Delta:
    return decode(
        {
            "output": {"choices": [{"message": {"content": "a"}, "finish_reason": "null"}]},
            "usage": {"input_tokens": 9, "output_tokens": output_tokens},
        }
    )


def last(usage: object) -> Delta:
    return decode(
        {"output": {"choices": [{"message": {"content": ""}, "finish_reason": "stop"}]}, "usage": usage, "x": 1}
    )


def test_the_last_count_is_the_usage_and_none_is_added() -> None:
    fold = folded(running(1), running(2), last({"input_tokens": 9, "output_tokens": 3}))
    assert (fold.usage, fold.usage_is_final) == (
        Usage(input_tokens=9, output_tokens=3, raw={"input_tokens": 9, "output_tokens": 3}),
        True,
    )


def test_the_count_of_a_broken_stream_is_known_and_not_final() -> None:
    fold = folded(running(1), running(2))
    assert fold.usage is not None
    assert (fold.usage.output_tokens, fold.usage_is_final, fold.complete) == (2, False, False)


def test_a_count_before_a_last_frame_without_one_is_not_final() -> None:
    fold = folded(running(1), last(None))
    assert fold.usage is not None
    assert (fold.complete, fold.usage.output_tokens, fold.usage_is_final) == (True, 1, False)


def test_a_count_after_the_last_frame_is_final() -> None:
    fold = folded(running(1), last(None), running(2))
    assert fold.usage is not None
    assert (fold.complete, fold.usage.output_tokens, fold.usage_is_final, fold.text) == (True, 2, True, "a")


def test_a_count_beside_an_error_is_known_and_not_final() -> None:
    value = {"code": "InternalError", "message": "Down", "usage": {"input_tokens": 9, "output_tokens": 7}}
    fold = folded(running(1), decode(value))
    assert fold.usage is not None
    assert (fold.usage.output_tokens, fold.usage_is_final) == (7, False)


def test_both_dialects_cost_the_same() -> None:
    """The same counts under the names of either form, with parts of the input read from a cache."""
    price = load_catalogue().model("dashscope/singapore", "qwen3-vl-plus").prices[-1]
    native: dict[str, JsonValue] = {"input_tokens": 40_000, "output_tokens": 900, "image_tokens": 16_000}
    compat: dict[str, JsonValue] = {"prompt_tokens": 40_000, "completion_tokens": 900}
    cached: dict[str, JsonValue] = {"prompt_tokens_details": {"cached_tokens": 1_000}}
    one, two = usage_of(native | cached), usage_of(compat | cached)
    assert one is not None
    assert two is not None
    costs = cost_of(one, price, thought=False), cost_of(two, price, thought=False)
    assert costs[0] is not None
    assert costs[0] == costs[1]
    assert costs[0].exact


# Errors


@pytest.mark.parametrize(("status", "code", "kind"), [row[:3] for row in MODEL_STUDIO_ROWS])
def test_an_error_event_is_read_as_the_answer_would_be(status: int, code: str, kind: ErrorKind) -> None:
    lines = (
        f'id:1\nevent:error\n:HTTP_STATUS/{status}\ndata:{{"code":"{code}","message":"Words.","request_id":"r"}}\n\n'
    )
    ((event, data),) = Splitter().feed(lines.encode())
    error = error_of(NATIVE.decode(event, data))
    assert (error.kind, error.vendor_code, error.request_id, error.http_status) == (kind, code, "r", 200)


@pytest.mark.parametrize(("code", "kind"), [row[1:3] for row in MODEL_STUDIO_ROWS if row[0] != 503])
def test_a_code_in_a_body_of_200_is_an_error(code: str, kind: ErrorKind) -> None:
    for delta in (plain({"code": code, "message": "Words."}), decode({"code": code, "message": "Words."})):
        assert (error_of(delta).kind, error_of(delta).message) == (kind, f"{code}: Words.")


@pytest.mark.parametrize(
    ("event", "kind", "message"),
    [
        (b"error", ErrorKind.SERVER, "New.Code: Words."),
        (b"error 400", ErrorKind.INVALID, "HTTP 400 New.Code: Words."),
        (b"error 429", ErrorKind.RATE_LIMITED, "HTTP 429 New.Code: Words."),
        (b"error 503", ErrorKind.UNAVAILABLE, "HTTP 503 New.Code: Words."),
        (b"error 200", ErrorKind.SERVER, "New.Code: Words."),
        (b"error 4000", ErrorKind.SERVER, "New.Code: Words."),
        ("error ٤٠٠".encode(), ErrorKind.SERVER, "New.Code: Words."),
    ],
)
def test_an_unknown_code_of_an_error_event_is_read_by_its_status(event: bytes, kind: ErrorKind, message: str) -> None:
    error = error_of(decode({"code": "New.Code", "message": "Words."}, event))
    assert (error.kind, error.message) == (kind, message)


def test_an_error_event_without_json_is_its_text() -> None:
    error = error_of(NATIVE.decode(b"error", b"engine overloaded"))
    assert (error.kind, error.message) == (ErrorKind.SERVER, "engine overloaded")


def test_an_error_answer_in_the_form_of_a_stream_is_read() -> None:
    body = b'id:1\nevent:error\n:HTTP_STATUS/400\ndata:{"code":"Arrearage","message":"Overdue","request_id":"r"}\n\n'
    error = NATIVE.read_error(400, {}, body)
    assert (error.kind, error.message, error.request_id) == (ErrorKind.ARREARS, "HTTP 400 Arrearage: Overdue", "r")


def test_a_wrong_address_for_the_model_says_what_to_change() -> None:
    body = b'{"code":"InvalidParameter","message":"url error, please check url!"}'
    error = NATIVE.read_error(400, {}, body)
    assert error.kind is ErrorKind.INVALID
    assert "native_task" in error.remedy


# Plain answers

ANSWER: dict[str, object] = {
    "output": {
        "choices": [
            {
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": [{"text": "Hi!"}], "reasoning_content": "So."},
            }
        ]
    },
    "usage": USAGE,
    "request_id": "ccf845a3-dc33-9cda-b581-20fe7dc23f70",
}


def test_a_plain_answer() -> None:
    assert plain(ANSWER) == Delta(
        text="Hi!",
        reasoning="So.",
        finish_reason="stop",
        usage=Usage(input_tokens=1271, output_tokens=55, image_tokens=1247, raw=USAGE),
        request_id="ccf845a3-dc33-9cda-b581-20fe7dc23f70",
        end=True,
    )


def test_a_plain_answer_is_complete_and_its_usage_final() -> None:
    fold = folded(plain(ANSWER))
    assert (fold.complete, fold.usage_is_final) == (True, True)


def test_a_plain_answer_of_text_generation() -> None:
    message = {"content": "Hi!", "reasoning_content": "So.", "role": "assistant"}
    usage = {"input_tokens": 9, "output_tokens": 156, "total_tokens": 165}
    delta = plain({"output": {"choices": [{"finish_reason": "stop", "message": message}]}, "usage": usage})
    assert (delta.text, delta.reasoning, folded(delta).complete) == ("Hi!", "So.", True)


@pytest.mark.parametrize(
    ("reason", "headers"),
    [
        (None, {}),
        ("null", {}),
        ("stop", {"x-dashscope-partialresponse": "true"}),
        ("stop", {"X-DashScope-PartialResponse": "True"}),
    ],
)
def test_a_plain_answer_that_the_vendor_cut(reason: str | None, headers: dict[str, str]) -> None:
    output = {"choices": [{"message": {"content": "Half"}, "finish_reason": reason}]}
    delta = plain({"output": output, "usage": USAGE}, headers)
    assert (delta.text, folded(delta).complete, error_of(delta).kind) == ("Half", False, ErrorKind.INCOMPLETE)
    assert delta.usage is not None
    assert error_of(delta).message == (
        "The vendor cut the answer, most likely at its own time limit, and sent what it had."
    )


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "The server answered 200 with an empty body."),
        (b"<html><body>Log in</body></html>", "isn't JSON, or is cut: '<html><body>Log in</body></html>'"),
        (b'{"output":{"choices":[{"message":{"content":"Hal', "isn't JSON, or is cut"),
        (b"null", "of another shape"),
        (b'{"output":"none"}', "of another shape (Expected `object | null`, got `str` - at `$.output`)"),
        (
            b'{"output":{"choices":[{"message":{"content":7}}]}}',
            "got `int` - at `$.output.choices[0].message.content`)",
        ),
    ],
)
def test_a_body_that_cant_be_read(body: bytes, message: str) -> None:
    with pytest.raises(ProviderError) as caught:
        NATIVE.decode_plain(body, {})
    assert caught.value.kind is ErrorKind.INCOMPLETE
    assert message in caught.value.message


@pytest.mark.parametrize("data", [b"", b"{", b"[DONE]", b"null", b'{"output":"none"}', b'{"output":{"choices":{}}}'])
def test_an_event_that_cant_be_read(data: bytes) -> None:
    with pytest.raises(ProviderError) as caught:
        NATIVE.decode(b"result", data)
    assert caught.value.kind is ErrorKind.INCOMPLETE


@pytest.mark.parametrize("output", [None, {}, {"choices": []}, {"choices": None, "text": None}])
def test_a_plain_body_without_an_answer_is_an_error(output: object) -> None:
    delta = plain({"output": output, "usage": USAGE, "request_id": "r"})
    assert error_of(delta).message == "The server answered 200 without any choice."


def test_an_answer_of_the_compatible_form_is_an_error() -> None:
    """The base URL of the other form was written into the catalogue."""
    delta = plain({"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}], "usage": USAGE})
    assert error_of(delta).message == "The server answered 200 without any choice."


def test_an_unknown_error_table_is_refused() -> None:
    with pytest.raises(CatalogueError, match="There is no error table 'dashscope'"):
        Native("dashscope")


# Whatever comes

KEYS = ["output", "choices", "message", "content", "reasoning_content", "finish_reason", "text", "usage", "request_id"]
OTHER_KEYS = ["code", "error", "detail", "status", "input_tokens", "output_tokens", "input_tokens_details", "choices"]
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["stop", "null", "\ud800"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from([*KEYS, *OTHER_KEYS]), inner),
    max_leaves=20,
)
MESSAGES = st.fixed_dictionaries({}, optional={"content": VALUES, "reasoning_content": SCALARS})
CHOICES = st.fixed_dictionaries({}, optional={"message": MESSAGES, "finish_reason": SCALARS})
FRAMES = st.fixed_dictionaries(
    {},
    optional={
        "output": st.fixed_dictionaries({}, optional={"choices": st.lists(CHOICES, max_size=2), "text": SCALARS}),
        "usage": VALUES,
        "code": SCALARS,
        "request_id": SCALARS,
    },
)
BODIES = st.binary() | (VALUES | FRAMES).map(lambda value: json.dumps(value).encode())


@given(bodies=st.lists(BODIES, max_size=3), event=st.sampled_from([b"", b"error", b"error 400", b"result", b"x"]))
def test_any_events_are_read_or_refused_and_come_to_what_can_be_stored(bodies: list[bytes], event: bytes) -> None:
    fold = Fold()
    try:
        for data in bodies:
            fold.feed(NATIVE.decode(event, data))
    except ProviderError as error:
        assert error.kind is ErrorKind.INCOMPLETE  # noqa: PT017  (which of the two happens is up to the data)
    answer = fold.answer()
    (answer.text + answer.reasoning + (answer.finish_reason or "") + (answer.request_id or "")).encode()
    assert "\0" not in answer.text


@given(body=BODIES)
def test_any_plain_body_is_read_or_refused(body: bytes) -> None:
    try:
        NATIVE.decode_plain(body, {})
    except ProviderError as error:
        assert error.kind is ErrorKind.INCOMPLETE  # noqa: PT017  (which of the two happens is up to the data)


@given(body=BODIES | st.binary().map(b"data:".__add__), status=st.integers(100, 599))
def test_any_error_answer_is_read(body: bytes, status: int) -> None:
    assert len(NATIVE.read_error(status, {}, body).message.encode()) < 2500


@pytest.mark.parametrize("depth", [400, 900, 20_000])
def test_deep_nesting_in_a_usage_is_survived(depth: int) -> None:
    nested = b"[" * depth + b"]" * depth
    data = (
        b'{"output":{"choices":[{"message":{"content":"a"},"finish_reason":"%s"}]},"usage":{"input_tokens":9,"x":%s}}'
    )
    fold = Fold()
    try:
        fold.feed(NATIVE.decode(b"result", data % (b"null", nested)))
        fold.feed(NATIVE.decode(b"result", data % (b"stop", nested)))
    except ProviderError as error:
        assert error.kind is ErrorKind.INCOMPLETE  # noqa: PT017  (how deep the reader goes is up to Python)
    assert fold.usage is None or fold.usage.input_tokens == 9

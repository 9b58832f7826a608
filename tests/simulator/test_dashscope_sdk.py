"""The unmodified `dashscope` SDK can talk to the simulator, and reports what the book has billed."""

import itertools
from typing import Any

import dashscope
import pytest

from batchrun.simulator import BookRow, Running

from .test_validation import CLIP, LECTURE, TOOL, data_url

PICTURE = data_url()
URL = "https://pictures.example/any.jpg"
CONTENTS: dict[str, list[dict[str, Any]]] = {
    "text": [{"text": "Tell me about harbours."}],
    "picture": [{"image": PICTURE}, {"text": "Describe it."}],
    "address": [{"image": URL}, {"image": PICTURE, "max_pixels": 65_536}, {"text": "Compare them."}],
    "video": [{"video": "https://pictures.example/v.mp4", "fps": 1, "max_frames": 20}, {"text": "Summarise it."}],
    "video as data": [{"video": CLIP, "fps": 2}, {"text": "Summarise it."}],
    "pictures as a video": [{"video": [PICTURE, URL] * 2, "fps": 2}, {"text": "Describe what happens."}],
}


def row_of(simulator: Running, request_id: str) -> BookRow:
    return next(row for row in simulator.book() if row.request_id == request_id)


def counts(usage: Any) -> tuple[int, int, int, int, int]:
    details = usage["output_tokens_details"]
    media = (usage.get("image_tokens", 0), usage.get("video_tokens", 0))
    return (usage["input_tokens"], usage["output_tokens"], details.get("reasoning_tokens", 0), *media)


def billed(row: BookRow) -> tuple[int, int, int, int, int]:
    usage = row.billed
    return usage.input, usage.output, usage.reasoning, usage.image, usage.video


def see(
    simulator: Running, fault: str = "", *, content: str = "text", model: str = "qwen3-vl-plus", **more: Any
) -> Any:
    """Call the multimodal address."""
    return dashscope.MultiModalConversation.call(
        api_key=simulator.keys["beijing"],
        base_address=simulator.native_url("beijing", fault),
        model=model,
        messages=[{"role": "user", "content": CONTENTS[content]}],
        **more,
    )


def say(simulator: Running, fault: str = "", *, model: str = "kimi-k2-thinking", **more: Any) -> Any:
    """Call the text address."""
    messages: Any = [{"role": "user", "content": "Tell me about harbours."}]
    return dashscope.Generation.call(
        api_key=simulator.keys["beijing"],
        base_address=simulator.native_url("beijing", fault),
        model=model,
        messages=messages,
        **more,
    )


@pytest.mark.parametrize("content", list(CONTENTS))
@pytest.mark.parametrize("thinking", [False, True])
@pytest.mark.parametrize("model", ["qwen3-vl-plus", "kimi-k2.5"])
def test_plain_multimodal_calls(simulator: Running, content: str, thinking: bool, model: str) -> None:
    answer = see(simulator, content=content, model=model, enable_thinking=thinking)
    assert (answer.status_code, answer.output.choices[0].finish_reason) == (200, "stop")
    assert counts(answer.usage) == billed(row_of(simulator, answer.request_id))


@pytest.mark.parametrize("content", list(CONTENTS))
@pytest.mark.parametrize("thinking", [False, True])
@pytest.mark.parametrize("fault", ["", "split=40+unicode", "crlf+comments"])
def test_streamed_multimodal_calls(simulator: Running, content: str, thinking: bool, fault: str) -> None:
    frames = list(
        see(simulator, fault, content=content, enable_thinking=thinking, stream=True, incremental_output=True)
    )
    thoughts = "".join(frame.output.choices[0].message.get("reasoning_content", "") for frame in frames)
    texts = [part["text"] for frame in frames for part in frame.output.choices[0].message.content]
    assert (bool(thoughts), len(texts) > 1) == (thinking, True)
    assert counts(frames[-1].usage) == billed(row_of(simulator, frames[-1].request_id))


@pytest.mark.parametrize("stream", [False, True])
def test_a_local_file_counts_as_its_bytes_do(simulator: Running, monkeypatch: pytest.MonkeyPatch, stream: bool) -> None:
    """The SDK uploads it first, and takes the address of the uploads from this setting alone."""
    monkeypatch.setattr(dashscope, "base_http_api_url", simulator.native_url("beijing"))
    monkeypatch.setitem(CONTENTS, "file", [{"video": LECTURE.as_uri(), "fps": 2}, {"text": "Summarise it."}])
    answers = see(simulator, content="file", stream=stream, incremental_output=stream)
    last = list(answers)[-1] if stream else answers
    assert counts(last.usage) == billed(row_of(simulator, last.request_id))
    assert counts(last.usage)[-1] == see(simulator, content="video as data").usage["video_tokens"]


def test_a_stream_whose_frames_hold_all_text_so_far(simulator: Running) -> None:
    frames = list(see(simulator, model="qwen-vl-max", stream=True))
    texts = [frame.output.choices[0].message.content[0]["text"] for frame in frames]
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(texts))
    assert texts[-1] == see(simulator, model="qwen-vl-max").output.choices[0].message.content[0]["text"]
    assert counts(frames[-1].usage) == billed(row_of(simulator, frames[-1].request_id))


def test_a_stream_that_the_sdk_itself_puts_together(simulator: Running) -> None:
    frames = list(see(simulator, enable_thinking=True, stream=True, incremental_output=False))
    plain = see(simulator, enable_thinking=True).output.choices[0].message
    last = frames[-1].output.choices[0].message
    assert (last.content, last.reasoning_content) == (plain.content, plain.reasoning_content)


def test_a_plain_text_call(simulator: Running) -> None:
    answer = say(simulator, result_format="message")
    message = answer.output.choices[0].message
    assert (bool(message.content), bool(message.reasoning_content)) == (True, True)
    assert counts(answer.usage) == billed(row_of(simulator, answer.request_id))


def test_a_streamed_text_call(simulator: Running) -> None:
    frames = list(say(simulator, result_format="message", stream=True, incremental_output=True))
    plain = say(simulator, result_format="message").output.choices[0].message
    assert "".join(frame.output.choices[0].message.content for frame in frames) == plain.content
    assert counts(frames[-1].usage) == billed(row_of(simulator, frames[-1].request_id))


@pytest.mark.parametrize("call", [say, see])
def test_a_function_is_called_at_once_and_in_pieces(simulator: Running, call: Any) -> None:
    plain = call(simulator, tools=[TOOL], result_format="message")
    (whole,) = plain.output.choices[0].message.tool_calls
    assert plain.output.choices[0].finish_reason == "tool_calls"
    frames = list(call(simulator, tools=[TOOL], result_format="message", stream=True, incremental_output=True))
    pieces = [piece for frame in frames for piece in frame.output.choices[0].message.get("tool_calls") or ()]
    assert (pieces[0]["id"], pieces[0]["function"]["name"]) == (whole["id"], "look_up")
    assert "".join(piece["function"]["arguments"] for piece in pieces) == whole["function"]["arguments"]
    assert counts(frames[-1].usage) == billed(row_of(simulator, frames[-1].request_id))


def test_a_text_call_in_the_old_form(simulator: Running) -> None:
    answer = say(simulator, model="Moonshot-Kimi-K2-Instruct")
    assert (answer.output.choices, bool(answer.output.text)) == (None, True)


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [("401", 401, "InvalidApiKey"), ("moderation", 400, "DataInspectionFailed"), ("arrearage", 400, "Arrearage")],
)
def test_an_error_is_told_with_its_code(simulator: Running, fault: str, status: int, code: str) -> None:
    answer = see(simulator, fault)
    assert (answer.status_code, answer.code) == (status, code)
    assert row_of(simulator, answer.request_id).amount == 0


def test_an_error_event_is_told_by_the_sdk(simulator: Running) -> None:
    last = list(see(simulator, "moderation-event=2", stream=True))[-1]
    assert (last.status_code, last.code) == (400, "DataInspectionFailed")


def test_the_wrong_address_of_a_model(simulator: Running) -> None:
    answer = see(simulator, model="kimi-k2-thinking")
    assert (answer.status_code, answer.code, "url error" in answer.message) == (400, "InvalidParameter", True)


def test_the_base_url_may_be_set_once_for_all(simulator: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dashscope, "base_http_api_url", simulator.native_url("singapore"))
    answer: Any = dashscope.MultiModalConversation.call(
        api_key=simulator.keys["singapore"],
        model="qwen3-vl-flash",
        messages=[{"role": "user", "content": [{"text": "Hello."}]}],
    )
    assert row_of(simulator, answer.request_id).region == "singapore"

"""The unmodified `openai` SDK can talk to the simulator, and reports what the book has billed."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai.types import CompletionUsage
from openai.types.chat import ChatCompletionMessageParam

from batchrun.simulator import BookRow, Running

from .test_validation import CLIP, TOOL, data_url

PICTURE = data_url()
CONTENTS: dict[str, Any] = {
    "text": "Tell me about harbours.",
    "picture": [{"type": "image_url", "image_url": {"url": PICTURE}}, {"type": "text", "text": "Describe it."}],
    "video by address": [
        {"type": "video_url", "video_url": {"url": "https://videos.example/v.mp4"}, "fps": 1},
        {"type": "text", "text": "Summarise it."},
    ],
    "video as data": [
        {"type": "video_url", "video_url": {"url": CLIP}, "fps": 2},
        {"type": "text", "text": "Summarise it."},
    ],
    "pictures as a video": [
        {"type": "video", "video": [PICTURE, "https://pictures.example/any.jpg"] * 2, "fps": 2},
        {"type": "text", "text": "Describe what happens."},
    ],
}


@pytest.fixture
def sdk(simulator: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=simulator.base_url("beijing"), api_key=simulator.keys["beijing"], max_retries=0
    ) as made:
        yield made


def row_of(simulator: Running, chat_id: str) -> BookRow:
    return next(row for row in simulator.book() if row.chat_id == chat_id)


def counts(usage: CompletionUsage | None) -> tuple[int, int, int, int, int]:
    assert usage is not None
    given: Any = usage.prompt_tokens_details
    made = usage.completion_tokens_details
    media = (getattr(given, "image_tokens", None) or 0, getattr(given, "video_tokens", None) or 0)
    return usage.prompt_tokens, usage.completion_tokens, (made and made.reasoning_tokens) or 0, *media


def billed(row: BookRow) -> tuple[int, int, int, int, int]:
    usage = row.billed
    return usage.input, usage.output, usage.reasoning, usage.image, usage.video


def asking(content: str) -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": CONTENTS[content]}]


@pytest.mark.parametrize("content", list(CONTENTS))
@pytest.mark.parametrize("thinking", [False, True])
@pytest.mark.parametrize("model", ["qwen3-vl-plus", "kimi-k2.5"])
def test_plain(
    sdk: openai.OpenAI,
    simulator: Running,
    content: str,
    thinking: bool,
    model: str,
) -> None:
    answer = sdk.chat.completions.create(
        model=model, messages=asking(content), extra_body={"enable_thinking": thinking}
    )
    assert answer.choices[0].finish_reason == "stop"
    assert counts(answer.usage) == billed(row_of(simulator, answer.id))


@pytest.mark.parametrize("content", list(CONTENTS))
@pytest.mark.parametrize("thinking", [False, True])
@pytest.mark.parametrize("fault", ["", "split=40+unicode", "crlf+comments", "usage=text-chunk"])
def test_streamed(simulator: Running, content: str, thinking: bool, fault: str) -> None:
    url = simulator.base_url("beijing", fault)
    with openai.OpenAI(base_url=url, api_key=simulator.keys["beijing"], max_retries=0) as sdk:
        chunks = list(
            sdk.chat.completions.create(
                model="qwen3-vl-plus",
                messages=asking(content),
                stream=True,
                stream_options={"include_usage": True},
                extra_body={"enable_thinking": thinking},
            )
        )
    usage = next(chunk.usage for chunk in reversed(chunks) if chunk.usage)
    assert counts(usage) == billed(row_of(simulator, chunks[0].id))


TOOLS: Any = [TOOL]


def test_a_function_is_called(sdk: openai.OpenAI, simulator: Running) -> None:
    answer = sdk.chat.completions.create(model="kimi-k2.5", messages=asking("text"), tools=TOOLS)
    (call,) = list(answer.choices[0].message.tool_calls or [])
    assert (answer.choices[0].finish_reason, call.type, answer.choices[0].message.content) == (
        "tool_calls",
        "function",
        "",
    )
    assert call.type == "function"
    assert (call.function.name, sorted(json.loads(call.function.arguments))) == ("look_up", ["place", "year"])
    assert counts(answer.usage) == billed(row_of(simulator, answer.id))


@pytest.mark.parametrize("place", ["beijing", "acedata", "moonshot"])
def test_a_function_is_called_in_pieces(simulator: Running, place: str) -> None:
    urls = {"acedata": simulator.acedata_url(), "moonshot": simulator.moonshot_url()}
    url = urls.get(place) or simulator.base_url(place)
    with openai.OpenAI(base_url=url, api_key=simulator.keys[place], max_retries=0) as sdk:
        asked: Any = {"model": "kimi-k2.5", "messages": asking("text"), "tools": TOOLS}
        (whole,) = list(sdk.chat.completions.create(**asked).choices[0].message.tool_calls or [])
        with sdk.chat.completions.stream(**asked, stream_options={"include_usage": True}) as stream:
            told = stream.get_final_completion()
    (call,) = list(told.choices[0].message.tool_calls or [])
    assert (told.choices[0].finish_reason, call.id) == ("tool_calls", whole.id)
    assert whole.type == "function"
    assert call.function.arguments == whole.function.arguments


def test_what_a_tool_said_is_answered_in_words(sdk: openai.OpenAI) -> None:
    called: Any = {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
    messages: list[ChatCompletionMessageParam] = [
        *asking("text"),
        {"role": "assistant", "content": "", "tool_calls": [called]},
        {"role": "tool", "tool_call_id": "call_1", "content": "A port."},
    ]
    answer = sdk.chat.completions.create(model="kimi-k2.5", messages=messages, tools=TOOLS)
    assert (answer.choices[0].finish_reason, answer.choices[0].message.tool_calls) == ("stop", None)


def test_a_wrong_key_is_an_authentication_error(simulator: Running) -> None:
    with (
        openai.OpenAI(base_url=simulator.base_url("beijing"), api_key="sk-sim-singapore", max_retries=0) as sdk,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        sdk.chat.completions.create(model="kimi-k2.5", messages=asking("text"))
    assert caught.value.code == "invalid_api_key"


def test_an_error_in_the_stream_is_raised(simulator: Running) -> None:
    url = simulator.base_url("beijing", "error-event=1")
    with openai.OpenAI(base_url=url, api_key=simulator.keys["beijing"], max_retries=0) as sdk:
        stream = sdk.chat.completions.create(model="kimi-k2.5", messages=asking("text"), stream=True)
        with pytest.raises(openai.APIError, match="server had an error"):
            list(stream)

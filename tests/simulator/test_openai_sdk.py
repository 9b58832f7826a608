"""The unmodified `openai` SDK can talk to the simulator, and reports what the book has billed."""

import base64
import io
from collections.abc import Iterator

import openai
import pytest
from openai.types import CompletionUsage
from openai.types.chat import ChatCompletionMessageParam
from PIL import Image

from batchrun.simulator import BookRow, Running


@pytest.fixture
def sdk(simulator: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=simulator.base_url("beijing"), api_key=simulator.keys["beijing"], max_retries=0
    ) as made:
        yield made


def row_of(simulator: Running, chat_id: str) -> BookRow:
    return next(row for row in simulator.book() if row.chat_id == chat_id)


def counts(usage: CompletionUsage | None) -> tuple[int, int, int]:
    assert usage is not None
    details = usage.completion_tokens_details
    reasoning = details.reasoning_tokens if details else 0
    return usage.prompt_tokens, usage.completion_tokens, reasoning or 0


def billed(row: BookRow) -> tuple[int, int, int]:
    return row.billed.input, row.billed.output, row.billed.reasoning


def text() -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": "Tell me about harbours."}]


def picture() -> list[ChatCompletionMessageParam]:
    file = io.BytesIO()
    Image.new("RGB", (640, 480)).save(file, "JPEG")
    url = "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
    return [
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": url}},
                {"type": "text", "text": "Describe it."},
            ],
        }
    ]


@pytest.mark.parametrize("messages", [text(), picture()], ids=["text", "picture"])
@pytest.mark.parametrize("thinking", [False, True])
@pytest.mark.parametrize("model", ["qwen3-vl-plus", "kimi-k2.5"])
def test_plain(
    sdk: openai.OpenAI,
    simulator: Running,
    messages: list[ChatCompletionMessageParam],
    thinking: bool,
    model: str,
) -> None:
    answer = sdk.chat.completions.create(model=model, messages=messages, extra_body={"enable_thinking": thinking})
    assert answer.choices[0].finish_reason == "stop"
    assert counts(answer.usage) == billed(row_of(simulator, answer.id))


@pytest.mark.parametrize("messages", [text(), picture()], ids=["text", "picture"])
@pytest.mark.parametrize("thinking", [False, True])
@pytest.mark.parametrize("fault", ["", "split=40+unicode", "crlf+comments", "usage=text-chunk"])
def test_streamed(simulator: Running, messages: list[ChatCompletionMessageParam], thinking: bool, fault: str) -> None:
    url = simulator.base_url("beijing", fault)
    with openai.OpenAI(base_url=url, api_key=simulator.keys["beijing"], max_retries=0) as sdk:
        chunks = list(
            sdk.chat.completions.create(
                model="qwen3-vl-plus",
                messages=messages,
                stream=True,
                stream_options={"include_usage": True},
                extra_body={"enable_thinking": thinking},
            )
        )
    usage = next(chunk.usage for chunk in reversed(chunks) if chunk.usage)
    assert counts(usage) == billed(row_of(simulator, chunks[0].id))


def test_a_wrong_key_is_an_authentication_error(simulator: Running) -> None:
    with (
        openai.OpenAI(base_url=simulator.base_url("beijing"), api_key="sk-sim-singapore", max_retries=0) as sdk,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        sdk.chat.completions.create(model="kimi-k2.5", messages=text())
    assert caught.value.code == "invalid_api_key"


def test_an_error_in_the_stream_is_raised(simulator: Running) -> None:
    url = simulator.base_url("beijing", "error-event=1")
    with openai.OpenAI(base_url=url, api_key=simulator.keys["beijing"], max_retries=0) as sdk:
        stream = sdk.chat.completions.create(model="kimi-k2.5", messages=text(), stream=True)
        with pytest.raises(openai.APIError, match="server had an error"):
            list(stream)

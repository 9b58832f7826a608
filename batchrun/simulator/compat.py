"""The compat dialect: chunks of a stream and plain answers, as contract 4.1, 8.9 and 8.10 show them."""

import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal, NamedTuple

from batchrun.simulator.faults import Faults
from batchrun.simulator.generation import Generation
from batchrun.simulator.prices import Usage

Delta = Mapping[str, str | None]
DONE: Final = "[DONE]"


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """What names an answer; constant over a stream."""

    request_id: str
    chat_id: str
    created: int
    model: str


def new_identity(model: str) -> Identity:
    return Identity(
        request_id=str(uuid.uuid4()),
        chat_id=f"chatcmpl-{uuid.uuid4()}",
        created=int(time.time()),
        model=model,
    )


class Chunk(NamedTuple):
    """One chunk of a stream before it is encoded. `raw` replaces the whole JSON text.

    A tuple, because a stream has hundreds and a frozen dataclass takes five times as long to make.
    """

    delta: Delta | None = None
    """None for a chunk with empty `choices`."""
    finish: str | None = None
    usage: Usage | None = None
    usage_in_choice: bool = False
    raw: str | None = None
    role: Literal["role", "reasoning", "text", "finish", "usage", "done", "error"] = "text"
    tokens: int = 0
    """Tokens that had to be generated for this chunk."""
    reasoning_tokens: int = 0


ENCODER: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def encode(value: object) -> str:
    return ENCODER.encode(value)


def encode_delta(delta: Delta) -> str:
    """By hand: a thousand streams spend most of their time here, and a text alone takes the short way."""
    members = (f'"{key}":{"null" if text is None else ENCODER.encode(text)}' for key, text in delta.items())
    return f"{{{','.join(members)}}}"


def usage_object(usage: Usage) -> dict[str, object]:
    prompt: dict[str, int] = {"text_tokens": usage.input - usage.image - usage.video}
    if usage.image:
        prompt["image_tokens"] = usage.image
    if usage.video:
        prompt["video_tokens"] = usage.video
    prompt["cached_tokens"] = usage.cached
    completion: dict[str, int] = {"text_tokens": usage.output - usage.reasoning}
    if usage.reasoning:
        completion["reasoning_tokens"] = usage.reasoning
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "completion_tokens_details": completion,
        "prompt_tokens_details": prompt,
    }


@dataclass(frozen=True, kw_only=True)
class ChunkEncoder:
    """Encodes the chunks of one stream. The order of the keys differs between chunks, as in reality."""

    identity: Identity
    ends: tuple[str, str] = field(init=False)

    def __post_init__(self) -> None:
        identity = self.identity
        created = f'"created":{identity.created},"system_fingerprint":null'
        names = f'"model":{encode(identity.model)},"id":"{identity.chat_id}"'
        ends = (f",{created},{names}}}", f",{names},{created}}}")
        object.__setattr__(self, "ends", ends)

    def encode(self, chunk: Chunk, number: int) -> str:
        """The JSON text of the chunk that stands at this place of the stream."""
        if chunk.raw is not None:
            return chunk.raw
        usage = "null" if chunk.usage is None else encode(usage_object(chunk.usage))
        choices = "" if chunk.delta is None else self.choice(chunk, chunk.delta, number, usage)
        if chunk.usage_in_choice:
            usage = "null"
        end = self.ends[number % 2]
        return f'{{"choices":[{choices}],"object":"chat.completion.chunk","usage":{usage}{end}'

    def choice(self, chunk: Chunk, content: Delta, number: int, usage: str) -> str:
        delta = encode_delta(content)
        finish = "null" if chunk.finish is None else f'"{chunk.finish}"'
        inside = f',"usage":{usage}' if chunk.usage_in_choice else ""
        if number % 2:
            return f'{{"finish_reason":{finish},"logprobs":null,"delta":{delta},"index":0{inside}}}'
        return f'{{"delta":{delta},"index":0,"logprobs":null,"finish_reason":{finish}{inside}}}'


def chunks_of(generation: Generation, *, thinking: bool, include_usage: bool) -> list[Chunk]:
    """The sequence of contract 8.10: role, reasoning, text, finish, usage if asked for, end."""
    rest: Delta = {"reasoning_content": None} if thinking else {}
    first: Delta = {"content": None, "role": "assistant", "reasoning_content": ""}
    chunks = [Chunk(role="role", delta=first if thinking else {"content": "", "role": "assistant"})]
    chunks += [
        Chunk(
            role="reasoning",
            delta={"content": None, "reasoning_content": piece.text},
            tokens=piece.tokens,
            reasoning_tokens=piece.tokens,
        )
        for piece in generation.reasoning
    ]
    chunks += [
        Chunk(role="text", delta={"content": piece.text, **rest}, tokens=piece.tokens) for piece in generation.answer
    ]
    chunks.append(Chunk(role="finish", delta={"content": "", **rest}, finish=generation.finish))
    if include_usage:
        chunks.append(Chunk(role="usage", usage=generation.usage))
    chunks.append(Chunk(role="done", raw=DONE))
    return chunks


def plain_answer(generation: Generation, identity: Identity, faults: Faults) -> tuple[str, Usage | None]:
    """The body of an answer that is not streamed, and the usage that it tells."""
    message: dict[str, str] = {"content": generation.answer_text}
    if generation.reasoning:
        message["reasoning_content"] = generation.reasoning_text
        if "both-reasoning" in faults:
            message["reasoning"] = generation.reasoning_text
    message["role"] = "assistant"
    choice: dict[str, object] = {"message": message, "finish_reason": generation.finish}
    if generation.finish == "null":
        choice["finish_reason"] = None
    if generation.finish == "missing":
        del choice["finish_reason"]
    choice |= {"index": 0, "logprobs": None}
    document: dict[str, object] = {"choices": [choice], "object": "chat.completion"}
    usage = plain_usage(generation.usage, faults)
    if faults.text("usage") == "choice":
        choice["usage"] = usage_object(generation.usage)
    elif faults.text("usage") != "missing":
        document["usage"] = None if usage is None else usage_object(usage)
    document |= {
        "created": identity.created,
        "system_fingerprint": None,
        "model": identity.model,
        "id": identity.chat_id,
    }
    return encode(document), usage


def plain_usage(usage: Usage, faults: Faults) -> Usage | None:
    match faults.text("usage"):
        case "missing" | "null":
            return None
        case "zero":
            return Usage()
    return usage


def with_finish(generation: Generation, finish: str) -> Generation:
    return replace(generation, finish=finish)


def half(generation: Generation) -> Generation:
    """What was there when the answer was stopped half way; the finish reason stays open (8.7)."""
    answer = generation.answer[: len(generation.answer) // 2]
    output = generation.usage.reasoning + sum(piece.tokens for piece in answer)
    return replace(generation, answer=answer, finish="null", usage=replace(generation.usage, output=output))

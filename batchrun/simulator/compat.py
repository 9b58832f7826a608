"""The compat dialect: chunks of a stream and plain answers, as contract 4.1, 8.9 and 8.10 show them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from batchrun.simulator.dialect import (
    DONE,
    Asked,
    Chunk,
    Delta,
    Identity,
    Told,
    encode,
    encode_delta,
    new_identity,
    place_finish,
    place_usage,
)
from batchrun.simulator.faults import Faults
from batchrun.simulator.generation import Generation
from batchrun.simulator.models import Model
from batchrun.simulator.parameters import Fields, Parameters, read_parameters
from batchrun.simulator.prices import Usage
from batchrun.simulator.refusals import Refusal

BROKEN: Final = '{"choices":[{"delta":{"content":"half a'


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


def error_object(refusal: Refusal) -> dict[str, object]:
    message = f"<{refusal.status}> {refusal.inside}: {refusal.message}" if refusal.inside else refusal.message
    return {"message": message, "type": refusal.type, "param": refusal.param, "code": refusal.code}


@dataclass(frozen=True, kw_only=True)
class ChunkEncoder:
    """The order of the keys differs between chunks, as in reality."""

    identity: Identity
    ends: tuple[str, str] = field(init=False)

    def __post_init__(self) -> None:
        identity = self.identity
        created = f'"created":{identity.created},"system_fingerprint":null'
        names = f'"model":{encode(identity.model)},"id":"{identity.chat_id}"'
        ends = (f",{created},{names}}}", f",{names},{created}}}")
        object.__setattr__(self, "ends", ends)

    def heading(self, _: Chunk, __: int, ___: str) -> str:
        return ""

    def encode(self, chunk: Chunk, number: int) -> str:
        if chunk.raw is not None:
            return chunk.raw
        if chunk.refusal is not None:
            return encode({"error": error_object(chunk.refusal)})
        if chunk.role == "broken":
            return BROKEN
        usage = "null" if chunk.usage is None else encode(usage_object(chunk.usage))
        choices = "" if chunk.delta is None else self.choice(chunk, chunk.delta, number, usage)
        if chunk.usage_in_choice:
            usage = "null"
        end = self.ends[number % 2]
        return f'{{"choices":[{choices}],"object":"chat.completion.chunk","usage":{usage}{end}'

    def choice(self, chunk: Chunk, content: Delta, number: int, usage: str) -> str:
        delta = encode_delta(content, chunk.call)
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


class Compat:
    """Model Studio's OpenAI-compatible mode."""

    field = "data: "
    text_mark = b'"content":"'

    def identity(self, region: str) -> Identity:
        return new_identity(region)

    def streams(self, fields: Fields, _: Mapping[str, str]) -> bool:
        return fields.get("stream") is True

    def read(self, fields: Fields, _: Mapping[str, str], model: Model) -> Asked:
        return Asked(fields, read_parameters(fields, model))

    def chunks(self, generation: Generation, parameters: Parameters) -> list[Chunk]:
        return chunks_of(generation, thinking=parameters.thinking, include_usage=parameters.include_usage)

    def encoder(self, identity: Identity, *, text_form: bool = False) -> ChunkEncoder:
        return ChunkEncoder(identity=identity)

    def ends(self, chunk: Chunk) -> bool:
        return chunk.raw == DONE

    def plain(self, generation: Generation, identity: Identity, _: Parameters, faults: Faults) -> Told:
        choice: dict[str, object] = {"message": plain_message(generation, faults)}
        place_finish(choice, generation)
        choice |= {"index": 0, "logprobs": None}
        document: dict[str, object] = {"choices": [choice], "object": "chat.completion"}
        usage = place_usage(document, choice, generation.usage, faults, usage_object)
        document |= {
            "created": identity.created,
            "system_fingerprint": None,
            "model": identity.model,
            "id": identity.chat_id,
        }
        return Told(encode(document), usage)

    def refusal(self, refusal: Refusal, identity: Identity) -> tuple[int, bytes]:
        document: dict[str, object] = {"error": error_object(refusal)}
        if refusal.model_side:
            document["id"] = identity.chat_id
        document["request_id"] = identity.request_id
        return refusal.status, json.dumps(document).encode()

    def padding(self, size: int) -> str:
        return f'{{"choices":[],"usage":null,"padding":"{"x" * size}"}}'


class BatchChat(Compat):
    """The same request, held until there is one complete answer, whatever it says of streaming (8.6.2)."""

    def streams(self, fields: Fields, headers: Mapping[str, str]) -> bool:
        return False

    def read(self, fields: Fields, headers: Mapping[str, str], model: Model) -> Asked:
        asked = super().read(fields, headers, model)
        return asked._replace(parameters=replace(asked.parameters, stream=False))


def plain_message(generation: Generation, faults: Faults) -> dict[str, object]:
    message: dict[str, object] = {"content": generation.words}
    if generation.reasoning and "no-reasoning" not in faults:
        message["reasoning_content"] = generation.reasoning_text
        if "both-reasoning" in faults:
            message["reasoning"] = generation.reasoning_text
    if generation.tool_calls:
        message["tool_calls"] = generation.tool_calls
    message["role"] = "assistant"
    return message

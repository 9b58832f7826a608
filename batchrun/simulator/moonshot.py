"""The dialect of Moonshot's own API for Kimi, as contract 8.5 shows it.

GIF pictures are not simulated. Its store of files (`ms://`) stands in `files`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from batchrun.simulator.compat import BROKEN
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
from batchrun.simulator.moonshot_request import read_moonshot
from batchrun.simulator.parameters import Fields, Parameters
from batchrun.simulator.prices import Usage
from batchrun.simulator.refusals import Refusal

ERRORS: Final = {
    "Arrearage": (429, "exceeded_current_quota_error"),
    "PostpaidBillOverdue": (429, "exceeded_current_quota_error"),
    "data_inspection_failed": (400, "content_filter"),
    "overloaded": (429, "engine_overloaded_error"),
}
"""Status and type of the errors that compat calls otherwise; the rest follows from the status."""

BY_STATUS: Final = {
    400: "invalid_request_error",
    401: "incorrect_api_key_error",
    403: "permission_denied_error",
    404: "resource_not_found_error",
    429: "rate_limit_reached_error",
}


def usage_object(usage: Usage) -> dict[str, object]:
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "cached_tokens": usage.cached,
    }


def error_of(refusal: Refusal) -> tuple[int, str]:
    usual = refusal.status, BY_STATUS.get(refusal.status, "server_error")
    return ERRORS.get(refusal.code, usual)


def error_object(refusal: Refusal) -> dict[str, object]:
    """Without a code; the type is the name of the error."""
    _, kind = error_of(refusal)
    message = refusal.message
    if kind == "rate_limit_reached_error":
        message += " Please try again after 1 seconds."
    return {"error": {"type": kind, "message": message}}


def chunks_of(generation: Generation, *, include_usage: bool) -> list[Chunk]:
    """Role, reasoning, text, a finish without a delta and with the usage, the usage again if asked for, end."""
    chunks = [Chunk(role="role", delta={"role": "assistant", "content": ""})]
    chunks += [
        Chunk(
            role="reasoning",
            delta={"reasoning_content": piece.text},
            tokens=piece.tokens,
            reasoning_tokens=piece.tokens,
        )
        for piece in generation.reasoning
    ]
    chunks += [Chunk(role="text", delta={"content": piece.text}, tokens=piece.tokens) for piece in generation.answer]
    chunks.append(
        Chunk(role="finish", delta={}, finish=generation.finish, usage=generation.usage, usage_in_choice=True)
    )
    if include_usage:
        chunks.append(Chunk(role="usage", usage=generation.usage))
    return [*chunks, Chunk(role="done", raw=DONE)]


@dataclass(frozen=True, kw_only=True)
class ChunkEncoder:
    identity: Identity
    beginning: str = field(init=False)

    def __post_init__(self) -> None:
        identity = self.identity
        names = f'{{"id":"{identity.chat_id}","object":"chat.completion.chunk","created":{identity.created}'
        object.__setattr__(self, "beginning", f'{names},"model":{encode(identity.model)}')

    def heading(self, _: Chunk, __: int, ___: str) -> str:
        return ""

    def encode(self, chunk: Chunk, _: int) -> str:
        if chunk.raw is not None:
            return chunk.raw
        if chunk.refusal is not None:
            return encode(error_object(chunk.refusal))
        if chunk.role == "broken":
            return BROKEN
        usage = "" if chunk.usage is None else f',"usage":{encode(usage_object(chunk.usage))}'
        inside, outside = (usage, "") if chunk.usage_in_choice else ("", usage)
        choice = "" if chunk.delta is None else self.choice(chunk, chunk.delta, inside)
        return f'{self.beginning},"choices":[{choice}]{outside}}}'

    def choice(self, chunk: Chunk, delta: Delta, usage: str) -> str:
        finish = "null" if chunk.finish is None else f'"{chunk.finish}"'
        return f'{{"index":0,"delta":{encode_delta(delta, chunk.call)},"finish_reason":{finish}{usage}}}'


class Moonshot:
    field = "data: "
    text_mark = b'"content":"'

    def identity(self, region: str) -> Identity:
        return new_identity(region)

    def streams(self, fields: Fields, _: Mapping[str, str]) -> bool:
        return fields.get("stream") is True

    def read(self, fields: Fields, _: Mapping[str, str], model: Model) -> Asked:
        return read_moonshot(fields, model)

    def chunks(self, generation: Generation, parameters: Parameters) -> list[Chunk]:
        return chunks_of(generation, include_usage=parameters.include_usage)

    def encoder(self, identity: Identity, *, text_form: bool = False) -> ChunkEncoder:
        return ChunkEncoder(identity=identity)

    def ends(self, chunk: Chunk) -> bool:
        return chunk.raw == DONE

    def plain(self, generation: Generation, identity: Identity, _: Parameters, faults: Faults) -> Told:
        message: dict[str, object] = {"role": "assistant", "content": generation.words}
        if generation.reasoning and "no-reasoning" not in faults:
            message["reasoning_content"] = generation.reasoning_text
        if generation.tool_calls:
            message["tool_calls"] = generation.tool_calls
        choice: dict[str, object] = {"index": 0, "message": message}
        place_finish(choice, generation)
        document: dict[str, object] = {
            "id": identity.chat_id,
            "object": "chat.completion",
            "created": identity.created,
            "model": identity.model,
            "choices": [choice],
        }
        usage = place_usage(document, choice, generation.usage, faults, usage_object)
        return Told(encode(document), usage)

    def refusal(self, refusal: Refusal, _: Identity) -> tuple[int, bytes]:
        status, _kind = error_of(refusal)
        return status, json.dumps(error_object(refusal)).encode()

    def padding(self, size: int) -> str:
        return f'{{"choices":[],"padding":"{"x" * size}"}}'

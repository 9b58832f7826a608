"""The dialect of AceData's Kimi chat API, as contract 4.5, 4.6, 7.1 and 8.12 show it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
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
from batchrun.simulator.generation import Generation, Piece
from batchrun.simulator.models import Model
from batchrun.simulator.parameters import Fields, Parameters, read_parameters
from batchrun.simulator.prices import Usage
from batchrun.simulator.refusals import Refusal, invalid

ROLES: Final = frozenset({"user", "assistant", "system"})
ID_DIGITS: Final = 16

ERRORS: Final = {
    "Arrearage": (403, "used_up"),
    "PostpaidBillOverdue": (403, "used_up"),
    "data_inspection_failed": (403, "content_violation"),
    "access_denied": (403, "disabled"),
    "model_not_found": (400, "api_not_implemented"),
}
"""Status and code of the errors that compat calls otherwise; the rest follows from the status."""

BY_STATUS: Final = {400: "token_mismatched", 401: "invalid_token", 429: "too_many_requests"}


def usage_object(usage: Usage) -> dict[str, object]:
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": {"cached_tokens_details": {}},
        "completion_tokens_details": {},
    }


def error_object(refusal: Refusal, identity: Identity) -> dict[str, object]:
    _, code = error_of(refusal)
    error = {"code": code, "message": refusal.message}
    return {"success": False, "error": error, "trace_id": identity.request_id}


def error_of(refusal: Refusal) -> tuple[int, str]:
    usual = refusal.status, BY_STATUS.get(refusal.status, "api_error")
    return ERRORS.get(refusal.code, usual)


def thought(text: str) -> Delta:
    """The same text under both names."""
    return {"reasoning_content": text, "reasoning": text}


def chunks_of(generation: Generation) -> list[Chunk]:
    """The sequence of contract 4.6; the reasoning ends in the chunk in which the text begins."""
    *thoughts, last_thought = generation.reasoning or (Piece("", 0),)
    first, *texts = generation.answer or (Piece("", 0),)
    chunks = [Chunk(role="role", delta={"content": "", "role": "assistant"})]
    chunks += [
        Chunk(role="reasoning", delta=thought(piece.text), tokens=piece.tokens, reasoning_tokens=piece.tokens)
        for piece in thoughts
    ]
    chunks.append(
        Chunk(
            role="text",
            delta={"content": first.text, **thought(last_thought.text)},
            tokens=last_thought.tokens + first.tokens,
            reasoning_tokens=last_thought.tokens,
        )
    )
    chunks += [Chunk(role="text", delta={"content": piece.text}, tokens=piece.tokens) for piece in texts]
    chunks[-1] = chunks[-1]._replace(role="finish", finish=generation.finish)
    return [*chunks, Chunk(role="usage", usage=generation.usage), Chunk(role="done", raw=DONE)]


def with_leading_blank(generation: Generation) -> Generation:
    """The vendor's answers begin with a blank, in both samples of a stream and of a plain answer."""
    if generation.function is not None:
        return generation
    first, *rest = generation.answer or (Piece("", 0),)
    return replace(generation, answer=(first._replace(text=" " + first.text), *rest))


@dataclass(frozen=True, kw_only=True)
class ChunkEncoder:
    identity: Identity
    beginning: str = field(init=False)

    def __post_init__(self) -> None:
        identity = self.identity
        names = f'{{"id":"{identity.chat_id}","object":"chat.completion.chunk","created":{identity.created}'
        beginning = f'{names},"model":{encode(identity.model)},"system_fingerprint":null'
        object.__setattr__(self, "beginning", beginning)

    def heading(self, _: Chunk, __: int, ___: str) -> str:
        return ""

    def encode(self, chunk: Chunk, _: int) -> str:
        if chunk.raw is not None:
            return chunk.raw
        if chunk.refusal is not None:
            return encode(error_object(chunk.refusal, self.identity))
        if chunk.role == "broken":
            return BROKEN
        usage = "null" if chunk.usage is None else encode(usage_object(chunk.usage))
        inside, outside = (f',"usage":{usage}', "null") if chunk.usage_in_choice else ("", usage)
        choice = "" if chunk.delta is None else self.choice(chunk, chunk.delta, inside)
        return f'{self.beginning},"choices":[{choice}],"usage":{outside}}}'

    def choice(self, chunk: Chunk, delta: Delta, usage: str) -> str:
        finish = "null" if chunk.finish is None else f'"{chunk.finish}"'
        return (
            f'{{"index":0,"delta":{encode_delta(delta, chunk.call)},"logprobs":null,"finish_reason":{finish}{usage}}}'
        )


class AceData:
    field = "data: "
    text_mark = b'"content":"'

    def identity(self, region: str) -> Identity:
        return new_identity(region, digits=ID_DIGITS)

    def streams(self, fields: Fields, _: Mapping[str, str]) -> bool:
        return fields.get("stream") is True

    def read(self, fields: Fields, _: Mapping[str, str], model: Model) -> Asked:
        messages = fields.get("messages")
        for message in messages if isinstance(messages, list) else ():
            if isinstance(message, dict) and str(message.get("role")) not in ROLES:
                raise invalid(f"The role of a message must be one of {', '.join(sorted(ROLES))}.")
        return Asked(fields, read_parameters(fields, model))

    def chunks(self, generation: Generation, _: Parameters) -> list[Chunk]:
        return chunks_of(with_leading_blank(generation))

    def encoder(self, identity: Identity, *, text_form: bool = False) -> ChunkEncoder:
        return ChunkEncoder(identity=identity)

    def ends(self, chunk: Chunk) -> bool:
        return chunk.raw == DONE

    def plain(self, generation: Generation, identity: Identity, _: Parameters, faults: Faults) -> Told:
        message: dict[str, object] = {
            "role": "assistant",
            "content": with_leading_blank(generation).words,
            "refusal": None,
        }
        if "no-reasoning" not in faults:
            message |= thought(generation.reasoning_text)
        message["tool_calls"] = generation.tool_calls
        choice: dict[str, object] = {"index": 0, "message": message, "logprobs": None}
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

    def refusal(self, refusal: Refusal, identity: Identity) -> tuple[int, bytes]:
        status, _ = error_of(refusal)
        return status, json.dumps(error_object(refusal, identity)).encode()

    def padding(self, size: int) -> str:
        return f'{{"choices":[],"usage":null,"padding":"{"x" * size}"}}'

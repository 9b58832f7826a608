"""The native dialect (DashScope HTTP): frames and plain answers, as contract 4.3, 8.1.1, 8.9 and 8.10 show them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from batchrun.simulator.dialect import (
    Asked,
    CallPiece,
    Chunk,
    Delta,
    Identity,
    Told,
    call_object,
    encode,
    new_identity,
    place_usage,
)
from batchrun.simulator.faults import Faults
from batchrun.simulator.generation import PROPER_ENDS, Generation
from batchrun.simulator.models import Model
from batchrun.simulator.native_request import asks_for_stream, read_native
from batchrun.simulator.parameters import Fields, Parameters
from batchrun.simulator.prices import Usage
from batchrun.simulator.refusals import Refusal
from batchrun.simulator.shapes import cumulative, full_final

CODES: Final = {
    "invalid_parameter_error": "InvalidParameter",
    "data_inspection_failed": "DataInspectionFailed",
    "invalid_api_key": "InvalidApiKey",
    "access_denied": "AccessDenied",
    "model_not_found": "ModelNotFound",
    "limit_requests": "Throttling.RateQuota",
    "limit_burst_rate": "Throttling.BurstRate",
    "insufficient_quota": "Throttling.AllocationQuota",
    "internal_error": "InternalError",
}
"""Native names of the errors that compat calls otherwise (8.1.2)."""

NO_FAULTS: Final = Faults()


def usage_text(usage: Usage, *, total: bool, plain_cached: bool) -> str:
    """The usage as JSON; by hand, because each frame has one.

    `plain_cached` puts cached tokens at the top, as Singapore may do in vision answers (8.9).
    """
    media = f'"image_tokens":{usage.image},' if usage.image else ""
    if usage.video:
        media += f'"video_tokens":{usage.video},'
    whole = f'"total_tokens":{usage.input + usage.output},' if total else ""
    text = (
        f'{{{whole}"input_tokens_details":{{{media}"text_tokens":{usage.input - usage.image - usage.video}}},'
        f'"output_tokens":{usage.output},"input_tokens":{usage.input},'
        f'"output_tokens_details":{{{thought(usage)}"text_tokens":{usage.output - usage.reasoning}}},{media}'
    )
    if usage.cached:
        cached = f'"cached_tokens":{usage.cached}'
        text += f"{cached}," if plain_cached else f'"prompt_tokens_details":{{{cached}}},'
    return text[:-1] + "}"


def thought(usage: Usage) -> str:
    return f'"reasoning_tokens":{usage.reasoning},' if usage.reasoning else ""


@dataclass(frozen=True, kw_only=True)
class FrameEncoder:
    """Writes JSON by hand: each frame repeats the usage, of which only the output changes."""

    identity: Identity
    listed: bool
    """The text stands in a list of parts, not in a string."""
    text_form: bool
    plain_cached: bool
    end: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "end", f',"request_id":"{self.identity.request_id}"}}')

    def heading(self, chunk: Chunk, number: int, end: str) -> str:
        if chunk.refusal is not None:
            return f"id:{number + 1}{end}event:error{end}:HTTP_STATUS/{chunk.refusal.status}{end}"
        return f"id:{number + 1}{end}event:result{end}:HTTP_STATUS/200{end}"

    def encode(self, chunk: Chunk, _: int) -> str:
        if chunk.refusal is not None:
            return encode(error_object(chunk.refusal, self.identity))
        if chunk.role == "broken":
            return '{"output":{"choices":[{"message":{"content":[{"text":"half a'
        usage = self.usage(chunk)
        inside, outside = (usage, "") if chunk.usage_in_choice else ("", usage)
        return f'{{"output":{self.output(chunk, inside)}{outside}{self.end}'

    def usage(self, chunk: Chunk) -> str:
        if chunk.usage is not None:
            return f',"usage":{usage_text(chunk.usage, total=True, plain_cached=self.plain_cached)}'
        return ',"usage":null' if chunk.usage_null else ""

    def output(self, chunk: Chunk, usage: str) -> str:
        if chunk.delta is None:
            return '{"choices":[]}'
        # The finish reason of a frame that is not the last one is the word null, not the value (trap T21).
        finish = f'"finish_reason":"{chunk.finish or "null"}"'
        if self.text_form:
            return f'{{"text":{encode(chunk.delta.get("content") or "")},{finish}{usage}}}'
        return f'{{"choices":[{{"message":{self.message(chunk.delta, chunk.call)},{finish}{usage}}}]}}'

    def message(self, delta: Delta, call: CallPiece | None) -> str:
        content = self.content(delta.get("content") or "")
        rest = "".join(f'"{key}":{encode(value or "")},' for key, value in delta.items() if key != "content")
        rest += "" if call is None else f'"tool_calls":{call_object(call)},'
        return f'{{"content":{content},{rest}"role":"assistant"}}'

    def content(self, text: str) -> str:
        if not self.listed:
            return encode(text)
        return f'[{{"text":{encode(text)}}}]' if text else "[]"


def error_object(refusal: Refusal, identity: Identity) -> dict[str, str]:
    code = CODES.get(refusal.code, refusal.code)
    if refusal.inside == "InternalError.Algo":
        code = refusal.inside
    return {"code": code, "message": refusal.message, "request_id": identity.request_id}


def frames_of(generation: Generation, *, thinking: bool) -> list[Chunk]:
    """The sequence of contract 8.10: reasoning, text, an empty frame that finishes. Each tells the usage so far."""
    rest: Delta = {"reasoning_content": ""} if thinking else {}
    full = generation.usage
    frames = []
    reasoning = 0
    for piece in generation.reasoning:
        reasoning += piece.tokens
        frames.append(
            Chunk(
                role="reasoning",
                delta={"content": "", "reasoning_content": piece.text},
                usage=so_far(full, reasoning, reasoning),
                tokens=piece.tokens,
                reasoning_tokens=piece.tokens,
            )
        )
    output = reasoning
    for piece in generation.answer:
        output += piece.tokens
        usage = so_far(full, output, reasoning)
        frames.append(Chunk(role="text", delta={"content": piece.text, **rest}, usage=usage, tokens=piece.tokens))
    return [*frames, Chunk(role="finish", delta={"content": "", **rest}, usage=full, finish=generation.finish)]


def so_far(full: Usage, output: int, reasoning: int) -> Usage:
    return Usage(
        input=full.input,
        output=output,
        cached=full.cached,
        reasoning=reasoning,
        image=full.image,
        video=full.video,
    )


@dataclass(frozen=True, kw_only=True)
class Native:
    """One of the two addresses: for text alone, or for pictures and videos too."""

    multimodal: bool
    field = "data:"

    @property
    def text_mark(self) -> bytes:
        return b'"text":"' if self.multimodal else b'"content":"'

    def identity(self, region: str) -> Identity:
        return new_identity(region)

    def streams(self, _: Fields, headers: Mapping[str, str]) -> bool:
        return asks_for_stream(headers)

    def read(self, fields: Fields, headers: Mapping[str, str], model: Model) -> Asked:
        return read_native(fields, headers, model, multimodal=self.multimodal)

    def chunks(self, generation: Generation, parameters: Parameters) -> list[Chunk]:
        frames = frames_of(generation, thinking=parameters.thinking)
        if parameters.incremental:
            return frames
        return full_final(cumulative(frames, generation, NO_FAULTS), generation, NO_FAULTS)

    def encoder(self, identity: Identity, *, text_form: bool = False) -> FrameEncoder:
        return FrameEncoder(
            identity=identity,
            listed=self.multimodal,
            text_form=text_form,
            plain_cached=self.plain_cached(identity),
        )

    def ends(self, chunk: Chunk) -> bool:
        return chunk.finish in PROPER_ENDS

    def plain_cached(self, identity: Identity) -> bool:
        return self.multimodal and identity.region == "singapore"

    def plain(self, generation: Generation, identity: Identity, parameters: Parameters, faults: Faults) -> Told:
        # An answer that was stopped half way has the word null here too, as a running frame has (trap T21).
        choice: dict[str, object] = {} if generation.finish == "missing" else {"finish_reason": generation.finish}
        if parameters.text_form:
            choice["text"] = generation.answer_text
        else:
            choice["message"] = self.message(generation, faults)
        document: dict[str, object] = {"output": choice if parameters.text_form else {"choices": [choice]}}
        write = partial(self.usage_object, identity)
        usage = place_usage(document, choice, generation.usage, faults, write)
        document["request_id"] = identity.request_id
        return Told(encode(document), usage)

    def usage_object(self, identity: Identity, usage: Usage) -> dict[str, object]:
        # Plain multimodal answers tell no total (4.3), text answers and all frames do.
        text = usage_text(usage, total=not self.multimodal, plain_cached=self.plain_cached(identity))
        document: dict[str, object] = json.loads(text)
        return document

    def message(self, generation: Generation, faults: Faults) -> dict[str, object]:
        text = generation.words
        listed = [] if generation.tool_calls else [{"text": text}]
        message: dict[str, object] = {"content": listed if self.multimodal else text}
        if generation.tool_calls:
            message["tool_calls"] = generation.tool_calls
        if generation.reasoning and "no-reasoning" not in faults:
            message["reasoning_content"] = generation.reasoning_text
            if "both-reasoning" in faults:
                message["reasoning"] = generation.reasoning_text
        return {**message, "role": "assistant"}

    def refusal(self, refusal: Refusal, identity: Identity) -> tuple[int, bytes]:
        return refusal.status, json.dumps(error_object(refusal, identity)).encode()

    def padding(self, size: int) -> str:
        return f'{{"output":{{"choices":[]}},"padding":"{"x" * size}"}}'

"""Decides what the model generates for a request: its chunks, the finish reason and the usage."""

from dataclasses import dataclass
from typing import Final, NamedTuple

from batchrun.simulator.captions import (
    ODDITIES,
    answer_text,
    arguments_text,
    exactly,
    json_text,
    reasoning_text,
)
from batchrun.simulator.contents import Contents
from batchrun.simulator.faults import Faults
from batchrun.simulator.parameters import Parameters
from batchrun.simulator.prices import Usage
from batchrun.simulator.tokens import pieces

PROPER_ENDS: Final = frozenset({"stop", "length", "content_filter", "tool_calls"})
"""Finish reasons by which a client knows that nothing more was to come."""


class Piece(NamedTuple):
    """The text of one chunk and the number of tokens in it."""

    text: str
    tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Generation:
    reasoning: tuple[Piece, ...]
    answer: tuple[Piece, ...]
    finish: str
    usage: Usage
    function: str | None = None
    """The function that is called instead of an answer in words; `answer` is its arguments then."""
    call_id: str = ""

    @property
    def reasoning_text(self) -> str:
        return "".join(piece.text for piece in self.reasoning)

    @property
    def answer_text(self) -> str:
        return "".join(piece.text for piece in self.answer)

    @property
    def words(self) -> str:
        """What is said, and not called."""
        return self.answer_text if self.function is None else ""

    @property
    def tool_calls(self) -> list[dict[str, object]]:
        if self.function is None:
            return []
        function = {"name": self.function, "arguments": self.answer_text}
        return [{"index": 0, "id": self.call_id, "type": "function", "function": function}]


def generate(parameters: Parameters, contents: Contents, faults: Faults, *, chunk_tokens: int) -> Generation:
    reasoning = think(parameters, contents, faults, chunk_tokens)
    answer, finish = speak(parameters, contents, faults, chunk_tokens)
    tool = parameters.tool
    input_tokens = contents.input_tokens
    return Generation(
        reasoning=chunked(reasoning, chunk_tokens),
        answer=chunked(answer, chunk_tokens),
        finish="tool_calls" if tool is not None and finish == "stop" else finish,
        function=None if tool is None else tool.name,
        call_id=f"call_{contents.hash.hex()[:24]}",
        usage=Usage(
            input=input_tokens,
            output=len(reasoning) + len(answer),
            cached=min(input_tokens * (faults.whole("cached") or 0) // 100, input_tokens),
            reasoning=len(reasoning),
            image=contents.image_tokens,
            video=contents.video_tokens,
        ),
    )


def chunked(tokens: list[str], size: int) -> tuple[Piece, ...]:
    groups = (tokens[start : start + size] for start in range(0, len(tokens), size))
    return tuple(Piece(text="".join(group), tokens=len(group)) for group in groups)


def think(parameters: Parameters, contents: Contents, faults: Faults, chunk_tokens: int) -> list[str]:
    """Reasoning tokens; the budget cuts them and the answer starts at once (contract 2.5)."""
    if not parameters.thinking:
        return []
    chunks = faults.whole("think-chunks")
    text = reasoning_text(contents)
    tokens = pieces(text) if chunks is None else exactly(text, chunks * chunk_tokens)
    return tokens[: parameters.thinking_limit]


def speak(parameters: Parameters, contents: Contents, faults: Faults, chunk_tokens: int) -> tuple[list[str], str]:
    """Answer tokens and the finish reason; `max_tokens` does not count the reasoning (8.11)."""
    tokens = wanted_tokens(parameters, contents, faults, chunk_tokens)
    overrun = faults.whole("overrun")
    if overrun is not None:
        return exactly("".join(tokens) or "more ", parameters.max_tokens * overrun), "length"
    if faults.text("finish") in ("length", "content_filter"):
        return tokens[: len(tokens) // 2], faults.text("finish") or "stop"
    if len(tokens) > parameters.max_tokens:
        return tokens[: parameters.max_tokens], "length"
    return tokens, "stop"


def wanted_tokens(parameters: Parameters, contents: Contents, faults: Faults, chunk_tokens: int) -> list[str]:
    if parameters.tool is not None:
        return pieces(arguments_text(contents, parameters.tool.schema))
    if parameters.json_answer:
        return pieces(json_text(contents, parameters.schema))
    text = answer_text(contents)
    if "unicode" in faults:
        text += ODDITIES
    if "nul" in faults:
        text += " A NUL\0here."
    if "surrogate" in faults:
        text += " Half a pair: \ud83d."
    chunks = faults.whole("chunks")
    if chunks is not None:
        return exactly(text, chunks * chunk_tokens)
    if contents.prefix is not None:
        text = text.removeprefix(contents.prefix)
    return pieces(text)

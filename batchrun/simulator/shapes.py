"""Faults that change the sequence of chunks of a stream; each takes the chunks and gives others."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from batchrun.simulator.compat import Chunk, Delta, encode
from batchrun.simulator.faults import Faults
from batchrun.simulator.generation import Generation
from batchrun.simulator.prices import Usage

Chunks = list[Chunk]


def shaped(chunks: Chunks, generation: Generation, faults: Faults) -> Chunks:
    """The chunks after all faults of the table that hit this request, in the table's order."""
    if faults.clauses:
        for name, change in CHANGES.items():
            if name in faults:
                chunks = change(chunks, generation, faults)
    return chunks


def first(chunks: Chunks, role: str) -> int:
    """Place of the first chunk with this role; the number of chunks when there is none."""
    return next((place for place, chunk in enumerate(chunks) if chunk.role == role), len(chunks))


def contents(chunks: Chunks) -> list[int]:
    """Places of the chunks that carry reasoning or text."""
    return [place for place, chunk in enumerate(chunks) if chunk.role in ("reasoning", "text")]


def after(chunks: Chunks, count: int) -> int:
    """The place behind so many chunks with content."""
    places = contents(chunks)
    if count == 0:
        return places[0] if places else len(chunks)
    return places[min(count, len(places)) - 1] + 1 if places else len(chunks)


def mixed(chunks: Chunks, _: Generation, __: Faults) -> Chunks:
    place = first(chunks, "text")
    if place == 0 or place >= len(chunks) or chunks[place - 1].role != "reasoning":
        return chunks
    thought, text = chunks[place - 1 : place + 1]
    both = text._replace(
        delta={**(thought.delta or {}), "content": (text.delta or {})["content"]},
        tokens=thought.tokens + text.tokens,
        reasoning_tokens=thought.reasoning_tokens,
    )
    return [*chunks[: place - 1], both, *chunks[place + 1 :]]


def both_reasoning(chunks: Chunks, _: Generation, __: Faults) -> Chunks:
    def doubled(delta: Delta | None) -> Delta | None:
        text = (delta or {}).get("reasoning_content")
        return {**(delta or {}), "reasoning": text} if text else delta

    return [chunk._replace(delta=doubled(chunk.delta)) for chunk in chunks]


def cumulative(chunks: Chunks, _: Generation, __: Faults) -> Chunks:
    so_far = {"content": "", "reasoning_content": ""}
    changed = []
    for chunk in chunks:
        delta = dict(chunk.delta or {})
        for key in so_far:
            if delta.get(key):
                so_far[key] += delta[key] or ""
                delta[key] = so_far[key]
        changed.append(chunk if chunk.delta is None else chunk._replace(delta=delta))
    return changed


def duplicate(chunks: Chunks, _: Generation, __: Faults) -> Chunks:
    places = contents(chunks)
    if not places:
        return chunks
    place = places[len(places) // 2]
    return inserted(chunks, place + 1, chunks[place]._replace(tokens=0, reasoning_tokens=0))


def text_in_finish(chunks: Chunks, _: Generation, __: Faults) -> Chunks:
    place = first(chunks, "finish")
    if place == 0 or chunks[place - 1].role != "text":
        return chunks
    joined = chunks[place - 1]._replace(role="finish", finish=chunks[place].finish)
    return [*chunks[: place - 1], joined, *chunks[place + 1 :]]


def full_final(chunks: Chunks, generation: Generation, _: Faults) -> Chunks:
    place = first(chunks, "finish")
    if place == len(chunks):
        return chunks
    whole = {**(chunks[place].delta or {}), "content": generation.answer_text}
    return replaced(chunks, place, chunks[place]._replace(delta=whole))


def finish(chunks: Chunks, _: Generation, faults: Faults) -> Chunks:
    word = faults.text("finish")
    if word == "missing":
        return [chunk for chunk in chunks if chunk.role != "finish"]
    reason = None if word == "null" else word
    return [chunk._replace(finish=reason) if chunk.role == "finish" else chunk for chunk in chunks]


def usage(chunks: Chunks, generation: Generation, faults: Faults) -> Chunks:
    where = faults.text("usage")
    place = first(chunks, "usage")
    told = Chunk(role="usage", usage=generation.usage)
    if where == "unasked" and place == len(chunks):
        return [*chunks[:-1], told, chunks[-1]]
    if place == len(chunks):
        return chunks
    rest = [*chunks[:place], *chunks[place + 1 :]]
    match where:
        case "missing":
            return rest
        case "zero":
            return replaced(chunks, place, Chunk(role="usage", usage=Usage()))
        case "null":
            return replaced(chunks, place, Chunk(role="usage"))
        case "twice":
            growing = replace(generation.usage, output=generation.usage.output // 2, reasoning=0)
            return inserted(chunks, place, Chunk(role="usage", usage=growing))
        case "early":
            return inserted(rest, first(rest, "finish"), told)
        case "late":
            return [*rest, told]
        case "every":
            return [*with_running_usage(rest[:-1], generation), told, rest[-1]]
        case "choice" | "text-chunk":
            end = first(rest, "finish")
            if end == len(rest):
                return rest
            carrier = rest[end]._replace(usage=generation.usage, usage_in_choice=where == "choice")
            return replaced(rest, end, carrier)
    return chunks


def with_running_usage(chunks: Chunks, generation: Generation) -> Chunks:
    output = reasoning = 0
    changed = []
    for chunk in chunks:
        output += chunk.tokens
        reasoning += chunk.reasoning_tokens
        running = replace(generation.usage, output=output, reasoning=reasoning)
        changed.append(chunk._replace(usage=running))
    return changed


def replaced(chunks: Chunks, place: int, chunk: Chunk) -> Chunks:
    return [*chunks[:place], chunk, *chunks[place + 1 :]]


def inserted(chunks: Chunks, place: int, chunk: Chunk) -> Chunks:
    return [*chunks[:place], chunk, *chunks[place:]]


def done_first(chunks: Chunks, _: Generation, __: Faults) -> Chunks:
    texts = [place for place, chunk in enumerate(chunks) if chunk.role == "text"]
    place = texts[-1] if texts else 0
    return [*chunks[:place], Chunk(role="done", raw="[DONE]"), *chunks[place:-1]]


def done_twice(chunks: Chunks, _: Generation, __: Faults) -> Chunks:
    return [*chunks, Chunk(role="done", raw="[DONE]")]


def no_done(chunks: Chunks, _: Generation, __: Faults) -> Chunks:
    return [chunk for chunk in chunks if chunk.role != "done"]


def error_frame(chunks: Chunks, count: int) -> Chunks:
    error = {"message": "The server had an error.", "type": "internal_error", "param": None}
    frame = Chunk(role="error", raw=encode({"error": {**error, "code": "internal_error"}}))
    return [*chunks[: after(chunks, count)], frame]


def error_event(chunks: Chunks, _: Generation, faults: Faults) -> Chunks:
    return error_frame(chunks, faults.whole("error-event") or 0)


def error_done(chunks: Chunks, _: Generation, faults: Faults) -> Chunks:
    return [*error_frame(chunks, faults.whole("error-done") or 0), Chunk(role="done", raw="[DONE]")]


def truncate(chunks: Chunks, _: Generation, faults: Faults) -> Chunks:
    return chunks[: after(chunks, faults.whole("truncate") or 0)]


def broken(chunks: Chunks, raw: str) -> Chunks:
    """The chunks with a frame in the middle that is no chunk."""
    return inserted(chunks, after(chunks, len(contents(chunks)) // 2), Chunk(role="error", raw=raw))


def bad_json(chunks: Chunks, _: Generation, __: Faults) -> Chunks:
    return broken(chunks, '{"choices":[{"delta":{"content":"half a')


CHANGES: Final[Mapping[str, Callable[[Chunks, Generation, Faults], Chunks]]] = {
    "mixed": mixed,
    "finish": finish,
    "full-final": full_final,
    "text-in-finish": text_in_finish,
    "both-reasoning": both_reasoning,
    "cumulative": cumulative,
    "duplicate": duplicate,
    "usage": usage,
    "bad-json": bad_json,
    "done-first": done_first,
    "done-twice": done_twice,
    "no-done": no_done,
    "error-event": error_event,
    "error-done": error_done,
    "truncate": truncate,
}

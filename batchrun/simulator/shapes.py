"""Faults that change the sequence of chunks of a stream; each takes the chunks and gives others."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from batchrun.simulator.dialect import DONE, Chunk, Delta
from batchrun.simulator.faults import Faults
from batchrun.simulator.generation import Generation
from batchrun.simulator.prices import Usage
from batchrun.simulator.refusals import Refusal, failed, moderated

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


def told_throughout(chunks: Chunks) -> bool:
    """Whether each chunk with content carries the usage so far, as in the native protocol."""
    return any(chunks[place].usage is not None for place in contents(chunks))


def end_mark(chunks: Chunks) -> Chunk:
    """The chunk by which the client knows the end: `[DONE]`, the finish where there is none, or just the last one."""
    done = Chunk(role="done", raw=DONE)
    return done if done in chunks else next((chunk for chunk in chunks if chunk.role == "finish"), chunks[-1])


def mixed(chunks: Chunks, _: Generation, __: Faults) -> Chunks:
    place = first(chunks, "text")
    if place == 0 or place >= len(chunks) or chunks[place - 1].role != "reasoning":
        return chunks
    thought, text = chunks[place - 1 : place + 1]
    if (text.delta or {}).get("reasoning_content"):
        return chunks  # mixed by its dialect already
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


def no_reasoning(chunks: Chunks, _: Generation, __: Faults) -> Chunks:
    """The first chunk behind the reasoning takes its tokens over."""
    hidden = [chunk for chunk in chunks if chunk.role == "reasoning"]
    rest = [chunk._replace(delta=without_reasoning(chunk.delta)) for chunk in chunks if chunk.role != "reasoning"]
    place = min(first(rest, "text"), first(rest, "finish"))
    if not hidden or place == len(rest):
        return rest
    tokens = sum(chunk.tokens for chunk in hidden)
    kept = rest[place]
    kept = kept._replace(tokens=kept.tokens + tokens, reasoning_tokens=kept.reasoning_tokens + tokens)
    return replaced(rest, place, kept)


def without_reasoning(delta: Delta | None) -> Delta | None:
    if delta is None:
        return None
    return {key: text for key, text in delta.items() if key not in ("reasoning", "reasoning_content")}


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
    if place in (0, len(chunks)) or chunks[place - 1].role != "text" or (chunks[place].delta or {}).get("content"):
        return chunks  # nothing to join, or joined by its dialect already
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
    if told_throughout(chunks):
        return usage_throughout(chunks, generation, where)
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


def usage_throughout(chunks: Chunks, generation: Generation, where: str | None) -> Chunks:
    """The same faults where each chunk carries the usage so far; `twice`, `every` and `unasked` change nothing."""
    end = first(chunks, "finish")
    bare = [chunk._replace(usage=None) for chunk in chunks]
    match where:
        case "missing":
            return bare
        case "null":
            return [chunk._replace(usage_null=True) for chunk in bare]
        case "zero":
            return [chunk._replace(usage=Usage()) for chunk in chunks]
        case "early":
            return [*chunks[:end], *bare[end:]]
        case "late":
            return [*bare, Chunk(role="usage", usage=generation.usage)]
        case "choice" | "text-chunk" if end < len(chunks):
            return replaced(bare, end, chunks[end]._replace(usage_in_choice=where == "choice"))
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
    mark = end_mark(chunks)
    rest = [chunk for chunk in chunks if chunk != mark]
    texts = [place for place, chunk in enumerate(rest) if chunk.role == "text"]
    return inserted(rest, texts[-1] if texts else 0, mark)


def done_twice(chunks: Chunks, _: Generation, __: Faults) -> Chunks:
    return [*chunks, end_mark(chunks)]


def no_done(chunks: Chunks, _: Generation, __: Faults) -> Chunks:
    return [chunk for chunk in chunks if chunk.role != "done"]


def error_frame(chunks: Chunks, count: int | None, refusal: Refusal) -> Chunks:
    return [*chunks[: after(chunks, count or 0)], Chunk(role="error", refusal=refusal)]


def error_event(chunks: Chunks, _: Generation, faults: Faults) -> Chunks:
    return error_frame(chunks, faults.whole("error-event"), failed())


def error_done(chunks: Chunks, _: Generation, faults: Faults) -> Chunks:
    return [*error_frame(chunks, faults.whole("error-done"), failed()), end_mark(chunks)]


def moderation_event(chunks: Chunks, _: Generation, faults: Faults) -> Chunks:
    return error_frame(chunks, faults.whole("moderation-event"), moderated())


def truncate(chunks: Chunks, _: Generation, faults: Faults) -> Chunks:
    return chunks[: after(chunks, faults.whole("truncate") or 0)]


def bad_json(chunks: Chunks, _: Generation, __: Faults) -> Chunks:
    """The chunks with one in the middle that is none."""
    return inserted(chunks, after(chunks, len(contents(chunks)) // 2), Chunk(role="broken"))


CHANGES: Final[Mapping[str, Callable[[Chunks, Generation, Faults], Chunks]]] = {
    "mixed": mixed,
    "finish": finish,
    "full-final": full_final,
    "text-in-finish": text_in_finish,
    "both-reasoning": both_reasoning,
    "no-reasoning": no_reasoning,
    "cumulative": cumulative,
    "duplicate": duplicate,
    "usage": usage,
    "bad-json": bad_json,
    "done-first": done_first,
    "done-twice": done_twice,
    "no-done": no_done,
    "error-event": error_event,
    "error-done": error_done,
    "moderation-event": moderation_event,
    "truncate": truncate,
}

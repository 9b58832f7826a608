"""Faults that change the sequence of chunks of a stream; each takes the chunks and gives others."""

from collections.abc import Callable, Mapping
from typing import Final

from batchrun.simulator.dialect import Chunk, Delta
from batchrun.simulator.faults import Faults
from batchrun.simulator.generation import Generation
from batchrun.simulator.places import Chunks, after, contents, end_mark, first, inserted, replaced
from batchrun.simulator.refusals import Refusal, failed, moderated
from batchrun.simulator.usage_faults import usage


def shaped(chunks: Chunks, generation: Generation, faults: Faults) -> Chunks:
    """The chunks after all faults of the table that hit this request, in the table's order."""
    if faults.clauses:
        for name, change in CHANGES.items():
            if name in faults:
                chunks = change(chunks, generation, faults)
    return chunks


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

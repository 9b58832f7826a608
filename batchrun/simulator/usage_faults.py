"""The fault `usage`: where a stream tells its usage, and what it tells."""

from dataclasses import replace

from batchrun.simulator.dialect import Chunk
from batchrun.simulator.faults import Faults
from batchrun.simulator.generation import Generation
from batchrun.simulator.places import Chunks, first, inserted, replaced, told_throughout
from batchrun.simulator.prices import Usage


def usage(chunks: Chunks, generation: Generation, faults: Faults) -> Chunks:
    where = faults.text("usage")
    if told_throughout(chunks):
        return usage_throughout(chunks, generation, where)
    if told_in_choice(chunks):
        chunks = usage_in_choice(chunks, where)
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


def told_in_choice(chunks: Chunks) -> bool:
    """Whether the choice that finishes carries the usage, as at Moonshot."""
    return any(chunk.usage_in_choice for chunk in chunks)


def usage_in_choice(chunks: Chunks, where: str | None) -> Chunks:
    """The faults that change the usage itself; the others are about the frame behind it, if there is one."""
    place = first(chunks, "finish")
    match where:
        case "missing" | "null":
            return replaced(chunks, place, chunks[place]._replace(usage=None, usage_in_choice=False))
        case "zero":
            return replaced(chunks, place, chunks[place]._replace(usage=Usage()))
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

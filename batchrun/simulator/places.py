"""Places in a sequence of chunks, and sequences with another chunk at a place."""

from batchrun.simulator.dialect import DONE, Chunk

Chunks = list[Chunk]


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


def replaced(chunks: Chunks, place: int, chunk: Chunk) -> Chunks:
    return [*chunks[:place], chunk, *chunks[place + 1 :]]


def inserted(chunks: Chunks, place: int, chunk: Chunk) -> Chunks:
    return [*chunks[:place], chunk, *chunks[place:]]

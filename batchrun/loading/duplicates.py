"""Finding items with the same request when a job is loaded, and whether they are still the same when they share.

Files are read only where another item has the same texts and files of the same sizes. That happens after the rows are
stored, outside of any transaction, as it may take long: a worker that is busy with the job meanwhile may call two items
that would have shared an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from sqlalchemy import Engine

from batchrun.alike import Reference, content_name, digest, files_of, with_times
from batchrun.database import reading, writing
from batchrun.errors import MediaError
from batchrun.media.content import Content, is_as_it_was, read_content
from batchrun.states import State
from batchrun.store import sharing
from batchrun.store.jobs import lock
from batchrun.tables import Record

PAGE = 500
"""Items whose files are read before their names are stored."""
TAKES = (State.DONE, State.TRUNCATED)


def find_duplicates(engine: Engine, job_id: int, root: Path) -> int:
    """Read the files that may be the same, and let items wait whose request is. Returns how many wait since."""
    with reading(engine) as connection:
        ids = sharing.alike_unread(connection, job_id)
    for start in range(0, len(ids), PAGE):
        with reading(engine) as connection:
            page = sharing.media_of(connection, ids[start : start + PAGE])
        named = [found for row in page if (found := _named(row, root)) is not None]
        with writing(engine) as connection:
            lock(connection, [job_id])
            sharing.name(connection, named)
    if not ids:
        return 0
    with writing(engine) as connection:
        lock(connection, [job_id])
        return sharing.block(connection, job_id, takes=TAKES)


def _named(row: Record, root: Path) -> dict[str, object] | None:
    """What is to be stored of an item; None for one whose files can't be read or aren't as they were: its own call will
    tell."""
    contents = _contents(row.media, root)
    if contents is None:
        return None
    return {
        "id": row.id,
        "before": row.request_hash,
        "request_hash": _by_content(row.request_hash, contents),
        "media": with_times(row.media, iter([content.mtime for content in contents])),
    }


def name_by_content(name: str, media: Sequence[Reference], root: Path) -> str | None:
    """The whole name of a request of which `name` says all but what is in its files; None where they can't be read."""
    contents = _contents(media, root)
    return None if contents is None else _by_content(name, contents)


def _by_content(name: str, contents: Sequence[Content]) -> str:
    return content_name(name, digest(content.digest for content in contents))


def _contents(media: Sequence[Reference], root: Path) -> list[Content] | None:
    try:
        return [_content(root, reference) for reference in files_of(media)]
    except MediaError:
        return None


def _content(root: Path, reference: Reference) -> Content:
    content = read_content(root, str(reference["path"]))
    if content.size != reference["size"]:
        raise MediaError("it has changed since its size was read", code="media-changed")
    return content


def as_it_was(media_root: Callable[[int], Path | None]) -> sharing.AsItWas:
    """Looks at the sizes and times of files; `media_root` gives the folder of a job on this machine."""

    def look(job_id: int, media: Sequence[Reference]) -> bool | None:
        files = [*files_of(media)]
        if not files:
            return True
        root = media_root(job_id)
        if root is None or not root.is_dir():
            return None
        return all(_is_same(root, file) for file in files)

    return look


def _is_same(root: Path, file: Reference) -> bool:
    path, size, mtime = file.get("path"), file.get("size"), file.get("mtime")
    return (
        isinstance(path, str)
        and isinstance(size, int)
        and isinstance(mtime, int)
        and is_as_it_was(root, path, size=size, mtime=mtime)
    )

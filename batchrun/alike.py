"""Which items of a job ask the same: the name of a request, as `items.request_hash` keeps it.

All else that makes a request (model, provider, parameters, thinking, tools, schema) is the identity of the job, so that
within a job two requests are the same when their texts and the contents of their media are. A name has two halves:

    KEY            no local files: the texts and the addresses
    KEY?           with local files whose content nobody has looked at; the key has their sizes
    KEY:CONTENT    with local files: of the bytes that were read when the job was loaded, or that were sent

Names with a `?` say nothing: only where two items have the same key their files are read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

from batchrun.messages import JsonValue

KEY_LENGTH = 32
"""Hexadecimal digits of each half."""
UNREAD = "?"
READ = ":"

_to_json = json.JSONEncoder(sort_keys=True).encode

Reference = Mapping[str, JsonValue]
"""An entry of `items.media`."""


def request_name(texts: Sequence[str], media: Sequence[Reference], row_hash: str) -> str | None:
    """The name of a request before anything was sent; None where a file's size isn't known, as it can't be read.
    `row_hash` names the texts and the media as they are, which is the key where there are no files."""
    files = [*files_of(media)]
    if not files:
        return row_hash
    if any("size" not in file for file in files):
        return None
    return row_name(texts, [_without_place(reference) for reference in media]) + UNREAD


def row_name(texts: Sequence[str], media: Sequence[JsonValue]) -> str:
    return digest([_to_json([texts, media])])


def content_name(name: str, contents: str) -> str:
    """The name with the `digest` of what is in its files."""
    return f"{name[:KEY_LENGTH]}{READ}{contents}"


def digest(parts: Iterable[str]) -> str:
    """Of the SHA-256 of each file in turn; or of texts without a line break."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:KEY_LENGTH]


def files_of(media: Iterable[Reference]) -> Iterator[Reference]:
    """The references to local files, those inside of lists of frames included."""
    for reference in media:
        frames = reference.get("frames")
        if isinstance(frames, list):
            yield from files_of(frame for frame in frames if isinstance(frame, Mapping))
        elif "path" in reference:
            yield reference


def with_times(media: Iterable[Reference], times: Iterator[int]) -> list[JsonValue]:
    """The references with the modification time (ns) of each local file, in the order of `files_of`."""
    made: list[JsonValue] = []
    for reference in media:
        frames = reference.get("frames")
        if isinstance(frames, list):
            inner = [frame for frame in frames if isinstance(frame, Mapping)]
            made.append({**reference, "frames": with_times(inner, times)})
        else:
            made.append({**reference, "mtime": next(times)} if "path" in reference else dict(reference))
    return made


def _without_place(reference: Reference) -> JsonValue:
    """What of a reference the model sees, or stands for it."""
    frames = reference.get("frames")
    if isinstance(frames, list):
        return [_without_place(frame) for frame in frames if isinstance(frame, Mapping)]
    return {key: value for key, value in reference.items() if key not in ("path", "mtime", "facts")}

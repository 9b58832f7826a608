"""From a job's source to its rows: what there is to ask, one row per item, read as a stream.

Rows are data that anyone may have written. They give text for the prompt and references to pictures; what they say
about files is confined to the media root, and nothing they name is opened or fetched here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from batchrun.bodies import taken_apart
from batchrun.jobfile.spec import InputKind, JobSpec
from batchrun.messages import JsonValue
from batchrun.opening import open_regular
from batchrun.rows.complaints import Complaints
from batchrun.rows.listing import IMAGE_EXTENSIONS, VIDEO_EXTENSIONS, find_listing, list_files
from batchrun.rows.references import (
    MediaKind,
    MediaRef,
    MediaRoot,
    ReferenceProblem,
    check_id,
    check_name,
    check_url,
    hashed,
    id_of,
    kind_of_url,
    variables_of,
)
from batchrun.rows.requests import read_requests
from batchrun.rows.rowfiles import read_lines, read_records


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One item to be: its id, what the prompt may say, and its pictures."""

    custom_id: str
    """1 to 256 bytes of UTF-8, no control characters. Whether it is unique is the database's business."""
    variables: Mapping[str, JsonValue]
    media: tuple[MediaRef, ...]
    place: str
    """Where the row stands, for messages: `rows.jsonl:17`, or the path of the picture."""
    line: int | None = None
    """In its file; None where there is none."""
    part_of: str | None = None
    """The id of the row that merges the answers of its parts, of which this is one."""
    merges: bool = False
    """Whether it merges the answers of its parts."""


EXTENSIONS: Mapping[InputKind, frozenset[str]] = {"images": IMAGE_EXTENSIONS, "videos": VIDEO_EXTENSIONS}
"""Of the files that count where a whole folder is named."""
COLUMNS: Mapping[str, MediaKind] = {"image": "image", "images": "image", "video": "video", "videos": "video"}
"""Columns of a row that name files."""
PAIRS = (("image", "images"), ("video", "videos"))


def no_check(_row: Row) -> None:
    """Takes every row."""


def media_root(job: JobSpec, base: Path) -> Path:
    """The absolute folder that all local media of the job are relative to and confined to; links are resolved.

    For `images` and `videos` the named folder, or the part of the pattern before the first wildcard; for `rows` and
    `requests` the folder of their file; else `base`, the folder of the job file.
    """
    if job.inputs.kind in EXTENSIONS:
        return find_listing(job.inputs.source, base).root
    folder = _file(job, base).parent if job.inputs.kind in ("rows", "requests") else base
    return Path(os.path.realpath(folder))


def read_rows(job: JobSpec, base: Path, check: Callable[[Row], None] = no_check) -> Iterator[Row]:
    """The rows of the job; `base` is the folder of the job file. `check` raises ReferenceProblem for a row that can't
    be carried out.

    Raises SpecError with up to 20 problems, and for a source without rows. Rows that came before the error must be
    thrown away: the reader goes on after a bad row only to report more of them.
    """
    kind = job.inputs.kind
    file = _file(job, base) if kind in ("rows", "requests", "urls") else None
    complaints = Complaints(file=file, key=f"inputs.{kind}")
    empty = True
    for row in _READERS[kind](job, base, complaints):
        empty = False
        try:
            check(row)
        except ReferenceProblem as problem:
            complaints.add(problem.message, problem.remedy, line=row.line, place="" if row.line else row.place)
            continue
        yield row
    complaints.finish()
    if empty:
        raise complaints.stop(*_nothing(job, base))


def _file(job: JobSpec, base: Path) -> Path:
    return Path(os.path.abspath(base)) / os.path.expanduser(job.inputs.source)


def pdf_files(job: JobSpec, base: Path) -> int:
    """How many there are in the folder that the job names; their pages would have to be pictures (contract 5.4)."""
    if job.inputs.kind != "images":
        return 0
    listing = find_listing(job.inputs.source, base, frozenset({"pdf"}))
    return sum(1 for _ in list_files(listing, Complaints(file=None, key=""))) if listing.whole_folder else 0


def _nothing(job: JobSpec, base: Path) -> tuple[str, str]:
    if job.inputs.kind not in EXTENSIONS:
        return f"job `{job.name}`: there are no rows in it", "Add rows, or take the job out"
    listing = find_listing(job.inputs.source, base, EXTENSIONS[job.inputs.kind])
    what = "pictures" if job.inputs.kind == "images" else "videos"
    pattern, remedy = listing.pattern, "Check the spelling, upper and lower case included"
    if listing.whole_folder:
        remedy = f"Files that end in {', '.join(sorted(listing.extensions))} are taken"
        if pdf_files(job, base):
            remedy += "; of PDF files, save the pages as pictures first (pdftoppm -png does it)"
        return f"job `{job.name}`: there are no {what} in {listing.root}", remedy
    if not listing.root.is_dir() or not set("*?[{") & set(pattern):
        missing = pattern if listing.root.is_dir() else listing.root
        return (
            f"job `{job.name}`: there is no {missing}",
            f"{remedy}; paths start at the folder of the job file",
        )
    if "{" in pattern:
        remedy = "Braces aren't alternatives in a pattern; name the folder, or use one job per extension"
    return f"job `{job.name}`: no {what.removesuffix('s')} matches {pattern}", remedy


def _from_files(job: JobSpec, base: Path, complaints: Complaints) -> Iterator[Row]:
    kind: MediaKind = "image" if job.inputs.kind == "images" else "video"
    listing = find_listing(job.inputs.source, base, EXTENSIONS[job.inputs.kind])
    root = MediaRoot(listing.root)
    for path in list_files(listing, complaints):
        try:
            check_name(path)
        except ReferenceProblem as problem:
            complaints.add(problem.message, problem.remedy)
            continue
        media = MediaRef(kind=kind, path=path, size=_size(root, path))
        yield Row(custom_id=id_of(media), variables=variables_of(media), media=(media,), place=path)


def _size(root: MediaRoot, path: str) -> int | None:
    """None for a picture that can't be sent, such as a dangling link: its own item fails and says why, no other one."""
    try:
        return root.size(path)
    except ReferenceProblem:
        return None


def _from_urls(job: JobSpec, base: Path, complaints: Complaints) -> Iterator[Row]:
    path = _file(job, base)
    with open_regular(path, complaints.key) as file:
        for number, line in read_lines(file, complaints):
            text = line.strip()
            if not text or text.startswith("#"):
                continue
            try:
                media = MediaRef(kind=kind_of_url(text), url=check_url(text))
            except ReferenceProblem as problem:
                complaints.add(problem.message, problem.remedy, line=number)
                continue
            place = f"{job.inputs.source}:{number}"
            yield Row(custom_id=id_of(media), variables=variables_of(media), media=(media,), place=place)


def _from_rows(job: JobSpec, base: Path, complaints: Complaints) -> Iterator[Row]:
    path = _file(job, base)
    root = MediaRoot(path.parent)
    with open_regular(path, complaints.key) as file:
        for number, fields in read_records(path, file, complaints):
            try:
                yield _row(fields, root, f"{job.inputs.source}:{number}")
            except ReferenceProblem as problem:
                complaints.add(problem.message, problem.remedy, line=number)


def _from_requests(job: JobSpec, base: Path, complaints: Complaints) -> Iterator[Row]:
    path = _file(job, base)
    root = MediaRoot(path.parent)
    with open_regular(path, complaints.key) as file:
        for number, custom_id, body in read_requests(file, job.model, complaints):
            try:
                variables, media = taken_apart(body, root.refer)
            except ReferenceProblem as problem:
                complaints.add(problem.message, problem.remedy, line=number)
                continue
            place = f"{job.inputs.source}:{number}"
            yield Row(custom_id=custom_id, variables=variables, media=tuple(media), place=place, line=number)


def _from_items(job: JobSpec, base: Path, complaints: Complaints) -> Iterator[Row]:
    root = MediaRoot(base)
    for index, fields in enumerate(job.inputs.items or ()):
        place = f"inputs.items[{index}]"
        try:
            yield _row(fields, root, place)
        except ReferenceProblem as problem:
            complaints.add(problem.message, problem.remedy, place=place)


_READERS: Mapping[InputKind, Callable[[JobSpec, Path, Complaints], Iterator[Row]]] = {
    "images": _from_files,
    "videos": _from_files,
    "rows": _from_rows,
    "requests": _from_requests,
    "urls": _from_urls,
    "items": _from_items,
}


def _row(fields: Mapping[str, JsonValue], root: MediaRoot, place: str) -> Row:
    media = tuple(_references(fields, root))
    variables = {**(variables_of(media[0]) if media else {}), **fields}
    files = [file for reference in media for file in reference.files]
    if any(file.url is not None and file.url[:5].lower() == "data:" for file in files):
        # Megabytes of base64 are media, not text for a prompt.
        variables = {name: value for name, value in variables.items() if name not in (*COLUMNS, "frames")}
    return Row(custom_id=_custom_id(fields, media), variables=variables, media=media, place=place)


def _custom_id(fields: Mapping[str, JsonValue], media: tuple[MediaRef, ...]) -> str:
    for name in ("custom_id", "id"):
        if name in fields:
            return check_id(fields[name])
    if media:
        return id_of(media[0])
    return hashed(json.dumps(fields, ensure_ascii=False, sort_keys=True, separators=(",", ":")))


def _references(fields: Mapping[str, JsonValue], root: MediaRoot) -> Iterator[MediaRef]:
    """What the columns for media say, pictures first; null and an empty list say that there is none."""
    for one, several in PAIRS:
        if one in fields and several in fields:
            raise ReferenceProblem(f"the row has both `{one}` and `{several}`", "Keep one of them")
    for name, kind in COLUMNS.items():
        for text in _texts(fields.get(name), name):
            yield root.refer(text, kind)
    if listed := _texts(fields.get("frames"), "frames"):
        yield MediaRef(kind="frames", frames=tuple(root.refer(text) for text in listed))


def _texts(named: JsonValue, column: str) -> list[str]:
    if named is None:
        return []
    listed = [named] if isinstance(named, str) and column != "frames" else named
    if not isinstance(listed, list | tuple):
        remedy = "Write it as text" if column != "frames" else "Write the paths or URLs of the pictures, in their order"
        raise ReferenceProblem(f"`{column}` must be {_form(column)}", remedy)
    texts = [text for text in listed if isinstance(text, str)]
    if len(texts) < len(listed):
        raise ReferenceProblem(f"`{column}` holds something that is not text", "Write each path or URL in quotes")
    return texts


def _form(column: str) -> str:
    return "a list of paths or URLs" if column == "frames" else "a path or URL, or a list of them"

"""Read a job file: bytes, YAML with places, defaults, checks. All problems are reported at once, each at its place.

`defaults` go into each job before it is checked. Mappings are merged key by key, so that a job may change one limit and
keep the others; lists, `inputs` and a `response_schema` are replaced as a whole; an explicit null takes a default
back.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from batchrun.errors import Problem, SpecError, TemplateError, UsageError
from batchrun.jobfile.asking import check_response_schema
from batchrun.jobfile.document import Document, KeyPath, Lines, Place, read_document
from batchrun.jobfile.mapping import document_of
from batchrun.jobfile.sections import IMAGE_VARIABLES, URL_VARIABLES
from batchrun.jobfile.spec import JobFile, JobsDocument
from batchrun.jobfile.template import Template
from batchrun.jobfile.wording import missing_key, unknown_key, wrong_value
from batchrun.messages import JsonValue
from batchrun.opening import open_regular
from batchrun.segments.merging import MERGED, OF_PARTS
from batchrun.showing import SECRET, clean

MAX_BYTES = 5_000_000
PICTURE = b"\xff\xd8\xff"
"""So begins a JPEG; other binary files have a NUL near their start."""
MAX_PROBLEMS = 100
_A_KEY = (
    "this looks like a key, and a key doesn't belong in a job file",
    "Delete it here, put it in the environment (such as DASHSCOPE_API_KEY), and consider it leaked",
)
_LISTED = {"images": IMAGE_VARIABLES, "videos": IMAGE_VARIABLES, "urls": URL_VARIABLES}
_TEMPLATES: tuple[KeyPath, ...] = (("prompt",), ("system",), ("output", "sidecar"))
_WHOLE = frozenset({"inputs", "response_schema", "tool_choice"})
"""Mappings that a job replaces, in which null means null."""
MAX_SCHEMA_BYTES = 1_000_000


def read_job_file(path: Path) -> JobFile:
    """Read and check the job file at `path`.

    Raises SpecError with all problems: file, line, column, field, what is wrong and what to write instead. Values that
    look like keys are never repeated.
    """
    text = _decode(_read(path), path)
    return _checked(read_document(text, path), list(_secrets(text, path)), path)


def read_job_mapping(mapping: Mapping[str, object]) -> JobFile:
    """Check what would stand in a job file, given as a mapping of Python. Raises SpecError as `read_job_file` does; its
    problems have no lines, but name the field."""
    document = document_of(mapping)
    secrets = [] if SECRET.search(repr(document.value)) is None else [_file_problem(None, *_A_KEY)]
    try:
        return _checked(document, secrets, None)
    except SpecError as error:
        problems = [replace(problem, line=None, column=None) for problem in error.problems]
        raise SpecError(problems) from None


def _checked(document: Document, problems: list[Problem], path: Path | None) -> JobFile:
    problems += document.problems
    if not document.complete:
        raise SpecError(_sorted(problems))
    if not isinstance(document.value, dict):
        problems.append(_file_problem(path, "must be a mapping", "Start with `version: 1` and `jobs:`"))
        raise SpecError(_sorted(problems))
    reader = _Reader(path, document)
    jobs = reader.check(document.value)
    problems = _sorted([*problems, *reader.problems])
    if problems or jobs is None:
        raise SpecError(problems)
    return JobFile(version=jobs.version, jobs=jobs.jobs, path=path)


def _read(path: Path) -> bytes:
    remedy = "Put rows into a JSONL or CSV file and name it under `inputs: {rows: …}`"
    with open_regular(path, max_bytes=MAX_BYTES, too_large=remedy) as file:
        return file.read(MAX_BYTES)


def _decode(data: bytes, path: Path) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\x00" in data[:4]:
        raise SpecError([_file_problem(path, "is UTF-16 or UTF-32, not UTF-8", "Save it as UTF-8")])
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if b"\x00" in data[:8_000] or data.startswith(PICTURE):
            raise SpecError([_file_problem(path, "is not a text", "Name the job file, a text in YAML")]) from error
        # Bytes before the error are UTF-8; the mark at the start, if any, is cut off as above.
        before = data[: error.start].decode("utf-8-sig")
        line, column = Lines(before).at(len(before))
        message = f"the byte 0x{data[error.start]:02X} is not UTF-8 (is the file Latin-1?)"
        problem = Problem(
            file=path, line=line, column=column, field="", message=message, remedy="Save the file as UTF-8"
        )
        raise SpecError([problem]) from error


def _secrets(text: str, path: Path) -> Iterator[Problem]:
    lines = Lines(text)
    for match in SECRET.finditer(text):
        line, column = lines.at(match.start())
        yield Problem(
            file=path,
            line=line,
            column=column,
            field="",
            message=_A_KEY[0],
            remedy=_A_KEY[1],
        )


def _file_problem(path: Path | None, message: str, remedy: str) -> Problem:
    return Problem(file=path, line=None, column=None, field="", message=message, remedy=remedy)


def _sorted(problems: list[Problem]) -> list[Problem]:
    """In the order of the file; one problem per place, the first that was found; not more than anyone reads."""
    first: dict[tuple[int, int], Problem] = {}
    for problem in problems:
        first.setdefault((problem.line or 0, problem.column or 0), problem)
    ordered = [first[place] for place in sorted(first)]
    if len(ordered) > MAX_PROBLEMS:
        more = f"and {len(ordered) - MAX_PROBLEMS} more problems"
        ordered = [*ordered[:MAX_PROBLEMS], _file_problem(ordered[0].file, more, "Correct these first")]
    return ordered


class _Reader:
    """Checks one document and keeps what is wrong with it."""

    def __init__(self, path: Path | None, document: Document) -> None:
        self.problems: list[Problem] = []
        self._path, self._places = path, document.places

    def check(self, value: dict[str, JsonValue]) -> JobsDocument | None:
        jobs: JobsDocument | None = None
        merged = self._merged(value)
        self._read_schemas(merged)
        try:
            jobs = JobsDocument.model_validate(merged)
        except ValidationError as error:
            for details in error.errors(include_url=False):
                self._take(details)
        self._check_numbers(value)
        self._check_names(value)
        self._check_variables(merged)
        return jobs

    def _merged(self, value: dict[str, JsonValue]) -> dict[str, JsonValue]:
        defaults, jobs = value.get("defaults"), value.get("jobs")
        merged = {key: inner for key, inner in value.items() if key != "defaults"}
        if defaults is None:
            defaults = {}
        if not isinstance(defaults, dict):
            self._note(("defaults",), "must be a mapping", "Write the keys of a job under it")
            defaults = {}
        if "name" in defaults:
            self._note(("defaults", "name"), "each job has a name of its own", "Move it into a job", key=True)
            defaults = {key: inner for key, inner in defaults.items() if key != "name"}
        defaults = _merge({}, defaults)
        if isinstance(jobs, list):
            merged["jobs"] = [_merge(defaults, job) if isinstance(job, dict) else job for job in jobs]
        return merged

    def _read_schemas(self, merged: dict[str, JsonValue]) -> None:
        """Put the schema of a file in the place of its path. One that can't be read is noted, and left out."""
        jobs = merged.get("jobs")
        for index, job in enumerate(jobs if isinstance(jobs, list) else []):
            named = job.get("response_schema") if isinstance(job, dict) else None
            if not isinstance(job, dict) or not isinstance(named, str):
                continue
            del job["response_schema"]
            try:
                schema = read_schema((Path() if self._path is None else self._path.parent) / named)
                check_response_schema(schema)
                job["response_schema"] = schema
            except SpecError as error:
                [problem] = error.problems
                self._note(("jobs", index, "response_schema"), f"{clean(named)} {problem.message}", problem.remedy)
            except UsageError as error:
                self._note(("jobs", index, "response_schema"), f"{clean(named)}: {error.message}", error.remedy)

    def _check_numbers(self, value: dict[str, JsonValue]) -> None:
        """A number of an inline row that would come out unlike it was written is refused: `012`, `1.50`, `1e3`."""
        for path, place in self._places.items():
            if "items" not in path or place.text is None or not _is_row_value(path):
                continue
            found = _at(value, path)
            if isinstance(found, int | float) and not isinstance(found, bool) and repr(found) != place.text:
                message = f"`{clean(place.text)}` would be read as the number {found!r}"
                self._note(path, message, f'Write "{clean(place.text)}" in quotes, or {found!r}')

    def _check_names(self, value: dict[str, JsonValue]) -> None:
        jobs = value.get("jobs")
        first: dict[str, int] = {}
        for index, job in enumerate(jobs if isinstance(jobs, list) else []):
            name = job.get("name") if isinstance(job, dict) else None
            if isinstance(name, str) and first.setdefault(name, index) != index:
                other = self._place(("jobs", first[name], "name"))
                where = f"line {other.line}" if other and self._path else "another job"
                self._note(("jobs", index, "name"), f"the name `{clean(name)}` is taken by {where}", "Choose another")

    def _check_variables(self, merged: dict[str, JsonValue]) -> None:
        """Variables of a listing are known before any file is read; those of rows only when a row is."""
        jobs = merged.get("jobs")
        for index, job in enumerate(jobs if isinstance(jobs, list) else []):
            inputs = _at(job, ("inputs",))
            named = inputs if isinstance(inputs, dict) else {}
            there = next((_LISTED[kind] for kind in _LISTED if named.get(kind) is not None), None)
            if there is not None and _at(job, ("media", "split")) is not None:
                self._check_template(("jobs", index, "merge_prompt"), _at(job, ("merge_prompt",)), there | MERGED)
                there |= OF_PARTS
            for path in (*_TEMPLATES, *_contents(job)) if there else ():
                self._check_template(("jobs", index, *path), _at(job, path), there or frozenset())

    def _check_template(self, path: KeyPath, source: JsonValue, there: frozenset[str]) -> None:
        try:
            required = Template(source).required if isinstance(source, str) else frozenset()
        except TemplateError:
            return  # noted with the place by the section that it belongs to
        for name in sorted(required - there):
            message = f"there is no `{clean(name)}` for this source; there is: {', '.join(sorted(there))}"
            self._note(path, message, "Correct the name, or use `rows` with such a column")

    def _take(self, details: ErrorDetails) -> None:
        path, kind = details["loc"], details["type"]
        key = details.get("ctx", {}).get("key")
        if kind == "extra_forbidden":
            self._note(path, *unknown_key(path), key=True)
        elif kind == "missing":
            self._note(path[:-1], *missing_key(path), field=path)
        elif kind == "too_short" and details["input"]:
            pass  # a list whose entries were all refused; each of them says why
        elif isinstance(key, str):
            self._note((*path, key), *wrong_value(details, None), key=True)
        else:
            self._note(path, *wrong_value(details, self._place(path)))

    def _note(
        self, path: KeyPath, message: str, remedy: str, *, key: bool = False, field: KeyPath | None = None
    ) -> None:
        place = self._place(path)
        line, column = (None, None) if place is None else (place.line, place.column)
        if key and place is not None and place.key is not None:
            line, column = place.key
        named = _field(self._origin(field or path))
        problem = Problem(file=self._path, line=line, column=column, field=named, message=message, remedy=remedy)
        self.problems.append(problem)

    def _place(self, path: KeyPath) -> Place | None:
        """The place of what stands at `path`; of what surrounds it where it isn't there."""
        origin = self._origin(path)
        return next(
            (self._places[origin[:end]] for end in range(len(origin), -1, -1) if origin[:end] in self._places), None
        )

    def _origin(self, path: KeyPath) -> KeyPath:
        """The path in `defaults` where the job has the value from there."""
        default = ("defaults", *path[2:])
        return default if path[:1] == ("jobs",) and path not in self._places and default in self._places else path


def _merge(defaults: Mapping[str, JsonValue], job: Mapping[str, JsonValue], section: str = "") -> dict[str, JsonValue]:
    merged: dict[str, JsonValue] = {**defaults}
    for key, value in job.items():
        if isinstance(value, dict) and key not in _WHOLE and section != "extra":
            default = defaults.get(key)
            merged[key] = _merge(default if isinstance(default, dict) else {}, value, key)
        else:
            merged[key] = value
    return {key: value for key, value in merged.items() if value is not None}


def read_schema(path: Path) -> dict[str, JsonValue]:
    """The JSON Schema in a file. Raises SpecError."""
    with open_regular(path, max_bytes=MAX_SCHEMA_BYTES, too_large="Describe less of the answer") as file:
        data = file.read(MAX_SCHEMA_BYTES)
    if SECRET.search(data.decode(errors="replace")):
        raise SpecError([_file_problem(path, "holds what looks like a key", _A_KEY[1])])
    try:
        schema = json.loads(data)
    except (ValueError, RecursionError) as error:
        where = f" at line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise SpecError([_file_problem(path, f"is not JSON{where}", "Correct it")]) from error
    if not isinstance(schema, dict):
        raise SpecError([_file_problem(path, "is not a JSON Schema", 'Write an object, such as {"type": "object"}')])
    return schema


def _contents(job: JsonValue) -> list[KeyPath]:
    """Where the texts of a job's messages stand."""
    messages = job.get("messages") if isinstance(job, dict) else None
    found = messages if isinstance(messages, list) else []
    return [("messages", number, "content") for number, message in enumerate(found) if isinstance(message, dict)]


def _is_row_value(path: KeyPath) -> bool:
    """Whether `path` leads into `jobs[i].inputs.items` or `defaults.inputs.items`."""
    start = 2 if path[0] == "jobs" else 1
    return path[start : start + 2] == ("inputs", "items")


def _at(value: JsonValue, path: KeyPath) -> JsonValue:
    for key in path:
        if isinstance(value, dict) and isinstance(key, str):
            value = value.get(key)
        elif isinstance(value, list) and isinstance(key, int):
            value = value[key]
    return value


def _field(path: KeyPath) -> str:
    parts = "".join(f"[{part}]" if isinstance(part, int) else f".{clean(part, 60)}" for part in path)
    return parts.removeprefix(".")

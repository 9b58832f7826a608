"""Read a catalogue file: text to entries, and everything wrong with it at once, each with line and column."""

from __future__ import annotations

from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from batchrun.catalogue.file import (
    CatalogueFile,
    EndpointEntry,
    Entry,
    LimitsEntry,
    ModelEntry,
    PictureTokensEntry,
    PriceEntry,
    RetirementEntry,
    StructuredEntry,
    TierEntry,
    VideoTokensEntry,
)
from batchrun.errors import CatalogueError, Problem, SpecError
from batchrun.jobfile.document import Document, KeyPath, read_document
from batchrun.messages import JsonValue
from batchrun.opening import open_regular
from batchrun.showing import clean

MAX_BYTES = 5_000_000
CODE = "catalogue-file"

_SHAPE = "Write `endpoints:` and the entries below it, as the top of batchrun's own catalogue.yaml shows"
_KEYS_OF_SECRETS = ("key", "api_key", "apikey", "token", "secret", "password", "authorization")
_KINDS = {
    "int_type": "must be a whole number",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "list_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "missing": "is missing",
    "too_short": "must not be empty",
}
_SECTIONS: dict[str, type[Entry]] = {
    "limits": LimitsEntry,
    "retirement": RetirementEntry,
    "picture_tokens": PictureTokensEntry,
    "video_tokens": VideoTokensEntry,
    "structured": StructuredEntry,
}
"""The mappings inside a model."""
_REMEDIES = {"string_type": "Put it in quotes", "int_type": "Write it in digits alone, such as 32768"}


def read_catalogue_file(path: Path) -> tuple[CatalogueFile, Document]:
    """What `path` says, and where each value stands. Raises CatalogueError with all problems of the file."""
    document = read_document(_read_text(path), path)
    if document.problems:
        refuse([_for_catalogue(problem) for problem in document.problems])
    try:
        return CatalogueFile.model_validate(as_written(document)), document
    except ValidationError as error:
        refuse([_problem(detail, document, path) for detail in error.errors(include_url=False)])


def refuse(problems: list[Problem]) -> NoReturn:
    ordered = sorted(problems, key=lambda problem: (problem.line or 0, problem.column or 0))
    raise CatalogueError("\n".join(str(problem) for problem in ordered), code=CODE)


def problem_at(document: Document, path: Path, where: KeyPath, message: str, remedy: str) -> Problem:
    """A problem with the value at `where`, or with the nearest that stands in the file and contains it."""
    known = next(where[:length] for length in range(len(where), -1, -1) if where[:length] in document.places)
    place = document.places[known]
    return Problem(
        file=path, line=place.line, column=place.column, field=_dotted(where), message=message, remedy=remedy
    )


def _read_text(path: Path) -> str:
    try:
        with open_regular(path, max_bytes=MAX_BYTES, too_large="Split the catalogue") as file:
            content = file.read(MAX_BYTES + 1)
    except SpecError as error:
        raise CatalogueError(error.message, code=CODE) from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        message = f"is not UTF-8 at byte {error.start:,}"
        problem = Problem(file=path, line=line, column=None, field="", message=message, remedy="Save the file as UTF-8")
        raise CatalogueError(str(problem), code=CODE) from error


def _for_catalogue(problem: Problem) -> Problem:
    """The reader of YAML speaks to the writer of a job file where it says what to write instead."""
    about_jobs = "jobs:" in problem.remedy or "inputs:" in problem.remedy
    return replace(problem, remedy=_SHAPE) if about_jobs else problem


def as_written(document: Document) -> JsonValue:
    """The values of a document, with every number that isn't in plain digits as the text that was written."""
    return _as_written(document.value, document, ())


def _as_written(value: JsonValue, document: Document, where: KeyPath) -> JsonValue:
    """`value` with every number that isn't in plain digits as the text that was written, so that none is rounded."""
    if isinstance(value, dict):
        return {key: _as_written(member, document, (*where, key)) for key, member in value.items()}
    if isinstance(value, list):
        return [_as_written(member, document, (*where, index)) for index, member in enumerate(value)]
    if isinstance(value, int | float) and not isinstance(value, bool):
        text = document.places[where].text
        return value if isinstance(value, int) and str(value) == text else text
    return value


def _problem(detail: ErrorDetails, document: Document, path: Path) -> Problem:
    where = tuple(part for part in detail["loc"] if part != "[key]")
    message, remedy = _words(detail, where)
    problem = problem_at(document, path, where, message, remedy)
    place = document.places.get(where)
    if place is not None and place.key and (detail["type"] == "extra_forbidden" or "[key]" in detail["loc"]):
        return replace(problem, line=place.key[0], column=place.key[1])
    return problem


def _words(detail: ErrorDetails, where: KeyPath) -> tuple[str, str]:
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "refused":
        return str(context["message"]), str(context["remedy"])
    if kind == "extra_forbidden":
        return "is not a key that is known here", _remedy_for_key(where)
    if kind == "literal_error":
        return "is none of the words that are known here", f"Write {context['expected']}"
    if kind in ("greater_than_equal", "less_than_equal"):
        bound = context.get("ge", context.get("le"))
        return f"must be {'at least' if 'ge' in context else 'at most'} {bound:,}", ""
    if kind == "string_pattern_mismatch":
        if where[-1] == "prices_from":
            return "is no source of prices", "Write for example genai-prices/openai"
        return "must be the three letters of a currency", "Write for example USD"
    return _KINDS.get(kind, detail["msg"]), _REMEDIES.get(kind, "")


def _remedy_for_key(where: KeyPath) -> str:
    name = str(where[-1])
    if name.lower() in _KEYS_OF_SECRETS:
        return "Put the key into the environment, and the name of its variable into `key_env`"
    known = list(_entry_at(where[:-1]).model_fields)
    nearest = get_close_matches(name.lower(), known, n=1)
    return f"Write `{nearest[0]}`" if nearest else f"Known are: {', '.join(known)}"


def _entry_at(where: KeyPath) -> type[Entry]:
    """The shape of the mapping at `where`; positions alternate between a field and a name or index."""
    shapes: dict[int, type[Entry]] = {0: CatalogueFile, 2: EndpointEntry, 4: ModelEntry, 6: PriceEntry, 8: TierEntry}
    if len(where) == 5:
        return _SECTIONS[str(where[-1])]
    return shapes[len(where)]


def _dotted(where: KeyPath) -> str:
    """`endpoints["my/vllm"].models["qwen3"].prices[0]`: names that people choose stand in quotes."""
    text = ""
    for position, part in enumerate(where):
        if isinstance(part, int):
            text += f"[{part}]"
        elif position in (1, 3):
            text += f'["{clean(part)}"]'
        else:
            text += f".{clean(part)}" if text else clean(part)
    return text

"""Results as files: JSONL without loss, CSV for spreadsheets, a caption beside each picture, OpenAI's batch form.

What is exported is one consistent view of the database, and an interrupted export leaves no file under its name.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

from batchrun.answer import Usage
from batchrun.database import reading
from batchrun.errors import UsageError
from batchrun.output.documents import markdown_form, srt_form
from batchrun.output.openai import answer_line, error_line
from batchrun.output.placing import whole_file
from batchrun.output.requests import LeftOut, request_lines
from batchrun.output.sidecar import Form, Sidecars, place_sidecars
from batchrun.output.visible import json_text, money_text, time_text
from batchrun.reports.jobs import one_job
from batchrun.reports.results import TOKENS, AttemptResult, ItemResult, parts_of, results
from batchrun.states import TERMINAL, State
from batchrun.tables import Record

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from batchrun.plan import Plan

Format = Literal["jsonl", "csv", "sidecar", "markdown", "srt", "openai", "openai-requests"]
IN_FOLDERS = frozenset({"sidecar", "markdown", "srt"})
"""Forms with a file for each item; the parts of a video have none of their own."""
NOT_STARTED = frozenset({State.PENDING, State.WAITING, State.BLOCKED})
"""What `openai-requests` writes: neither ended nor in flight."""
FORMULA = frozenset("=+-@\t\r")
"""With one of these a spreadsheet takes a cell for a formula."""

Fields = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSummary:
    written: int
    """Rows, or files for sidecars."""
    sha256: str | None
    """Of all bytes written; None for sidecars."""
    sidecars: Sidecars | None
    unanswered: int = 0
    """Items without an answer, of the form `openai`."""
    errors: Path | None = None
    """The file that tells of them; None where nothing was written about them."""
    left_out: LeftOut = field(default_factory=LeftOut)
    """Items that can't be written in the form `openai-requests`."""
    settled: int = 0
    """Calls among what was written whose cost was settled by hand."""

    @property
    def complete(self) -> bool:
        """Whether everything that was asked for is now there."""
        return not self.left_out.number and (self.sidecars is None or not self.sidecars.problems)


def export(
    engine: Engine,
    job: str,
    output_format: Format,
    out: Path | BinaryIO | None,
    *,
    states: Collection[State] | None = None,
    simulated: bool = False,
    overwrite: bool = False,
    raw: bool = False,
    errors: Path | None = None,
    plan_of: Callable[[Record], Plan] | None = None,
) -> ExportSummary:
    """Export the items of `job` in one of `states`; None means all that have ended, for files in a folder those that
    are done, as a caption that was cut isn't one, and for `openai-requests` those that are neither ended nor in flight.

    `out` is a file, or an open binary one that stays open; for sidecars, Markdown and subtitles a folder, or None for
    the one that the job
    names. `raw` leaves cells of a CSV as they are, even where a spreadsheet would take them for formulas. `errors` is
    the file for items without an answer in the form `openai`; None puts it beside `out`, as `NAME.errors.jsonl`, where
    there are any. `plan_of` makes the plan of a job's row, for `openai-requests`. Raises UsageError for a job that
    isn't there and for what can't be written; then nothing stands under the name of the file.
    """
    with reading(engine) as connection:
        row = one_job(connection, job, simulated=simulated)
        wanted = NOT_STARTED if output_format == "openai-requests" else TERMINAL
        wholes = output_format in IN_FOLDERS
        stream = results(connection, row, states=wanted if states is None else frozenset(states), wholes=wholes)
        if wholes:
            sidecars = place_sidecars(
                row,
                stream,
                folder=_folder(out),
                overwrite=overwrite,
                with_cut=states is not None,
                form=_form(connection, row, output_format),
            )
            return ExportSummary(written=sidecars.written, sha256=None, sidecars=sidecars)
        if output_format == "openai":
            return write_batch(stream, out, errors, overwrite=overwrite)
        left_out = LeftOut()
        settled: Counter[str] = Counter()
        if output_format == "openai-requests":
            if plan_of is None:
                raise ValueError("requests are rendered by the plan of their job")
            lines = request_lines(stream, plan_of(row), left_out)
        else:
            stream = _counting(stream, settled)
            lines = jsonl_lines(stream) if output_format == "jsonl" else csv_lines(stream, raw=raw)
        with _opened(out, overwrite=overwrite) as file:
            count, digest = _write(lines, file)
    return ExportSummary(
        written=count - (output_format == "csv"),
        sha256=digest,
        sidecars=None,
        left_out=left_out,
        settled=settled["calls"],
    )


def _form(connection: Connection, job: Record, output_format: Format) -> Form | None:
    """None for the answers alone, which the job names."""
    made = {"markdown": markdown_form, "srt": srt_form}.get(output_format)
    return None if made is None else made(lambda item: parts_of(connection, job, item))


def _counting(stream: Iterator[ItemResult], settled: Counter[str]) -> Iterator[ItemResult]:
    for item in stream:
        settled["calls"] += item.settled_cost
        yield item


def _folder(out: Path | BinaryIO | None) -> Path | None:
    if out is None or isinstance(out, Path):
        return out
    raise ValueError("many files go into a folder, not into an open file")


@contextmanager
def _opened(out: Path | BinaryIO | None, *, overwrite: bool) -> Iterator[BinaryIO]:
    if out is None:
        raise ValueError("only sidecars can do without a file")
    if isinstance(out, Path):
        with whole_file(out, overwrite=overwrite) as file:
            yield file
    else:
        yield out


def _write(lines: Iterator[bytes], file: BinaryIO) -> tuple[int, str]:
    digest, count = hashlib.sha256(), 0
    for line in lines:
        file.write(line)
        digest.update(line)
        count += 1
    return count, digest.hexdigest()


def write_batch(
    stream: Iterator[ItemResult], out: Path | BinaryIO | None, errors: Path | None, *, overwrite: bool
) -> ExportSummary:
    """Answers into `out`, the other items into `errors` or beside it. The file of errors gets its name first, so that
    `out` is never there without it."""
    beside, at_once = errors, errors is not None
    if errors is None and isinstance(out, Path):
        beside = out.with_name(f"{out.stem}.errors.jsonl")
        at_once = os.path.lexists(beside)  # one of an earlier export must not stay beside these answers
    if beside is not None and beside == out:
        raise UsageError("answers and errors can't go into the same file", code="usage", remedy="name two files")
    digest, counts = hashlib.sha256(), Counter[bool]()
    with ExitStack() as stack:
        file = stack.enter_context(_opened(out, overwrite=overwrite))
        other = stack.enter_context(whole_file(beside, overwrite=overwrite)) if beside and at_once else None
        for item in stream:
            counts[item.answered is not None] += 1
            if item.answered is not None:
                line = (json_text(answer_line(item, item.answered)) + "\n").encode()
                digest.update(line)
                file.write(line)
            elif beside is not None:
                other = other or stack.enter_context(whole_file(beside, overwrite=overwrite))
                other.write((json_text(error_line(item)) + "\n").encode())
    return ExportSummary(
        written=counts[True],
        sha256=digest.hexdigest(),
        sidecars=None,
        unanswered=counts[False],
        errors=None if other is None else beside,
    )


def jsonl_lines(stream: Iterator[ItemResult]) -> Iterator[bytes]:
    for item in stream:
        yield (json_text(record(item)) + "\n").encode()


def record(item: ItemResult) -> Fields:
    """An item as an object of JSON. Names are stable; money is text; unknown is null, and counted beside the sums."""
    answered = item.answered
    return {
        "custom_id": item.custom_id,
        "job": item.job,
        "simulated": item.simulated,
        "state": item.state.value,
        "provider": item.provider,
        "model": item.model,
        "text": item.text,
        "reasoning": item.reasoning,
        "finish_reason": item.finish_reason,
        "parsed": item.parsed,
        "tool_calls": item.tool_calls,
        "error": None if item.error_kind is None else {"kind": item.error_kind, "message": item.error},
        "request_id": item.request_id,
        "shared_with": item.shared_with,
        "usage": {**item.tokens, "unknown_attempts": item.unknown_usage},
        "cost": {
            "low": item.cost_low,
            "high": item.cost_high,
            "currency": item.currency,
            "unknown_attempts": item.unknown_cost,
            "settled_attempts": item.settled_cost,
        },
        "variables": item.variables,
        "media": item.media,
        "part_of": item.part_of,
        "finished_at": item.finished_at,
        "attempts": [_attempt_record(attempt, is_answer=attempt is answered) for attempt in item.attempts],
    }


def _attempt_record(attempt: AttemptResult, *, is_answer: bool) -> Fields:
    return {
        "outcome": attempt.outcome,
        "is_answer": is_answer,
        "claimed_at": attempt.claimed_at,
        "sent_at": attempt.sent_at,
        "first_token_at": attempt.first_token_at,
        "ended_at": attempt.ended_at,
        "http_status": attempt.http_status,
        "error": None
        if attempt.error_kind is None
        else {"kind": attempt.error_kind, "message": attempt.error, "vendor_code": attempt.vendor_code},
        "request_id": attempt.request_id,
        "note": attempt.note,
        "usage": None if attempt.usage is None else _usage_record(attempt.usage),
        "cost": None
        if not attempt.billed
        else {
            "low": attempt.cost_low,
            "high": attempt.cost_high,
            "currency": attempt.currency,
            "settled": attempt.settled,
        },
        "text": attempt.text,
        "reasoning": attempt.reasoning,
    }


def _usage_record(counted: Usage) -> Fields:
    return {**{name: getattr(counted, name) for name in TOKENS}, "raw": counted.raw}


def _tokens_column(name: str) -> Callable[[ItemResult], int | None]:
    return lambda item: item.tokens[name]


COLUMNS: dict[str, Callable[[ItemResult], str | int | None]] = {
    "custom_id": lambda item: item.custom_id,
    "job": lambda item: item.job,
    "simulated": lambda item: "true" if item.simulated else "false",
    "state": lambda item: item.state.value,
    "provider": lambda item: item.provider,
    "model": lambda item: item.model,
    "text": lambda item: item.text,
    "reasoning": lambda item: item.reasoning,
    "finish_reason": lambda item: item.finish_reason,
    "parsed": lambda item: None if item.parsed is None else json_text(item.parsed),
    "tool_calls": lambda item: None if item.tool_calls is None else json_text(item.tool_calls),
    "error_kind": lambda item: item.error_kind,
    "error": lambda item: item.error,
    "request_id": lambda item: item.request_id,
    "shared_with": lambda item: item.shared_with,
    "attempts": lambda item: len(item.attempts),
    **{name: _tokens_column(name) for name in TOKENS},
    "unknown_usage_attempts": lambda item: item.unknown_usage,
    "cost_low": lambda item: None if item.cost_low is None else money_text(item.cost_low),
    "cost_high": lambda item: None if item.cost_high is None else money_text(item.cost_high),
    "currency": lambda item: item.currency,
    "unknown_cost_attempts": lambda item: item.unknown_cost,
    "settled_cost_attempts": lambda item: item.settled_cost,
    "variables": lambda item: json_text(item.variables),
    "media": lambda item: json_text(item.media),
    "part_of": lambda item: item.part_of,
    "finished_at": lambda item: None if item.finished_at is None else time_text(item.finished_at),
}
"""The columns of a CSV, in their order."""


def csv_lines(stream: Iterator[ItemResult], *, raw: bool) -> Iterator[bytes]:
    """Header and rows, UTF-8, every cell in quotes, so that another delimiter of a spreadsheet splits fewer of them."""
    protect = str if raw else disarmed
    buffer = io.StringIO()
    writer = csv.writer(buffer, quoting=csv.QUOTE_ALL, lineterminator="\n")

    def line(cells: list[str]) -> bytes:
        buffer.seek(0)
        buffer.truncate()
        writer.writerow(cells)
        return buffer.getvalue().encode()

    yield line(list(COLUMNS))
    for item in stream:
        values = [column(item) for column in COLUMNS.values()]
        yield line(
            ["" if value is None else protect(value) if isinstance(value, str) else str(value) for value in values]
        )


def disarmed(text: str) -> str:
    """`text` with an apostrophe before it where a spreadsheet would take it for a formula, or may."""
    start = next((char for char in text if char in FORMULA or not (char.isspace() or not char.isprintable())), "")
    return f"'{text}" if unicodedata.normalize("NFKC", start) in FORMULA else text

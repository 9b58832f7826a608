"""`batchrun results`."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Annotated

import typer
from rich.cells import cell_len, set_cell_size

from batchrun.api import opened
from batchrun.cli.options import AsJson, Database, JobName, Simulated, States, chosen
from batchrun.cli.render import Screen, screen
from batchrun.database import reading
from batchrun.errors import UsageError
from batchrun.output.export import record
from batchrun.output.visible import calls_text, first_line, json_text, visible, visible_lines
from batchrun.reports.jobs import one_job
from batchrun.reports.results import ItemResult, results


def command(
    context: typer.Context,
    job: JobName,
    states: States = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="At most so many items.")] = None,
    full: Annotated[bool, typer.Option("--full", help="Whole answers, with their reasoning.")] = False,
    as_json: AsJson = False,
    as_jsonl: Annotated[bool, typer.Option("--jsonl", help="One JSON object per line.")] = False,
    simulated: Simulated = False,
    database: Database = None,
) -> None:
    """What came of each item of a job: a line with its state and the start of its answer, or why there is none.

    Example: batchrun results caption-catalogue --state failed
    """
    if sum((full, as_json, as_jsonl)) > 1:
        raise UsageError("--full, --json and --jsonl exclude each other", code="usage", remedy="give one of them")
    shell = screen(context)
    with opened(database) as engine, reading(engine) as connection:
        row = one_job(connection, job, simulated=simulated)
        items = results(connection, row, states=chosen(states), limit=limit)
        if as_jsonl:
            for item in items:
                shell.data((json_text(record(item)) + "\n").encode())
        elif as_json:
            print_document(shell, row.name, row.simulated, items)
        elif full:
            for item in items:
                print_item(item)
        else:
            print_lines(shell, items)


def print_document(shell: Screen, job: str, simulated: bool, items: Iterable[ItemResult]) -> None:
    """One document, written as it comes: a job may have more items than fit into memory."""
    head = json_text({"job": job, "simulated": simulated})[:-1]
    shell.data(f'{head},"items":['.encode())
    for number, item in enumerate(items):
        shell.data((("," if number else "") + "\n" + json_text(record(item))).encode())
    shell.data(b"\n]}\n")


ID_WIDTH, STATE_WIDTH = 32, 9


def print_lines(shell: Screen, items: Iterable[ItemResult]) -> None:
    """Lines of fixed columns, as the widths of all items aren't known while the first are printed."""
    width = shell.out.width
    room = max(20, width - ID_WIDTH - STATE_WIDTH - 4)
    sys.stdout.write(f"{'ITEM':{ID_WIDTH}}  {'STATE':{STATE_WIDTH}}  ANSWER\n")
    found = False
    for item in items:
        found = True
        name = fitted(visible(item.custom_id), ID_WIDTH)
        text = fitted(summary(item, room), room).rstrip()
        sys.stdout.write(f"{name}  {item.state.value:{STATE_WIDTH}}  {text}".rstrip() + "\n")
    if not found:
        shell.note("no such items")


def summary(item: ItemResult, room: int) -> str:
    if item.text is not None:
        return first_line(item.text or "; ".join(calls_text(item.tool_calls)), room)
    return first_line(f"{item.error_kind}: {item.error or ''}", room) if item.error_kind else ""


def fitted(text: str, width: int) -> str:
    """`text` in exactly `width` columns of a terminal."""
    return set_cell_size(text, width) if cell_len(text) <= width else set_cell_size(text, width - 1) + "…"


def print_item(item: ItemResult) -> None:
    heading = f"{visible(item.custom_id)}: {item.state.value}"
    reason = f" ({visible(item.finish_reason)})" if item.finish_reason not in (None, "stop") else ""
    shared = "" if item.shared_with is None else f", shares the answer of {visible(item.shared_with)}"
    lines = [heading + reason + shared]
    if item.error_kind is not None:
        lines += [f"  {line}" for line in visible_lines(f"{item.error_kind}: {item.error or ''}")]
    if item.answered is not None and item.answered.note is not None:
        lines += [f"  {line}" for line in visible_lines(f"({item.answered.note})")]
    if item.reasoning:
        lines += ["  reasoning:", *(f"    {line}" for line in visible_lines(item.reasoning)), "  answer:"]
    if item.text is not None:
        lines += [f"  {line}" for line in visible_lines(item.text)]
    elif (came := next((one.text for one in reversed(item.attempts) if one.text), None)) is not None:
        lines += ["  came:", *(f"    {line}" for line in visible_lines(came))]
    lines += [f"  calls {line}" for call in calls_text(item.tool_calls) for line in visible_lines(call)]
    sys.stdout.write("\n".join(line.rstrip() for line in lines) + "\n\n")

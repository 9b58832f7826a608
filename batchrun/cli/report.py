"""`batchrun report`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from enum import StrEnum
from typing import Annotated

import typer

from batchrun import api
from batchrun.cli.completing import job_names
from batchrun.cli.options import AsJson, Database
from batchrun.cli.render import (
    Column,
    Screen,
    between_text,
    cost_text,
    count_text,
    estimate_texts,
    foreseen_document,
    screen,
    shared_text,
)
from batchrun.errors import UsageError
from batchrun.reports.cost import CostLine, totals
from batchrun.showing import clean

command = typer.Typer(add_completion=False)


@command.callback()
def reports() -> None:
    """Reports over everything that was called."""


class By(StrEnum):
    JOB = "job"
    MODEL = "model"
    PROVIDER = "provider"
    DAY = "day"


@command.command("cost")
def cost(
    context: typer.Context,
    by: Annotated[By, typer.Option("--by", help="What a line stands for; a day is one of UTC.")] = By.JOB,
    jobs: Annotated[
        list[str] | None,
        typer.Option(
            "--job", metavar="JOB", help="Only this job. May be given several times.", autocompletion=job_names
        ),
    ] = None,
    since: Annotated[str | None, typer.Option("--since", metavar="YYYY-MM-DD", help="First day, of UTC.")] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="YYYY-MM-DD", help="Last day, of UTC, inclusive.")
    ] = None,
    as_json: AsJson = False,
    database: Database = None,
) -> None:
    """What the calls cost, failed ones included. Simulated money stands apart.

    Example: batchrun report cost --by day --since 2026-11-01 --until 2026-11-30
    """
    shell = screen(context)
    first, last = day("--since", since), day("--until", until)
    if first is not None and last is not None and last < first:
        raise UsageError("--until is before --since", code="usage", remedy="both days are inclusive")
    lines = api.report(by.value, jobs=jobs or None, since=first, until=last, database=database)
    if as_json:
        shell.json(document(by, first, last, lines))
        return
    if not lines:
        shell.note("nothing was called in that time")
    for simulated in (False, True):
        block = [line for line in lines if line.simulated is simulated]
        if block:
            print_block(shell, by, block)


def day(option: str, text: str | None) -> date | None:
    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"{option} {clean(text or '')} is not a date", code="usage", remedy="write it as 2026-11-30"
        ) from None


def print_block(shell: Screen, by: By, lines: Sequence[CostLine]) -> None:
    if lines[0].simulated:
        shell.line()
        shell.line("simulated: no money was spent on these", style="bold")
    sums = totals(lines)
    shown = [row(line) for line in lines]
    if len(lines) > 1:
        shown += [row(line) for line in sums]
    columns = (
        Column(title=by.value.upper(), shrinks=True),
        Column(title="CALLS", justify="right"),
        Column(title="ITEMS", justify="right"),
        Column(title="TOKENS IN", justify="right"),
        Column(title="OUT", justify="right"),
        Column(title="COST", justify="right"),
    )
    shell.table(columns, shown)
    for line in lines:
        if line.estimate is not None:
            shell.line(f"  {line.key}: {'; '.join(estimate_texts(line))}")
    for line in sums:
        for note in notes(line):
            shell.line(f"  {note}")


def row(line: CostLine) -> Sequence[str]:
    return (
        line.key,
        count_text(line.calls),
        count_text(line.items),
        count_text(line.input_tokens),
        count_text(line.output_tokens),
        cost_text(line.cost_low, line.cost_high, line.currency, unknown=line.unknown_cost),
    )


def notes(line: CostLine) -> list[str]:
    """What a reader of the sums must know."""
    counted = (
        ("calls without a price, of unknown cost, not in the sum", line.unknown_cost),
        ("calls whose tokens aren't known", line.unknown_usage),
        ("calls that failed and may have been billed", line.failed),
        ("second answers of items that had one", line.spare),
        ("cut answers that a later call continued", line.continued),
        ("calls whose cost was settled by hand", line.settled),
    )
    between = between_text(line.cost_low, line.cost_high, line.currency)
    return [text for text in (shared_text(line), between) if text] + [
        f"{text}: {count_text(count)}" for text, count in counted if count
    ]


def document(by: By, since: date | None, until: date | None, lines: Sequence[CostLine]) -> dict[str, object]:
    return {
        "by": by.value,
        "since": since,
        "until": until,
        "lines": [as_record(line) for line in lines],
        "totals": [as_record(line) for line in totals(lines)],
    }


def as_record(line: CostLine) -> dict[str, object]:
    return {
        "key": line.key,
        "simulated": line.simulated,
        "currency": line.currency,
        "cost_low": line.cost_low,
        "cost_high": line.cost_high,
        "exact": line.exact,
        "unknown_cost": line.unknown_cost,
        "calls": line.calls,
        "items": line.items,
        "failed": line.failed,
        "spare": line.spare,
        "continued": line.continued,
        "input_tokens": line.input_tokens,
        "cached_tokens": line.cached_tokens,
        "output_tokens": line.output_tokens,
        "reasoning_tokens": line.reasoning_tokens,
        "image_tokens": line.image_tokens,
        "video_tokens": line.video_tokens,
        "unknown_usage": line.unknown_usage,
        "settled": line.settled,
        "estimate": foreseen_document(line.estimate),
        "shared": line.shared,
        "saved_low": line.saved_low,
        "saved_high": line.saved_high,
        "unknown_saved": line.unknown_saved,
    }

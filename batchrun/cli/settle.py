"""`batchrun settle`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from batchrun import api
from batchrun.cli.known import CatalogueFile
from batchrun.cli.options import AsJson, Database, DryRun, JobNames, Simulated
from batchrun.cli.render import Screen, command_text, count_text, screen, title_text
from batchrun.cli.resume import raise_text, short_record, short_text
from batchrun.errors import UsageError
from batchrun.output.visible import money_text
from batchrun.showing import clean, counted
from batchrun.steering.bill import AMOUNT_COLUMN, ID_COLUMN
from batchrun.steering.settling import Settled, Settlement
from batchrun.store.settle import Compared


class Rule(StrEnum):
    ZERO = "zero"
    HIGH = "high"


def command(
    context: typer.Context,
    jobs: JobNames,
    rule: Annotated[
        Rule | None, typer.Option("--as", help="zero: they were not billed; high: they cost their upper bound.")
    ] = None,
    bill: Annotated[
        Path | None, typer.Option("--bill", metavar="FILE.csv", help="The vendor's bill, with request ids and amounts.")
    ] = None,
    id_column: Annotated[str, typer.Option("--id-column", metavar="NAME", help="Its column of ids.")] = ID_COLUMN,
    amount_column: Annotated[
        str, typer.Option("--amount-column", metavar="NAME", help="Its column of amounts.")
    ] = AMOUNT_COLUMN,
    currency: Annotated[
        str | None, typer.Option("--currency", metavar="CUR", help="Needed where no price of the model is known.")
    ] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    simulated: Simulated = False,
    catalogue: CatalogueFile = None,
    database: Database = None,
) -> None:
    """Make costs exact that their calls left open: calls that broke, or whose process died, may have been billed.

    Costs that are exact already are never changed; where a bill says otherwise, that is reported.

    Example: batchrun settle caption-catalogue --bill november.csv --amount-column "Pretax amount" --dry-run
    """
    if (rule is None) == (bill is None):
        raise UsageError("give either --as or --bill", code="usage", remedy="see batchrun settle --help")
    shell = screen(context)
    done = api.settle(
        jobs,
        rule=None if rule is None else rule.value,
        bill=bill,
        id_column=id_column,
        amount_column=amount_column,
        currency=currency,
        dry_run=dry_run,
        simulated=simulated,
        database=database,
        catalogue=catalogue,
    )
    if as_json:
        shell.json(document(done))
        return
    for job in done.jobs:
        for line in lines(job, dry_run=dry_run):
            shell.line(line)
    for line in bill_lines(done):
        shell.line(line)
    for job in done.jobs:
        advise(shell, job, with_bill=bill is not None, dry_run=dry_run)
    if dry_run:
        shell.note("  → nothing was changed; do it without --dry-run")


def lines(job: Settled, *, dry_run: bool) -> list[str]:
    name = title_text(job.job, simulated=job.simulated)
    found = [f"{name}: no open cost was settled"]
    if job.calls:
        verb = "would be settled" if dry_run else "settled"
        before = f"{money_text(job.low)} to {money_text(job.high)}"
        found = [
            f"{name}: {counted(job.calls, 'call')} {verb}",
            f"  they cost {money_text(job.cost)} {job.currency}, instead of {before}",
            f"  spent: {money_text(job.spent_before)} → {money_text(job.spent)} {job.currency}",
        ]
    if job.compared is not None:
        found += [f"  {line}" for line in compared_lines(job.compared, job.currency)]
    if job.left.calls:
        known = f", {money_text(job.left.low)} to {money_text(job.left.high)} {job.currency}" if job.left.high else ""
        unknown = f", {count_text(job.left.unknown)} of unknown cost" if job.left.unknown else ""
        found.append(f"  still open: {counted(job.left.calls, 'call')}{known}{unknown}")
    if job.in_flight:
        found.append(f"  calls in flight, not booked yet: {count_text(job.in_flight)}")
    if job.freed:
        found.append("  it is paused (budget), which has room again")
    if job.short is not None:
        found.append(f"  {short_text(job.short)}")
    return found


def compared_lines(compared: Compared, currency: str | None) -> list[str]:
    counted = (
        ("settled outside of the bounds that were known", compared.outside),
        ("exact before, and billed so", compared.equal),
        ("exact before, and billed otherwise; not changed", compared.different),
        ("billed, but still in flight here", compared.flying),
        ("share their request id with another call; left alone", compared.ambiguous),
    )
    found = [f"{text}: {count_text(count)}" for text, count in counted if count]
    found += [
        f"  {clean(one.request_id)}: booked {money_text(one.booked)}, billed {money_text(one.billed)} {currency}"
        for one in compared.differences
    ]
    hidden = compared.different - len(compared.differences)
    return [*found, f"  … and {count_text(hidden)} more"] if hidden else found


def bill_lines(done: Settlement) -> list[str]:
    if done.bill is None:
        return []
    parts = [f"the bill has {count_text(done.bill.lines)} lines of {count_text(len(done.bill.amounts))} requests"]
    if done.foreign:
        parts.append(f"{count_text(done.foreign)} of them not of these jobs")
    if done.bill.without_id:
        parts.append(f"{counted(done.bill.without_id, 'line')} without a request id left out")
    return [", ".join(parts)]


def advise(shell: Screen, job: Settled, *, with_bill: bool, dry_run: bool) -> None:
    if job.left.unknown and not job.currency:
        shell.note("  → no price of the model is known; name the currency with --currency")
    elif job.left.calls and with_bill:
        zero = command_text("settle", job.job, "--as", "zero", simulated=job.simulated)
        shell.note(f"  → if the bill is complete, the others were not billed: {zero}")
    if job.freed and not dry_run:
        shell.note(f"  → to go on: {command_text('resume', job.job, simulated=job.simulated)}, or run its job file")
    if job.short is not None:
        shell.note(f"  → raise it: {raise_text(job.job, job.short, simulated=job.simulated)}")


def document(done: Settlement) -> dict[str, object]:
    bill = done.bill
    return {
        "dry_run": done.dry_run,
        "jobs": [as_record(job) for job in done.jobs],
        "bill": None
        if bill is None
        else {
            "lines": bill.lines,
            "requests": len(bill.amounts),
            "not_of_these_jobs": done.foreign,
            "without_id": bill.without_id,
        },
    }


def as_record(job: Settled) -> dict[str, object]:
    return {
        "name": job.job,
        "simulated": job.simulated,
        "currency": job.currency,
        "settled": job.calls,
        "before": {"low": job.low, "high": job.high},
        "cost": job.cost,
        "spent": {"before": job.spent_before, "now": job.spent},
        "still_open": {
            "calls": job.left.calls, "low": job.left.low, "high": job.left.high, "unknown": job.left.unknown,
        },
        "in_flight": job.in_flight,
        "budget_has_room_again": job.freed,
        "budget_used_up": None if job.short is None else short_record(job.short),
        "compared": None if job.compared is None else compared_record(job.compared),
    }  # fmt: skip


def compared_record(compared: Compared) -> dict[str, object]:
    return {
        "outside_bounds": compared.outside,
        "equal": compared.equal,
        "different": compared.different,
        "differences": [
            {"request_id": one.request_id, "booked": one.booked, "billed": one.billed} for one in compared.differences
        ],
        "in_flight": compared.flying,
        "ambiguous": compared.ambiguous,
    }

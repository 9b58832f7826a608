"""`batchrun set`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from batchrun import api
from batchrun.cli.known import CatalogueFile
from batchrun.cli.options import AsJson, Database, Simulated
from batchrun.cli.render import Screen, command_text, count_text, screen, title_text
from batchrun.jobfile.changes import Value, pairs
from batchrun.jobfile.quantities import Money
from batchrun.output.visible import money_text
from batchrun.steering.setting import Changed, Current, shown
from batchrun.store.jobs import BY_USER


def command(
    context: typer.Context,
    target: Annotated[
        str, typer.Argument(metavar="JOB|PROFILE", help="A job, or such as model-studio/singapore/qwen3-vl-plus.")
    ],
    changes: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="What to change; nothing lists what there is.")
    ] = None,
    as_json: AsJson = False,
    simulated: Simulated = False,
    catalogue: CatalogueFile = None,
    database: Database = None,
) -> None:
    """Change limits, budget or priority; a job that runs follows within a second, on all machines.

    A job has concurrency, requests_per_minute, tokens_per_minute,
    tokens_per_day, budget (such as "5.00 USD") and priority; a profile, which
    all jobs of its model share, has the four limits. `none` takes one away.

    Loading the job file again keeps what was set, until the file itself says
    something else.

    Example: batchrun set caption-catalogue concurrency=8 budget="5.00 USD"
    """
    shell = screen(context)
    if not changes:
        show(shell, api.settable(target, simulated=simulated, database=database), as_json=as_json)
        return
    done = api.set_(target, pairs(changes), simulated=simulated, database=database, catalogue=catalogue)
    if as_json:
        shell.json({"changed": [as_record(one) for one in done]})
        return
    for one in done:
        for line in lines(one):
            shell.line(line)
        if one.lifted:
            shell.note("  → if nothing runs now: batchrun run JOBS.yaml, its job file")
        elif one.paused == BY_USER:
            shell.note(f"  → it is paused: {command_text('resume', one.target, simulated=bool(one.simulated))}")


def show(shell: Screen, found: Sequence[Current], *, as_json: bool) -> None:
    if as_json:
        shell.json({"current": [current_record(one) for one in found]})
        return
    for one in found:
        shell.line(title_text(one.target, simulated=bool(one.simulated)), style="bold")
        for key, value in one.values.items():
            shell.line(f"  {key} = {shown(value)}")
    example = f"batchrun set {found[0].target} concurrency=8"
    shell.note(f"  → change any of them: {example}; none takes a limit away")


def lines(one: Changed) -> list[str]:
    found = [title_text(one.target, simulated=bool(one.simulated))]
    for change in one.changes:
        same = change.old == change.new
        found.append(f"  {change.key}: {shown(change.old)}{' (as it was)' if same else f' → {shown(change.new)}'}")
        if change.key == "concurrency" and change.new is not None and one.in_flight > int(str(change.new)):
            found.append(f"    calls in flight: {count_text(one.in_flight)}; new ones wait until there are fewer")
        if change.key == "budget" and isinstance(change.new, Money) and one.spent is not None:
            beyond = one.spent.amount >= change.new.amount
            used = f"spent and reserved: {money_text(one.spent.amount)} {one.spent.currency}"
            found.append(f"    {used}{'; nothing more is called' if beyond else ''}")
    if one.lifted:
        found.append("  no longer paused (budget)")
    elif one.paused:
        found.append(f"  still paused ({one.paused})")
    return found


def plain(value: Value) -> object:
    return {"amount": value.amount, "currency": value.currency} if isinstance(value, Money) else value


def current_record(one: Current) -> dict[str, object]:
    return {
        "target": one.target,
        "simulated": one.simulated,
        "values": {key: plain(value) for key, value in one.values.items()},
    }


def as_record(one: Changed) -> dict[str, object]:
    return {
        "target": one.target,
        "simulated": one.simulated,
        "changes": [{"key": change.key, "old": plain(change.old), "new": plain(change.new)} for change in one.changes],
        "budget_pause_lifted": one.lifted,
        "paused": one.paused,
        "in_flight": one.in_flight,
    }

"""`batchrun resume`."""

from __future__ import annotations

import typer

from batchrun import api
from batchrun.cli.known import CatalogueFile
from batchrun.cli.options import AllJobs, AsJson, Database, Simulated, SomeJobs, named_or_all
from batchrun.cli.render import Screen, command_text, screen, title_text
from batchrun.output.visible import money_text
from batchrun.showing import clean, counted
from batchrun.steering.affording import Short
from batchrun.steering.operating import Resumed


def command(
    context: typer.Context,
    jobs: SomeJobs = None,
    every: AllJobs = False,
    as_json: AsJson = False,
    simulated: Simulated = False,
    catalogue: CatalogueFile = None,
    database: Database = None,
) -> None:
    """Lift every pause of a job: of people, of errors, of a used-up budget, and that of a refused key or an unpaid
    account, which jobs of the same model share.

    Example: batchrun resume caption-catalogue
    """
    shell = screen(context)
    names = named_or_all(jobs, every=every, command="resume")
    done = api.resume(names, simulated=simulated, database=database, catalogue=catalogue)
    if as_json:
        shell.json({"jobs": [as_record(job) for job in done]})
        return
    if not done:
        shell.note("no job is paused")
    for job in done:
        for line in lines(job):
            shell.line(line)
        advise(shell, job)


def lines(job: Resumed) -> list[str]:
    name = title_text(job.job, simulated=job.simulated)
    if not job.lifted:
        return [f"{name}: was not paused, {counted(job.left, 'item')} left"]
    found = [f"{name}: resumed, {counted(job.left, 'item')} left"]
    found += [f"  lifted ({reason}): {clean(message, 400)}" for reason, message in job.lifted]
    return found + ([f"  {short_text(job.short)}"] if job.short is not None else [])


def short_text(short: Short) -> str:
    reserved = f", reserved {money_text(short.reserved)}" if short.reserved else ""
    return (
        f"the budget still lets nothing run: spent {money_text(short.spent)}{reserved} "
        f"of {money_text(short.cap)} {short.currency}"
    )


def raise_text(job: str, short: Short, *, simulated: bool) -> str:
    """The command that raises the budget, to what is surely enough where that is known."""
    amount = "…" if short.enough is None else money_text(short.enough)
    return command_text("set", job, f"budget={amount} {short.currency}", simulated=simulated)


def advise(shell: Screen, job: Resumed) -> None:
    if job.short is not None:
        enough = ", enough for all that is left" if job.short.enough is not None else ""
        shell.note(f"  → raise it: {raise_text(job.job, job.short, simulated=job.simulated)}{enough}")
    elif job.left:
        shell.note(f"  → if nothing runs now: batchrun run JOBS.yaml, the job file in {job.folder}")


def as_record(job: Resumed) -> dict[str, object]:
    return {
        "name": job.job,
        "simulated": job.simulated,
        "lifted": [{"reason": reason, "message": message} for reason, message in job.lifted],
        "items_left": job.left,
        "budget_used_up": None if job.short is None else short_record(job.short),
    }


def short_record(short: Short) -> dict[str, object]:
    return {
        "cap": short.cap,
        "spent": short.spent,
        "reserved": short.reserved,
        "currency": short.currency,
        "enough": short.enough,
    }

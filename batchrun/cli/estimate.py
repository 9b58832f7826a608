"""`batchrun estimate`: what a job file will cost and how long it will take."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Decimal
from pathlib import Path
from typing import Annotated

import typer

from batchrun import api
from batchrun.cli.options import AsJson, CatalogueFile, Database, JobFilePath
from batchrun.cli.render import Screen, count_text, screen, title_text
from batchrun.cli.summary import print_loaded
from batchrun.drain import Stop
from batchrun.errors import EXIT_DONE
from batchrun.estimating.duration import WINDOW, Duration
from batchrun.estimating.outcome import BudgetOutlook, Estimate, JobEstimate
from batchrun.estimating.spread import ENOUGH, Outlook
from batchrun.output.visible import amount_of, money_text
from batchrun.pacing.brakes import span_of
from batchrun.progress import reading_rows
from batchrun.running import RunEnd
from batchrun.showing import clean, counted

CLOSE = Decimal("1.3")
"""Two times that differ by less than this factor are told as one."""
DIGITS = 3
"""Of amounts below one unit that are shown."""
SUGGESTED = 20
"""Items that a hint proposes as a sample."""


def command(
    context: typer.Context,
    job_file: JobFilePath,
    sample: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Buy N items of each job first, as `run --sample N` does, and keep them."
        ),
    ] = None,
    catalogue: CatalogueFile = None,
    database: Database = None,
    book: Annotated[
        Path | None, typer.Option("--simulator-book", help="Where a simulator that is started here writes its bills.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what a job file will cost and how long it will take: from what, to what, and what it depends on.

    Without --sample no call is made, no key is needed and nothing is written; what has ended already is taken into
    account. With it, N items of each job are called, their answers are kept, and what they used narrows the range.

    Example: batchrun estimate jobs.example.yaml --sample 20
    """
    shell = screen(context)
    # Beside the progress of a sample's calls there is no room for another line that moves.
    with reading_rows(quiet=shell.quiet or sample is not None) as on_rows:
        made = api.estimate(
            job_file,
            sample=sample,
            database=database,
            catalogue=catalogue,
            progress=not shell.quiet,
            simulator_book=book,
            on_rows=on_rows,
            on_loaded=(lambda _: None) if shell.quiet else print_loaded,
            stop=Stop(),
        )
    if as_json:
        shell.json(document(made))
    else:
        print_estimate(shell, made, job_file)
    raise typer.Exit(EXIT_DONE if made.run is None else made.run.exit_code)


def print_estimate(shell: Screen, made: Estimate, job_file: Path) -> None:
    for line in headlines(made):
        shell.line(line, style="bold")
    if made.run is not None:
        for line in sample_lines(made.run):
            shell.line(line)
    for job in made.jobs:
        shell.line()
        shell.line(title_text(job.name, simulated=job.simulated))
        for name, text in [*(rows_of_several(job) if len(made.jobs) > 1 else ()), *rows(job)]:
            shell.line(f"  {name:<8} {text}")
        for note in job.notes:
            shell.line(f"  note: {note}")
    unmeasured = [job for job in made.jobs if job.left > SUGGESTED and job.measured < ENOUGH]
    if made.run is None and unmeasured:
        shell.note(hint(unmeasured, job_file))


def headlines(made: Estimate) -> list[str]:
    if not any(job.left for job in made.jobs):
        spent = " and ".join(f"{exact_text(total.cost)} {total.currency}" for total in made.totals)
        return [f"Nothing is left to call. It cost {spent or 'an unknown amount'}."]
    sums = [f"{between(total.cost)} {total.currency}{' (simulated)' * total.simulated}." for total in made.totals]
    lines = [f"{'And' if number else 'This will cost'} {text}" for number, text in enumerate(sums)]
    unpriced = len(made.jobs) - sum(total.jobs for total in made.totals)
    if unpriced:
        lines.append(
            f"{unpriced} of {len(made.jobs)} jobs cost an unknown amount." if lines else "The cost isn't known."
        )
    return [*lines, time_sentence(made.time)]


def between(cost: Outlook) -> str:
    """For people: rounded outwards."""
    low = rounded(cost.low, ROUND_FLOOR)
    if cost.high is None:
        return f"at least {low}"
    high = rounded(cost.high, ROUND_CEILING)
    return exact_text(cost) if cost.low == cost.high else f"between {low} and {high}"


def exact_text(cost: Outlook) -> str:
    if cost.high is None:
        return f"at least {amount_of((cost.low, cost.low))}"
    return amount_of((cost.low, cost.high))


def rounded(amount: Decimal, rounding: str) -> str:
    """To the hundredth of a unit, or to three digits where it is smaller than a unit."""
    places = 2 if amount >= 1 or not amount else max(2, DIGITS - 1 - amount.adjusted())
    return f"{amount.quantize(Decimal(1).scaleb(-places), rounding):,f}"


def time_sentence(time: Duration) -> str:
    if time.high is None and time.low < 1:
        return "How long it will take isn't known before a few answers were timed: try --sample."
    return f"It will take {time_phrase(time)}."


def time_phrase(time: Duration) -> str:
    if time.high is None and time.low < 1:
        return "not known"
    with_brake = "" if time.brake is None else f" {before_brake(time.brake)} {time.brake}"
    if time.high is None:
        return f"at least {span_of(float(time.low))}{with_brake}"
    if time.high <= CLOSE * time.low or time.high < 1:
        return f"about {span_of(float(time.high))}{with_brake}"
    return f"{span_of(float(time.low))} to {span_of(float(time.high))}{with_brake}"


def before_brake(brake: str) -> str:
    if brake.startswith(WINDOW):
        return "in the"
    return "with" if "at once" in brake else "at"


def rows_of_several(job: JobEstimate) -> Iterator[tuple[str, str]]:
    """What the headline says where there is one job alone."""
    if job.cost is not None:
        yield "cost", f"{between(job.cost)} {job.currency}"
    if job.left:
        yield "time", time_phrase(job.time)


def rows(job: JobEstimate) -> Iterator[tuple[str, str]]:
    yield "model", f"{clean(job.model)} at {clean(job.provider)}"
    yield "items", items_text(job)
    if job.unsendable:
        yield "", f"{count_text(job.unsendable)} more will fail without a call: their pictures can't be sent"
    if job.currency is not None and job.spent.high != 0:
        yield "spent", f"{exact_text(job.spent)} {job.currency}"
    if job.unknown is not None:
        yield "unknown", job.unknown
    if job.left:
        yield from rows_of_left(job)
    if job.budget is not None and job.left:
        yield "budget", budget_text(job.budget, job)


def rows_of_left(job: JobEstimate) -> Iterator[tuple[str, str]]:
    yield "input", f"{count_between(job.input_tokens)} tokens"
    yield "output", f"{count_between(job.output_tokens)} tokens"
    if job.to_come is not None and job.ended:
        likely = (
            "" if job.to_come.expected is None else f", most likely {rounded(job.to_come.expected, ROUND_HALF_EVEN)}"
        )
        yield "to come", f"{between(job.to_come)} {job.currency}{likely}"
    yield "basis", basis_text(job)
    if job.time.answer is not None and job.time.answer >= 1:
        longest = span_of(float(job.time.answer))
        yield "", f"no answer was timed yet: it takes longer if they take more than {longest}"


def items_text(job: JobEstimate) -> str:
    parts = [f"{count_text(job.ended)} ended, {count_text(job.left)} left"] if job.ended else []
    if job.shared:
        parts += [] if job.ended else [counted(job.left, "call")]
        one, many = "asks the same and shares its answer", "ask the same and share the answers"
        parts.append(counted(job.shared, one, many))
    return ": ".join([count_text(job.items - job.unsendable), *([", ".join(parts)] if parts else [])])


def count_between(tokens: Outlook) -> str:
    low = count_text(int(tokens.low))
    if tokens.high is None:
        return f"at least {low}"
    return low if tokens.low == tokens.high else f"{low}–{count_text(int(tokens.high))}"


def budget_text(budget: BudgetOutlook, job: JobEstimate) -> str:
    cap = f"{money_text(budget.cap)} {job.currency}"
    if budget.enough == "yes":
        return f"{cap} is enough"
    items = f"{count_text(budget.covers_low)}–{count_text(budget.covers_high)}"
    if budget.covers_low == budget.covers_high:
        items = count_text(budget.covers_low)
    if not budget.covers_high:
        return f"{cap} is not enough for one call, which may cost up to {rounded(budget.one, ROUND_CEILING)}"
    verdict = "may not be enough" if budget.enough == "perhaps" else "is not enough"
    return f"{cap} {verdict}: it covers {items} of {count_text(job.left)} items"


def basis_text(job: JobEstimate) -> str:
    if job.measured >= ENOUGH:
        return f"measured on {count_text(job.measured)} items: the mean ± three standard errors"
    longest = " to the bound of each" if job.longest_answer is None else f" to {count_text(job.longest_answer)}"
    few = f"only {job.measured} items measured" if job.measured else "nothing measured yet"
    return f"{few}: answers of 1 token{longest}"


def hint(jobs: list[JobEstimate], job_file: Path) -> str:
    text = f"batchrun estimate {clean(str(job_file))} --sample {SUGGESTED}"
    prices = {job.currency: Decimal(0) for job in jobs}
    for job in jobs:
        if job.to_come is None or job.to_come.high is None:
            return f"narrow it: {text}"
        prices[job.currency] += job.to_come.high * SUGGESTED / job.left
    most = " and ".join(f"{rounded(price, ROUND_CEILING)} {currency}" for currency, price in prices.items())
    return f"narrow it for about {most} at most, and keep the answers: {text}"


def sample_lines(end: RunEnd) -> Iterator[str]:
    if end.tally.calls:
        cost = " and ".join(f"{amount_of(cost)} {currency}" for currency, cost in sorted(end.tally.cost.items()))
        calls = counted(end.tally.calls, "call")
        yield f"The sample took {calls} and cost {cost or 'an unknown amount'}; its answers are kept."
    elif not any(job.left for job in end.jobs):
        yield "The sample was there already: no call was made for it now."
    for job in end.jobs:
        if job.paused:
            yield f"{title_text(job.name, simulated=job.simulated)} stopped ({job.paused}): {job.pause_message or ''}"


def document(made: Estimate) -> dict[str, object]:
    """Money is exact and in text; tokens are whole; what isn't known is null."""
    return {
        "jobs": [job_document(job) for job in made.jobs],
        "totals": [
            {"simulated": total.simulated, "currency": total.currency, "jobs": total.jobs, **ends(total.cost)}
            for total in made.totals
        ],
        "time": time_document(made.time),
        "sample": None if made.run is None else sample_document(made.run),
    }


def job_document(job: JobEstimate) -> dict[str, object]:
    return {
        "name": job.name,
        "simulated": job.simulated,
        "provider": job.provider,
        "model": job.model,
        "items": {
            "total": job.items,
            "ended": job.ended,
            "left": job.left,
            "unsendable": job.unsendable,
            "shared": job.shared,
        },
        "measured_items": job.measured,
        "input_tokens": tokens_document(job.input_tokens),
        "output_tokens": tokens_document(job.output_tokens),
        "cost": {
            "currency": job.currency,
            **ends(job.cost),
            "spent": {"low": job.spent.low, "high": job.spent.high},
            "to_come": ends(job.to_come),
            "unknown": job.unknown,
        },
        "time": time_document(job.time),
        "budget": None if job.budget is None else budget_document(job.budget),
        "notes": list(job.notes),
    }


def ends(outlook: Outlook | None) -> dict[str, Decimal | None]:
    if outlook is None:
        return {"low": None, "high": None, "expected": None}
    return {"low": outlook.low, "high": outlook.high, "expected": outlook.expected}


def tokens_document(tokens: Outlook) -> dict[str, int | None]:
    """Of the items that are left."""
    return {name: None if end is None else int(end) for name, end in ends(tokens).items()}


def time_document(time: Duration) -> dict[str, object]:
    return {
        "seconds_low": round(float(time.low), 1),
        "seconds_high": None if time.high is None else round(float(time.high), 1),
        "brake": time.brake,
    }


def budget_document(budget: BudgetOutlook) -> dict[str, object]:
    return {
        "cap": budget.cap,
        "left": budget.left,
        "enough": budget.enough,
        "covers_low": budget.covers_low,
        "covers_high": budget.covers_high,
        "one_call": budget.one,
    }


def sample_document(end: RunEnd) -> dict[str, object]:
    return {
        "calls": end.tally.calls,
        "cost": [{"currency": currency, "low": low, "high": high} for currency, (low, high) in end.tally.cost.items()],
        "exit_code": end.exit_code,
    }

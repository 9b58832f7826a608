"""What `run`, `load` and `demo` print: what was loaded, and what came of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

from batchrun.cli.render import command_text, estimate_texts, foreseen_document, shared_text
from batchrun.database import reading
from batchrun.errors import EXIT_DONE, EXIT_ITEMS_FAILED
from batchrun.loading.loader import Loaded
from batchrun.output.sidecar import Sidecars
from batchrun.output.visible import amount_of, visible
from batchrun.pacing.brakes import span_of
from batchrun.reports.cost import CostLine, cost_by
from batchrun.showing import counted
from batchrun.states import OPEN, State
from batchrun.store.jobs import BY_USER

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from batchrun.running import JobEnd, RunEnd

SHOWN = (
    State.DONE,
    State.TRUNCATED,
    State.FAILED,
    State.CANCELLED,
    State.CLAIMED,
    State.WAITING,
    State.PENDING,
    State.BLOCKED,
)


def print_loaded(loaded: Sequence[Loaded]) -> None:
    """On standard error, a line for each job, and notes below it."""
    for job in loaded:
        parts = [f"{job.added:,} new" if job.added or job.created else "nothing new"]
        if job.unchanged:
            parts.append(f"{job.unchanged:,} known")
        if job.updated:
            parts.append(f"{job.updated:,} changed before they were called")
        if job.duplicates:
            asking = counted(job.duplicates, "asks the same as another and waits", "ask the same as another and wait")
            parts.append(f"{asking} for its answer")
        if job.changed:
            parts.append("now in effect: " + ", ".join(job.changed))
        sys.stderr.write(f"{title(job.name, job.simulated)}: {', '.join(parts)}\n")
        for note in job.notes:
            sys.stderr.write(f"  note: {visible(note)}\n")
    sys.stderr.flush()


def loaded_document(job: Loaded) -> dict[str, object]:
    return {
        "name": job.name,
        "simulated": job.simulated,
        "added": job.added,
        "unchanged": job.unchanged,
        "updated": job.updated,
        "duplicates": job.duplicates,
        "changed": job.changed,
        "notes": job.notes,
    }


def title(name: str, simulated: bool) -> str:
    return f"{name} (simulated)" if simulated else name


def print_summary(engine: Engine, end: RunEnd, *, as_json: bool) -> None:
    """The end of a run on standard output."""
    with reading(engine) as connection:
        costs = {job.job_id: cost_by(connection, "job", job_ids=[job.job_id]) for job in end.jobs}
    if as_json:
        document = {
            "jobs": [job_document(job, costs[job.job_id], end.files.get(job.job_id)) for job in end.jobs],
            "calls": end.tally.calls,
            "seconds": round(end.seconds, 3),
            "interrupted": end.interrupted,
            "made_anew": end.tally.made_anew,
            "maybe_billed": end.tally.maybe_billed,
            "exit_code": end.exit_code,
        }
        sys.stdout.write(json.dumps(document, ensure_ascii=False, indent=2) + "\n")
        return
    lines = [line for job in end.jobs for line in job_lines(job, costs[job.job_id], end.files.get(job.job_id))]
    sys.stdout.write("\n".join([*lines, this_run(end)]) + "\n")
    sys.stdout.flush()


def job_lines(job: JobEnd, costs: Sequence[CostLine], files: Sidecars | None) -> list[str]:
    states = [f"{job.states[state]:,} {state}" for state in SHOWN if job.states.get(state)]
    of = f"of {job.total:,}"
    if job.outside_sample:
        of = f"of a sample of {job.total:,} of {job.total + sum(job.outside_sample.values()):,}"
    lines = [f"{title(job.name, job.simulated)}: {', '.join(states) or 'no items'} {of}"]
    for line in costs:
        lines += [f"  {text}" for text in (cost_line(line), shared_text(line), *estimate_texts(line)) if text]
    if job.unfit:
        lines.append(f"  answers that don't fit the schema: {job.unfit:,} of the done ones")
        again = command_text("retry", job.name, "--state", "done", simulated=job.simulated)
        lines.append(f"  to buy them again: {again}")
    if job.stopped:
        lines.append(f"  stopped ({job.paused}): {visible(job.pause_message or '')}")
        lines += [f"  to go on: {way}" for way in ways_on(job)]
    if files is not None:
        lines += [f"  {line}" for line in file_lines(files)]
    return lines


def ways_on(job: JobEnd) -> list[str]:
    """What lets a paused job go on that running it again doesn't lift."""
    if job.paused == BY_USER:
        return [command_text("resume", job.name, simulated=job.simulated)]
    if job.paused == "budget":
        return [command_text("set", job.name, f"budget=… {job.currency}", simulated=job.simulated)]
    return []


def cost_line(line: CostLine) -> str:
    tokens = f"{count(line.input_tokens)} tokens in, {count(line.output_tokens)} out"
    if line.cost_low is None or line.cost_high is None or line.currency is None:
        cost = "cost unknown: no price"
    else:
        cost = f"{amount_of((line.cost_low, line.cost_high))} {line.currency}"
        cost += f" and {counted(line.unknown_cost, 'call')} without a known price" if line.unknown_cost else ""
    return f"{tokens} · {cost} for {counted(line.calls, 'call')}" + (" (simulated money)" if line.simulated else "")


def count(tokens: int | None) -> str:
    return "unknown" if tokens is None else f"{tokens:,}"


def file_lines(made: Sidecars) -> list[str]:
    where = f"to {made.folder}" if made.folder else "beside the pictures"
    parts = [f"{counted(made.written, 'file')} written {where}"]
    if made.present:
        parts.append(f"{made.present:,} were there already")
    if made.problems:
        parts.append(f"{made.problems:,} could not be written")
    return [", ".join(parts), *(visible(problem) for problem in made.shown)]


def this_run(end: RunEnd) -> str:
    ended = sum(end.tally.states.values())
    sampled = any(job.outside_sample for job in end.jobs)
    if not end.tally.calls and not ended:
        items = "item of the sample" if sampled else "item"
        text = (
            "no calls made" if any(job.left for job in end.jobs) else f"nothing to do: every {items} has ended before"
        )
    else:
        rate = ended / end.seconds if end.seconds else 0.0
        done, made = counted(ended, "item"), counted(end.tally.calls, "call")
        text = f"{done} and {made} in {span_of(end.seconds)}, {rate:.1f} items/s"
    if end.tally.made_anew:
        text += (
            f"; {counted(end.tally.made_anew, 'call')} with pictures made anew: `batchrun results JOB --full` says how"
        )
    if end.tally.reaped:
        calls, were = counted(end.tally.reaped, "call"), "was" if end.tally.reaped == 1 else "were"
        text += f"; {calls} of a process that died {were} taken over and may have been billed"
    if end.interrupted:
        left = sum(job.left for job in end.jobs)
        text += f"; stopped with {counted(left, 'item')} left: run the same command to go on"
    if end.tally.maybe_billed:
        text += (
            f"; {counted(end.tally.maybe_billed, 'call was', 'calls were')} stopped in flight and may have been billed"
        )
    waiting = any(job.outside_sample.get(state) for job in end.jobs for state in OPEN)
    if waiting and end.exit_code in (EXIT_DONE, EXIT_ITEMS_FAILED):
        text += "; the same command without --sample goes on with the rest"
    return text


def job_document(job: JobEnd, costs: Sequence[CostLine], files: Sidecars | None) -> dict[str, object]:
    return {
        "name": job.name,
        "simulated": job.simulated,
        "states": job.states,
        "total": job.total,
        "unfit": job.unfit,
        "outside_sample": job.outside_sample,
        "paused": job.paused,
        "pause_message": job.pause_message,
        "cost": [
            {
                "currency": line.currency,
                "low": money(line.cost_low),
                "high": money(line.cost_high),
                "unknown_cost": line.unknown_cost,
                "calls": line.calls,
                "input_tokens": line.input_tokens,
                "output_tokens": line.output_tokens,
                "estimate": foreseen_document(line.estimate),
                "shared": line.shared,
                "saved_low": money(line.saved_low),
                "saved_high": money(line.saved_high),
                "unknown_saved": line.unknown_saved,
            }
            for line in costs
        ],
        "files": None if files is None else files_document(files),
    }


def files_document(made: Sidecars) -> dict[str, object]:
    return {"written": made.written, "present": made.present, "problems": made.problems, "shown": made.shown}


def money(amount: Decimal | None) -> str | None:
    return None if amount is None else f"{amount:f}"

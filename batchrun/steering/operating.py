"""Retrying, cancelling, pausing and resuming jobs: names become rows, the store does it in one transaction, and what
was done comes back as values, with what it may cost. Each act leaves a line in `audit` that names who did it.
"""

from __future__ import annotations

import os
import pwd
import socket
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sqlalchemy import Connection, Engine

from batchrun.catalogue import Catalogue
from batchrun.database import clock, writing
from batchrun.errors import UsageError
from batchrun.messages import JsonValue
from batchrun.reports.jobs import find_jobs, one_job
from batchrun.showing import clean
from batchrun.states import OPEN, State
from batchrun.steering.affording import Known, Short, most_of, short_of, together
from batchrun.store import jobs as store
from batchrun.store import operate
from batchrun.tables import Record

RETRYABLE = (State.FAILED, State.TRUNCATED, State.CANCELLED, State.WAITING, State.DONE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retried:
    job: str
    simulated: bool
    counts: Mapping[tuple[State, str | None], int]
    """Items that are taken up again, by the state that they left and the kind of their last error."""
    most: Decimal | None
    """What their calls can cost at most, in `currency`; None where that isn't known."""
    room: Decimal | None
    """What is left of the budget, in `currency`; None where there is none."""
    currency: str | None
    in_flight: int
    """Items that were left alone, as a call for them is still in flight."""
    passed_over: Mapping[State, int]
    """Named items that are in another state than was asked for."""
    waiting: int
    """Items that wait for their next try by themselves."""
    paused: str | None
    folder: str
    """Where the job file was loaded from."""

    @property
    def total(self) -> int:
        return sum(self.counts.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelled:
    job: str
    simulated: bool
    counts: Mapping[State, int]
    """Items that were cancelled, by the state that they had."""
    in_flight: int
    """Calls for cancelled items that are still in flight."""
    passed_over: Mapping[State, int]
    """Named items that had ended before."""

    @property
    def total(self) -> int:
        return sum(self.counts.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Paused:
    job: str
    simulated: bool
    before: str | None
    """Why it was paused already, if it was."""
    in_flight: int
    left: int
    """Items that have not ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    job: str
    simulated: bool
    lifted: Sequence[tuple[str, str]]
    """Why it was paused, in a word and in words: the job, and the profile that it shares with others."""
    left: int
    folder: str
    short: Short | None
    """Where the budget lets nothing run for all that."""


def this_actor() -> str:
    """Who works here, for the audit: the user of this process and the name of the machine."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container may run under a number that has no name
        name = str(os.getuid())
    return f"{name}@{socket.gethostname()}"


def named_jobs(connection: Connection, names: Iterable[str] | None, *, simulated: bool) -> dict[int, Record]:
    """The rows of these jobs, locked; of all jobs that have something left to do for None. Raises UsageError."""
    if names is None:
        return operate.locked(connection, operate.jobs_with_open_items(connection))
    ids = {one_job(connection, name, simulated=simulated).id for name in names}
    return operate.locked(connection, ids)


def note(connection: Connection, row: Record, now: datetime, actor: str, action: str, **detail: JsonValue) -> None:
    said: dict[str, JsonValue] = {"job": row.name, "job_id": row.id, "simulated": row.simulated}
    store.note(connection, at=now, actor=actor, action=action, detail=said | detail)


def retry(
    engine: Engine,
    names: Iterable[str],
    catalogue: Catalogue,
    *,
    states: Collection[State],
    kinds: Collection[str] | None,
    items: Collection[str] | None,
    dry_run: bool,
    simulated: bool,
    actor: str,
) -> list[Retried]:
    """Take items up again. Raises UsageError for names, kinds and items that there aren't; then nothing was done."""
    if wrong := [state for state in states if state not in RETRYABLE]:
        raise UsageError(
            f"{wrong[0].value} items can't be retried",
            code="usage",
            remedy=f"name some of: {', '.join(state.value for state in RETRYABLE)}",
        )
    with writing(engine) as connection:
        rows = named_jobs(connection, names, simulated=simulated)
        require_kinds(connection, rows, states, kinds)
        passed_over = {row.id: named_items(connection, row, rows, items, wanted=states) for row in rows.values()}
        now, done = clock(connection), []
        for row in rows.values():
            taken = operate.retry(connection, row.id, states=states, kinds=kinds, names=items, now=now)
            counts: list[JsonValue] = [[state.value, kind, count] for (state, kind), count in taken.counts.items()]
            note(connection, row, now, actor, "retry", counts=counts)
            done.append(
                Retried(
                    job=row.name,
                    simulated=row.simulated,
                    counts=taken.counts,
                    most=together(taken.bounds, most_of(row, catalogue)),
                    room=None if row.cap is None else row.cap - row.spent - row.reserved,
                    currency=row.currency,
                    in_flight=taken.in_flight,
                    passed_over=passed_over[row.id],
                    waiting=0 if State.WAITING in states else waiting(connection, row),
                    paused=row.paused or row.profile_paused,
                    folder=row.spec.get("base", "."),
                )
            )
        if dry_run:
            connection.rollback()
    return done


def waiting(connection: Connection, row: Record) -> int:
    return store.count_states(connection, row.id).get(State.WAITING, 0)


def require_kinds(
    connection: Connection, rows: Mapping[int, Record], states: Collection[State], kinds: Collection[str] | None
) -> None:
    """Raises UsageError for a kind of error that none of these items has."""
    if kinds is None:
        return
    there: Counter[str] = Counter()
    for job_id in rows:
        there.update(operate.error_kinds(connection, job_id, states))
    if missing := sorted(set(kinds) - set(there)):
        known = ", ".join(f"{count:,} {kind}" for kind, count in there.most_common())
        which = " or ".join(sorted(state.value for state in states))
        raise UsageError(
            f"no {which} item has an error of kind `{clean(missing[0])}`",
            code="unknown-kind",
            remedy=f"there are: {known}" if known else "none of them has an error",
        )


def named_items(
    connection: Connection,
    row: Record,
    rows: Mapping[int, Record],
    names: Collection[str] | None,
    *,
    wanted: Collection[State],
) -> dict[State, int]:
    """How many of the named items are in another state than one of `wanted`. Raises UsageError for unknown names."""
    if names is None:
        return {}
    if len(rows) > 1:
        raise UsageError("--item belongs to one job", code="usage", remedy="name one job, or leave --item out")
    states = operate.states_by_name(connection, row.id, names)
    if missing := sorted(set(names) - set(states)):
        raise UsageError(
            f"the job {row.name} has no item `{clean(missing[0])}`",
            code="unknown-item",
            remedy=f"`batchrun results {row.name}` lists them",
        )
    return dict(Counter(state for state in states.values() if state not in wanted))


def cancel(
    engine: Engine, names: Iterable[str], *, items: Collection[str] | None, simulated: bool, actor: str
) -> list[Cancelled]:
    """Cancel all items that have not ended, or the named ones. Raises UsageError; then nothing was done."""
    with writing(engine) as connection:
        rows = named_jobs(connection, names, simulated=simulated)
        now, done = clock(connection), []
        for row in rows.values():
            passed_over = named_items(connection, row, rows, items, wanted=OPEN)
            made = operate.cancel(connection, row, names=items)
            counts: dict[str, JsonValue] = {state.value: count for state, count in made.counts.items()}
            note(connection, row, now, actor, "cancel", counts=counts, in_flight=made.in_flight)
            done.append(
                Cancelled(
                    job=row.name,
                    simulated=row.simulated,
                    counts=made.counts,
                    in_flight=made.in_flight,
                    passed_over=passed_over,
                )
            )
    return done


def pause(
    engine: Engine, names: Iterable[str] | None, *, reason: str | None, simulated: bool, actor: str
) -> list[Paused]:
    """Let no new call of these jobs leave; of all jobs with something left to do for None. Raises UsageError."""
    with writing(engine) as connection:
        rows = named_jobs(connection, names, simulated=simulated)
        now = clock(connection)
        since = f"{now:%Y-%m-%d %H:%M}Z"
        operate.pause(connection, rows, f"paused by {actor} at {since}" + (f": {reason}" if reason else ""))
        for row in rows.values():
            note(connection, row, now, actor, "pause", before=row.paused, reason=reason)
        return [
            Paused(
                job=row.name,
                simulated=row.simulated,
                before=row.paused,
                in_flight=operate.calls_in_flight(connection, row),
                left=left_of(connection, row),
            )
            for row in rows.values()
        ]


def left_of(connection: Connection, row: Record) -> int:
    return sum(count for state, count in store.count_states(connection, row.id).items() if State(state) in OPEN)


def resume(engine: Engine, names: Iterable[str] | None, known: Known, *, simulated: bool, actor: str) -> list[Resumed]:
    """Lift every pause of these jobs, or of all that are paused for None. Raises UsageError."""
    with writing(engine) as connection:
        rows = named_jobs(connection, names, simulated=simulated) if names is not None else paused_jobs(connection)
        now, done = clock(connection), []
        operate.resume(connection, rows)
        for row in rows.values():
            lifted = pauses_of(row)
            note(connection, row, now, actor, "resume", lifted=[reason for reason, _ in lifted])
            done.append(
                Resumed(
                    job=row.name,
                    simulated=row.simulated,
                    lifted=lifted,
                    left=left_of(connection, row),
                    folder=row.spec.get("base", "."),
                    short=short_of(connection, row, known),
                )
            )
    return done


def paused_jobs(connection: Connection) -> dict[int, Record]:
    ids = [row.id for row in find_jobs(connection)]
    return {row.id: row for row in operate.locked(connection, ids).values() if pauses_of(row)}


def pauses_of(row: Record) -> list[tuple[str, str]]:
    own = [] if row.paused is None else [(row.paused, row.pause_message or "")]
    return own if row.profile_paused is None else [*own, (row.profile_paused, row.profile_message or "")]

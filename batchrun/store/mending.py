"""Mending what `doctor` finds wrong with rows. One transaction, with all jobs locked; what it does goes into the audit.

Nothing is thrown away that was paid for, and nothing is bought: an item whose answer is gone becomes `failed`, so that
a person decides whether to `retry` it. What a call may have cost goes into the ledger as bounds, as for a dead worker.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from decimal import Decimal

import sqlalchemy as sa
from sqlalchemy import Connection

from batchrun.answer import DONE_REASONS
from batchrun.database import clock
from batchrun.errors import ErrorKind
from batchrun.messages import JsonValue
from batchrun.showing import counted
from batchrun.states import State
from batchrun.store import health
from batchrun.store.health import Damage
from batchrun.store.jobs import note
from batchrun.store.workers import reap
from batchrun.tables import Record, answers, attempts, items, jobs, usage

later = answers.alias("later")
"""The answer of an attempt that continued another's."""

PART = 500
"""Rows in one statement."""
LISTED = 1_000
"""Ids that one line of the audit names."""
GONE_MESSAGE = "its answer is missing in the database; `batchrun retry` would buy it again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mended:
    what: str
    """What was done, such as `3 items are pending again`."""
    ids: Sequence[int]
    """Of the items, attempts or jobs."""


def mend(connection: Connection, *, dead: Collection[str], free: Collection[ErrorKind], actor: str) -> list[Mended]:
    """Mend all that `health` finds; see there for `dead` and `free`. Returns what was changed."""
    connection.execute(sa.select(jobs.c.id).order_by(jobs.c.id).with_for_update()).all()
    acts = (
        *(settle_calls_of_dead(connection, dead), release(connection)),
        *(drop_usage(connection), add_usage(connection, free)),
        *(replace_answers(connection), claim_answers(connection)),
        *count_again(connection),
    )
    made = [act for act in acts if act is not None]
    now = clock(connection)
    for act in made:
        detail: dict[str, JsonValue] = {"what": act.what, "ids": list(act.ids[:LISTED])}
        note(connection, at=now, actor=actor, action="mend", detail=detail)
    return made


def rows_of(connection: Connection, query: sa.Select[int, int]) -> list[int]:
    return [row[0] for row in connection.execute(query)]


def settle_calls_of_dead(connection: Connection, dead: Collection[str]) -> Mended | None:
    """As any worker that starts does; also for workers whose rows say that they ended."""
    ids = rows_of(connection, health.calls_of_dead(dead))
    if not ids:
        return None
    gone: set[str] = set()
    for part in parts(ids):
        gone |= set(connection.execute(sa.select(attempts.c.worker_id).where(attempts.c.id.in_(part))).scalars())
    reap(connection, sorted(gone))
    return Mended(what=f"{counted(len(ids), 'call')} of dead workers settled as lost, maybe billed", ids=ids)


def release(connection: Connection) -> Mended | None:
    ids = rows_of(connection, health.claimed_without_call())
    for part in parts(ids):
        connection.execute(sa.update(items).where(items.c.id.in_(part)).values(state=State.PENDING.value, owner=None))
    return Mended(what=f"{counted(len(ids), 'item is', 'items are')} pending again", ids=ids) if ids else None


def drop_usage(connection: Connection) -> Mended | None:
    ids = rows_of(connection, health.extra_usage())
    for part in parts(ids):
        connection.execute(sa.delete(usage).where(usage.c.attempt_id.in_(part)))
    what = f"{counted(len(ids), 'usage row')} of calls that were never sent removed"
    return Mended(what=what, ids=ids) if ids else None


def add_usage(connection: Connection, free: Collection[ErrorKind]) -> Mended | None:
    """Between nothing and what was reserved."""
    ids = rows_of(connection, health.missing_usage(free))
    for part in parts(ids):
        calls = connection.execute(
            sa.select(
                attempts.c.id,
                attempts.c.reserved,
                sa.func.coalesce(attempts.c.sent_at, attempts.c.claimed_at).label("at"),
                *(jobs.c[name] for name in ("provider", "region", "model", "simulated", "currency")),
                jobs.c.id.label("job_id"),
            )
            .join(jobs, jobs.c.id == attempts.c.job_id)
            .where(attempts.c.id.in_(part))
        )
        connection.execute(sa.insert(usage), [bounds_of(call) for call in calls])
    what = f"{counted(len(ids), 'usage row')} added, from nothing to what was reserved"
    return Mended(what=what, ids=ids) if ids else None


def bounds_of(call: Record) -> dict[str, object]:
    return {
        "attempt_id": call.id,
        "job_id": call.job_id,
        "provider": call.provider,
        "region": call.region,
        "model": call.model,
        "at": call.at,
        "simulated": call.simulated,
        "cost_low": None if call.reserved is None else Decimal(0),
        "cost_high": call.reserved,
        "currency": None if call.reserved is None else call.currency,
    }


def replace_answers(connection: Connection) -> Mended | None:
    """The first complete answer of the item itself, or none."""
    ids = sorted(
        {
            *rows_of(connection, health.bad_answers(Damage.NO_ANSWER)),
            *rows_of(connection, health.bad_answers(Damage.WRONG_ANSWER)),
        }
    )
    kept = sum(set_answer(connection, item) for item in ids)
    ends = ((kept, "own complete answer taken"), (len(ids) - kept, "failed, as there is none"))
    what = ", ".join(f"{counted(number, 'item')}: {how}" for number, how in ends if number)
    return Mended(what=what, ids=ids) if ids else None


def claim_answers(connection: Connection) -> Mended | None:
    ids = rows_of(connection, health.unclaimed_answers())
    for item in ids:
        set_answer(connection, item)
    return (
        Mended(what=f"{counted(len(ids), 'failed item has', 'failed items have')} an answer now", ids=ids)
        if ids
        else None
    )


def set_answer(connection: Connection, item: int) -> bool:
    """Give an item its first complete answer and the state that goes with it; without one, an item that had ended
    fails. Whether there was one."""
    found = connection.execute(
        sa.select(attempts.c.id, answers.c.finish_reason)
        .join(answers, answers.c.attempt_id == attempts.c.id)
        .where(attempts.c.item_id == item, attempts.c.outcome == "complete", answers.c.complete)
        .where(sa.not_(sa.exists().where(later.c.continues == attempts.c.id)))
        .order_by(attempts.c.fence)
        .limit(1)
    ).first()
    ended = items.c.state.in_([State.DONE.value, State.TRUNCATED.value, State.FAILED.value])
    this = sa.update(items).where(items.c.id == item)
    if found is None:
        connection.execute(this.values(answer_id=None))
        lost = {"state": State.FAILED.value, "error_kind": ErrorKind.INTERNAL.value, "error": GONE_MESSAGE}
        connection.execute(this.where(ended).values(lost))
        return False
    state = State.DONE if found.finish_reason in DONE_REASONS else State.TRUNCATED
    connection.execute(this.values(answer_id=found.id))
    connection.execute(this.where(ended).values(state=state.value, error_kind=None, error=None))
    return True


def count_again(connection: Connection) -> list[Mended]:
    """Last: what was done before changes the sums."""
    made = []
    for drift in health.drifts(connection):
        connection.execute(sa.update(jobs).where(jobs.c.id == drift.job_id).values({drift.counter: drift.summed}))
        unit = f" {drift.currency}" if drift.currency else ""
        what = f"{drift.job}: {drift.counter} is {drift.summed.normalize():f}{unit}, not {drift.booked.normalize():f}"
        made.append(Mended(what=what, ids=[drift.job_id]))
    return made


def parts(ids: Sequence[int]) -> list[Sequence[int]]:
    return [ids[start : start + PART] for start in range(0, len(ids), PART)]

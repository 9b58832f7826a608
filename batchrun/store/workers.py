"""Worker processes: their beat, and what becomes of the calls of a dead one."""

from __future__ import annotations

import math
import os
import secrets
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from batchrun.database import clock
from batchrun.errors import ErrorKind
from batchrun.states import State
from batchrun.tables import Record, attempts, items, jobs, usage, workers

OPEN: sa.ColumnElement[bool] = sa.literal_column("outcome = 'open'")
"""Spelt out: SQLite uses a partial index only where its condition stands in the statement."""
LOST_MESSAGE = "the worker died while this call was in flight; it may have been billed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reaped:
    """What was found of dead workers."""

    workers: int = 0
    calls: int = 0


class Heard(NamedTuple):
    """Of a worker."""

    beats: int
    lease: float
    """Seconds for which it may be silent."""


def register(connection: Connection, *, lease: float) -> str:
    """A row for this process, which will beat often enough for its `lease`. Returns its id, new at every start."""
    worker = secrets.token_hex(8)
    connection.execute(
        sa.insert(workers).values(
            id=worker,
            host=socket.gethostname(),
            pid=os.getpid(),
            pid_started=process_started(os.getpid()),
            started_at=clock(connection),
            lease=lease,
        )
    )
    return worker


def note_unable(connection: Connection, worker: str, reasons: Mapping[str, str]) -> None:
    """Remember which jobs, by id, this worker's machine can't do, and why."""
    connection.execute(sa.update(workers).where(workers.c.id == worker).values(unable=dict(reasons) or None))


def beat(connection: Connection, worker: str) -> None:
    """One more beat. It also revives a row that others took for dead: this process is alive after all."""
    connection.execute(sa.update(workers).where(workers.c.id == worker).values(beat=workers.c.beat + 1, ended_at=None))


def end(connection: Connection, worker: str) -> None:
    """The process stops in order; whatever it still has open is settled as lost."""
    reap(connection, [worker])


def beats(connection: Connection) -> dict[str, Heard]:
    """What is heard of all workers that haven't ended."""
    rows = connection.execute(
        sa.select(workers.c.id, workers.c.beat, workers.c.lease).where(workers.c.ended_at.is_(None))
    )
    return {row.id: Heard(row.beat, row.lease) for row in rows}


def is_alone(connection: Connection, worker: str) -> bool:
    """Whether no other worker is there."""
    others = sa.select(workers.c.id).where(workers.c.ended_at.is_(None), workers.c.id != worker).limit(1)
    return connection.execute(others).first() is None


class Pulse:
    """Hears beats, and tells whose have stopped, by the observer's own clock: no two clocks are compared."""

    def __init__(self, lease: float) -> None:
        """`lease` is for how many seconds a counter may stand still at least; a worker with a longer one has that."""
        self.lease = lease
        self.seen: dict[str, tuple[int, float]] = {}
        self.looked_at: float | None = None

    def forget(self) -> None:
        self.seen.clear()

    def silent(self, heard: Mapping[str, Heard], now: float, *, blind: float = math.inf) -> list[str]:
        """Workers whose counter has stood still for too long; `now` is in seconds of a monotonic clock.

        After more than `blind` seconds without a look nobody is: what kept this observer from looking, such as a
        database that was away or a machine that was suspended, may have kept the others from beating.
        """
        if self.looked_at is not None and now - self.looked_at > blind:
            self.forget()
        self.looked_at = now
        for worker, (count, _) in heard.items():
            if worker not in self.seen or self.seen[worker][0] != count:
                self.seen[worker] = (count, now)
        self.seen = {worker: self.seen[worker] for worker in heard}
        return [worker for worker, (_, lease) in heard.items() if now - self.seen[worker][1] > max(self.lease, lease)]


def dead_here(connection: Connection) -> list[str]:
    """Workers of this host whose process is gone, or is another one that got the same number."""
    rows = connection.execute(
        sa.select(workers.c.id, workers.c.pid, workers.c.pid_started).where(
            workers.c.ended_at.is_(None), workers.c.host == socket.gethostname()
        )
    )
    return [row.id for row in rows if is_gone(row.pid, row.pid_started)]


def is_gone(pid: int, started: str | None) -> bool:
    """Whether the process that registered so can't be running any more. False wherever that can't be told: a container
    of the same host name has other processes under the same numbers."""
    if started is None:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False
    here = process_space()
    return here is not None and started.startswith(here) and process_started(pid) != started


def process_space() -> str | None:
    """Names this boot of this machine and the processes that are seen from here; None where it can't be told."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}:{Path('/proc/self/ns/pid').stat().st_ino}:"
    except OSError:
        return None


def process_started(pid: int) -> str | None:
    """The space and the time of start of a process, which no other one shares; None where it isn't there, is a zombie,
    or can't be looked at."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    space = process_space()
    return None if space is None or fields[0] in "ZX" else f"{space}{fields[19]}"


def reap(connection: Connection, dead: Sequence[str]) -> Reaped:
    """Settle the open calls of dead workers: what they may have cost goes to the ledger, their items go on.

    Such an item goes behind all others: if it is what kills workers, the rest is done first.
    """
    if not dead:
        return Reaped()
    locked = lock_jobs_of(connection, dead)
    now = clock(connection)
    lost = list(
        connection.execute(
            sa.select(
                attempts.c.id,
                attempts.c.item_id,
                attempts.c.job_id,
                attempts.c.fence,
                attempts.c.reserved,
                attempts.c.claimed_at,
                *(jobs.c[name] for name in ("provider", "region", "model", "simulated", "currency", "spec")),
            )
            .join(jobs, jobs.c.id == attempts.c.job_id)
            .where(OPEN, attempts.c.worker_id.in_(dead), attempts.c.job_id.in_(locked))
        )
    )
    for call in lost:
        settle_lost(connection, call, now)
    connection.execute(sa.update(workers).where(workers.c.id.in_(dead)).values(ended_at=now))
    return Reaped(workers=len(dead), calls=len(lost))


def give_back(connection: Connection, worker: str) -> int:
    """Hand back the calls that `worker` holds without knowing it: the answer to its claim's commit never arrived.

    Only for a worker that has no call in flight and has stored all that it knows. Returns how many there were.
    """
    locked = lock_jobs_of(connection, [worker])
    if not locked:
        return 0
    held = connection.execute(
        sa.select(attempts.c.id, attempts.c.item_id, attempts.c.job_id, attempts.c.fence, attempts.c.reserved).where(
            OPEN, attempts.c.worker_id == worker, attempts.c.job_id.in_(locked)
        )
    ).all()
    now = clock(connection)
    for call in held:
        connection.execute(sa.update(attempts).where(attempts.c.id == call.id).values(outcome="unsent", ended_at=now))
        connection.execute(
            sa.update(items)
            .where(items.c.id == call.item_id, items.c.fence == call.fence, items.c.state == State.CLAIMED)
            .values(state=State.PENDING, owner=None)
        )
        if call.reserved is not None:
            connection.execute(
                sa.update(jobs).where(jobs.c.id == call.job_id).values(reserved=jobs.c.reserved - call.reserved)
            )
    return len(held)


def lock_jobs_of(connection: Connection, dead: Sequence[str]) -> list[int]:
    """Jobs are locked first, as in claims and finishes: none waits in a circle, and no call is settled twice by two
    that find it open at the same time."""
    held = sa.select(attempts.c.job_id).where(OPEN, attempts.c.worker_id.in_(dead))
    wanted = sa.select(jobs.c.id).where(jobs.c.id.in_(held)).order_by(jobs.c.id)
    return list(connection.execute(wanted.with_for_update(key_share=True)).scalars())


def settle_lost(connection: Connection, call: Record, now: datetime) -> None:
    connection.execute(
        sa.update(attempts)
        .where(attempts.c.id == call.id)
        .values(outcome="lost", ended_at=now, error_kind=ErrorKind.LOST, error=LOST_MESSAGE)
    )
    connection.execute(
        sa.insert(usage).values(
            attempt_id=call.id,
            job_id=call.job_id,
            provider=call.provider,
            region=call.region,
            model=call.model,
            at=call.claimed_at,
            simulated=call.simulated,
            cost_low=None if call.reserved is None else Decimal(0),
            cost_high=call.reserved,
            currency=None if call.reserved is None else call.currency,
        )
    )
    if call.reserved is not None:
        connection.execute(
            sa.update(jobs)
            .where(jobs.c.id == call.job_id)
            .values(reserved=jobs.c.reserved - call.reserved, spent=jobs.c.spent + call.reserved)
        )
    last = call.spec["retry"]["attempts"]
    ended = items.c.paid_tries + 1 >= last
    kept = sa.and_(ended, items.c.answer_id.is_not(None))  # a cut answer whose rest never came
    connection.execute(
        sa.update(items)
        .where(items.c.id == call.item_id, items.c.fence == call.fence, items.c.state == State.CLAIMED)
        .values(
            state=sa.case((kept, State.TRUNCATED.value), (ended, State.FAILED.value), else_=State.PENDING.value),
            paid_tries=items.c.paid_tries + 1,
            owner=None,
            next_at=now,
            error_kind=sa.case((kept, None), else_=ErrorKind.LOST.value),
            error=sa.case((kept, None), else_=LOST_MESSAGE),
        )
    )

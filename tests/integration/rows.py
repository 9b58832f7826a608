"""Rows for the tests of the store: a job with items, a claim, the results of calls."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal

import sqlalchemy as sa
from sqlalchemy import Connection, Engine

from batchrun.answer import Answer, Usage
from batchrun.database import connect, reading, writing
from batchrun.errors import ErrorKind
from batchrun.pacing.limits import Limits
from batchrun.states import State
from batchrun.store import jobs as store
from batchrun.store import workers
from batchrun.store.claim import Call, Claimed, Reserve, claim
from batchrun.store.finish import Charge, Result, finish
from batchrun.store.jobs import NewItem
from batchrun.tables import Record, attempts, items, jobs, profiles, usage

D = Decimal
MOST = D("0.01")
"""What `reserving()` says that a call can cost."""
COST = D("0.001")
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


@contextmanager
def opened(url: str, *, create: bool = False) -> Iterator[Engine]:
    engine = connect(url, create=create)
    try:
        yield engine
    finally:
        engine.dispose()


def reserving(most: Decimal | None = MOST) -> Reserve:
    return lambda _job, _item, _prefix: most


def add_profile(connection: Connection, model: str = "m", **limits: int) -> int:
    return store.profile(connection, provider="p", region="r", model=model, key_env="KEY", limits=Limits(**limits))


def add_job(
    connection: Connection,
    name: str = "job",
    *,
    profile: int | None = None,
    size: int = 3,
    tries: int = 4,
    **values: object,
) -> int:
    """A job with items `0`, `1`, …; `tries` is its `retry.attempts`."""
    fixed: dict[str, object] = {
        "name": name,
        "profile_id": add_profile(connection) if profile is None else profile,
        "provider": "p",
        "region": "r",
        "model": "m",
        "spec": {"retry": {"attempts": tries}},
        "identity": {},
        "tags": [],
        "simulated": False,
        "created_at": LONG_AGO,
        "currency": "USD",
    }
    job = store.add_job(connection, fixed | values)
    store.add_items(connection, job, [new_item(str(number)) for number in range(size)])
    return job


def new_item(custom_id: str) -> NewItem:
    return NewItem(custom_id=custom_id, row_hash=custom_id, variables={"n": custom_id}, media=[], input_bound=100)


def add_worker(engine: Engine) -> str:
    with writing(engine) as connection:
        return workers.register(connection, lease=60.0)


def take(
    engine: Engine,
    worker: str,
    room: int = 100,
    *,
    only: frozenset[int] | None = None,
    reserve: Reserve | None = None,
    at_any_time: bool = False,
) -> Claimed:
    with writing(engine) as connection:
        return claim(
            connection,
            worker=worker,
            room=room,
            only=only,
            reserve=reserve or reserving(),
            at_any_time=at_any_time,
        )


def store_results(engine: Engine, *results: Result) -> None:
    with writing(engine) as connection:
        finish(connection, results)


def reap(engine: Engine, *dead: str) -> workers.Reaped:
    with writing(engine) as connection:
        return workers.reap(connection, dead)


def counted(input_tokens: int = 100, output_tokens: int = 20) -> Usage:
    return Usage(input_tokens=input_tokens, output_tokens=output_tokens, raw={"prompt_tokens": input_tokens})


def charged(low: Decimal | None = COST, high: Decimal | None = None, *, used: Usage | None = None) -> Charge:
    """An exact charge, or one from `low` to `high`. Without `low` the price isn't known."""
    most = low if high is None else high
    return Charge(usage=used, price_id=None, cost_low=low, cost_high=most, currency=None if low is None else "USD")


def answered(call: Call, text: str = "a cat", *, charge: Charge | None = None, reason: str = "stop") -> Result:
    """A complete answer."""
    used = counted() if charge is None else charge.usage
    return Result(
        call=call,
        outcome="complete",
        state=State.DONE if reason == "stop" else State.TRUNCATED,
        next_at=call.send_at,
        free_tries=call.free_tries,
        paid_tries=call.paid_tries,
        sent_at=call.claimed_at,
        ended_at=call.claimed_at,
        http_status=200,
        answer=Answer(text=text, reasoning="", finish_reason=reason, complete=True, usage=used, request_id="request"),
        charge=charged(used=used) if charge is None else charge,
        tokens=None if used is None else used.total_tokens,
    )


def broken(
    call: Call,
    kind: ErrorKind = ErrorKind.SERVER,
    *,
    state: State = State.WAITING,
    next_at: datetime = LONG_AGO,
    charge: Charge | None = None,
    text: str = "",
    pauses: str | None = None,
    message: str = "it broke",
) -> Result:
    """A failed attempt; with `text`, one that broke in the middle of its answer."""
    partial = Answer(text=text, reasoning="", finish_reason=None, complete=False, usage=None, request_id=None)
    return Result(
        call=call,
        outcome="failed",
        state=state,
        next_at=next_at,
        free_tries=call.free_tries,
        paid_tries=call.paid_tries + 1,
        sent_at=call.claimed_at,
        ended_at=call.claimed_at,
        error_kind=kind,
        error=message,
        answer=partial if text else None,
        charge=charge,
        pauses=pauses,
    )


def unsent(call: Call) -> Result:
    """Given back before it left."""
    return Result(
        call=call,
        outcome="unsent",
        state=State.PENDING,
        next_at=LONG_AGO,
        free_tries=call.free_tries,
        paid_tries=call.paid_tries,
        ended_at=call.claimed_at,
    )


def job_of(engine: Engine, job: int) -> Record:
    with reading(engine) as connection:
        return connection.execute(sa.select(jobs).where(jobs.c.id == job)).one()


def profile_of(engine: Engine, job: int) -> Record:
    with reading(engine) as connection:
        wanted = sa.select(profiles).join(jobs, jobs.c.profile_id == profiles.c.id).where(jobs.c.id == job)
        return connection.execute(wanted).one()


def item_of(engine: Engine, item: int) -> Record:
    with reading(engine) as connection:
        return connection.execute(sa.select(items).where(items.c.id == item)).one()


def attempt_of(engine: Engine, attempt: int) -> Record:
    with reading(engine) as connection:
        return connection.execute(sa.select(attempts).where(attempts.c.id == attempt)).one()


def usage_of(engine: Engine, attempt: int) -> Record | None:
    with reading(engine) as connection:
        return connection.execute(sa.select(usage).where(usage.c.attempt_id == attempt)).one_or_none()


def states_of(engine: Engine, job: int) -> dict[str, int]:
    with reading(engine) as connection:
        return store.count_states(connection, job)


def change_job(engine: Engine, job: int, **values: object) -> None:
    with writing(engine) as connection:
        store.change_job(connection, job, values)


def change_profile(engine: Engine, profile: int, **values: object) -> None:
    with writing(engine) as connection:
        connection.execute(sa.update(profiles).where(profiles.c.id == profile).values(**values))


def wait_for_a_lock(engine: Engine) -> None:
    """On PostgreSQL, until some connection waits for what another one holds."""
    waiting = sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while not connection.execute(waiting).scalar():
            pass

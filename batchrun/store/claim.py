"""Taking items for one worker: fence, slots, reservation and attempt row in one transaction (intent before money)."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection

from batchrun.database import clock
from batchrun.messages import JsonValue
from batchrun.pacing.limits import DEFAULT_CONCURRENCY, LOOKAHEAD, Bucket, Health, breaker_allows, grant
from batchrun.pacing.windows import stored_window
from batchrun.segments.merging import Part
from batchrun.states import State
from batchrun.store.bulk import insert
from batchrun.store.parts import Merges, parts_of
from batchrun.store.prefixes import Rule, prefixes_of
from batchrun.store.sample import NAMED, Sample, pages
from batchrun.stream.continuing import Continuing, Prefix
from batchrun.tables import Record, attempts, items, jobs, profiles

BUCKET_COLUMNS = ("next_slot_at", "tokens_at", "day", "day_tokens")
LIMIT_COLUMNS = ("requests_per_minute", "tokens_per_minute", "tokens_per_day")
HEALTH_COLUMNS = (
    "cut_at",
    "window_calls",
    "window_limited",
    "window_down",
    "failures_in_row",
    "breaker_step",
    "breaker_until",
    "refused_in_row",
)


Reserve: TypeAlias = Callable[[int, Record, Prefix | None], Decimal | None]
"""From a job's id, an item with its `input_bound` and `variables`, and the text that is sent along, to the most that
its call can cost; None where that isn't known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """An item that this worker holds, with its open attempt."""

    attempt_id: int
    item_id: int
    job_id: int
    profile_id: int
    fence: int
    custom_id: str
    variables: Mapping[str, JsonValue]
    media: Sequence[Mapping[str, JsonValue]]
    free_tries: int
    paid_tries: int
    free_since: datetime | None
    claimed_at: datetime
    send_at: datetime
    """Not to be sent before, by the database's clock."""
    reserved: Decimal | None
    expected_tokens: int
    prefix: Prefix | None = None
    """What an earlier attempt of the item brought, to be continued."""
    parts: Sequence[Part] = ()
    """What is merged."""


@dataclass(slots=True, kw_only=True)
class Claimed:
    """What one claim brought, and for each job that got less than there was room for, what held it back."""

    now: datetime
    calls: list[Call] = field(default_factory=list)
    brakes: dict[int, str] = field(default_factory=dict)
    next_at: datetime | None = None
    """The earliest moment at which a limit will let another call through."""


def nothing_merges(_job_id: int, _item: Record) -> bool:
    return False


def every_job(_job: Record) -> bool:
    return True


def nothing_continues(_job_id: int, _item: Record) -> Continuing | None:
    return None


def claim(
    connection: Connection,
    *,
    worker: str,
    room: int,
    only: frozenset[int] | None,
    reserve: Reserve,
    sample: Sample | None = None,
    continuing: Rule = nothing_continues,
    merges: Merges = nothing_merges,
    is_served: Callable[[Record], bool] = every_job,
    at_any_time: bool = False,
) -> Claimed:
    """Claim up to `room` items for `worker`, by priority, then in equal shares.

    `only` names the jobs that may be claimed from (None: all), `sample` the items (None: all of these jobs),
    `continuing` what of an item may be continued, `is_served` the jobs that calls can be made for; `at_any_time` passes
    over the windows of the jobs.
    """
    now = clock(connection)
    claimed = Claimed(now=now)
    candidates = [job for job in runnable(connection, only, now) if is_served(job)]
    if not at_any_time:
        candidates = in_their_windows(candidates, claimed)
    if not candidates or room <= 0:
        return claimed
    pools = lock_profiles(connection, sorted({job.profile_id for job in candidates}))
    # A pause that was committed while this waited for the lock holds too.
    candidates = [job for job in candidates if not pools[job.profile_id].paused]
    in_flight_of_job, in_flight_of_profile = count_in_flight(connection, pools)
    candidates.sort(key=lambda job: (-job.priority, in_flight_of_job.get(job.id, 0), random.random()))  # noqa: S311 - no secret
    for position, job in enumerate(candidates):
        rivals = [other for other in candidates[position:] if other.priority == job.priority]
        share = -(-(room - len(claimed.calls)) // len(rivals))
        pool = pools[job.profile_id]
        claim_of_job(
            connection,
            claimed,
            worker=worker,
            job=job,
            pool=pool,
            share=share,
            sharing=sum(other.profile_id == job.profile_id for other in rivals),
            in_flight=(in_flight_of_job.get(job.id, 0), in_flight_of_profile.get(job.profile_id, 0)),
            reserve=reserve,
            sample=None if sample is None else sample[job.id],
            continuing=continuing,
            merges=merges,
        )
        taken = sum(call.profile_id == job.profile_id for call in claimed.calls)
        in_flight_of_profile[job.profile_id] = pool.in_flight + taken
    for pool in pools.values():
        pool.save(connection)
    return claimed


JOB_COLUMNS = [
    jobs.c[name]
    for name in (
        *("id", "profile_id", "provider", "region", "model", "simulated", "priority", "concurrency", "window"),
        *("paused", "cap", "currency", "reserved", "spent", "expected_tokens", "calls_seen", "tokens_seen"),
        *("errors_in_row", "error_in_row"),
        *LIMIT_COLUMNS,
        *BUCKET_COLUMNS,
    )
]
"""What claims and finishes need of a job: not its spec, which is long and would be decoded each time."""


def has_items(*conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    return sa.exists().where(items.c.job_id == jobs.c.id, *conditions)


# Statements are built once: building one costs as much as running it.
SELECT_RUNNABLE = (
    sa.select(*JOB_COLUMNS)
    .join(profiles, profiles.c.id == jobs.c.profile_id)
    .where(
        jobs.c.paused.is_(None),
        profiles.c.paused.is_(None),
        # Two questions, each answered by one look into the index; one question with OR reads all items of the job.
        sa.or_(
            has_items(items.c.state == State.PENDING),
            has_items(items.c.state == State.WAITING, items.c.next_at <= sa.bindparam("now")),
        ),
    )
    .order_by(jobs.c.id)
    .with_for_update(of=jobs, key_share=True)
)
SELECT_RUNNABLE_ONLY = SELECT_RUNNABLE.where(jobs.c.id.in_(sa.bindparam("only", expanding=True)))
LOCK_PROFILES = (
    sa.select(profiles)
    .where(profiles.c.id.in_(sa.bindparam("ids", expanding=True)))
    .order_by(profiles.c.id)
    .with_for_update(key_share=True)
)
COUNT_IN_FLIGHT = (
    sa.select(attempts.c.profile_id, attempts.c.job_id, sa.func.count())
    .where(sa.literal_column("outcome = 'open'"), attempts.c.profile_id.in_(sa.bindparam("ids", expanding=True)))
    .group_by(attempts.c.profile_id, attempts.c.job_id)
)


def select_items(*conditions: ColumnElement[bool]) -> sa.Select[*tuple[Any, ...]]:
    names = ("id", "custom_id", "variables", "media", "fence", "free_tries", "paid_tries", "free_since", "input_bound")
    return (
        sa.select(*(items.c[name] for name in names))
        .where(*conditions)
        .order_by(items.c.next_at, items.c.id)
        .limit(sa.bindparam("wanted"))
        .with_for_update(skip_locked=True)
    )


DUE = (
    sa.and_(items.c.state == State.WAITING, items.c.next_at <= sa.bindparam("now")),
    items.c.state == State.PENDING,
)
"""Retries that are due first, then what was never tried, in the order of the source."""
SELECT_DUE = [select_items(items.c.job_id == sa.bindparam("job"), condition) for condition in DUE]
SELECT_DUE_SAMPLED = [select_items(NAMED, condition) for condition in DUE]
"""Without the job: SQLite would walk through all its items in the order of the index."""
TAKE_ITEMS = (
    sa.update(items)
    .where(items.c.id.in_(sa.bindparam("items", expanding=True)))
    .values(state=State.CLAIMED.value, owner=sa.bindparam("worker"), fence=items.c.fence + 1)
)
OPEN_ATTEMPTS = insert(
    attempts,
    (
        *("item_id", "job_id", "profile_id", "worker_id", "fence"),
        *("outcome", "claimed_at", "expected_tokens", "reserved"),
    ),
    returning=("id", "item_id"),
)
SAVE_PROFILE = (
    sa.update(profiles)
    .where(profiles.c.id == sa.bindparam("profile"))
    .values({name: sa.bindparam(f"new_{name}") for name in BUCKET_COLUMNS})
)
SAVE_JOB = (
    sa.update(jobs)
    .where(jobs.c.id == sa.bindparam("job"))
    .values({name: sa.bindparam(f"new_{name}") for name in ("reserved", *BUCKET_COLUMNS)})
)


def runnable(connection: Connection, only: frozenset[int] | None, now: datetime) -> list[Record]:
    """Jobs that aren't paused and have an item that is due."""
    if only is None:
        return list(connection.execute(SELECT_RUNNABLE, {"now": now}))
    return list(connection.execute(SELECT_RUNNABLE_ONLY, {"now": now, "only": sorted(only)}))


def in_their_windows(candidates: Sequence[Record], claimed: Claimed) -> list[Record]:
    """Those that may start calls for as long as the slots of a claim reach; the others wait for their window."""
    allowed = []
    for job in candidates:
        window = stored_window(job.window)
        if window is None or (window.is_open(claimed.now) and window.is_open(claimed.now + LOOKAHEAD)):
            allowed.append(job)
        else:
            claimed.brakes[job.id] = "window"
    return allowed


@dataclass(slots=True, kw_only=True)
class Pool:
    """A profile during a claim: its row is locked, its bucket and health change in memory and are saved once."""

    id: int
    concurrency: int | None
    bucket: Bucket
    health: Health
    paused: bool
    in_flight: int = 0

    def allowed(self, now: datetime, in_flight: int, wished: int | None) -> tuple[int, str]:
        """How many more calls may be open, and what says so. `wished` is the concurrency that the job asks for."""
        probes = breaker_allows(self.health, now, in_flight=in_flight)
        if probes is not None:
            return probes, "breaker"
        limit = self.concurrency or max(DEFAULT_CONCURRENCY, wished or 0)
        return max(1, int(limit * self.health.factor)) - in_flight, "concurrency"

    def save(self, connection: Connection) -> None:
        values = {f"new_{name}": getattr(self.bucket, name) for name in BUCKET_COLUMNS}
        connection.execute(SAVE_PROFILE, {"profile": self.id, **values})


def lock_profiles(connection: Connection, ids: Sequence[int]) -> dict[int, Pool]:
    return {row.id: pool_of(row) for row in connection.execute(LOCK_PROFILES, {"ids": ids})}


def pool_of(row: Record) -> Pool:
    return Pool(
        id=row.id,
        concurrency=row.concurrency,
        bucket=bucket_of(row, factor=row.rate_factor),
        health=Health(factor=row.rate_factor, **{name: getattr(row, name) for name in HEALTH_COLUMNS}),
        paused=row.paused is not None,
    )


def bucket_of(row: Record, *, factor: float = 1.0) -> Bucket:
    return Bucket(factor=factor, **{name: getattr(row, name) for name in LIMIT_COLUMNS + BUCKET_COLUMNS})


def count_in_flight(connection: Connection, pools: Mapping[int, Pool]) -> tuple[dict[int, int], dict[int, int]]:
    """Open attempts of each job and of each profile, on all machines."""
    rows = connection.execute(COUNT_IN_FLIGHT, {"ids": list(pools)})
    of_job: dict[int, int] = {}
    of_profile = dict.fromkeys(pools, 0)
    for profile_id, job_id, count in rows:
        of_job[job_id] = count
        of_profile[profile_id] += count
        pools[profile_id].in_flight += count
    return of_job, of_profile


def claim_of_job(
    connection: Connection,
    claimed: Claimed,
    *,
    worker: str,
    job: Record,
    pool: Pool,
    share: int,
    sharing: int,
    in_flight: tuple[int, int],
    reserve: Reserve,
    sample: Sequence[int] | None,
    continuing: Rule,
    merges: Merges,
) -> None:
    """Claim up to `share` items of one job and note what held it back, if anything did.

    `sharing` jobs, this one included, are still to get a part of the places of its profile.
    """
    now = claimed.now
    free, brake = pool.allowed(now, in_flight[1], job.concurrency)
    allowed = -(-free // sharing)
    if job.concurrency is not None and job.concurrency - in_flight[0] < allowed:
        allowed, brake = job.concurrency - in_flight[0], "job concurrency"
    wanted = min(share, allowed)
    due = select_due(connection, job.id, wanted, now, sample) if wanted > 0 else []
    if wanted < share and len(due) == max(wanted, 0):
        claimed.brakes[job.id] = brake
    if not due:
        return
    prefixes = prefixes_of(connection, job.id, due, continuing)
    affordable, reservations = afford(job, due, reserve, prefixes)
    if len(affordable) < len(due):
        claimed.brakes[job.id] = "cap"
        if not affordable and not in_flight[0]:
            pause_at_cap(connection, job, reserve(job.id, due[0], prefixes.get(due[0].id)))
    tokens = expected_tokens(job)
    bucket = bucket_of(job)
    granted = grant(pool.bucket, bucket, now, wanted=len(affordable), tokens=tokens)
    slots = granted.slots
    if granted.next_at is not None:
        claimed.brakes[job.id] = "rate"
        claimed.next_at = min(granted.next_at, claimed.next_at or granted.next_at)
    if not slots:
        return
    taken = affordable[: len(slots)]
    parts = parts_of(connection, job.id, taken, merges)
    calls = open_attempts(connection, worker, job, taken, slots, reservations, tokens, now, prefixes, parts)
    claimed.calls.extend(calls)
    reserved = sum((call.reserved for call in calls if call.reserved is not None), job.reserved)
    values = {f"new_{name}": getattr(bucket, name) for name in BUCKET_COLUMNS}
    connection.execute(SAVE_JOB, {"job": job.id, "new_reserved": reserved, **values})


def select_due(
    connection: Connection, job_id: int, wanted: int, now: datetime, sample: Sequence[int] | None
) -> list[Record]:
    found: list[Record] = []
    if sample is None:
        for statement in SELECT_DUE:
            if len(found) < wanted:
                found += connection.execute(statement, {"job": job_id, "wanted": wanted - len(found), "now": now})
        return found
    for statement in SELECT_DUE_SAMPLED:
        for ids in pages(sample):
            if len(found) < wanted:
                found += connection.execute(statement, {"ids": ids, "wanted": wanted - len(found), "now": now})
    return found


def afford(
    job: Record,
    due: Sequence[Record],
    reserve: Reserve,
    prefixes: Mapping[int, Prefix],
) -> tuple[list[Record], list[Decimal | None]]:
    """The items whose upper bounds still fit under the job's cap, and those bounds."""
    taken: list[Record] = []
    reservations: list[Decimal | None] = []
    committed = job.spent + job.reserved
    for item in due:
        most = reserve(job.id, item, prefixes.get(item.id))
        if job.cap is not None:
            if most is None or committed + most > job.cap:
                continue
            committed += most
        taken.append(item)
        reservations.append(most)
    return taken, reservations


def pause_at_cap(connection: Connection, job: Record, next_call: Decimal | None) -> None:
    most = "an unknown amount" if next_call is None else f"up to {plain(next_call)} {job.currency}"
    message = (
        f"the next call may cost {most}; spent {plain(job.spent)}, reserved {plain(job.reserved)} "
        f"of a cap of {plain(job.cap)} {job.currency}"
    )
    connection.execute(sa.update(jobs).where(jobs.c.id == job.id).values(paused="budget", pause_message=message))


def plain(amount: Decimal) -> str:
    """Without the zeros that stand behind it in the database."""
    return f"{amount.normalize():f}"


def expected_tokens(job: Record) -> int:
    """What a call of this job is expected to use: the mean so far, a guess of the loader before that."""
    return int(job.tokens_seen // job.calls_seen) if job.calls_seen else int(job.expected_tokens)


def open_attempts(
    connection: Connection,
    worker: str,
    job: Record,
    taken: Sequence[Record],
    slots: Sequence[datetime],
    reservations: Sequence[Decimal | None],
    tokens: int,
    now: datetime,
    prefixes: Mapping[int, Prefix],
    parts: Mapping[int, Sequence[Part]],
) -> list[Call]:
    connection.execute(TAKE_ITEMS, {"items": [item.id for item in taken], "worker": worker})
    opened = OPEN_ATTEMPTS.run(
        connection,
        [
            {
                "item_id": item.id,
                "job_id": job.id,
                "profile_id": job.profile_id,
                "worker_id": worker,
                "fence": item.fence + 1,
                "outcome": "open",
                "claimed_at": now,
                "expected_tokens": tokens,
                "reserved": most,
            }
            for item, most in zip(taken, reservations, strict=False)
        ],
    )
    attempt_of = {row.item_id: row.id for row in opened}
    return [
        Call(
            attempt_id=attempt_of[item.id],
            item_id=item.id,
            job_id=job.id,
            profile_id=job.profile_id,
            fence=item.fence + 1,
            custom_id=item.custom_id,
            variables=item.variables,
            media=item.media,
            free_tries=item.free_tries,
            paid_tries=item.paid_tries,
            free_since=item.free_since,
            claimed_at=now,
            send_at=slot,
            reserved=most,
            expected_tokens=tokens,
            prefix=prefixes.get(item.id),
            parts=parts.get(item.id, ()),
        )
        for item, slot, most in zip(taken, slots, reservations, strict=False)
    ]

"""What holds jobs, as facts: a few queries that read indexes, and rows of what is in flight or waiting."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy import Connection

from batchrun.database import clock
from batchrun.jobfile import sections
from batchrun.pacing.brakes import JobFacts, Rate
from batchrun.pacing.limits import DEFAULT_CONCURRENCY, Bucket
from batchrun.pacing.windows import stored_window
from batchrun.states import State
from batchrun.tables import Record, attempts, items, jobs, profiles, workers

BUCKET = (
    *("requests_per_minute", "tokens_per_minute", "tokens_per_day"),
    *("next_slot_at", "tokens_at", "day", "day_tokens"),
)
RECENT = timedelta(minutes=2)
"""A worker that can't do anything ends at once, and looks again within half a minute."""
BATCH_CHAT = jobs.c.spec["mode"].as_string() == sections.BATCH_CHAT
OF_JOB = (
    *("id", "name", "profile_id", "paused", "pause_message", "cap", "currency", "reserved", "spent", "concurrency"),
    "window",
    *("expected_tokens", "calls_seen", "tokens_seen"),
    *BUCKET,
)
OF_PROFILE = ("paused", "pause_message", "concurrency", "rate_factor", "breaker_until", "breaker_step", *BUCKET)
SELECT_JOBS = (
    sa.select(
        *(jobs.c[name] for name in OF_JOB),
        BATCH_CHAT.label("batch_chat"),
        *(profiles.c[name].label(f"profile_{name}") for name in OF_PROFILE),
    )
    .join(profiles, profiles.c.id == jobs.c.profile_id)
    .where(jobs.c.id.in_(sa.bindparam("ids", expanding=True)))
    .order_by(jobs.c.id)
)
COUNT_STATES = (
    sa.select(items.c.job_id, items.c.state, sa.func.count())
    .where(items.c.job_id.in_(sa.bindparam("ids", expanding=True)))
    .group_by(items.c.job_id, items.c.state)
)
"""Read from the claim's index alone."""
not_due = sa.case((items.c.next_at > sa.bindparam("now", type_=items.c.next_at.type), items.c.next_at))
SELECT_WAITING = (
    sa.select(
        items.c.job_id,
        (sa.func.count() - sa.func.count(not_due)).label("due"),
        sa.func.min(not_due, type_=items.c.next_at.type).label("first"),
        sa.func.max(not_due, type_=items.c.next_at.type).label("last"),
    )
    .where(items.c.job_id.in_(sa.bindparam("ids", expanding=True)), items.c.state == State.WAITING.value)
    .group_by(items.c.job_id)
)
SELECT_IN_FLIGHT = (
    sa.select(
        attempts.c.profile_id, attempts.c.job_id, sa.func.count().label("number"), sa.func.min(attempts.c.claimed_at)
    )
    .where(sa.literal_column("outcome = 'open'"), attempts.c.profile_id.in_(sa.bindparam("ids", expanding=True)))
    .group_by(attempts.c.profile_id, attempts.c.job_id)
)
SELECT_HOLDERS = (
    sa.select(items.c.job_id, items.c.owner, sa.func.count())
    .where(items.c.job_id.in_(sa.bindparam("ids", expanding=True)), items.c.state == State.CLAIMED.value)
    .group_by(items.c.job_id, items.c.owner)
)
SELECT_KINDS = (
    sa.select(items.c.job_id, items.c.state, items.c.error_kind, sa.func.count())
    .where(
        items.c.job_id.in_(sa.bindparam("ids", expanding=True)),
        items.c.state.in_(sa.bindparam("states", expanding=True)),
        items.c.error_kind.is_not(None),
    )
    .group_by(items.c.job_id, items.c.state, items.c.error_kind)
    .order_by(sa.func.count().desc(), items.c.error_kind)
)

SELECT_UNFIT = (
    sa.select(items.c.job_id, sa.func.count())
    .where(
        items.c.job_id.in_(sa.bindparam("ids", expanding=True)),
        sa.literal_column("state = 'done' AND error_kind IS NOT NULL"),
    )
    .group_by(items.c.job_id)
)
"""In the words of the index that it reads."""


def facts(connection: Connection, ids: Sequence[int], *, dead: Collection[str] = ()) -> dict[int, JobFacts]:
    """The facts of these jobs by id. `dead` names workers that are known to be gone though their rows say otherwise."""
    now = clock(connection)
    rows = list(connection.execute(SELECT_JOBS, {"ids": list(ids)}))
    counts = count_states(connection, ids)
    waiting = {row.job_id: row for row in connection.execute(SELECT_WAITING, {"ids": list(ids), "now": now})}
    flying = in_flight(connection, sorted({row.profile_id for row in rows}))
    holders = holders_of(connection, ids, dead)
    alive = len(
        set(connection.execute(sa.select(workers.c.id).where(workers.c.ended_at.is_(None))).scalars()) - {*dead}
    )
    unable = unable_for(connection, ids, now)
    kinds = error_kinds(connection, ids, [State.WAITING])
    return {
        row.id: JobFacts(
            name=row.name,
            now=now,
            counts=counts.get(row.id, {}),
            paused=row.paused or row.profile_paused,
            pause_message=row.pause_message if row.paused else row.profile_pause_message,
            due_waiting=waiting[row.id].due if row.id in waiting else 0,
            next_at=waiting[row.id].first if row.id in waiting else None,
            last_at=waiting[row.id].last if row.id in waiting else None,
            waiting_kinds=kinds.get(row.id, {}).get(State.WAITING, {}),
            in_flight=flying.of_job.get(row.id, 0),
            profile_in_flight=flying.of_profile.get(row.profile_id, 0),
            oldest_call=flying.oldest.get(row.id),
            workers=holders[row.id].live,
            live_workers=alive,
            unable=unable[row.id],
            batch_chat=bool(row.batch_chat),
            held_by_dead=holders[row.id].items_of_dead,
            window=stored_window(row.window),
            breaker_until=row.profile_breaker_until,
            breaker_step=row.profile_breaker_step,
            concurrency=row.concurrency,
            profile_concurrency=places(row),
            rates=(
                Rate(bucket=bucket(row, "profile_", row.profile_rate_factor)),
                Rate(bucket=bucket(row), of_job=True),
            ),
            expected_tokens=row.tokens_seen // row.calls_seen if row.calls_seen else row.expected_tokens,
            cap=row.cap,
            spent=row.spent,
            reserved=row.reserved,
            currency=row.currency,
        )
        for row in rows
    }


def unable_for(connection: Connection, ids: Sequence[int], now: datetime) -> Mapping[int, Sequence[str]]:
    """Why machines that looked within the last minutes can't work on the jobs: `host: reason`."""
    seen = sa.or_(workers.c.ended_at.is_(None), workers.c.ended_at > now - RECENT)
    rows = connection.execute(
        sa.select(workers.c.host, workers.c.unable).where(workers.c.unable.is_not(None), seen).order_by(workers.c.host)
    )
    found: dict[int, list[str]] = defaultdict(list)
    for host, reasons in rows:
        for job_id in ids:
            told = f"{host}: {reasons[str(job_id)]}" if str(job_id) in reasons else None
            if told is not None and told not in found[job_id]:
                found[job_id].append(told)
    return found


def places(row: Record) -> int:
    """How many calls at once the profile allows, as the claim counts them."""
    limit = row.profile_concurrency or max(DEFAULT_CONCURRENCY, row.concurrency or 0)
    return max(1, int(limit * row.profile_rate_factor))


def bucket(row: Record, prefix: str = "", factor: float = 1.0) -> Bucket:
    return Bucket(factor=factor, **{name: getattr(row, prefix + name) for name in BUCKET})


def count_states(connection: Connection, ids: Sequence[int]) -> dict[int, dict[State, int]]:
    found: dict[int, dict[State, int]] = defaultdict(dict)
    for job_id, state, count in connection.execute(COUNT_STATES, {"ids": list(ids)}):
        found[job_id][State(state)] = count
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Flying:
    of_job: Mapping[int, int]
    of_profile: Mapping[int, int]
    oldest: Mapping[int, datetime]


def in_flight(connection: Connection, profile_ids: Sequence[int]) -> Flying:
    """Open attempts of the jobs and profiles, on all machines."""
    of_job: dict[int, int] = {}
    of_profile: dict[int, int] = defaultdict(int)
    oldest: dict[int, datetime] = {}
    for profile_id, job_id, count, since in connection.execute(SELECT_IN_FLIGHT, {"ids": list(profile_ids)}):
        of_job[job_id], oldest[job_id] = count, since
        of_profile[profile_id] += count
    return Flying(of_job=of_job, of_profile=of_profile, oldest=oldest)


@dataclass(slots=True, kw_only=True)
class Holders:
    live: int = 0
    items_of_dead: int = 0


def holders_of(connection: Connection, ids: Sequence[int], dead: Collection[str]) -> Mapping[int, Holders]:
    """Who holds items of the jobs."""
    found: dict[int, Holders] = defaultdict(Holders)
    for job_id, owner, count in connection.execute(SELECT_HOLDERS, {"ids": list(ids)}):
        if owner is None or owner in dead:
            found[job_id].items_of_dead += count
        else:
            found[job_id].live += 1
    return found


def unfit(connection: Connection, ids: Sequence[int]) -> dict[int, int]:
    """Done items of each job whose answer doesn't fit its schema."""
    return {row[0]: row[1] for row in connection.execute(SELECT_UNFIT, {"ids": list(ids)})}


def error_kinds(
    connection: Connection, ids: Sequence[int], states: Sequence[State]
) -> dict[int, dict[State, dict[str, int]]]:
    """Items in these states by the kind of their last error, the most frequent first."""
    wanted = {"ids": list(ids), "states": [state.value for state in states]}
    found: dict[int, dict[State, dict[str, int]]] = {}
    for job_id, state, kind, count in connection.execute(SELECT_KINDS, wanted):
        found.setdefault(job_id, {}).setdefault(State(state), {})[kind] = count
    return found

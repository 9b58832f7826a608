"""Storing what came of calls, many at a time, in one transaction. Applying the same results twice changes nothing.

State is fenced, answers never are: a worker that was thought dead can't move an item that another one holds, but a
complete answer that it paid for is kept. The first one is the item's answer, later ones are spares of their attempts.
An answer that was cut and is being continued gives way to a longer one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Literal

import sqlalchemy as sa
from sqlalchemy import Connection

from batchrun.alike import KEY_LENGTH, READ
from batchrun.answer import Answer, Usage
from batchrun.database import clock
from batchrun.errors import ErrorKind
from batchrun.pacing.limits import REFUSALS, Bucket, Health, Seen, observe
from batchrun.retries import DOWN, PROFILE_IS_REFUSED
from batchrun.states import State, sources
from batchrun.store.bulk import Bulk, Given, insert
from batchrun.store.claim import BUCKET_COLUMNS, HEALTH_COLUMNS, JOB_COLUMNS, Call, Pool, bucket_of, lock_profiles
from batchrun.tables import MOST_MONEY, Record, answers, attempts, items, jobs, profiles, usage

Outcome = Literal["complete", "failed", "unsent", "lost"]

OURS = frozenset(
    {
        ErrorKind.LOCAL,
        ErrorKind.LOST,
        ErrorKind.INTERNAL,
        ErrorKind.MEDIA,
        ErrorKind.MEDIA_UNAVAILABLE,
        ErrorKind.TEMPLATE,
        ErrorKind.PARTS,
    }
)
"""Ends of a call that say nothing about the provider."""

SAME_ERRORS = 10
"""Equal errors of items in a row, before anything has succeeded, that pause a job."""
SAME_MEDIA_ERRORS = 100
"""The same for pictures that can't be sent: they fail for nothing, and before the first answers can be there."""
UNREACHED_TRIES = 4
"""Of one item, so that a job of few items doesn't wait minutes to say that the address is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """The usage row of an attempt that may have cost money. Costs are None where the price isn't known."""

    usage: Usage | None
    price_id: int | None
    cost_low: Decimal | None
    cost_high: Decimal | None
    currency: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How an attempt ended, and what becomes of its item."""

    call: Call
    outcome: Outcome
    state: State
    next_at: datetime
    free_tries: int
    paid_tries: int
    ended_at: datetime
    free_since: datetime | None = None
    max_elapsed: timedelta = timedelta(hours=24)
    """The job's bound on free failures."""
    sent_at: datetime | None = None
    first_token_at: datetime | None = None
    http_status: int | None = None
    error_kind: ErrorKind | None = None
    error: str | None = None
    vendor_code: str | None = None
    request_id: str | None = None
    contents: str | None = None
    """Names what was in the local files that were sent, see `alike`; None for none, and where it isn't known."""
    note: str | None = None
    """What was done to the pictures before they were sent."""
    answer: Answer | None = None
    charge: Charge | None = None
    pauses: str | None = None
    """Why the profile must stop at once, such as `arrears`."""
    tokens: int | None = None
    """Input and output together as the vendor counted them; None where it didn't."""


def finish(connection: Connection, results: Sequence[Result]) -> None:
    """Close the attempts, store answers and usage, move the items, settle the reservations and buckets."""
    now = clock(connection)
    locked = lock_jobs(connection, {result.call.job_id for result in results})
    before = attempts_before(connection, results)
    fresh = [result for result in results if is_news(result, before[result.call.attempt_id])]
    if not fresh:
        return
    pools = lock_profiles(connection, sorted({result.call.profile_id for result in fresh}))
    for profile_id, group in grouped(fresh, lambda result: result.call.profile_id).items():
        update_profile(connection, pools[profile_id], group, now)
    fresh = [sat_out(result, pools[result.call.profile_id].health, now) for result in fresh]
    close_attempts(connection, fresh)
    store_answers(connection, fresh)
    charged = store_usage(connection, fresh, before, locked)
    move_items(connection, fresh)
    for job_id, group in grouped(fresh, lambda result: result.call.job_id).items():
        update_job(connection, locked[job_id], group, before, charged[job_id], now)


def sat_out(result: Result, health: Health, now: datetime) -> Result:
    """An outage isn't the item's fault: while the breaker is open no try counts, and the item goes behind the others,
    so that probes don't meet the same few items again and again."""
    if health.breaker_until is None or result.outcome != "failed" or result.error_kind not in DOWN:
        return result
    since = result.call.free_since or now
    if now - since >= result.max_elapsed:
        return replace(result, state=State.FAILED)
    return replace(
        result,
        state=State.PENDING,
        next_at=now,
        paid_tries=result.call.paid_tries,
        free_tries=result.call.free_tries + 1,
        free_since=since,
    )


def is_news(result: Result, attempt: Record) -> bool:
    """Whether this wasn't stored yet. Of a call that was given up as lost its worker may still have news."""
    if attempt.outcome == "lost":
        return bool(attempt.ended_at != result.ended_at)
    return bool(attempt.outcome == "open")


def grouped(results: Iterable[Result], key: Callable[[Result], int]) -> dict[int, list[Result]]:
    groups: dict[int, list[Result]] = defaultdict(list)
    for result in results:
        groups[key(result)].append(result)
    return dict(sorted(groups.items()))


ATTEMPT_COLUMNS = (
    "outcome",
    "sent_at",
    "first_token_at",
    "ended_at",
    "http_status",
    "error_kind",
    "error",
    "vendor_code",
    "request_id",
    "note",
)
TOKEN_COLUMNS = (
    "input_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
    "image_tokens",
    "video_tokens",
)
JOB_CHANGES = ("reserved", "spent", "calls_seen", "tokens_seen", "errors_in_row", "error_in_row", *BUCKET_COLUMNS)
PROFILE_CHANGES = (*BUCKET_COLUMNS, *HEALTH_COLUMNS)

LOCK_JOBS = (
    sa.select(*JOB_COLUMNS)
    .where(jobs.c.id.in_(sa.bindparam("ids", expanding=True)))
    .order_by(jobs.c.id)
    .with_for_update(key_share=True)
)
SELECT_ATTEMPTS = sa.select(attempts.c.id, attempts.c.outcome, attempts.c.ended_at, attempts.c.reserved).where(
    attempts.c.id.in_(sa.bindparam("ids", expanding=True))
)
SETTLED_COLUMNS = tuple(
    usage.c[name] for name in ("cost_low", "cost_high", "currency", "settled", "provider", "region")
)
USAGE_COLUMNS = (
    *("attempt_id", "job_id", "provider", "region", "model", "at", "simulated"),
    *TOKEN_COLUMNS,
    *("raw", "price_id", "cost_low", "cost_high", "currency", "settled"),
)
ADD_ANSWERS = insert(
    answers, ("attempt_id", "text", "reasoning", "finish_reason", "complete", "parsed", "tool_calls", "continues")
)
ADD_USAGE = insert(usage, USAGE_COLUMNS)


def close_attempts_statement() -> Bulk:
    given = Given({name: attempts.c[name].type for name in ("id", *ATTEMPT_COLUMNS)})
    changes = {name: given.c[name] for name in ATTEMPT_COLUMNS}
    return Bulk(statement=sa.update(attempts).where(attempts.c.id == given.c["id"]).values(changes), given=given)


ENDED = ("state", "error_kind", "error")


def sent_name(given: Given) -> sa.ColumnElement[str]:
    """The name of the request by what was sent: a file may have changed since it was loaded. An item without a name has
    no duplicates."""
    key = sa.func.substr(items.c.request_hash, 1, KEY_LENGTH)
    return sa.case(
        (given.c["contents"].is_not(None), key.concat(READ).concat(given.c["contents"])), else_=items.c.request_hash
    )


def keep_answers_statement() -> Bulk:
    given = Given({name: items.c[name].type for name in ("id", "answer_id", *ENDED)} | {"contents": sa.Text()})
    answerable = items.c.state.in_(sources(State.DONE))
    kept = sa.update(items).where(items.c.id == given.c["id"])
    return Bulk(
        given=given,
        statement=kept.values(
            # An item that hasn't ended has an answer only where a cut one is being continued.
            answer_id=sa.case(
                (answerable, given.c["answer_id"]), else_=sa.func.coalesce(items.c.answer_id, given.c["answer_id"])
            ),
            request_hash=sent_name(given),
            state=sa.case((answerable, given.c["state"]), else_=items.c.state),
            owner=sa.case((answerable, sa.null()), else_=items.c.owner),
            error_kind=sa.case((answerable, given.c["error_kind"]), else_=items.c.error_kind),
            error=sa.case((answerable, given.c["error"]), else_=items.c.error),
        ),
    )


MOVED = ("state", "next_at", "free_tries", "paid_tries", "free_since", "error_kind", "error")


def held(given: Given) -> sa.ColumnElement[bool]:
    """Whether the item is still held by the call that `given` tells of."""
    return sa.and_(items.c.id == given.c["id"], items.c.fence == given.c["fence"], items.c.state == State.CLAIMED.value)


def move_on_statement() -> Bulk:
    given = Given({name: items.c[name].type for name in ("id", "fence", *MOVED)})
    # The rest of a cut answer never came; the answer stays what it was.
    falls_back = sa.and_(given.c["state"] == State.FAILED.value, items.c.answer_id.is_not(None))
    ends = {
        "state": sa.case((falls_back, State.TRUNCATED.value), else_=given.c["state"]),
        "error_kind": sa.case((falls_back, sa.null()), else_=given.c["error_kind"]),
        "error": sa.case((falls_back, sa.null()), else_=given.c["error"]),
    }
    changes = {name: ends.get(name, given.c[name]) for name in MOVED}
    return Bulk(statement=sa.update(items).where(held(given)).values(owner=sa.null(), **changes), given=given)


GONE_ON = ("answer_id", "next_at", "free_tries", "paid_tries", "free_since")


def go_on_statement() -> Bulk:
    given = Given({name: items.c[name].type for name in ("id", "fence", *GONE_ON)})
    changes = {name: given.c[name] for name in GONE_ON}
    going = sa.update(items).where(held(given))
    return Bulk(
        statement=going.values(
            state=State.WAITING.value, owner=sa.null(), error_kind=sa.null(), error=sa.null(), **changes
        ),
        given=given,
    )


def keep_cut_statement() -> Bulk:
    given = Given({name: items.c[name].type for name in ("id", "answer_id")} | {"contents": sa.Text()})
    gave_up = items.c.state.in_([State.FAILED.value, State.CANCELLED.value])
    kept = sa.update(items).where(items.c.id == given.c["id"], items.c.state.in_(sources(State.DONE)))
    return Bulk(
        given=given,
        statement=kept.values(
            answer_id=sa.func.coalesce(items.c.answer_id, given.c["answer_id"]),
            request_hash=sent_name(given),
            state=sa.case((gave_up, State.TRUNCATED.value), else_=items.c.state),
            error_kind=sa.case((gave_up, sa.null()), else_=items.c.error_kind),
            error=sa.case((gave_up, sa.null()), else_=items.c.error),
        ),
    )


CLOSE_ATTEMPTS = close_attempts_statement()
KEEP_ANSWERS = keep_answers_statement()
"""Whoever holds the item: the first complete answer is its answer and ends it. One that doesn't fit and is kept all the
same leaves its error beside it."""
GO_ON = go_on_statement()
"""The holder's answer was cut and is continued. Until then it is the item's, which isn't left with less whatever
happens to the rest."""
KEEP_CUT = keep_cut_statement()
"""A cut answer of whoever held the item before: better than none."""
MOVE_ON = move_on_statement()
"""Without an answer only the holder moves the item."""
SAVE_JOB = (
    sa.update(jobs)
    .where(jobs.c.id == sa.bindparam("job"))
    .values({name: sa.bindparam(f"new_{name}") for name in JOB_CHANGES})
)
SAVE_PROFILE = (
    sa.update(profiles)
    .where(profiles.c.id == sa.bindparam("profile"))
    .values(
        {name: sa.bindparam(f"new_{name}") for name in PROFILE_CHANGES} | {"rate_factor": sa.bindparam("new_factor")}
    )
)


def lock_jobs(connection: Connection, ids: set[int]) -> dict[int, Record]:
    """Claims, finishes and reaping all lock jobs first, in the order of their ids, so that none waits in a circle."""
    return {row.id: row for row in connection.execute(LOCK_JOBS, {"ids": sorted(ids)})}


def attempts_before(connection: Connection, results: Sequence[Result]) -> dict[int, Record]:
    ids = [result.call.attempt_id for result in results]
    return {row.id: row for row in connection.execute(SELECT_ATTEMPTS, {"ids": ids})}


def still_known(connection: Connection, results: Sequence[Result]) -> bool:
    """Whether the database knows the calls of all these results, as the calls that they were."""
    calls = {result.call.attempt_id: result.call for result in results}
    wanted = sa.select(attempts.c.id, attempts.c.item_id, attempts.c.fence, attempts.c.claimed_at)
    found = {row.id: row for row in connection.execute(wanted.where(attempts.c.id.in_(list(calls))))}
    return all(
        number in found and tuple(found[number])[1:] == (call.item_id, call.fence, call.claimed_at)
        for number, call in calls.items()
    )


def close_attempts(connection: Connection, results: Sequence[Result]) -> None:
    CLOSE_ATTEMPTS.run(
        connection,
        [
            {"id": result.call.attempt_id, **{name: getattr(result, name) for name in ATTEMPT_COLUMNS}}
            for result in results
        ],
    )


def store_answers(connection: Connection, results: Sequence[Result]) -> None:
    """Also of failed attempts: a partial text is paid for and may be all that there ever is."""
    rows = [
        {
            "attempt_id": result.call.attempt_id,
            "text": result.answer.text,
            "reasoning": result.answer.reasoning,
            "finish_reason": result.answer.finish_reason,
            "complete": result.answer.complete,
            "parsed": result.answer.parsed,
            "tool_calls": list(result.answer.tool_calls) or None,
            "continues": result.answer.continues,
        }
        for result in results
        if result.answer is not None
        and (result.answer.complete or result.answer.text or result.answer.reasoning or result.answer.tool_calls)
    ]
    ADD_ANSWERS.run(connection, rows)


def store_usage(
    connection: Connection,
    results: Sequence[Result],
    before: dict[int, Record],
    locked: dict[int, Record],
) -> dict[int, Decimal]:
    """One row for each attempt that may have cost money. Returns by how much `spent` of each job grows.

    A worker that was taken for dead already has a row with bounds, written when it was reaped: what it now knows
    replaces them. Where the call went that row knows: the job may have changed its mode since.
    """
    grown: dict[int, Decimal] = defaultdict(Decimal)
    rows = []
    for result in results:
        call, charge, settled = result.call, result.charge, None
        place: dict[str, object] = {}
        if before[call.attempt_id].outcome == "lost":
            gone = connection.execute(
                sa.delete(usage).where(usage.c.attempt_id == call.attempt_id).returning(*SETTLED_COLUMNS)
            ).one_or_none()
            grown[call.job_id] -= (None if gone is None else gone.cost_high) or Decimal(0)
            if gone is not None:
                place = {"provider": gone.provider, "region": gone.region}
            if gone is not None and stays_settled(gone, charge):
                charge, settled = charge_as_settled(gone, charge), gone.settled
        if charge is not None:
            rows.append(usage_row(result, locked[call.job_id], charge) | place | {"settled": settled})
            grown[call.job_id] += charge.cost_high or Decimal(0)
    ADD_USAGE.run(connection, rows)
    return grown


def stays_settled(booked: Record, news: Charge | None) -> bool:
    """Whether the cost that somebody settled by hand outlives late news of its call. The vendor's bill always does; an
    assumption does until the cost is known exactly."""
    if booked.settled in (None, "bill"):
        return booked.settled is not None
    return news is not None and (news.cost_high is None or news.cost_low != news.cost_high)


def charge_as_settled(booked: Record, news: Charge | None) -> Charge:
    """The tokens of the news at the cost that was settled."""
    return Charge(
        usage=None if news is None else news.usage,
        price_id=None,
        cost_low=booked.cost_low,
        cost_high=booked.cost_high,
        currency=booked.currency,
    )


def usage_row(result: Result, job: Record, charge: Charge) -> dict[str, object]:
    counted = charge.usage
    row: dict[str, object] = {
        "attempt_id": result.call.attempt_id,
        "job_id": job.id,
        "provider": job.provider,
        "region": job.region,
        "model": job.model,
        "at": result.sent_at or result.call.claimed_at,
        "simulated": job.simulated,
        "raw": None if counted is None else counted.raw,
        "price_id": charge.price_id,
        "cost_low": charge.cost_low,
        "cost_high": charge.cost_high,
        "currency": charge.currency,
    }
    for name in TOKEN_COLUMNS:
        row[name] = None if counted is None else getattr(counted, name)
    return row


def move_items(connection: Connection, results: Sequence[Result]) -> None:
    first: dict[int, Result] = {}
    for result in results:
        if result.outcome == "complete" and result.state is not State.WAITING:
            first.setdefault(result.call.item_id, result)
    keep_cut(connection, [one for one in results if one.outcome == "complete" and one.state is State.WAITING])
    KEEP_ANSWERS.run(
        connection,
        [
            {
                "id": item_id,
                "answer_id": result.call.attempt_id,
                "contents": result.contents,
                **{name: getattr(result, name) for name in ENDED},
            }
            for item_id, result in first.items()
        ],
    )
    MOVE_ON.run(
        connection,
        [
            {
                "id": result.call.item_id,
                "fence": result.call.fence,
                **{name: getattr(result, name) for name in MOVED},
            }
            for result in results
            if result.outcome != "complete"
        ],
    )


def keep_cut(connection: Connection, results: Sequence[Result]) -> None:
    """Answers that were cut and are continued. An item may have several of one group; the first counts."""
    first: dict[int, Result] = {}
    for result in results:
        first.setdefault(result.call.item_id, result)
    GO_ON.run(
        connection,
        [
            {
                "id": result.call.item_id,
                "fence": result.call.fence,
                "answer_id": result.call.attempt_id,
                **{name: getattr(result, name) for name in GONE_ON if name != "answer_id"},
            }
            for result in results
        ],
    )
    KEEP_CUT.run(
        connection,
        [
            {"id": item_id, "answer_id": result.call.attempt_id, "contents": result.contents}
            for item_id, result in first.items()
        ],
    )


def update_job(
    connection: Connection,
    job: Record,
    results: Sequence[Result],
    before: dict[int, Record],
    spent: Decimal,
    now: datetime,
) -> None:
    """Release reservations, book what was spent, learn the mean, notice a job in which nothing succeeds."""
    released = sum(
        (
            before[result.call.attempt_id].reserved or Decimal(0)
            for result in results
            if before[result.call.attempt_id].outcome == "open"
        ),
        Decimal(0),
    )
    counted = [result for result in results if result.tokens is not None]
    bucket = bucket_of(job)
    settle(bucket, results, now)
    streak, kind, pause, message = error_streak(job, results)
    connection.execute(
        SAVE_JOB,
        {
            "job": job.id,
            "new_reserved": job.reserved - released,
            "new_spent": min(job.spent + spent, MOST_MONEY),
            "new_calls_seen": job.calls_seen + len(counted),
            "new_tokens_seen": job.tokens_seen + sum(result.tokens or 0 for result in counted),
            "new_errors_in_row": streak,
            "new_error_in_row": kind,
            **{f"new_{name}": getattr(bucket, name) for name in BUCKET_COLUMNS},
        },
    )
    if pause and job.paused is None:
        connection.execute(sa.update(jobs).where(jobs.c.id == job.id).values(paused=pause, pause_message=message))


def error_streak(job: Record, results: Sequence[Result]) -> tuple[int, str | None, str, str]:
    """Equal errors in a row while nothing has succeeded: how many, of which kind, why to pause, and in words.

    Failed items count, and calls that never left this machine: a provider that was never reached is more likely
    misspelt than down. A negative count says that something has succeeded.
    """
    streak, kind, pause, message = job.errors_in_row, job.error_in_row, "", ""
    for result in results:
        if streak < 0 or result.outcome == "complete":
            return -1, None, "", ""
        if result.state is State.FAILED or (result.error_kind is ErrorKind.NOT_SENT and result.sent_at is not None):
            streak = streak + 1 if result.error_kind == kind else 1
            kind = result.error_kind
            unreached = result.error_kind is ErrorKind.NOT_SENT and result.free_tries >= UNREACHED_TRIES
            most = SAME_MEDIA_ERRORS if kind is ErrorKind.MEDIA else SAME_ERRORS
            if streak >= most or unreached:
                pause, message = reason_to_pause(streak, result)
    return (0, None, pause, message) if pause else (streak, kind, "", "")


def reason_to_pause(streak: int, last: Result) -> tuple[str, str]:
    if last.error_kind is ErrorKind.NOT_SENT:
        return "unreachable", f"the provider was never reached: {last.error}"
    return "errors", f"the first {streak} items all failed with the same error ({last.error_kind}): {last.error}"


def settle(bucket: Bucket, results: Sequence[Result], now: datetime) -> None:
    """Give back the expected tokens that weren't used, book those used beyond. Unknown stays as expected."""
    for result in results:
        if result.outcome == "unsent":
            bucket.settle(now, -result.call.expected_tokens)
        elif result.tokens is not None:
            bucket.settle(now, result.tokens - result.call.expected_tokens)


def update_profile(connection: Connection, pool: Pool, results: Sequence[Result], now: datetime) -> None:
    settle(pool.bucket, results, now)
    told = [seen(result) for result in results if told_by_provider(result)]
    observe(pool.health, told, now)
    refused = next((result for result in results if result.error_kind in PROFILE_IS_REFUSED), None)
    broke = next((result for result in results if result.pauses), None)
    pause = None
    if broke is not None:
        pause = {"paused": broke.pauses, "pause_message": broke.error}
    elif refused is not None and pool.health.refused_in_row >= REFUSALS:
        pause = {"paused": "refused", "pause_message": refused.error}
        pool.health.refused_in_row = 0
    connection.execute(
        SAVE_PROFILE,
        {
            "profile": pool.id,
            "new_factor": pool.health.factor,
            **{f"new_{name}": getattr(pool.bucket, name) for name in BUCKET_COLUMNS},
            **{f"new_{name}": getattr(pool.health, name) for name in HEALTH_COLUMNS},
        },
    )
    if pause is not None and not pool.paused:
        connection.execute(sa.update(profiles).where(profiles.c.id == pool.id).values(pause))


def told_by_provider(result: Result) -> bool:
    """Whether it says something about the provider. A key or a model may be refused before the call, by an upload."""
    sent = result.sent_at is not None and result.error_kind not in OURS
    return sent or result.error_kind in PROFILE_IS_REFUSED


def seen(result: Result) -> Seen:
    return Seen(
        sent_at=result.sent_at or result.call.claimed_at,
        limited=result.error_kind is ErrorKind.RATE_LIMITED,
        down=result.error_kind in DOWN,
        refused=result.error_kind in PROFILE_IS_REFUSED,
    )

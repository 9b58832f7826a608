"""Whether the rows agree with each other: what `doctor` asks of a database. Reads only, one pass over each table.

Each question has an answer that is empty while all is well. Whoever mends selects the same rows by the same conditions
(see `store.mending`), so that nothing is mended that wasn't found.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

import sqlalchemy as sa
from sqlalchemy import BigInteger, ColumnElement, Connection, Select
from sqlalchemy.exc import DBAPIError

from batchrun.answer import DONE_REASONS
from batchrun.errors import ErrorKind
from batchrun.states import OPEN, State
from batchrun.tables import EXACT, MONEY_DIGITS, MOST_MONEY, answers, attempts, items, jobs, profiles, usage, workers

SPLIT = 1_000_000
"""Costs are summed in two halves, as the sum of whole ones may not fit into the 64 bits that SQLite adds in."""
ANSWERED = (State.DONE.value, State.TRUNCATED.value)
IS_OPEN: ColumnElement[bool] = sa.literal_column("outcome = 'open'")
"""Spelt out: SQLite uses a partial index only where its condition stands in the statement."""
own = attempts.alias("own")


class Damage(StrEnum):
    """What can be wrong with rows, in words; the number of rows is told behind it."""

    NO_ANSWER = "items that are done and have no answer"
    WRONG_ANSWER = "items with the answer of another item, or with one that isn't complete"
    UNCLAIMED_ANSWER = "failed items for which there is a complete answer"
    CALLS_OF_DEAD = "open calls of workers that are gone"
    CLAIMED_WITHOUT_CALL = "claimed items without an open call"
    MISSING_USAGE = "calls that may have cost money and have no usage row"
    EXTRA_USAGE = "usage rows of calls that were never sent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    damage: Damage
    rows: int
    job: str
    """One of the jobs that have it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """A counter of a job that isn't the sum of its rows."""

    job_id: int
    job: str
    counter: str
    """`spent` or `reserved`."""
    booked: Decimal
    summed: Decimal
    currency: str | None


def bad_answers(damage: Damage) -> Select[int, int]:
    """Items, with their jobs, whose answer is missing or can't be theirs. An item may share the answer of one that it
    waited for."""
    complete = sa.and_(own.c.outcome == "complete", answers.c.complete.is_(sa.true()))
    foreign = sa.and_(own.c.item_id != items.c.id, sa.func.coalesce(items.c.waits_for, 0) != own.c.item_id)
    missing = sa.and_(items.c.state.in_(ANSWERED), sa.or_(items.c.answer_id.is_(None), answers.c.attempt_id.is_(None)))
    wrong = sa.and_(answers.c.attempt_id.is_not(None), sa.or_(sa.not_(complete), foreign))
    return (
        sa.select(items.c.id, items.c.job_id)
        .outerjoin(own, own.c.id == items.c.answer_id)
        .outerjoin(answers, answers.c.attempt_id == items.c.answer_id)
        .where(missing if damage is Damage.NO_ANSWER else wrong)
    )


def unclaimed_answers() -> Select[int, int]:
    """Failed items with a complete answer that nobody gave up on purpose, as `retry` does with one that was cut."""
    return sa.select(items.c.id, items.c.job_id).where(
        items.c.state == State.FAILED.value,
        items.c.answer_id.is_(None),
        sa.exists()
        .where(own.c.item_id == items.c.id, own.c.outcome == "complete")
        .where(answers.c.attempt_id == own.c.id, answers.c.complete, answers.c.finish_reason.in_(sorted(DONE_REASONS))),
    )


def calls_of_dead(dead: Collection[str]) -> Select[int, int]:
    """Open calls of workers that have ended, or that are known to be `dead`."""
    return (
        sa.select(attempts.c.id, attempts.c.job_id)
        .join(workers, workers.c.id == attempts.c.worker_id)
        .where(IS_OPEN, sa.or_(workers.c.ended_at.is_not(None), workers.c.id.in_(sorted(dead))))
    )


def claimed_without_call() -> Select[int, int]:
    call = sa.exists().where(attempts.c.item_id == items.c.id, attempts.c.fence == items.c.fence, IS_OPEN)
    return sa.select(items.c.id, items.c.job_id).where(items.c.state == State.CLAIMED.value, sa.not_(call))


def missing_usage(free: Collection[ErrorKind]) -> Select[int, int]:
    """Ended calls that may have cost money, by the rule of `call.failed`; `free` are the refusals that cost nothing."""
    refused = sa.and_(
        attempts.c.error_kind.in_(sorted(kind.value for kind in free)),
        sa.func.coalesce(attempts.c.http_status, 0) != 200,
    )
    kind = sa.func.coalesce(attempts.c.error_kind, "")
    billed = sa.and_(
        attempts.c.outcome == "failed", kind != ErrorKind.NOT_SENT.value, sa.not_(sa.func.coalesce(refused, sa.false()))
    )
    return (
        sa.select(attempts.c.id, attempts.c.job_id)
        .outerjoin(usage, usage.c.attempt_id == attempts.c.id)
        .where(usage.c.attempt_id.is_(None), sa.or_(attempts.c.outcome.in_(["complete", "lost"]), billed))
    )


def extra_usage() -> Select[int, int]:
    return (
        sa.select(attempts.c.id, attempts.c.job_id)
        .join(usage, usage.c.attempt_id == attempts.c.id)
        .where(attempts.c.outcome.in_(["open", "unsent"]))
    )


def damages(connection: Connection, *, dead: Collection[str], free: Collection[ErrorKind]) -> list[Found]:
    """What is wrong with the rows. `dead` names workers that are known to be gone though their rows say otherwise."""
    questions = {
        Damage.NO_ANSWER: bad_answers(Damage.NO_ANSWER),
        Damage.WRONG_ANSWER: bad_answers(Damage.WRONG_ANSWER),
        Damage.UNCLAIMED_ANSWER: unclaimed_answers(),
        Damage.CALLS_OF_DEAD: calls_of_dead(dead),
        Damage.CLAIMED_WITHOUT_CALL: claimed_without_call(),
        Damage.MISSING_USAGE: missing_usage(free),
        Damage.EXTRA_USAGE: extra_usage(),
    }
    found = []
    for damage, rows in questions.items():
        bad = rows.subquery()
        number, job_id = connection.execute(sa.select(sa.func.count(), sa.func.min(bad.c.job_id))).one()
        if number:
            name = connection.execute(sa.select(jobs.c.name).where(jobs.c.id == job_id)).scalar_one()
            found.append(Found(damage=damage, rows=number, job=name))
    return found


def drifts(connection: Connection) -> list[Drift]:
    """Jobs whose counters aren't the sums that they stand for."""
    spent = sums(connection, usage.c.cost_high, usage.c.job_id)
    reserved = sums(connection, attempts.c.reserved, attempts.c.job_id, IS_OPEN)
    found = []
    for job in connection.execute(
        sa.select(jobs.c.id, jobs.c.name, jobs.c.spent, jobs.c.reserved, jobs.c.currency).order_by(jobs.c.id)
    ):
        for counter, summed in (
            ("spent", min(spent.get(job.id, Decimal(0)), MOST_MONEY)),
            ("reserved", reserved.get(job.id, Decimal(0))),
        ):
            booked = getattr(job, counter)
            if booked != summed:
                found.append(
                    Drift(
                        job_id=job.id,
                        job=job.name,
                        counter=counter,
                        booked=booked,
                        summed=summed,
                        currency=job.currency,
                    )
                )
    return found


def sums(
    connection: Connection, amount: ColumnElement[Decimal], job: ColumnElement[int], *where: ColumnElement[bool]
) -> dict[int, Decimal]:
    """Exact sums of money by job."""
    units, split = sa.type_coerce(amount, BigInteger), sa.literal_column(str(SPLIT), BigInteger)
    rows = connection.execute(
        sa.select(job, sa.func.sum(units // split), sa.func.sum(units % split)).where(*where).group_by(job)
    )
    return {
        job_id: EXACT.scaleb(Decimal(int(upper) * SPLIT + int(lower)), -MONEY_DIGITS)
        for job_id, upper, lower in rows
        if upper is not None
    }


def integrity(connection: Connection) -> list[str]:
    """What SQLite finds wrong with its file, and rows that refer to missing ones. PostgreSQL looks after itself."""
    if connection.dialect.name != "sqlite":
        return []
    try:
        broken = [row[0] for row in connection.exec_driver_sql("PRAGMA quick_check(5)") if row[0] != "ok"]
        if broken:
            return [str(line) for line in broken]
        orphans: dict[tuple[str, str], int] = {}
        for table, _, parent, _ in connection.exec_driver_sql("PRAGMA foreign_key_check"):
            orphans[table, parent] = orphans.get((table, parent), 0) + 1
    except DBAPIError as error:
        return [str(error.orig)]
    return [
        f"{count:,} rows of {table} refer to missing rows of {parent}" for (table, parent), count in orphans.items()
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class UsedProvider:
    name: str
    """With its region, such as `model-studio/singapore`."""
    has_work: bool
    """Whether a job of it has items left."""


def providers(connection: Connection) -> list[UsedProvider]:
    left = sa.exists().where(items.c.job_id == jobs.c.id, items.c.state.in_(sorted(state.value for state in OPEN)))
    rows = connection.execute(
        sa.select(jobs.c.provider, jobs.c.region, sa.func.max(sa.case((left, 1), else_=0)))
        .group_by(jobs.c.provider, jobs.c.region)
        .order_by(jobs.c.provider, jobs.c.region)
    )
    return [
        UsedProvider(name=f"{provider}/{region}" if region else provider, has_work=bool(work))
        for provider, region, work in rows
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Folders:
    job: str
    media_root: str | None
    output: str | None
    """Where its sidecars go; None where it writes none."""
    has_work: bool
    has_files: bool
    """Whether it reads files below its media root."""


def folders(connection: Connection) -> list[Folders]:
    left = sa.exists().where(items.c.job_id == jobs.c.id, items.c.state.in_(sorted(state.value for state in OPEN)))
    rows = connection.execute(
        sa.select(jobs.c.name, jobs.c.media_root, jobs.c.spec, left.label("left")).order_by(jobs.c.id)
    )
    return [
        Folders(
            job=row.name,
            media_root=row.media_root,
            output=output_folder(row.spec, row.media_root),
            has_work=bool(row.left),
            has_files=any(row.spec.get("inputs", {}).get(kind) for kind in ("images", "videos")),
        )
        for row in rows
    ]


def output_folder(spec: dict[str, object], media_root: str | None) -> str | None:
    output = spec.get("output")
    if not isinstance(output, dict):
        return None
    named, base = output.get("folder"), spec.get("base")
    return f"{base}/{named}" if named and base and not str(named).startswith("/") else (named or media_root)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    name: str
    """Of the job, or of the profile: provider, region, model."""
    jobs: Sequence[str]
    """What `batchrun resume` takes."""
    reason: str
    message: str


def pauses(connection: Connection) -> list[Pause]:
    own_pauses = connection.execute(
        sa.select(jobs.c.name, jobs.c.paused, jobs.c.pause_message)
        .where(jobs.c.paused.is_not(None))
        .order_by(jobs.c.id)
    )
    found = [
        Pause(name=row.name, jobs=[row.name], reason=row.paused, message=row.pause_message or "") for row in own_pauses
    ]
    for row in connection.execute(sa.select(profiles).where(profiles.c.paused.is_not(None)).order_by(profiles.c.id)):
        using = connection.execute(sa.select(jobs.c.name).where(jobs.c.profile_id == row.id).order_by(jobs.c.id))
        name = " ".join(part for part in (row.provider, row.region, row.model) if part)
        found.append(Pause(name=name, jobs=list(using.scalars()), reason=row.paused, message=row.pause_message or ""))
    return found


def worker_counts(connection: Connection, dead: Collection[str]) -> tuple[int, int]:
    """Workers that haven't ended: how many may be alive, how many are known to be gone."""
    running = set(connection.execute(sa.select(workers.c.id).where(workers.c.ended_at.is_(None))).scalars())
    return len(running - {*dead}), len(running & {*dead})


def newest(connection: Connection) -> datetime | None:
    """The latest moment that any row names as past."""
    claimed = sa.select(sa.func.max(attempts.c.id)).scalar_subquery()
    last_claim = connection.execute(sa.select(attempts.c.claimed_at).where(attempts.c.id == claimed)).scalar()
    last_use = connection.execute(sa.select(sa.func.max(usage.c.at))).scalar()
    return max((moment for moment in (last_claim, last_use) if moment is not None), default=None)


def flush(connection: Connection) -> None:
    """Something that a commit has to bring to the disk of a PostgreSQL server, and that changes no row."""
    connection.exec_driver_sql("SELECT pg_logical_emit_message(true, 'batchrun', 'doctor')")

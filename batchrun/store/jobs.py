"""Jobs, their profiles and items: what `load` writes, and the questions that a run asks about them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import Connection

from batchrun.counting.foreseen import Foreseen, stored_foreseen
from batchrun.database import clock
from batchrun.errors import ErrorKind
from batchrun.messages import JsonValue
from batchrun.pacing.limits import Limits
from batchrun.pacing.windows import stored_window
from batchrun.pricing import PriceRow
from batchrun.segments.merging import is_merged
from batchrun.states import State
from batchrun.store.bulk import insert
from batchrun.tables import EPOCH, Record, attempts, audit, items, jobs, prices, profiles

LIMIT_NAMES = ("requests_per_minute", "tokens_per_minute", "tokens_per_day", "concurrency")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewItem:
    """An item as the loader made it from a row of the source."""

    custom_id: str
    row_hash: str
    variables: Mapping[str, JsonValue]
    media: Sequence[Mapping[str, JsonValue]]
    input_bound: int | None
    """Most input tokens that it can have; None where that isn't known."""
    request_hash: str | None = None
    """Names the request, see `alike`; None where it is bought whatever others ask."""
    part_of: str | None = None
    """The `custom_id` of the item that merges it and others."""
    merges: bool = False
    """Whether it merges others, and waits for them."""


def profile(connection: Connection, *, provider: str, region: str, model: str, key_env: str, limits: Limits) -> int:
    """The id of the profile, made with the vendor's limits if it is new. Limits that were set stay."""
    key = {"provider": provider, "region": region, "model": model, "key_env": key_env}
    wanted = sa.select(profiles.c.id).where(*(profiles.c[name] == value for name, value in key.items()))
    found: int | None = connection.execute(wanted).scalar()
    if found is not None:
        return found
    limited = {name: getattr(limits, name) for name in LIMIT_NAMES}
    made: int = connection.execute(sa.insert(profiles).values(**key, **limited).returning(profiles.c.id)).scalar_one()
    return made


def price_ids(connection: Connection, rows: Sequence[PriceRow], now: datetime) -> dict[str, int]:
    """The ids of price rows by digest. Rows that are new are appended; none is ever changed."""
    found = connection.execute(
        sa.select(prices.c.digest, prices.c.id).where(prices.c.digest.in_([row.digest for row in rows]))
    )
    known: dict[str, int] = {row.digest: row.id for row in found}
    for row in rows:
        if row.digest in known:
            continue
        values = {column.name: getattr(row, column.name) for column in prices.c if hasattr(row, column.name)}
        known[row.digest] = connection.execute(
            sa.insert(prices).values(**values, loaded_at=now).returning(prices.c.id)
        ).scalar_one()
    return known


def job_named(connection: Connection, name: str, *, simulated: bool) -> Record | None:
    return connection.execute(sa.select(jobs).where(jobs.c.name == name, jobs.c.simulated == simulated)).one_or_none()


def estimate_of(connection: Connection, job_id: int) -> Foreseen | None:
    return stored_foreseen(connection.execute(sa.select(jobs.c.estimate).where(jobs.c.id == job_id)).scalar())


def lock(connection: Connection, ids: Iterable[int]) -> None:
    """Hold these jobs until the transaction ends. Whoever changes several jobs, or jobs and then items, locks the jobs
    first and in the order of their ids, so that none waits in a circle."""
    _lock(connection, jobs.c.id.in_(sorted(ids)))


def lock_named(connection: Connection, names: Iterable[str]) -> None:
    """The same, for the jobs of these names that there are."""
    _lock(connection, jobs.c.name.in_(sorted(names)))


def _lock(connection: Connection, which: sa.ColumnElement[bool]) -> None:
    connection.execute(sa.select(jobs.c.id).where(which).order_by(jobs.c.id).with_for_update(key_share=True)).all()


def job_rows(connection: Connection, ids: Iterable[int]) -> list[Record]:
    """The jobs with the pauses of their profiles, in the order in which they were loaded."""
    return list(
        connection.execute(
            sa.select(
                jobs,
                profiles.c.paused.label("profile_paused"),
                profiles.c.pause_message.label("profile_pause_message"),
            )
            .join(profiles, profiles.c.id == jobs.c.profile_id)
            .where(jobs.c.id.in_(sorted(ids)))
            .order_by(jobs.c.id)
        )
    )


MENDED = frozenset({"errors", "budget", "unreachable"})
"""Pauses of a job that `run` lifts: whoever runs it again has mended their cause."""
BY_USER = "user"
"""The pause of a person, that only `resume` lifts."""
REFUSED = frozenset({"refused", "arrears"})
"""Pauses of a profile."""
TRIED_AT_ONCE = frozenset(
    {
        ErrorKind.NOT_SENT,
        ErrorKind.ACCOUNT,
        ErrorKind.NOT_FOUND,
        ErrorKind.LOCAL,
        ErrorKind.MEDIA_UNAVAILABLE,
    }
)
"""What whoever runs a job again has mended: the address, the key, the model, this machine, the server of the media.
Hints of the vendor still count."""


def lift_pauses(connection: Connection, ids: Iterable[int], *, reasons: Iterable[str] = MENDED) -> None:
    """Let jobs go on that were paused for one of `reasons`, and their profiles; not what a person paused, unless that
    is among them."""
    wanted = sorted(ids)
    lock(connection, wanted)
    lifted = {"paused": None, "pause_message": None}
    connection.execute(sa.update(jobs).where(jobs.c.id.in_(wanted), jobs.c.paused.in_(sorted(reasons))).values(lifted))
    connection.execute(
        sa.update(items)
        .where(items.c.job_id.in_(wanted), items.c.state == State.WAITING.value, items.c.free_since.is_not(None))
        .values(free_since=None)
    )
    connection.execute(
        sa.update(items)
        .where(
            items.c.job_id.in_(wanted),
            items.c.state == State.WAITING.value,
            items.c.error_kind.in_(sorted(TRIED_AT_ONCE)),
        )
        .values(next_at=EPOCH, free_tries=0)
    )
    used = sa.select(jobs.c.profile_id).where(jobs.c.id.in_(wanted))
    connection.execute(
        sa.update(profiles)
        .where(profiles.c.id.in_(used), profiles.c.paused.in_(sorted(REFUSED)))
        .values(lifted | {"refused_in_row": 0})
    )
    # Whoever starts a run wants it tried now, not when the breaker of an earlier one would have looked again.
    connection.execute(
        sa.update(profiles).where(profiles.c.id.in_(used)).values(breaker_until=None, breaker_step=0, failures_in_row=0)
    )


def add_job(connection: Connection, values: Mapping[str, object]) -> int:
    job_id: int = connection.execute(sa.insert(jobs).values(**values).returning(jobs.c.id)).scalar_one()
    return job_id


def change_job(connection: Connection, job_id: int, values: Mapping[str, object]) -> None:
    connection.execute(sa.update(jobs).where(jobs.c.id == job_id).values(**values))


def open_calls(connection: Connection, job_id: int) -> int:
    """How many calls of the job were claimed and haven't ended."""
    wanted = sa.select(sa.func.count()).where(sa.literal_column("outcome = 'open'"), attempts.c.job_id == job_id)
    return int(connection.execute(wanted.select_from(attempts)).scalar_one())


def regions_of(connection: Connection, ids: Iterable[int]) -> dict[int, str]:
    """Where these jobs stand by now."""
    rows = connection.execute(sa.select(jobs.c.id, jobs.c.region).where(jobs.c.id.in_(sorted(ids))))
    return {row.id: row.region for row in rows}


def last_item(connection: Connection) -> int:
    """The highest id of an item so far."""
    found: int | None = connection.execute(sa.select(sa.func.max(items.c.id))).scalar()
    return found or 0


def items_named(connection: Connection, job_id: int, names: Iterable[str]) -> dict[str, Record]:
    rows = connection.execute(
        sa.select(
            items.c.id,
            items.c.custom_id,
            items.c.row_hash,
            items.c.variables,
            items.c.media,
            items.c.state,
            items.c.fence,
        ).where(items.c.job_id == job_id, items.c.custom_id.in_(list(names)))
    )
    return {row.custom_id: row for row in rows}


ADD = insert(
    items,
    (
        "job_id",
        "custom_id",
        "row_hash",
        "variables",
        "media",
        "input_bound",
        "request_hash",
        "state",
        "part_of",
    ),
)


def media_with(connection: Connection, job_id: int, key: str) -> Iterator[Sequence[Mapping[str, JsonValue]]]:
    """The media of the items of this job that have a mapping of this name in one of their references."""
    named = sa.cast(items.c.media, sa.Text).contains(f'"{key}":{{', autoescape=True)
    yield from connection.execute(sa.select(items.c.media).where(items.c.job_id == job_id, named)).scalars()


def add_items(connection: Connection, job_id: int, new: Sequence[NewItem]) -> None:
    """In this order. Parts stand behind the items that merge them, which are new as well or were there before."""
    if not any(item.part_of for item in new):
        ADD.run(connection, [values_of(job_id, item, None) for item in new])
        return
    names = {item.part_of for item in new if item.part_of is not None}
    wholes = {name: row.id for name, row in items_named(connection, job_id, sorted(names)).items()}
    adding = sa.insert(items).returning(items.c.id)
    for item in new:
        whole = None if item.part_of is None else wholes[item.part_of]
        made = connection.execute(adding, values_of(job_id, item, whole)).scalar_one()
        if item.merges:
            wholes[item.custom_id] = made


def values_of(job_id: int, item: NewItem, whole: int | None) -> dict[str, object]:
    return {
        "job_id": job_id,
        "custom_id": item.custom_id,
        "row_hash": item.row_hash,
        "variables": item.variables,
        "media": item.media,
        "input_bound": item.input_bound,
        "request_hash": item.request_hash,
        "state": first_state(item).value,
        "part_of": whole,
    }


def first_state(item: NewItem) -> State:
    return State.BLOCKED if item.merges else State.PENDING


def never_sent(connection: Connection, item: Record) -> bool:
    """Whether no request of this row of `items_named` has left or is under way, and it shares no answer: it wasn't
    tried yet, or its picture couldn't be sent."""
    if item.state in (State.CLAIMED, State.DONE, State.TRUNCATED):
        return False
    sent = sa.exists().where(attempts.c.item_id == item.id, attempts.c.outcome != "unsent")
    return item.fence == 0 or not connection.execute(sa.select(sent)).scalar_one()


def replace_item(connection: Connection, before: Record, item: NewItem) -> None:
    """Only for an item that was never sent, and has no answer; `before` is its row as `items_named` gives it. It waits
    for no other one any longer."""
    names = ("row_hash", "variables", "media", "input_bound", "request_hash")
    values: dict[str, object] = {name: getattr(item, name) for name in names}
    if item.merges != is_merged(before.variables):  # the video has another length now
        values |= {"state": first_state(item).value, "error_kind": None, "error": None}
    else:
        shares = sa.and_(items.c.state == State.BLOCKED.value, items.c.waits_for.is_not(None))
        values |= {"state": sa.case((shares, State.PENDING.value), else_=items.c.state)}
    connection.execute(
        sa.update(items)
        .where(items.c.id == before.id, items.c.fence == before.fence, items.c.state != State.CLAIMED.value)
        .values(**values, waits_for=None)
    )


def parts_never_called(connection: Connection, wholes: Iterable[int]) -> list[int]:
    """The parts of these items for which no call was ever made."""
    wanted = sa.select(items.c.id).where(items.c.part_of.in_(sorted(wholes)), items.c.fence == 0)
    return list(connection.execute(wanted).scalars())


def remove_parts(connection: Connection, ids: Sequence[int]) -> None:
    """Only of parts for which no call was ever made."""
    connection.execute(sa.delete(items).where(items.c.id.in_(ids), items.c.fence == 0, items.c.part_of.is_not(None)))


def count_states(connection: Connection, job_id: int) -> dict[str, int]:
    rows = connection.execute(
        sa.select(items.c.state, sa.func.count().label("number"))
        .where(items.c.job_id == job_id)
        .group_by(items.c.state)
    )
    return {row.state: row.number for row in rows}


def has_open_items(connection: Connection, only: frozenset[int]) -> bool:
    """Whether any item of these jobs is claimed, due, or will become due, in jobs that aren't paused."""
    will_be_due = sa.or_(any_in(State.PENDING), any_in(State.WAITING), any_in(State.BLOCKED))
    wanted = (
        sa.select(jobs.c.id)
        .join(profiles, profiles.c.id == jobs.c.profile_id)
        .where(jobs.c.id.in_(only), sa.or_(sa.and_(GOES_ON, will_be_due), any_in(State.CLAIMED)))
    )
    return connection.execute(wanted.limit(1)).first() is not None


def has_due_items(connection: Connection, only: frozenset[int] | None) -> bool:
    """Whether any item could be called now: of these jobs, or of all; not what waits, nor jobs outside their window."""
    now = clock(connection)
    # Items that wait for others which have all ended are let go by whoever looks.
    left = sa.or_(any_in(State.PENDING), any_in(State.WAITING), any_in(State.CLAIMED))
    let_go = sa.and_(any_in(State.BLOCKED), sa.not_(left))
    due = sa.or_(any_in(State.PENDING), any_in(State.WAITING, items.c.next_at <= now), let_go)
    wanted = sa.select(jobs.c.window).join(profiles, profiles.c.id == jobs.c.profile_id).where(GOES_ON, due)
    if only is not None:
        wanted = wanted.where(jobs.c.id.in_(only))
    windows = (stored_window(value) for value in connection.execute(wanted).scalars())
    return any(window is None or window.is_open(now) for window in windows)


GOES_ON = sa.and_(jobs.c.paused.is_(None), profiles.c.paused.is_(None))


def any_in(state: State, *conditions: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    return sa.exists().where(items.c.job_id == jobs.c.id, items.c.state == state.value, *conditions)


def jobs_with_work(connection: Connection) -> list[Record]:
    """Jobs that aren't paused and have items that are due or will be; with what their plans are made of."""
    left = sa.or_(any_in(State.PENDING), any_in(State.WAITING), any_in(State.BLOCKED))
    wanted = sa.select(jobs.c.id, jobs.c.name, jobs.c.spec, jobs.c.media_root)
    joined = wanted.join(profiles, profiles.c.id == jobs.c.profile_id)
    return list(connection.execute(joined.where(GOES_ON, left).order_by(jobs.c.id)))


def has_files(connection: Connection, job_id: int) -> bool:
    """Whether an item of the job has a local file among its media."""
    named = sa.cast(items.c.media, sa.Text).like('%"path"%')
    return connection.execute(sa.select(items.c.id).where(items.c.job_id == job_id, named).limit(1)).first() is not None


def note(connection: Connection, *, at: datetime, actor: str, action: str, detail: Mapping[str, JsonValue]) -> None:
    """A line in the audit: what somebody did to a job or a limit."""
    connection.execute(sa.insert(audit).values(at=at, actor=actor, action=action, detail=detail))

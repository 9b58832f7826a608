"""What `set` changes: the limits, the budget and the priority of a job, and the limits of a profile.

The rows are read by every claim, so a change takes effect with the next one of each process.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal

import sqlalchemy as sa
from sqlalchemy import Connection

from batchrun.pacing.limits import LONGEST_DEBT
from batchrun.states import OPEN
from batchrun.tables import Record, items, jobs, profiles


def change_limits_of_job(connection: Connection, job: Record, values: Mapping[str, object], now: datetime) -> bool:
    """Write `values` by the names of their columns. Returns whether a pause for the old budget was lifted."""
    lifted = job.paused == "budget" and "cap" in values and is_raised(job.cap, values["cap"])
    pause = {"paused": None, "pause_message": None} if lifted else {}
    connection.execute(sa.update(jobs).where(jobs.c.id == job.id).values({**values, **debt(job, values, now), **pause}))
    return lifted


def is_raised(cap: Decimal | None, new: object) -> bool:
    return new is None or (cap is not None and isinstance(new, Decimal) and new > cap)


def debt(row: Record, values: Mapping[str, object], now: datetime) -> dict[str, object]:
    """When the tokens that were granted so far will have been earned back at the new rate: a job that was slowed down
    too much must not sit out the old rate."""
    old, new = row.tokens_per_minute, values.get("tokens_per_minute", row.tokens_per_minute)
    if old is None or not isinstance(new, int) or new == old:
        return {}
    owed = min(max(row.tokens_at - now, timedelta(0)), LONGEST_DEBT)
    return {"tokens_at": now + min(owed * (old / new), LONGEST_DEBT)}


def profiles_named(connection: Connection, name: str) -> list[Record]:
    """The rows of a profile as people name it, such as `model-studio/singapore/qwen3-vl-plus`: one for each key
    variable that it was used with."""
    rows = connection.execute(sa.select(profiles).order_by(profiles.c.id))
    return [row for row in rows if profile_name(row) == name]


def locked_profiles(connection: Connection, rows: Iterable[Record]) -> list[Record]:
    """The same rows as they are now and stay until the transaction ends."""
    wanted = sa.select(profiles).where(profiles.c.id.in_([row.id for row in rows])).order_by(profiles.c.id)
    return list(connection.execute(wanted.with_for_update(key_share=True)))


def profile_names(connection: Connection) -> list[str]:
    return sorted({profile_name(row) for row in connection.execute(sa.select(profiles))})


def profile_name(row: Record) -> str:
    return "/".join(part for part in (row.provider, row.region, row.model) if part)


def change_limits_of_profile(
    connection: Connection, profile: Record, values: Mapping[str, object], now: datetime
) -> None:
    connection.execute(
        sa.update(profiles).where(profiles.c.id == profile.id).values({**values, **debt(profile, values, now)})
    )


def items_without_bound(connection: Connection, job_id: int) -> int:
    """Items to be called of which nobody knows how long their input can be: no budget can hold them."""
    wanted = sa.select(sa.func.count()).where(
        items.c.job_id == job_id, items.c.state.in_(sorted(OPEN)), items.c.input_bound.is_(None)
    )
    return connection.execute(wanted).scalar_one()

"""Setting limits, budgets and priorities while jobs run. All the keys of a command take effect together, or none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from difflib import get_close_matches

from sqlalchemy import Connection, Engine

from batchrun.database import clock, reading, writing
from batchrun.errors import UsageError
from batchrun.jobfile.changes import JobChanges, ProfileChanges, Value, checked
from batchrun.jobfile.quantities import Money
from batchrun.jobfile.spec import JobSpec, stored_spec
from batchrun.loading.loader import check_budget, refuse_other_currency
from batchrun.output.visible import money_text
from batchrun.plan import prepare
from batchrun.reports.jobs import one_job
from batchrun.showing import clean, listing
from batchrun.steering.affording import Known
from batchrun.steering.operating import named_jobs, note
from batchrun.store import change, operate
from batchrun.store import jobs as store
from batchrun.tables import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    key: str
    old: Value
    new: Value


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """What was changed of a job or a profile."""

    target: str
    simulated: bool | None
    """None for a profile."""
    changes: Sequence[Change]
    """Also those that are as they were."""
    lifted: bool = False
    """Whether the job was paused for its old budget, and no longer is."""
    paused: str | None = None
    """Why it still is paused."""
    in_flight: int = 0
    """Calls of the job in flight."""
    spent: Money | None = None
    """What the job has spent or reserved; None where it has no currency."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Current:
    """What can be set of a job or a profile, as it is now. A limit that is None doesn't exist."""

    target: str
    simulated: bool | None
    values: Mapping[str, Value]


def is_profile(target: str) -> bool:
    """Profiles have slashes in their names, jobs never."""
    return "/" in target


def current(engine: Engine, target: str, *, simulated: bool) -> list[Current]:
    """What can be set of `target`. A profile has as many rows as key variables that it was used with."""
    with reading(engine) as connection:
        if is_profile(target):
            return [
                Current(target=target, simulated=None, values=values_of(row, ProfileChanges))
                for row in profile_rows(connection, target)
            ]
        row = one_job(connection, target, simulated=simulated)
        return [Current(target=row.name, simulated=row.simulated, values=values_of(row, JobChanges))]


def values_of(row: Record, known: type[ProfileChanges] | type[JobChanges]) -> dict[str, Value]:
    return {key: value_of(row, key) for key in known.model_fields}


def value_of(row: Record, key: str) -> Value:
    if key == "budget":
        return None if row.cap is None else Money(amount=row.cap, currency=row.currency)
    value: Value = getattr(row, key)
    return value


def set_values(
    engine: Engine, target: str, changes: Mapping[str, object], known: Known, *, simulated: bool, actor: str
) -> list[Changed]:
    """Change a job or a profile. Raises UsageError for what can't be set so; then nothing was changed."""
    if is_profile(target):
        new = checked(changes, ProfileChanges)
        with writing(engine) as connection:
            now = clock(connection)
            rows = change.locked_profiles(connection, profile_rows(connection, target))
            return [change_profile(connection, row, new, now, actor) for row in rows]
    new = checked(changes, JobChanges)
    with writing(engine) as connection:
        [row] = named_jobs(connection, [target], simulated=simulated).values()
        budget = new.get("budget")
        if isinstance(budget, Money):
            require_budget(connection, row, budget, known)
        return [change_job(connection, row, new, clock(connection), actor)]


def profile_rows(connection: Connection, name: str) -> list[Record]:
    """Raises UsageError, with the nearest names."""
    found = change.profiles_named(connection, name)
    if found:
        return found
    names = change.profile_names(connection)
    near = (
        get_close_matches(name.lower(), names, n=3) or [other for other in names if name.lower() in other.lower()][:3]
    )
    hint = f"; did you mean {' or '.join(clean(other) for other in near)}?" if near else ""
    raise UsageError(
        f"no profile `{clean(name)}`{hint}",
        code="unknown-profile",
        remedy=f"there are: {listing(names)}" if names else "it is made when its first job is loaded",
    )


def require_budget(connection: Connection, row: Record, budget: Money, known: Known) -> None:
    """The rules of the loader for a budget. Raises UsageError, ChangedError."""
    before = stored_spec(row.spec)
    wanted = JobSpec.model_validate({**before.snapshot(), "budget": {"max_cost": str(budget)}})
    check_budget(wanted, prepare(wanted, known()))
    refuse_other_currency(wanted, row)
    if unbounded := change.items_without_bound(connection, row.id):
        raise UsageError(
            f"a budget needs a bound of the input, and none is known for {unbounded:,} items of {row.name}",
            code="budget-unbounded",
            remedy="add max_image_tokens or max_input to a catalogue file of your own, and give the job a new name",
        )


def change_job(connection: Connection, row: Record, new: Mapping[str, Value], now: datetime, actor: str) -> Changed:
    columns: dict[str, object] = {key: value for key, value in new.items() if key != "budget"}
    if "budget" in new:
        budget = new["budget"]
        columns["cap"] = budget.amount if isinstance(budget, Money) else None
        columns["currency"] = budget.currency if isinstance(budget, Money) else row.currency
    changes = changes_of(row, new)
    lifted = change.change_limits_of_job(connection, row, columns, now)
    note(connection, row, now, actor, "set", changes=as_text(changes))
    used: Decimal = row.spent + row.reserved
    return Changed(
        target=row.name,
        simulated=row.simulated,
        changes=changes,
        lifted=lifted,
        paused=row.profile_paused if lifted else row.paused or row.profile_paused,
        in_flight=operate.calls_in_flight(connection, row),
        spent=None if row.currency is None else Money(amount=used, currency=row.currency),
    )


def change_profile(connection: Connection, row: Record, new: Mapping[str, Value], now: datetime, actor: str) -> Changed:
    changes = changes_of(row, new)
    change.change_limits_of_profile(connection, row, new, now)
    name = change.profile_name(row)
    store.note(connection, at=now, actor=actor, action="set", detail={"profile": name, "changes": as_text(changes)})
    return Changed(target=name, simulated=None, changes=changes, paused=row.paused)


def changes_of(row: Record, new: Mapping[str, Value]) -> list[Change]:
    return [Change(key=key, old=value_of(row, key), new=value) for key, value in new.items()]


def as_text(changes: Sequence[Change]) -> dict[str, list[str]]:
    return {change.key: [shown(change.old), shown(change.new)] for change in changes}


def shown(value: Value) -> str:
    if isinstance(value, Money):
        return f"{money_text(value.amount)} {value.currency}"
    return "none" if value is None else str(value)

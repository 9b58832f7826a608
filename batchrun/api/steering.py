"""Functions that change jobs, limits and open costs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from batchrun.api.inputs import catalogue_for
from batchrun.api.opening import Names, Place, names_of, opened, settings_for, states_of
from batchrun.catalogue import Catalogue
from batchrun.errors import UsageError
from batchrun.states import State
from batchrun.steering import operating, setting, settling
from batchrun.steering.bill import AMOUNT_COLUMN, ID_COLUMN, read_bill
from batchrun.steering.operating import Cancelled, Paused, Resumed, Retried, this_actor
from batchrun.steering.setting import Changed, Current
from batchrun.steering.settling import Settlement
from batchrun.store.settle import Rule


def retry(
    jobs: Names,
    *,
    states: Collection[State | str] = (State.FAILED,),
    kinds: Names | None = None,
    items: Names | None = None,
    dry_run: bool = False,
    simulated: bool = False,
    database: Place = None,
    catalogue: str | Path | None = None,
    actor: str | None = None,
) -> list[Retried]:
    """Let items be called again: the failed ones, unless `states` names others (truncated, cancelled; waiting ones
    become due at once). `kinds` are kinds of error, `items` custom ids of one job.

    Their tries begin anew. An item for which a call is still in flight is left alone. `actor` is who does it, for the
    audit (None: the user of this process). Nothing is called by this; `run` does that.
    """
    wanted = states_of(states)
    known = catalogue_for(catalogue, settings_for(database))
    with opened(database) as engine:
        return operating.retry(
            engine,
            names_of(jobs),
            known,
            states=wanted,
            kinds=None if kinds is None else names_of(kinds),
            items=None if items is None else names_of(items),
            dry_run=dry_run,
            simulated=simulated,
            actor=actor or this_actor(),
        )


def cancel(
    jobs: Names,
    *,
    items: Names | None = None,
    simulated: bool = False,
    database: Place = None,
    actor: str | None = None,
) -> list[Cancelled]:
    """Cancel all items that have not ended, or those of these custom ids. Calls in flight end by themselves, and an
    answer that arrives whole is kept."""
    with opened(database) as engine:
        return operating.cancel(
            engine,
            names_of(jobs),
            items=None if items is None else names_of(items),
            simulated=simulated,
            actor=actor or this_actor(),
        )


def pause(
    jobs: Names | None,
    *,
    reason: str | None = None,
    simulated: bool = False,
    database: Place = None,
    actor: str | None = None,
) -> list[Paused]:
    """Let no new call of these jobs leave, until they are resumed; None for all jobs that have something left to do.
    Calls in flight finish."""
    names = None if jobs is None else names_of(jobs)
    with opened(database) as engine:
        return operating.pause(engine, names, reason=reason, simulated=simulated, actor=actor or this_actor())


def resume(
    jobs: Names | None,
    *,
    simulated: bool = False,
    database: Place = None,
    catalogue: str | Path | None = None,
    actor: str | None = None,
) -> list[Resumed]:
    """Lift every pause of these jobs, or of all paused ones for None: of people, of errors, of a used-up budget, and
    that of a refused key or an unpaid account, which other jobs may share."""
    names = None if jobs is None else names_of(jobs)
    with opened(database) as engine:
        return operating.resume(
            engine,
            names,
            lambda: catalogue_for(catalogue, settings_for(database)),
            simulated=simulated,
            actor=actor or this_actor(),
        )


def settable(target: str, *, simulated: bool = False, database: Place = None) -> list[Current]:
    """What `set` can change of a job or a profile, as it is now."""
    with opened(database) as engine:
        return setting.current(engine, target, simulated=simulated)


def set_(
    target: str,
    changes: Mapping[str, object],
    *,
    simulated: bool = False,
    database: Place = None,
    catalogue: str | Path | None = None,
    actor: str | None = None,
) -> list[Changed]:
    """Change limits of a job or a profile, or budget and priority of a job, also while it runs; as `batchrun.set`.

    `changes` are such as `{"concurrency": 8, "budget": "5.00 USD", "tokens_per_day": None}`, where None takes a limit
    away. A profile is named as `model-studio/singapore/qwen3-vl-plus`. Loading the job file again keeps what was set,
    until the file itself says something else.
    """
    with opened(database) as engine:
        return setting.set_values(
            engine,
            target,
            changes,
            lambda: catalogue_for(catalogue, settings_for(database)),
            simulated=simulated,
            actor=actor or this_actor(),
        )


def settle(
    jobs: Names,
    *,
    rule: Rule | None = None,
    bill: str | Path | None = None,
    id_column: str = ID_COLUMN,
    amount_column: str = AMOUNT_COLUMN,
    currency: str | None = None,
    dry_run: bool = False,
    simulated: bool = False,
    database: Place = None,
    catalogue: str | Path | None = None,
    actor: str | None = None,
) -> Settlement:
    """Make costs exact that their calls left open: by the `rule` `zero` or `high`, or by the vendor's `bill`, a CSV
    file with an amount for each request id. What is exact already is never changed.

    `currency` is needed where no price of the model is known. Raises SpecError with the lines of a bill that can't be
    read; then nothing was changed.
    """
    if (rule is None) == (bill is None):
        raise UsageError("either a rule or a bill settles costs", code="usage", remedy="give one of the two")

    def known() -> Catalogue:
        return catalogue_for(catalogue, settings_for(database))

    who, names = actor or this_actor(), names_of(jobs)
    with opened(database) as engine:
        if rule is not None:
            return settling.settle_as(
                engine, names, rule, known, currency=currency, dry_run=dry_run, simulated=simulated, actor=who
            )
        path = Path(str(bill))
        told = read_bill(content(path), path, id_column=id_column, amount_column=amount_column)
        return settling.settle_by_bill(
            engine, names, told, known, currency=currency, dry_run=dry_run, simulated=simulated, actor=who
        )


def content(path: Path) -> bytes:
    """Raises UsageError for a file that can't be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"{path} can't be read: {error.strerror}", code="not-readable", remedy="name the bill as a CSV file"
        ) from error

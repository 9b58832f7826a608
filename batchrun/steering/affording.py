"""What the calls that are left of a job can cost at most, and whether its budget lets any of them run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal

from pydantic import ValidationError
from sqlalchemy import Connection

from batchrun.catalogue import Catalogue
from batchrun.errors import CatalogueError, UsageError
from batchrun.jobfile.spec import stored_spec
from batchrun.plan import prepare
from batchrun.states import State
from batchrun.store import operate
from batchrun.tables import Record

WAITS = (State.PENDING, State.WAITING, State.BLOCKED)
"""Items for which no call is in flight."""

Most = Callable[[int | None], Decimal | None]
"""The most that a call can cost, by the bound of its input; None where it isn't known."""
Known = Callable[[], Catalogue]
"""The catalogue, read when it is needed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Short:
    """A budget under which not even the cheapest call that is left fits."""

    cap: Decimal
    spent: Decimal
    reserved: Decimal
    currency: str
    enough: Decimal | None
    """A budget for all that is left, whatever it costs; None where that isn't known."""


def most_of(row: Record, catalogue: Catalogue) -> Most:
    """What the calls of a job can cost. Not known where the catalogue no longer has its model, nor of written requests,
    each of which has a bound of its own."""
    try:
        plan = prepare(stored_spec(row.spec), catalogue)
    except (CatalogueError, UsageError, ValidationError):
        return lambda _: None
    answer = None if plan.written else plan.output_bound()
    return lambda bound: plan.most(bound, answer)


def together(bounds: Mapping[int | None, int], most: Most) -> Decimal | None:
    """What so many calls of these bounds can cost."""
    costs = [(most(bound), count) for bound, count in bounds.items()]
    known = [cost * count for cost, count in costs if cost is not None]
    return sum(known, Decimal(0)) if len(known) == len(costs) else None


def short_of(connection: Connection, row: Record, known: Known) -> Short | None:
    """What is wrong with the budget, where none of the calls that are left fits under it."""
    bounds = operate.bounds_of(connection, row.id, WAITS)
    if row.cap is None or not bounds:
        return None
    if not {"prompt", "messages"} & row.spec.keys():
        return None  # each written request has a bound of its own; the claim looks at it
    most = most_of(row, known())
    costs = [cost for bound in bounds if (cost := most(bound)) is not None]
    if costs and row.spent + row.reserved + min(costs) <= row.cap:
        return None
    all_of_it = together(bounds, most)
    return Short(
        cap=row.cap,
        spent=row.spent,
        reserved=row.reserved,
        currency=row.currency,
        enough=None if all_of_it is None else in_cents(row.spent + row.reserved + all_of_it),
    )


def in_cents(amount: Decimal) -> Decimal:
    """Rounded up, to the cent from a cent on."""
    return amount.quantize(Decimal("0.01"), rounding=ROUND_CEILING)

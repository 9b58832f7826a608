"""What an estimate says: of a job, and of a whole file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import reduce
from operator import add
from typing import Literal

from batchrun.estimating.duration import Duration, Load
from batchrun.estimating.spread import Outlook
from batchrun.running import RunEnd

Enough = Literal["yes", "perhaps", "no"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetOutlook:
    """Whether the budget lets all items be called; `covers_*` is how many of those that are left it is good for."""

    cap: Decimal
    left: Decimal
    """What isn't spent and not reserved for calls in flight."""
    enough: Enough
    covers_low: int
    covers_high: int
    one: Decimal
    """What must be free before the dearest of the calls is made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEstimate:
    name: str
    simulated: bool
    provider: str
    """With its region, such as `model-studio/singapore`."""
    model: str
    items: int
    """All but the cancelled ones."""
    ended: int
    left: int
    """Items that will be called."""
    unsendable: int
    """Items that will fail without a call, as their picture or video can't be sent."""
    shared: int
    """Items that will get the answer of another one without a call, as they ask the same."""
    measured: int
    """Items that have ended and that the estimate of the others is measured on."""
    input_tokens: Outlook
    output_tokens: Outlook
    """Of the items that are left, as is `to_come`."""
    longest_answer: int | None
    """Tokens that one call may bring at most; None where that isn't known, or differs between written requests."""
    currency: str | None
    spent: Outlook
    """`high` is None where calls were made whose cost isn't known."""
    to_come: Outlook | None
    """None where the model has no known price."""
    unknown: str | None
    """Why the cost has no high end, or isn't known at all."""
    time: Duration
    load: Load
    budget: BudgetOutlook | None
    notes: Sequence[str]

    @property
    def cost(self) -> Outlook | None:
        """In all: what was spent and what is to come."""
        return None if self.to_come is None else self.spent + self.to_come


@dataclass(frozen=True, slots=True, kw_only=True)
class TotalEstimate:
    """All jobs of one currency; simulated ones apart."""

    simulated: bool
    currency: str
    cost: Outlook
    jobs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    jobs: Sequence[JobEstimate]
    time: Duration
    """Of all jobs together; those of one model share its limits."""
    run: RunEnd | None = None
    """What became of the sample, where one was bought for this estimate."""

    @property
    def totals(self) -> list[TotalEstimate]:
        groups: dict[tuple[bool, str], list[Outlook]] = {}
        for job in self.jobs:
            if job.cost is not None and job.currency is not None:
                groups.setdefault((job.simulated, job.currency), []).append(job.cost)
        return [
            TotalEstimate(simulated=simulated, currency=currency, cost=reduce(add, costs), jobs=len(costs))
            for (simulated, currency), costs in sorted(groups.items())
        ]

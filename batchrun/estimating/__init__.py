"""What the jobs of a file will cost and how long they will take, before the first call and after some of them.

Before anything is measured, a job costs at least its input as it is known (pictures by the vendor's formula, text by
its length) with answers of one token, and at most its longest input with the longest answers that its parameters
allow, thinking included; each item answered by one call. Once items have ended, what they used narrows that range
(see `spread`), and failed calls are part of what an item costs. Nothing is written and no call is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from functools import reduce
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from batchrun.catalogue import Catalogue, Endpoint, Limits
from batchrun.estimating.duration import Duration, Load, duration
from batchrun.estimating.needs import Needs
from batchrun.estimating.spread import ENOUGH, Outlook
from batchrun.estimating.survey import Known, Survey, survey
from batchrun.jobfile.spec import JobFile, JobSpec, differences
from batchrun.limits import DEFAULT_CONCURRENCY
from batchrun.loading import prepared_all
from batchrun.plan import Plan
from batchrun.pricing import MONEY_UNIT
from batchrun.reports.cost import CostLine, cost_by
from batchrun.reports.measured import limits_of
from batchrun.rows.inputs import media_root
from batchrun.running import RunEnd
from batchrun.states import OPEN
from batchrun.store.jobs import LIMIT_NAMES, count_states, job_named

if TYPE_CHECKING:
    from sqlalchemy import Connection

ZERO = Decimal(0)
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
    """Items that will fail without a call, as their picture can't be sent."""
    measured: int
    """Items that have ended and that the estimate of the others is measured on."""
    input_tokens: Outlook
    output_tokens: Outlook
    """Of the items that are left, as is `to_come`."""
    longest_answer: int | None
    """Tokens that one call may bring at most; None where that isn't known, or differs between written requests."""
    currency: str | None
    spent_low: Decimal
    spent_high: Decimal
    spent_unknown: int
    """Calls whose cost isn't known."""
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
        if self.to_come is None:
            return None
        to_come = self.to_come
        expected = None if to_come.expected is None else to_come.expected + (self.spent_low + self.spent_high) / 2
        high = None if to_come.high is None or self.spent_unknown else to_come.high + self.spent_high
        return Outlook(low=to_come.low + self.spent_low, high=high, expected=expected)


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


@dataclass(slots=True, kw_only=True)
class Shared:
    """Jobs of one model and one account, which share its limits."""

    limits: Limits
    wished: int
    load: Load

    def join(self, load: Load, wished: int) -> None:
        self.load, self.wished = self.load + load, max(self.wished, wished)


@dataclass(slots=True, kw_only=True)
class Estimator:
    catalogue: Catalogue
    base: Path
    connection: Connection | None
    now: datetime
    on_rows: Callable[[int], None]
    rows: int = 0
    shared: dict[tuple[str, ...], Shared] = field(default_factory=dict)

    def estimate(self, job: JobSpec, plan: Plan) -> JobEstimate:
        endpoint = self.catalogue.endpoint(job.provider)
        notes: list[str] = []
        known = self.known(job, endpoint, notes)
        needs = Needs(plan, media_root(job, self.base), self.now)
        found = survey(job, needs, self.base, known, self.count_rows)
        spent = self.spent(known, needs.currency, notes)
        calls = Decimal(found.calls) / found.ended if found.ended else Decimal(1)
        tokens = [quantity.left(found.left, calls).to(Decimal(1)) for quantity in (found.input, found.output)]
        to_come = None if needs.price is None else found.cost.left(found.left, calls).to(MONEY_UNIT)
        load = Load(calls=found.left * max(calls, Decimal(1)), tokens=tokens[0] + tokens[1], busy=busy(found))
        made = JobEstimate(
            name=job.name,
            simulated=endpoint.simulated,
            provider=job.provider,
            model=job.model,
            items=found.ended + found.left + found.unsendable,
            ended=found.ended,
            left=found.left,
            unsendable=found.unsendable,
            measured=found.output.lows.count,
            input_tokens=tokens[0],
            output_tokens=tokens[1],
            longest_answer=None if plan.prompt is None else plan.output_bound(),
            currency=needs.currency,
            spent_low=ZERO if spent is None else spent.cost_low or ZERO,
            spent_high=ZERO if spent is None else spent.cost_high or ZERO,
            spent_unknown=0 if spent is None else spent.unknown_cost,
            to_come=to_come,
            unknown=why_unknown(job, found, tokens, spent),
            time=self.time(job, plan, known, load, found),
            load=load,
            budget=None,
            notes=notes,
        )
        return replace(made, budget=budget_of(job, made, found, known))

    def count_rows(self, number: int) -> None:
        self.rows += number
        self.on_rows(self.rows)

    def known(self, job: JobSpec, endpoint: Endpoint, notes: list[str]) -> Known | None:
        if self.connection is None:
            return None
        row = job_named(self.connection, job.name, simulated=endpoint.simulated)
        if row is None:
            return None
        if differences(row.identity, job.identity()):
            notes.append(
                "the database has a job of this name with another request, so that `run` will refuse this one; it is "
                "estimated as if it had another name"
            )
            return None
        counts = count_states(self.connection, row.id)
        return Known(connection=self.connection, job=row, open=sum(counts.get(state, 0) for state in OPEN))

    def spent(self, known: Known | None, currency: str | None, notes: list[str]) -> CostLine | None:
        if known is None:
            return None
        lines = cost_by(known.connection, "job", job_ids=[known.job.id])
        notes += [f"calls in {line.currency} are not in this estimate" for line in lines if line.currency != currency]
        return next((line for line in lines if line.currency == currency), None)

    def time(self, job: JobSpec, plan: Plan, known: Known | None, load: Load, found: Survey) -> Duration:
        limits = plan.model.limits if known is None else limits_of(known.connection, known.job.id)
        own = Limits(**{name: getattr(job.limits, name) for name in LIMIT_NAMES})
        wished = own.concurrency or 0
        key = (*self.catalogue.endpoint(job.provider).limited_as, job.model)
        shared = self.shared.get(key)
        if shared is None:
            self.shared[key] = Shared(limits=limits, wished=wished, load=load)
        else:
            shared.join(load, wished)
        most = limits.concurrency or max(DEFAULT_CONCURRENCY, wished)
        return duration(load, (limits, own), min(most, wished or most, affordable(job, found, known) or most))

    def together(self, jobs: Iterable[JobEstimate]) -> Duration:
        """The slowest of all jobs and of all shared limits: jobs run side by side."""
        times = [job.time for job in jobs]
        for shared in self.shared.values():
            most = shared.limits.concurrency or max(DEFAULT_CONCURRENCY, shared.wished)
            times.append(duration(shared.load, (shared.limits,), most))
        highs = [time.high for time in times]
        high = None if None in highs else max(end for end in highs if end is not None)
        slowest = max(times, key=lambda time: (time.low if high is None else time.high or ZERO, time.low))
        return Duration(low=max(time.low for time in times), high=high, brake=slowest.brake)


def estimate_all(
    jobs: JobFile,
    catalogue: Catalogue,
    *,
    base: Path,
    connection: Connection | None,
    now: datetime,
    on_rows: Callable[[int], None] = lambda _: None,
) -> Estimate:
    """Estimate every job of the file; `base` is its folder. `connection` leads to what is known of them, if anything.

    Raises SpecError, CatalogueError, UsageError.
    """
    estimator = Estimator(catalogue=catalogue, base=base, connection=connection, now=now, on_rows=on_rows)
    made = [estimator.estimate(job, plan) for job, plan in prepared_all(jobs, catalogue)]
    return Estimate(jobs=made, time=estimator.together(made))


def busy(found: Survey) -> Outlook | None:
    """Seconds of all calls that are left, one after the other; None before enough was measured."""
    if found.seconds.count < ENOUGH:
        return None
    seconds = found.seconds.of_others(found.left)
    return replace(seconds, low=max(ZERO, seconds.low))


def affordable(job: JobSpec, found: Survey, known: Known | None) -> int | None:
    """How many calls at once the budget can be reserved for; None where it doesn't matter."""
    if job.budget is None or found.reserved is None or not found.reserved[1]:
        return None
    return max(1, int(left_of(job, known) // found.reserved[1]))


def left_of(job: JobSpec, known: Known | None) -> Decimal:
    assert job.budget is not None  # noqa: S101 - asked only then
    used = ZERO if known is None else known.job.spent + known.job.reserved
    return max(ZERO, job.budget.max_cost - used)


def budget_of(job: JobSpec, made: JobEstimate, found: Survey, known: Known | None) -> BudgetOutlook | None:
    """A call is made only if the most that it can cost still fits, so the last ones need more room than they use."""
    if job.budget is None or made.to_come is None:
        return None
    left = left_of(job, known)
    least, most = found.reserved or (ZERO, ZERO)
    surely = None if made.to_come.high is None else covered(left, most, made.to_come.high, made.left)
    at_best = covered(left, least, made.to_come.low, made.left)
    enough: Enough = "yes" if surely == made.left else "perhaps" if at_best == made.left else "no"
    return BudgetOutlook(
        cap=job.budget.max_cost, left=left, enough=enough, covers_low=surely or 0, covers_high=at_best, one=most
    )


def covered(left: Decimal, reserved: Decimal, cost: Decimal, items: int) -> int:
    """Of `items` that cost `cost` together, how many can be called before a reservation doesn't fit any more."""
    if reserved > left:
        return 0
    return items if not cost else min(items, int((left - reserved) * items / cost) + 1)


def why_unknown(job: JobSpec, found: Survey, tokens: Sequence[Outlook], spent: CostLine | None) -> str | None:
    if found.needs.price is None:
        return f"the catalogue has no price for {job.model} at {job.provider}"
    if not found.left:
        return None
    if tokens[0].high is None:
        return f"how many tokens a picture can become for {job.model} isn't known"
    if tokens[1].high is None:
        return f"how long an answer of {job.model} can become isn't known"
    return "calls were made whose cost isn't known" if spent is not None and spent.unknown_cost else None

"""What the jobs of a file will cost and how long they will take, before the first call and after some of them.

Before anything is measured, a job costs at least its input as it is known (pictures by the vendor's formula, text by
its length) with answers of one token, and at most its longest input with the longest answers that its parameters
allow, thinking included; each item answered by one call, and items that ask the same by one for all. Once items have
ended, what they used narrows that range (see `spread`), and failed calls are part of what an item costs. Nothing is
written and no call is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from functools import partial, reduce
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING

from batchrun.catalogue import Catalogue, Endpoint
from batchrun.database import reading
from batchrun.estimating.duration import Duration, Hours, Load, duration
from batchrun.estimating.outcome import BudgetOutlook, Enough, Estimate, JobEstimate
from batchrun.estimating.spread import ENOUGH, Outlook
from batchrun.estimating.survey import Known, Survey, survey
from batchrun.jobfile.spec import JobFile, JobSpec, differences, stored_spec
from batchrun.loading.itemising import NO_SOUND, needs_of
from batchrun.loading.loader import prepared_all, videos_of
from batchrun.loading.measuring import Videos, watched
from batchrun.pacing.limits import DEFAULT_CONCURRENCY, Limits
from batchrun.pacing.windows import stored_window
from batchrun.plan import Plan
from batchrun.pricing import MONEY_UNIT
from batchrun.reports.cost import CostLine, cost_by
from batchrun.states import OPEN
from batchrun.store.jobs import LIMIT_NAMES, count_states, job_named

if TYPE_CHECKING:
    from sqlalchemy import Engine

ZERO = Decimal(0)
NOTHING = Outlook(low=ZERO, high=ZERO, expected=ZERO)


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
    engine: Engine | None
    now: datetime
    on_rows: Callable[[int], None]
    rows: int = 0
    shared: dict[tuple[str, ...], Shared] = field(default_factory=dict)

    def estimate(self, job: JobSpec, plan: Plan) -> JobEstimate:
        endpoint = self.catalogue.endpoint_for(job.provider, job.mode)
        notes = [*plan.notes]
        known = self.known(job, endpoint, notes)
        source = watched(job, self.base, partial(self.videos, job, endpoint, known))
        needs = needs_of(job, plan, self.base, self.now, source.videos)
        terms = terms_of(job, known)
        found = survey(job, needs, self.base, source, known, capped=terms.cap is not None, on_rows=self.count_rows)
        notes += [NO_SOUND] if found.videos else []
        spent = self.spent(known, needs.currency, notes)
        calls = Decimal(found.calls) / found.charged if found.charged else Decimal(1)
        tokens = [quantity.left(found.left, calls).to(Decimal(1)) for quantity in (found.input, found.output)]
        to_come = None if needs.price is None else found.cost.left(found.left, calls).to(MONEY_UNIT)
        load = Load(calls=found.left * calls, tokens=tokens[0] + tokens[1], busy=busy(found))
        made = JobEstimate(
            name=job.name,
            simulated=endpoint.simulated,
            provider=job.provider,
            model=job.model,
            items=found.ended + found.left + found.unsendable + found.shared,
            ended=found.ended,
            left=found.left,
            unsendable=found.unsendable,
            shared=found.shared,
            measured=found.output.highs.count,
            input_tokens=tokens[0],
            output_tokens=tokens[1],
            longest_answer=None if plan.written else plan.output_bound(),
            currency=needs.currency,
            spent=spent,
            to_come=to_come,
            unknown=why_unknown(job, found, tokens, spent),
            time=self.time(job, plan, known, load, affordable(terms, found, known)),
            load=load,
            budget=None,
            notes=notes,
        )
        return replace(made, budget=budget_of(terms, made, found, known))

    def videos(self, job: JobSpec, endpoint: Endpoint, known: Known | None) -> Videos:
        return {} if known is None else videos_of(known.engine, job, endpoint)

    def count_rows(self, number: int) -> None:
        self.rows += number
        self.on_rows(self.rows)

    def known(self, job: JobSpec, endpoint: Endpoint, notes: list[str]) -> Known | None:
        if self.engine is None:
            return None
        with reading(self.engine) as connection:
            row = job_named(connection, job.name, simulated=endpoint.simulated)
            counts = {} if row is None else count_states(connection, row.id)
        if row is None:
            return None
        if differences(row.identity, job.identity()):
            notes.append(
                "the database has a job of this name with another request, so that `run` will refuse this one; it is "
                "estimated as if it had another name"
            )
            return None
        return Known(engine=self.engine, job=row, open=sum(counts.get(state, 0) for state in OPEN))

    def spent(self, known: Known | None, currency: str | None, notes: list[str]) -> Outlook:
        lines: list[CostLine] = []
        if known is not None:
            with reading(known.engine) as connection:
                lines = cost_by(connection, "job", job_ids=[known.job.id])
        for line in lines:
            if line.currency not in (None, currency):
                notes.append(f"what was spent in {line.currency} is not in this estimate")
        return reduce(add, [spent_of(line) for line in lines if line.currency in (None, currency)], NOTHING)

    def time(self, job: JobSpec, plan: Plan, known: Known | None, load: Load, together: int | None) -> Duration:
        """`together` is how many calls at once the budget allows; None where it doesn't matter."""
        limits = plan.model.limits if known is None else known.limits
        own = terms_of(job, known).limits
        wished = own.concurrency or 0
        key = (*self.catalogue.endpoint_for(job.provider, job.mode).limited_as, job.model)
        shared = self.shared.get(key)
        if shared is None:
            self.shared[key] = Shared(limits=limits, wished=wished, load=load)
        else:
            shared.join(load, wished)
        most = limits.concurrency or max(DEFAULT_CONCURRENCY, wished)
        return duration(load, (limits, own), min(most, wished or most, together or most), self.hours(job))

    def hours(self, job: JobSpec) -> Hours | None:
        window = None if job.window is None else stored_window(job.window.model_dump())
        return None if window is None else Hours(window=window, now=self.now)

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
    engine: Engine | None,
    now: datetime,
    on_rows: Callable[[int], None] = lambda _: None,
) -> Estimate:
    """Estimate every job of the file; `base` is its folder. `engine` leads to what is known of them, if anything.

    Raises SpecError, CatalogueError, UsageError.
    """
    estimator = Estimator(catalogue=catalogue, base=base, engine=engine, now=now, on_rows=on_rows)
    made = [estimator.estimate(job, plan) for job, plan in prepared_all(jobs, catalogue)]
    return Estimate(jobs=made, time=estimator.together(made))


def spent_of(line: CostLine) -> Outlook:
    low = ZERO if line.cost_low is None else line.cost_low
    high = None if line.unknown_cost else line.cost_high
    return Outlook(low=low, high=high, expected=None if high is None else (low + high) / 2)


def busy(found: Survey) -> Outlook | None:
    """Seconds of all calls that are left, one after the other; None before enough was measured."""
    if found.seconds.count < ENOUGH:
        return None
    expected, reach = found.seconds.mean * found.left, found.seconds.reach(found.left)
    return Outlook(low=max(ZERO, expected - reach), high=expected + reach, expected=expected)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What holds for the job alone: what its file says, or what was set by hand since the file last said so."""

    cap: Decimal | None
    limits: Limits


def terms_of(job: JobSpec, known: Known | None) -> Terms:
    told = Terms(
        cap=None if job.budget is None else job.budget.max_cost,
        limits=Limits(**{name: getattr(job.limits, name) for name in LIMIT_NAMES}),
    )
    if known is None:
        return told
    before = terms_of(stored_spec(known.job.spec), None)
    stands = {
        name: getattr(known.job if getattr(told.limits, name) == getattr(before.limits, name) else told.limits, name)
        for name in LIMIT_NAMES
    }
    return Terms(cap=known.job.cap if told.cap == before.cap else told.cap, limits=Limits(**stands))


def affordable(terms: Terms, found: Survey, known: Known | None) -> int | None:
    """How many calls at once the budget can be reserved for; None where it doesn't matter."""
    if terms.cap is None or found.reserved is None or not found.reserved[1]:
        return None
    return max(1, int(left_of(terms.cap, known) // found.reserved[1]))


def left_of(cap: Decimal, known: Known | None) -> Decimal:
    used = ZERO if known is None else known.job.spent + known.job.reserved
    return max(ZERO, cap - used)


def budget_of(terms: Terms, made: JobEstimate, found: Survey, known: Known | None) -> BudgetOutlook | None:
    """A call is made only if the most that it can cost still fits, so the last ones need more room than they use."""
    if terms.cap is None or made.to_come is None:
        return None
    left = left_of(terms.cap, known)
    least, most = found.reserved or (ZERO, ZERO)
    surely = None if made.to_come.high is None else covered(left, most, made.to_come.high, made.left)
    at_best = covered(left, least, made.to_come.low, made.left)
    enough: Enough = "yes" if surely == made.left else "perhaps" if at_best == made.left else "no"
    return BudgetOutlook(cap=terms.cap, left=left, enough=enough, covers_low=surely or 0, covers_high=at_best, one=most)


def covered(left: Decimal, reserved: Decimal, cost: Decimal, items: int) -> int:
    """Of `items` that cost `cost` together, how many can be called before a reservation doesn't fit any more."""
    if reserved > left:
        return 0
    return items if not cost else min(items, int((left - reserved) * items / cost) + 1)


def why_unknown(job: JobSpec, found: Survey, tokens: Sequence[Outlook], spent: Outlook) -> str | None:
    if found.needs.price is None:
        reason = found.needs.plan.model.unpriced
        return f"the catalogue has no price for {job.model} at {job.provider}{f': {reason}' if reason else ''}"
    if tokens[0].high is None:
        return f"how many tokens a picture can become for {job.model} isn't known"
    if tokens[1].high is None:
        return f"how long an answer of {job.model} can become isn't known"
    return "calls were made whose cost isn't known" if spent.high is None else None

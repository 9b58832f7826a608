"""What an estimate takes from the database: what was spent, what was measured, what is left; on both databases."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal

import pytest
import sqlalchemy as sa

from batchrun.database import connect_to_tables, reading, writing
from batchrun.drain import Stop
from batchrun.estimating import estimate_all
from batchrun.estimating.outcome import JobEstimate
from batchrun.jobfile.spec import JobFile, JobSpec
from batchrun.loading.foreseeing import LOOKED_INTO
from batchrun.reports.cost import cost_by
from batchrun.running import run
from batchrun.store.jobs import estimate_of, job_named
from batchrun.store.sample import draw
from batchrun.tables import items, jobs, profiles
from tests.integration.running import NATIVE, REAL, Bench, fresh, job, wait_until

TEXTS = [f"Item {number}: {'a longer text ' * (number % 7)}" for number in range(40)]


def estimated(bench: Bench, *specs: JobSpec) -> Sequence[JobEstimate]:
    file = JobFile(version=1, jobs=specs, path=None)
    found = estimate_all(file, bench.catalogue, base=bench.folder, engine=bench.engine, now=datetime.now(UTC))
    return found.jobs


def buy(bench: Bench, ids: list[int], size: int) -> None:
    with reading(bench.engine) as connection:
        sample = draw(connection, ids, size)
    run(bench.engine, ids, bench.catalogue, bench.settings, sample=sample)


def bill(bench: Bench) -> Decimal:
    return sum((row.amount for row in bench.book() if row.amount is not None), Decimal(0))


def width(found: JobEstimate) -> Decimal:
    assert found.cost is not None
    assert found.cost.high is not None
    return found.cost.high - found.cost.low


FAULTS = ["", "500-pct=40-once", "cut-after=3-pct=40-once"]


@pytest.mark.parametrize("fault", FAULTS, ids=["without faults", "errors", "broken streams"])
def test_the_final_bill_lies_in_the_range_that_a_sample_narrowed(bench: Bench, fault: str) -> None:
    """Failed calls that were billed, or may have been, are part of what an item costs."""
    bench.at(fault)
    spec = job("narrowed", TEXTS, fault=fault)
    (before,) = estimated(bench, spec)
    ids = bench.load(spec)
    buy(bench, ids, 15)
    (after,) = estimated(bench, spec)
    end = bench.run(ids)
    assert end.jobs[0].states == {"done": 40}
    assert (after.ended, after.left, after.measured) == (15, 25, 15)
    for found in (before, after):
        assert found.cost is not None
        assert found.cost.high is not None
        assert found.cost.low <= bill(bench) <= found.cost.high
    assert fault or width(after) < width(before)  # what a failed call was billed may never be known


def test_the_report_tells_what_the_job_was_estimated_at_beside_what_it_came_to(bench: Bench) -> None:
    spec = job("compared", TEXTS)
    (before,) = estimated(bench, spec)
    bench.go(spec)
    with reading(bench.engine) as connection:
        (line,) = cost_by(connection, "job")
    assert line.estimate is not None
    assert before.to_come is not None
    assert line.estimate.cost == (before.to_come.low, before.to_come.high)
    assert (line.estimate.items, line.estimate.currency) == (40, "USD")
    assert list(line.estimate.input_tokens) == [before.input_tokens.low, before.input_tokens.high]
    assert before.to_come.low <= bill(bench) <= (before.to_come.high or 0)


def test_the_estimate_grows_with_the_rows_that_are_added_and_not_with_those_that_are_known(bench: Bench) -> None:
    bench.load(job("grows", TEXTS[:10]))
    bench.load(job("grows", TEXTS))
    bench.load(job("grows", TEXTS))
    (whole,) = bench.load(job("at-once", TEXTS))
    with reading(bench.engine) as connection:
        grown = job_named(connection, "grows", simulated=False) or job_named(connection, "grows", simulated=True)
        assert grown is not None
        assert estimate_of(connection, grown.id) == estimate_of(connection, whole)


def test_a_job_whose_rows_came_without_an_estimate_gets_none_for_a_few_of_them(bench: Bench) -> None:
    (old,) = bench.load(job("old", TEXTS[:10]))
    with writing(bench.engine) as connection:
        connection.execute(sa.update(jobs).values(estimate=None))
    bench.load(job("old", TEXTS))
    with reading(bench.engine) as connection:
        assert estimate_of(connection, old) is None


def test_beyond_the_first_rows_of_a_load_the_bill_still_lies_in_the_estimate(bench: Bench) -> None:
    (many,) = bench.load(job("many", ["row 1"] * (LOOKED_INTO + 200)))
    (one,) = bench.load(job("one", ["row 1"]))
    with reading(bench.engine) as connection:
        rough, exact = estimate_of(connection, many), estimate_of(connection, one)
    assert rough is not None
    assert exact is not None
    assert rough.cost is not None
    assert exact.cost is not None
    assert exact.cost[1] is not None
    assert rough.cost[0] <= exact.cost[0] * rough.items
    assert rough.cost[1] is not None
    assert rough.cost[1] >= exact.cost[1] * rough.items


def test_what_was_spent_is_told_exactly_and_in_the_end_it_is_all(bench: Bench) -> None:
    spec = job("spent", TEXTS)
    bench.go(spec)
    (found,) = estimated(bench, spec)
    assert (found.spent.low, found.spent.high, found.left) == (bill(bench), bill(bench), 0)
    assert found.cost is not None
    assert found.cost.low == found.cost.high == bill(bench)
    assert found.time.high == 0


def test_an_item_that_waits_for_another_try_is_left_and_its_calls_are_spent(bench: Bench) -> None:
    fault = fresh("cut-after=3-first=1")
    bench.at(fault)
    spec = job("waiting", 1, fault=fault)
    ids, stop = bench.load(spec), Stop()
    with bench.running(ids, stop):
        wait_until(lambda: bench.states(ids[0]) == {"waiting": 1}, "the first try has failed")
        stop.ask()
    (found,) = estimated(bench, spec)
    assert (found.items, found.ended, found.left) == (1, 0, 1)
    assert found.spent.high is not None
    assert found.spent.low <= bill(bench) <= found.spent.high > 0


def test_cancelled_items_are_not_counted(bench: Bench) -> None:
    spec = job("cancelled", 10)
    ids = bench.load(spec)
    cancelled = sa.update(items).where(items.c.job_id == ids[0], items.c.custom_id.in_(["0", "1", "2"]))
    with writing(bench.engine) as connection:
        connection.execute(cancelled.values(state="cancelled"))
    (found,) = estimated(bench, spec)
    assert (found.items, found.left) == (7, 7)


def test_open_items_that_the_source_names_no_longer_are_counted(bench: Bench) -> None:
    spec = job("shrunk", TEXTS)
    bench.load(spec)
    (whole,) = estimated(bench, spec)
    rows = [{"id": str(number), "text": text} for number, text in enumerate(TEXTS[:10])]
    shrunk = spec.model_copy(update={"inputs": spec.inputs.model_copy(update={"items": tuple(rows)})})
    (found,) = estimated(bench, shrunk)
    assert (found.items, found.cost) == (40, whole.cost)


def test_rows_that_are_not_loaded_yet_are_counted(bench: Bench) -> None:
    spec = job("grown", TEXTS[:10])
    ids = bench.load(spec)
    bench.run(ids)
    rows = [{"id": str(number), "text": text} for number, text in enumerate(TEXTS)]
    grown = spec.model_copy(update={"inputs": spec.inputs.model_copy(update={"items": tuple(rows)})})
    (found,) = estimated(bench, grown)
    assert (found.items, found.ended, found.left) == (40, 10, 30)


def test_the_limits_of_the_profile_are_those_in_the_database(bench: Bench) -> None:
    spec = job("limited", 20)
    ids = bench.load(spec)
    with writing(bench.engine) as connection:
        profile = bench.job_row(ids[0]).profile_id
        connection.execute(sa.update(profiles).where(profiles.c.id == profile).values(requests_per_minute=2))
    (found,) = estimated(bench, spec)
    assert (found.time.brake, round(found.time.low)) == ("2 requests/min", 632)


@pytest.mark.parametrize("providers", [(REAL, REAL), (REAL, NATIVE)], ids=["one-form", "both-forms"])
def test_jobs_of_one_model_share_its_limits(bench: Bench, providers: tuple[str, str]) -> None:
    specs = [job(f"job-{number}", 20, provider=provider) for number, provider in enumerate(providers)]
    bench.load(*specs)
    with writing(bench.engine) as connection:
        connection.execute(sa.update(profiles).values(requests_per_minute=20))
    file = JobFile(version=1, jobs=tuple(specs), path=None)
    found = estimate_all(file, bench.catalogue, base=bench.folder, engine=bench.engine, now=datetime.now(UTC))
    assert [round(made.time.low) for made in found.jobs] == [63, 63]
    assert round(found.time.low) == 126


def test_the_budget_that_is_left_is_what_was_not_spent(bench: Bench) -> None:
    spec = job("capped", TEXTS, budget={"max_cost": "1 USD"})
    buy(bench, bench.load(spec), 10)
    (found,) = estimated(bench, spec)
    assert found.budget is not None
    assert (found.budget.left, found.budget.enough) == (1 - bill(bench), "yes")


def test_items_that_failed_for_nothing_do_not_make_the_others_look_free(bench: Bench) -> None:
    spec = job("refused", TEXTS)
    (before,) = estimated(bench, spec)
    ids = bench.load(spec)
    failed = sa.update(items).where(items.c.job_id == ids[0], items.c.custom_id.in_([str(n) for n in range(20)]))
    with writing(bench.engine) as connection:
        connection.execute(failed.values(state="failed", fence=1))
    (found,) = estimated(bench, spec)
    assert (found.ended, found.left, found.measured) == (20, 20, 0)
    assert before.cost is not None
    assert before.cost.high is not None
    assert found.cost is not None
    assert found.cost.high is not None
    assert found.cost.high > before.cost.high * Decimal("0.45")
    assert found.cost.low == 0


def test_what_was_set_by_hand_holds_until_the_file_says_otherwise(bench: Bench) -> None:
    spec = job("set", TEXTS, budget={"max_cost": "1 USD"}, limits={"requests_per_minute": 60})
    ids = bench.load(spec)
    by_hand = sa.update(jobs).where(jobs.c.id == ids[0]).values(cap=Decimal(2), requests_per_minute=6)
    with writing(bench.engine) as connection:
        connection.execute(by_hand)
    (found,) = estimated(bench, spec)
    assert found.budget is not None
    assert (found.budget.cap, found.time.brake) == (Decimal(2), "6 requests/min")
    changed = {"budget": {"max_cost": "3 USD"}, "limits": {"requests_per_minute": 30}}
    (found,) = estimated(bench, JobSpec.model_validate({**spec.snapshot(), **changed}))
    assert found.budget is not None
    assert (found.budget.cap, found.time.brake) == (Decimal(3), "30 requests/min")


def test_a_database_without_tables_knows_nothing(blank_database_url: str) -> None:
    assert connect_to_tables(blank_database_url) is None

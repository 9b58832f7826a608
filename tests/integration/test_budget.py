"""A job's cap: never exceeded by what is spent and reserved, told where it stops, and raised to go on."""

from __future__ import annotations

import time
from decimal import Decimal

import pytest

from batchrun.drain import Stop
from batchrun.errors import SpecError
from batchrun.jobfile.spec import JobSpec
from batchrun.tables import usage
from tests.integration.running import PATIENCE, Bench, check_items, check_money, check_reservations, job

pytestmark = pytest.mark.usefixtures("nothing_left_behind")

BOUND = Decimal("0.0006")
"""More than the most that one call of these jobs can cost: 300 tokens of output at 1.6, some 200 of input at 0.25."""


def capped(name: str, items: int, cap: str, **settings: object) -> JobSpec:
    return job(name, items, budget={"max_cost": f"{cap} USD"}, **settings)


def recapped(spec: JobSpec, cap: str) -> JobSpec:
    return JobSpec.model_validate({**spec.snapshot(), "budget": {"max_cost": f"{cap} USD"}})


def bill(bench: Bench) -> Decimal:
    return sum((row.amount for row in bench.book() if row.amount is not None), Decimal(0))


def test_a_job_stops_before_its_cap_and_says_so(bench: Bench) -> None:
    ids = bench.load(capped("stops", 100, "0.005"))
    end = bench.run(ids)
    row = bench.job_row(ids[0])
    assert (end.exit_code, end.jobs[0].paused) == (3, "budget")
    assert row.spent + row.reserved <= row.cap
    assert row.cap - row.spent < BOUND
    assert bill(bench) == row.spent > 0
    assert 0 < end.jobs[0].states["done"] < 100
    check_items(bench, ids)
    check_reservations(bench)


def test_the_message_names_the_next_call_what_is_spent_and_the_cap(sqlite_bench: Bench) -> None:
    ids = sqlite_bench.load(capped("message", 50, "0.003"))
    message = sqlite_bench.run(ids).jobs[0].pause_message
    spent = sqlite_bench.job_row(ids[0]).spent
    assert message is not None
    assert "next call may cost up to 0.000" in message
    assert f"spent {format(spent.normalize(), 'f')}," in message
    assert "0.003" in message.partition("cap of")[2]
    assert "USD" in message


def test_at_no_moment_is_more_promised_than_the_cap(bench: Bench) -> None:
    slow = "ttft=0.05+tps=1000"
    bench.at(slow)
    ids = bench.load(capped("watched", 60, "0.004", fault=slow))
    seen = []
    with bench.running(ids, Stop()) as run:
        while not run.done():
            row = bench.job_row(ids[0])
            seen.append((row.spent, row.reserved))
            time.sleep(0.01)
        run.result(PATIENCE)
    assert max(spent + reserved for spent, reserved in seen) <= Decimal("0.004")
    assert any(reserved > 0 for _, reserved in seen)


def test_two_processes_share_one_cap(bench: Bench) -> None:
    ids = bench.load(capped("shared-cap", 80, "0.004"))
    for process in [bench.drainer(ids) for _ in range(2)]:
        _, err = process.communicate(timeout=60)
        assert err == ""
    row = bench.job_row(ids[0])
    assert bill(bench) == row.spent <= row.cap
    assert row.reserved == 0


def test_with_a_raised_cap_the_job_goes_on(bench: Bench) -> None:
    spec = capped("raised", 30, "0.002")
    ids = bench.load(spec)
    assert bench.run(ids).exit_code == 3
    assert bench.load(recapped(spec, "1.00")) == ids
    end = bench.run(ids)
    assert (end.exit_code, end.jobs[0].states) == (0, {"done": 30})
    check_money(bench, ids)


def test_run_again_under_the_same_cap_it_calls_nobody(sqlite_bench: Bench) -> None:
    ids = sqlite_bench.load(capped("same-cap", 30, "0.002"))
    sqlite_bench.run(ids)
    before = len(sqlite_bench.book())
    end = sqlite_bench.run(ids)
    assert (end.exit_code, end.jobs[0].paused, len(sqlite_bench.book())) == (3, "budget", before)


def test_a_cap_below_one_call_calls_nobody(sqlite_bench: Bench) -> None:
    ids = sqlite_bench.load(capped("too-small", 5, "0.000001"))
    end = sqlite_bench.run(ids)
    assert (end.exit_code, end.jobs[0].paused, end.jobs[0].states) == (3, "budget", {"pending": 5})
    assert sqlite_bench.book() == []


def test_what_broke_calls_may_have_cost_counts_against_the_cap(sqlite_bench: Bench) -> None:
    """Every first call breaks at an unknown cost, so the high ends are held until somebody knows better."""
    fault = "truncate=3-once"
    sqlite_bench.at(fault)
    ids = sqlite_bench.load(capped("broken", 30, "0.006", fault=fault, limits={"concurrency": 2}))
    sqlite_bench.run(ids)
    row = sqlite_bench.job_row(ids[0])
    high = sum((line.cost_high for line in sqlite_bench.rows(usage)), Decimal(0))
    assert bill(sqlite_bench) < high == row.spent <= row.cap
    assert row.paused == "budget"


def test_a_vendor_that_ignores_max_tokens_overruns_by_the_calls_in_flight_alone(bench: Bench) -> None:
    """Five times as many tokens as asked for: what such a call costs is found out when it is over."""
    fault = "overrun=5"
    bench.at(fault)
    ids = bench.load(capped("overrun", 60, "0.004", fault=fault, limits={"concurrency": 3}))
    end = bench.run(ids)
    row = bench.job_row(ids[0])
    assert end.jobs[0].paused == "budget"
    assert row.spent == bill(bench)
    assert row.spent <= row.cap + 3 * 5 * BOUND
    assert end.jobs[0].states["pending"] > 40
    check_reservations(bench)


def test_a_budget_for_a_model_without_a_price_is_refused(sqlite_bench: Bench) -> None:
    with pytest.raises(SpecError, match="a budget needs a price") as caught:
        sqlite_bench.load(capped("unpriced", 3, "1.00", model="sim-unpriced"))
    assert "delete `budget`" in str(caught.value)


def test_a_budget_in_another_currency_is_refused(sqlite_bench: Bench) -> None:
    with pytest.raises(SpecError, match="the budget is in CNY"):
        sqlite_bench.load(job("foreign", 3, budget={"max_cost": "1.00 CNY"}))


def test_another_jobs_cap_holds_nobody_else(sqlite_bench: Bench) -> None:
    ids = sqlite_bench.load(capped("held", 30, "0.001"), job("free", 30))
    end = sqlite_bench.run(ids)
    assert [one.paused for one in end.jobs] == ["budget", None]
    assert end.jobs[1].states == {"done": 30}

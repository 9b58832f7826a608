"""Costs that calls left open and that are settled by hand: `spent` and the reports follow to the last digit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy import Engine

from batchrun.catalogue import load_catalogue
from batchrun.database import reading, writing
from batchrun.errors import UsageError
from batchrun.output.export import export
from batchrun.reports.cost import cost_by
from batchrun.steering import settling
from batchrun.steering.bill import Bill
from batchrun.steering.settling import Settled, Settlement
from batchrun.store.claim import Call
from batchrun.store.finish import Result
from batchrun.store.settle import Difference, Rule
from batchrun.tables import attempts, audit, jobs, usage
from tests.integration.rows import (
    COST,
    LONG_AGO,
    MOST,
    add_job,
    add_worker,
    answered,
    broken,
    change_job,
    charged,
    counted,
    job_of,
    opened,
    reap,
    store_results,
    take,
    unsent,
    usage_of,
)

D = Decimal
NOTHING = D(0)
OPEN = charged(NOTHING, MOST)
UNKNOWN = charged(None)
LATER = LONG_AGO + timedelta(days=999)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    with opened(database_url) as engine:
        yield engine


@pytest.fixture
def lite(sqlite_url: str) -> Iterator[Engine]:
    """For what the database has no part in."""
    with opened(sqlite_url) as engine:
        yield engine


def calls_of(engine: Engine, size: int, name: str = "job", **values: object) -> list[Call]:
    with writing(engine) as connection:
        job = add_job(connection, name, size=size, **values)  # type: ignore[arg-type]  # columns
    return take(engine, add_worker(engine), only=frozenset({job})).calls


def named(result: Result, request_id: str) -> Result:
    return replace(result, request_id=request_id)


def by_rule(engine: Engine, rule: Rule, *, currency: str | None = None, dry_run: bool = False) -> Settled:
    done = settling.settle_as(
        engine, ["job"], rule, load_catalogue, currency=currency, dry_run=dry_run, simulated=False, actor="anna@desk"
    )
    return done.jobs[0]


def by_bill(
    engine: Engine,
    amounts: Mapping[str, str],
    *names: str,
    currency: str | None = None,
    told: str | None = None,
    dry_run: bool = False,
) -> Settlement:
    bill = Bill(
        amounts={name: D(amount) for name, amount in amounts.items()}, currency=told, lines=len(amounts), without_id=0
    )
    return settling.settle_by_bill(
        engine,
        names or ["job"],
        bill,
        load_catalogue,
        currency=currency,
        dry_run=dry_run,
        simulated=False,
        actor="anna@desk",
    )


def costs(engine: Engine) -> list[tuple[Decimal | None, Decimal | None, str | None]]:
    with reading(engine) as connection:
        rows = connection.execute(sa.select(usage).order_by(usage.c.attempt_id))
        return [(row.cost_low, row.cost_high, row.settled) for row in rows]


def check_spent(engine: Engine) -> None:
    """`spent` is the sum of the high ends."""
    with reading(engine) as connection:
        for job in connection.execute(sa.select(jobs)).all():
            highs = connection.execute(sa.select(usage.c.cost_high).where(usage.c.job_id == job.id)).scalars()
            assert job.spent == sum((high for high in highs if high is not None), D(0))


# By a rule


def test_zero_makes_open_and_unknown_costs_nothing(engine: Engine) -> None:
    exact, open_call, unknown = calls_of(engine, 3)
    store_results(engine, answered(exact), broken(open_call, charge=OPEN), broken(unknown, charge=UNKNOWN))
    done = by_rule(engine, "zero")
    assert costs(engine) == [(COST, COST, None), (NOTHING, NOTHING, "zero"), (NOTHING, NOTHING, "zero")]
    assert (done.calls, done.low, done.high, done.cost, done.spent) == (2, NOTHING, MOST, NOTHING, COST)
    assert job_of(engine, exact.job_id).spent == COST


def test_high_takes_the_upper_end_and_leaves_what_has_none(engine: Engine) -> None:
    open_call, unknown = calls_of(engine, 2)
    store_results(engine, broken(open_call, charge=OPEN), broken(unknown, charge=UNKNOWN))
    done = by_rule(engine, "high")
    assert costs(engine) == [(MOST, MOST, "high"), (None, None, None)]
    assert (done.calls, done.cost, done.spent, done.left.calls, done.left.unknown) == (1, MOST, MOST, 1, 1)
    check_spent(engine)


def test_the_report_counts_settled_calls_and_is_exact(engine: Engine) -> None:
    exact, open_call = calls_of(engine, 2)
    store_results(engine, answered(exact), broken(open_call, charge=OPEN))
    by_rule(engine, "high")
    with reading(engine) as connection:
        [line] = cost_by(connection, "job")
    assert (line.settled, line.exact, line.cost_high) == (1, True, COST + MOST)


def test_an_export_says_what_was_settled(lite: Engine, tmp_path: Path) -> None:
    exact, open_call = calls_of(lite, 2)
    store_results(lite, answered(exact), broken(open_call, charge=OPEN), answered(calls_of(lite, 1, "other")[0]))
    [again] = take(lite, add_worker(lite)).calls
    store_results(lite, answered(again))
    by_rule(lite, "zero")
    assert export(lite, "job", "jsonl", tmp_path / "out.jsonl").settled == 1
    assert '"settled":"zero"' in (tmp_path / "out.jsonl").read_text()


def test_a_dry_run_tells_the_same_and_changes_nothing(engine: Engine) -> None:
    [call] = calls_of(engine, 1)
    store_results(engine, broken(call, charge=OPEN))
    told = by_rule(engine, "zero", dry_run=True)
    assert (costs(engine), job_of(engine, call.job_id).spent) == ([(NOTHING, MOST, None)], MOST)
    assert by_rule(engine, "zero") == told


def test_settling_again_changes_nothing(engine: Engine) -> None:
    [call] = calls_of(engine, 1)
    store_results(engine, broken(call, charge=OPEN))
    by_rule(engine, "zero")
    assert by_rule(engine, "high").calls == 0
    assert costs(engine) == [(NOTHING, NOTHING, "zero")]


def test_a_job_without_a_currency_needs_one_to_be_named(engine: Engine) -> None:
    [call] = calls_of(engine, 1, currency=None)
    store_results(engine, broken(call, charge=UNKNOWN))
    assert by_rule(engine, "zero").left.unknown == 1
    assert by_rule(engine, "zero", currency="EUR").calls == 1
    row = usage_of(engine, call.attempt_id)
    assert row is not None
    assert (row.cost_high, row.currency, job_of(engine, call.job_id).currency) == (0, "EUR", "EUR")


def test_another_currency_than_the_jobs_is_refused(lite: Engine) -> None:
    calls_of(lite, 1)
    with pytest.raises(UsageError, match="--currency is EUR, and the costs of job are in USD"):
        by_rule(lite, "zero", currency="EUR")


def test_it_is_written_into_the_audit(lite: Engine) -> None:
    [call] = calls_of(lite, 1)
    store_results(lite, broken(call, charge=OPEN))
    by_rule(lite, "zero")
    with reading(lite) as connection:
        [row] = connection.execute(sa.select(audit))
    assert (row.actor, row.action, row.detail["how"], row.detail["calls"]) == ("anna@desk", "settle", "zero", 1)


def test_a_budget_that_has_room_again_is_told(lite: Engine) -> None:
    spec = {
        "name": "job", "provider": "simulator/model-studio-singapore", "model": "qwen3-vl-plus",
        "inputs": {"items": [{"id": "0"}]}, "prompt": "hello", "params": {"max_tokens": 100},
        "retry": {"attempts": 4},
    }  # fmt: skip
    first, second = calls_of(lite, 2, spec=spec)
    store_results(lite, broken(first, charge=OPEN), unsent(second))
    change_job(lite, first.job_id, paused="budget", cap=MOST)
    told = by_rule(lite, "high", dry_run=True)
    assert (told.freed, told.short is not None) == (False, True)
    told = by_rule(lite, "zero")
    assert (told.freed, told.short) == (True, None)


# By a bill


def test_a_bill_makes_open_costs_exact(engine: Engine) -> None:
    open_call, unknown, other = calls_of(engine, 3)
    store_results(
        engine,
        named(broken(open_call, charge=OPEN), "r-1"),
        named(broken(unknown, charge=UNKNOWN), "r-2"),
        broken(other, charge=OPEN),
    )
    done = by_bill(engine, {"r-1": "0.004", "r-2": "0.000000000012", "r-9": "1"})
    assert costs(engine) == [
        (D("0.004"), D("0.004"), "bill"),
        (D("0.000000000012"), D("0.000000000012"), "bill"),
        (NOTHING, MOST, None),
    ]
    [job] = done.jobs
    assert (done.foreign, job.calls, job.left.calls) == (1, 2, 1)
    assert job.spent == D("0.004000000012") + MOST
    check_spent(engine)


def test_an_exact_cost_that_is_billed_otherwise_is_reported_and_not_changed(engine: Engine) -> None:
    equal, different = calls_of(engine, 2)
    store_results(engine, named(answered(equal), "r-1"), named(answered(different), "r-2"))
    [job] = by_bill(engine, {"r-1": str(COST), "r-2": "0.5"}).jobs
    assert job.compared is not None
    assert (job.calls, job.compared.equal, job.compared.different) == (0, 1, 1)
    assert job.compared.differences == [Difference(request_id="r-2", booked=COST, billed=D("0.5"))]
    assert costs(engine) == [(COST, COST, None)] * 2


def test_a_refused_call_that_is_billed_is_a_difference(engine: Engine) -> None:
    """It was taken to be free, so it has no usage row."""
    [call] = calls_of(engine, 1)
    store_results(engine, named(broken(call), "r-1"))
    [job] = by_bill(engine, {"r-1": "0.5"}).jobs
    assert job.compared is not None
    assert job.compared.differences == [Difference(request_id="r-1", booked=D(0), billed=D("0.5"))]


def test_two_calls_under_one_request_id_are_left_alone(engine: Engine) -> None:
    calls = calls_of(engine, 2)
    store_results(engine, *(named(broken(call, charge=OPEN), "r-1") for call in calls))
    [job] = by_bill(engine, {"r-1": "0.004"}).jobs
    assert job.compared is not None
    assert (job.calls, job.compared.ambiguous) == (0, 2)


def test_an_amount_outside_of_the_bounds_is_taken_and_told(engine: Engine) -> None:
    [call] = calls_of(engine, 1)
    store_results(engine, named(broken(call, charge=OPEN), "r-1"))
    [job] = by_bill(engine, {"r-1": "0.02"}).jobs
    assert job.compared is not None
    assert (job.compared.outside, job.spent) == (1, D("0.02"))
    check_spent(engine)


def test_a_bill_settles_several_jobs_and_no_others(engine: Engine) -> None:
    for name in ("a", "b", "c"):
        [call] = calls_of(engine, 1, name)
        store_results(engine, named(broken(call, charge=OPEN), f"r-{name}"))
    done = by_bill(engine, {"r-a": "0.001", "r-b": "0.002", "r-c": "0.003"}, "c", "a")
    assert (done.foreign, [job.cost for job in done.jobs]) == (1, [D("0.001"), D("0.003")])
    assert [settled for _, _, settled in costs(engine)] == ["bill", None, "bill"]
    check_spent(engine)


def test_a_dry_run_of_a_bill_changes_nothing(engine: Engine) -> None:
    [call] = calls_of(engine, 1)
    store_results(engine, named(broken(call, charge=OPEN), "r-1"))
    told = by_bill(engine, {"r-1": "0.004"}, dry_run=True)
    assert costs(engine) == [(NOTHING, MOST, None)]
    assert by_bill(engine, {"r-1": "0.004"}).jobs == told.jobs


@pytest.mark.parametrize(("named_so", "told"), [("EUR", None), (None, "EUR"), ("USD", "EUR")])
def test_a_bill_in_another_currency_is_refused(lite: Engine, named_so: str | None, told: str | None) -> None:
    calls_of(lite, 1)
    with pytest.raises(UsageError, match="EUR, and the costs of job are in USD"):
        by_bill(lite, {"r-1": "1"}, currency=named_so, told=told)


def test_a_bill_without_any_currency_needs_one(lite: Engine) -> None:
    calls_of(lite, 1, currency=None)
    with pytest.raises(UsageError, match="the job job has no currency"):
        by_bill(lite, {"r-1": "1"})


# Late news of a call whose cost was settled


def lost_call(engine: Engine) -> Call:
    """A call whose worker was taken for dead."""
    with writing(engine) as connection:
        add_job(connection, size=1)
    worker = add_worker(engine)
    [call] = take(engine, worker).calls
    reap(engine, worker)
    return call


@pytest.mark.parametrize("rule", ["zero", "high"])
def test_an_exact_cost_that_comes_late_replaces_an_assumption(engine: Engine, rule: Rule) -> None:
    call = lost_call(engine)
    by_rule(engine, rule)
    store_results(engine, replace(answered(call), ended_at=LATER))
    assert costs(engine) == [(COST, COST, None)]
    check_spent(engine)


@pytest.mark.parametrize(("rule", "cost"), [("zero", D(0)), ("high", MOST)])
def test_late_news_without_a_cost_leaves_the_assumption(engine: Engine, rule: Rule, cost: Decimal) -> None:
    call = lost_call(engine)
    by_rule(engine, rule)
    store_results(engine, replace(broken(call, charge=charged(D(0), MOST, used=counted())), ended_at=LATER))
    assert costs(engine) == [(cost, cost, rule)]
    row = usage_of(engine, call.attempt_id)
    assert row is not None
    assert row.input_tokens == 100
    check_spent(engine)


def test_a_call_that_turns_out_not_to_have_been_sent_costs_nothing(engine: Engine) -> None:
    call = lost_call(engine)
    by_rule(engine, "high")
    store_results(engine, replace(unsent(call), ended_at=LATER))
    assert costs(engine) == []
    check_spent(engine)


@pytest.mark.parametrize("news", [answered, unsent])
def test_the_bill_outlives_late_news(engine: Engine, news: Callable[[Call], Result]) -> None:
    call = lost_call(engine)
    with writing(engine) as connection:
        connection.execute(sa.update(attempts).values(request_id="r-1"))
    by_bill(engine, {"r-1": "0.004"})
    store_results(engine, replace(news(call), ended_at=LATER))
    assert costs(engine) == [(D("0.004"), D("0.004"), "bill")]
    check_spent(engine)

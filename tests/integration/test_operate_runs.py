"""Jobs that are cancelled, paused and retuned while a drain is at work on them, against the simulator."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from batchrun.drain import Stop
from batchrun.states import State
from batchrun.steering import operating, setting
from tests.integration.running import (
    PATIENCE,
    Bench,
    check_attempts,
    check_items,
    check_money,
    check_reservations,
    check_texts,
    job,
    wait_until,
)

pytestmark = pytest.mark.usefixtures("nothing_left_behind")

SLOW = "ttft=0.4+tps=0"
SOON = 2.0
"""Seconds within which a running drain follows: one, and another one for a machine that is busy."""


def cancel(bench: Bench, name: str) -> operating.Cancelled:
    return operating.cancel(bench.engine, [name], items=None, simulated=True, actor="anna@desk")[0]


def pause(bench: Bench, name: str) -> None:
    operating.pause(bench.engine, [name], reason=None, simulated=True, actor="anna@desk")


def put(bench: Bench, target: str, **changes: object) -> setting.Changed:
    return setting.set_values(
        bench.engine, target, changes, lambda: bench.catalogue, simulated=True, actor="anna@desk"
    )[0]


def in_flight(bench: Bench, job_id: int) -> int:
    return bench.states(job_id)["claimed"]


def soon(holds: Callable[[], bool], what: str) -> None:
    began = time.monotonic()
    wait_until(holds, what)
    assert time.monotonic() - began < SOON


def test_answers_in_flight_of_a_cancelled_job_are_kept_and_nothing_more_is_called(bench: Bench) -> None:
    bench.at(SLOW)
    [job_id] = bench.load(job("withdrawn", 12, fault=SLOW, limits={"concurrency": 3}))
    with bench.running([job_id], Stop()) as run:
        wait_until(lambda: in_flight(bench, job_id) == 3, "three calls are in flight")
        done = cancel(bench, "withdrawn")
        end = run.result(PATIENCE)
    assert (done.total, done.in_flight) == (12, 3)
    assert end.jobs[0].states == {"done": 3, "cancelled": 9}
    assert (end.exit_code, len(bench.book())) == (0, 3)
    check_items(bench, [job_id])
    check_texts(bench, [job_id])
    check_attempts(bench, [job_id], after_kills=0)
    check_money(bench, [job_id])
    check_reservations(bench)


def test_calls_in_flight_that_break_leave_their_items_cancelled(sqlite_bench: Bench) -> None:
    fault = "ttft=0.4+tps=0+truncate=3"
    sqlite_bench.at(fault)
    [job_id] = sqlite_bench.load(job("broken-off", 4, fault=fault, limits={"concurrency": 2}))
    with sqlite_bench.running([job_id], Stop()) as run:
        wait_until(lambda: in_flight(sqlite_bench, job_id) == 2, "two calls are in flight")
        cancel(sqlite_bench, "broken-off")
        end = run.result(PATIENCE)
    assert (end.jobs[0].states, end.exit_code) == ({"cancelled": 4}, 0)
    assert sqlite_bench.job_row(job_id).spent > 0
    check_money(sqlite_bench, [job_id])
    check_reservations(sqlite_bench)


def test_cancelled_items_that_are_retried_run_to_their_end(sqlite_bench: Bench) -> None:
    [job_id] = sqlite_bench.load(job("again", 3))
    cancel(sqlite_bench, "again")
    assert sqlite_bench.run([job_id]).jobs[0].states == {"cancelled": 3}
    [done] = operating.retry(
        sqlite_bench.engine,
        ["again"],
        sqlite_bench.catalogue,
        states=[State.CANCELLED],
        kinds=None,
        items=None,
        dry_run=False,
        simulated=True,
        actor="anna@desk",
    )
    end = sqlite_bench.run([job_id])
    assert (end.jobs[0].states, end.exit_code) == ({"done": 3}, 0)
    assert done.most is not None
    assert sqlite_bench.job_row(job_id).spent <= done.most


def test_a_pause_ends_a_run_after_its_calls_in_flight(bench: Bench) -> None:
    bench.at(SLOW)
    [job_id] = bench.load(job("resting", 12, fault=SLOW, limits={"concurrency": 3}))
    with bench.running([job_id], Stop()) as run:
        wait_until(lambda: in_flight(bench, job_id) == 3, "three calls are in flight")
        pause(bench, "resting")
        end = run.result(PATIENCE)
    assert (end.exit_code, end.jobs[0].paused) == (3, "user")
    assert end.jobs[0].states == {"done": 3, "pending": 9}
    assert bench.run([job_id]).exit_code == 3
    operating.resume(bench.engine, ["resting"], lambda: bench.catalogue, simulated=True, actor="anna@desk")
    assert bench.run([job_id]).jobs[0].states == {"done": 12}
    check_attempts(bench, [job_id], after_kills=0)


def test_the_pause_of_a_person_fails_no_run_that_has_nothing_left(sqlite_bench: Bench) -> None:
    [job_id] = sqlite_bench.load(job("over", 2))
    sqlite_bench.run([job_id])
    pause(sqlite_bench, "over")
    end = sqlite_bench.run([job_id])
    assert (end.exit_code, end.jobs[0].paused) == (0, "user")


def test_a_raised_concurrency_fills_a_running_drain_within_a_second(bench: Bench) -> None:
    slow = "ttft=0.7+tps=0"
    bench.at(slow)
    [job_id] = bench.load(job("wider", 30, fault=slow, limits={"concurrency": 1}))
    with bench.running([job_id], Stop()) as run:
        wait_until(lambda: in_flight(bench, job_id) == 1, "the first call is in flight")
        put(bench, "wider", concurrency=30)
        soon(lambda: in_flight(bench, job_id) >= 20, "the drain is full")
        assert run.result(PATIENCE).exit_code == 0


def test_a_rate_limit_of_the_profile_that_is_taken_away_holds_nobody_any_more(bench: Bench) -> None:
    """Under the old one the ten calls would take ten minutes."""
    [job_id] = bench.load(job("faster", 10))
    name = "sim/none/qwen3-vl-plus"
    put(bench, name, requests_per_minute=1)
    with bench.running([job_id], Stop()) as run:
        wait_until(lambda: bench.states(job_id)["done"] >= 1, "the first call is done")
        put(bench, name, requests_per_minute=None)
        soon(lambda: bench.states(job_id)["done"] == 10, "all are done")
        assert run.result(PATIENCE).exit_code == 0


def test_a_budget_below_what_was_spent_stops_a_running_drain_within_a_second(bench: Bench) -> None:
    slow = "ttft=0.1+tps=0"
    bench.at(slow)
    settings = {"limits": {"concurrency": 2}, "budget": {"max_cost": "1.00 USD"}}
    [job_id] = bench.load(job("poorer", 200, fault=slow, **settings))
    with bench.running([job_id], Stop()) as run:
        wait_until(lambda: bench.states(job_id)["done"] >= 2, "something was spent")
        put(bench, "poorer", budget="0.000001 USD")
        soon(run.done, "the run has ended")
        end = run.result(PATIENCE)
    assert (end.exit_code, end.jobs[0].paused) == (3, "budget")
    assert put(bench, "poorer", budget="1.00 USD", concurrency=64).lifted
    assert bench.run([job_id]).jobs[0].states == {"done": 200}

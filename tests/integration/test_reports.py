"""Reports over a filled database: sums to the last digit, unknown that stays unknown, and the state of jobs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
import sqlalchemy as sa

from batchrun.database import connect
from batchrun.errors import UsageError
from batchrun.reports.cost import By, CostLine, cost_by, totals
from batchrun.reports.jobs import find_jobs, one_job
from batchrun.reports.results import ItemResult, results
from batchrun.reports.status import JobState, JobStatus, status
from batchrun.states import State
from batchrun.tables import profiles
from tests.both_databases import on_every_database
from tests.filling import NOON, WORKER, Filling

MIDNIGHT = datetime(2026, 11, 2, tzinfo=UTC)


@pytest.fixture
def fill(database_url: str) -> Iterator[Filling]:
    engine = connect(database_url)
    with engine.connect() as connection:
        yield Filling(connection)
    engine.dispose()


def lines(fill: Filling, by: By = "job") -> list[CostLine]:
    return cost_by(fill.connection, by)


def one(fill: Filling, name: str, dead: tuple[str, ...] = ()) -> JobStatus:
    (found,) = status(fill.connection, [name], dead=dead)
    return found


def listed(fill: Filling, name: str, *states: State) -> list[ItemResult]:
    return list(results(fill.connection, one_job(fill.connection, name), states=states or None))


# Cost


def test_costs_are_added_to_the_last_digit(fill: Filling) -> None:
    job = fill.job("captions")
    for low in ("0.000000000001", "1000000.000000000001", "0.1"):
        fill.call(job, low=low)
    assert lines(fill)[0].cost_low == Decimal("1000000.100000000002")


@on_every_database
def test_a_sum_may_be_larger_than_64_bits_hold(fill: Filling) -> None:
    job = fill.job("captions")
    for _ in range(4):
        fill.call(job, low="9000000.999999999999")
    assert lines(fill)[0].cost_high == Decimal("36000003.999999999996")


def test_low_and_high_ends_are_summed_apart(fill: Filling) -> None:
    job = fill.job("captions")
    fill.call(job, low="1", high="1")
    fill.call(job, low="0", high="2.5")
    line = lines(fill)[0]
    assert (line.cost_low, line.cost_high, line.exact) == (Decimal(1), Decimal("3.5"), False)


def test_a_cost_with_equal_ends_is_exact(fill: Filling) -> None:
    fill.call(fill.job("captions"), low="0.25")
    assert lines(fill)[0].exact


def test_a_line_of_unpriced_calls_has_no_cost(fill: Filling) -> None:
    fill.call(fill.job("captions"), low=None)
    line = lines(fill)[0]
    assert (line.cost_low, line.cost_high, line.currency, line.unknown_cost) == (None, None, None, 1)


def test_unpriced_calls_are_counted_beside_the_sum_of_the_others(fill: Filling) -> None:
    job = fill.job("captions")
    fill.call(job, low="0.25")
    fill.call(job, low=None)
    (line,) = lines(fill)
    assert (line.cost_low, line.currency, line.calls, line.unknown_cost, line.exact) == (
        Decimal("0.25"), "USD", 2, 1, False,
    )  # fmt: skip


def test_currencies_are_never_added(fill: Filling) -> None:
    job = fill.job("captions")
    fill.call(job, low="1", currency="USD")
    fill.call(job, low="2", currency="CNY")
    found = lines(fill)
    assert [(line.currency, line.cost_low) for line in totals(found)] == [("CNY", Decimal(2)), ("USD", Decimal(1))]


def test_unpriced_calls_beside_two_currencies_are_a_line_of_their_own(fill: Filling) -> None:
    job = fill.job("captions")
    fill.call(job, low="1", currency="USD")
    fill.call(job, low="2", currency="CNY")
    fill.call(job, low=None)
    assert [(line.currency, line.unknown_cost) for line in lines(fill)] == [(None, 1), ("CNY", 0), ("USD", 0)]


def test_simulated_and_real_money_are_never_added(fill: Filling) -> None:
    fill.call(fill.job("captions"), low="1")
    fill.call(fill.job("captions", simulated=True), low="100")
    found = lines(fill, "model")
    assert [(line.simulated, line.cost_low) for line in totals(found)] == [(False, Decimal(1)), (True, Decimal(100))]


def test_the_first_microsecond_of_a_day_belongs_to_it(fill: Filling) -> None:
    job = fill.job("captions")
    fill.call(job, at=MIDNIGHT - timedelta(microseconds=1), low="1")
    fill.call(job, at=MIDNIGHT, low="2")
    found = lines(fill, "day")
    assert [(line.key, line.cost_low) for line in found] == [("2026-11-01", Decimal(1)), ("2026-11-02", Decimal(2))]


def test_both_ends_of_a_span_of_days_are_in_it(fill: Filling) -> None:
    job = fill.job("captions")
    for hours in (-25, -24, -1, 0, 23, 24):
        fill.call(job, at=MIDNIGHT + timedelta(hours=hours), low="1")
    (line,) = cost_by(fill.connection, "job", since=date(2026, 11, 1), until=date(2026, 11, 2))
    assert line.calls == 4


def test_the_region_is_part_of_a_provider(fill: Filling) -> None:
    fill.call(fill.job("one", region="singapore"))
    fill.call(fill.job("two", provider="acedata", region=""))
    assert [line.key for line in lines(fill, "provider")] == ["acedata", "model-studio/singapore"]


def test_a_second_answer_is_a_spare_and_costs_too(fill: Filling) -> None:
    item = fill.call(fill.job("captions"), low="1")
    fill.usage(fill.attempt(item, text="again", is_answer=False), low="1")
    (line,) = lines(fill)
    assert (line.calls, line.items, line.spare, line.failed, line.cost_low) == (2, 1, 1, 0, Decimal(2))


def test_failed_attempts_are_counted_and_cost(fill: Filling) -> None:
    item = fill.call(fill.job("captions"), low="1")
    fill.usage(fill.attempt(item, outcome="failed"), low="0", high="3")
    (line,) = lines(fill)
    assert (line.items, line.failed, line.cost_high) == (1, 1, Decimal(4))


def test_unknown_tokens_are_counted_and_not_taken_as_zero(fill: Filling) -> None:
    item = fill.item(fill.job("captions"), state=State.FAILED)
    fill.usage(fill.attempt(item, outcome="lost"), low="0", high="1", input_tokens=None, output_tokens=None)
    (line,) = lines(fill)
    assert (line.input_tokens, line.output_tokens, line.unknown_usage) == (None, None, 1)


def test_known_tokens_are_added_beside_unknown_ones(fill: Filling) -> None:
    item = fill.call(fill.job("captions"))
    fill.usage(fill.attempt(item, outcome="lost"), input_tokens=None)
    (line,) = lines(fill)
    assert (line.input_tokens, line.unknown_usage) == (100, 1)


def test_a_database_without_calls_has_no_lines(fill: Filling) -> None:
    fill.job("captions")
    assert lines(fill) == []


# Jobs by name


def test_an_unknown_job_is_answered_with_the_nearest_name(fill: Filling) -> None:
    fill.job("caption-catalogue")
    with pytest.raises(UsageError, match="did you mean caption-catalogue"):
        find_jobs(fill.connection, ["caption-catalog"])


def test_the_real_job_is_meant_where_it_was_simulated_too(fill: Filling) -> None:
    fill.job("captions", simulated=True)
    real = fill.job("captions")
    assert one_job(fill.connection, "captions").id == real


def test_the_simulated_job_is_meant_where_there_is_no_other(fill: Filling) -> None:
    simulated = fill.job("captions", simulated=True)
    assert one_job(fill.connection, "captions").id == simulated


def test_a_job_that_was_never_simulated_is_not_taken_for_it(fill: Filling) -> None:
    fill.job("captions")
    with pytest.raises(UsageError, match="never simulated"):
        one_job(fill.connection, "captions", simulated=True)


# Status


def test_a_job_without_items_is_empty(fill: Filling) -> None:
    fill.job("captions")
    assert one(fill, "captions").state is JobState.EMPTY


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([State.DONE], JobState.DONE),
        ([State.DONE, State.CANCELLED], JobState.DONE),
        ([State.DONE, State.FAILED], JobState.DONE_WITH_FAILURES),
        ([State.DONE, State.TRUNCATED], JobState.DONE_WITH_FAILURES),
        ([State.DONE, State.PENDING], JobState.WAITING),
        ([State.WAITING], JobState.WAITING),
        ([State.BLOCKED], JobState.WAITING),
    ],
)
def test_the_state_of_a_job_follows_from_its_items(fill: Filling, states: list[State], expected: JobState) -> None:
    job = fill.job("captions")
    for state in states:
        fill.item(job, state=state)
    assert one(fill, "captions").state is expected


def test_a_job_runs_while_a_live_worker_holds_an_item(fill: Filling) -> None:
    fill.item(fill.job("captions"), state=State.CLAIMED, owner=WORKER)
    assert one(fill, "captions").state is JobState.RUNNING


def test_a_job_does_not_run_while_only_a_dead_worker_holds_items(fill: Filling) -> None:
    fill.item(fill.job("captions"), state=State.CLAIMED, owner=WORKER)
    assert one(fill, "captions", dead=(WORKER,)).state is JobState.WAITING


def test_a_paused_job_says_why(fill: Filling) -> None:
    fill.item(fill.job("captions", paused="budget", pause_message="spent 5 of 5 USD"))
    found = one(fill, "captions")
    assert (found.state, found.paused, found.pause_message) == (JobState.PAUSED, "budget", "spent 5 of 5 USD")


def test_a_pause_of_the_profile_pauses_its_jobs(fill: Filling) -> None:
    fill.item(fill.job("captions"))
    fill.connection.execute(sa.update(profiles).values(paused="arrears", pause_message="overdue"))
    found = one(fill, "captions")
    assert (found.state, found.paused, found.pause_message) == (JobState.PAUSED, "arrears", "overdue")


def test_status_counts_items_by_state(fill: Filling) -> None:
    job = fill.job("captions")
    for state in (State.DONE, State.DONE, State.PENDING):
        fill.item(job, state=state)
    found = one(fill, "captions")
    assert (found.total, found.counts) == (3, {State.DONE: 2, State.PENDING: 1})


def test_status_counts_errors_by_kind(fill: Filling) -> None:
    job = fill.job("captions")
    for kind in ("server", "server", "invalid"):
        fill.item(job, state=State.FAILED, error_kind=kind)
    fill.item(job, state=State.WAITING, error_kind="timeout")
    assert one(fill, "captions").errors == {
        State.FAILED: {"server": 2, "invalid": 1},
        State.WAITING: {"timeout": 1},
    }


def test_status_shows_both_ends_of_what_was_spent(fill: Filling) -> None:
    job = fill.job("captions", spent=Decimal("3.000000000001"))
    fill.call(job, low="1.000000000001")
    fill.call(job, low="0.5", high="2")
    found = one(fill, "captions")
    assert (found.spent_low, found.spent_high) == (Decimal("1.500000000001"), Decimal("3.000000000001"))


def test_what_was_spent_without_a_price_is_unknown(fill: Filling) -> None:
    fill.call(fill.job("captions", currency=None), low=None)
    found = one(fill, "captions")
    assert (found.spent_low, found.spent_high, found.unknown_cost) == (None, None, 1)


def test_the_last_activity_is_that_of_the_newest_call(fill: Filling) -> None:
    job = fill.job("captions")
    fill.call(job, at=NOON)
    fill.call(job, at=NOON + timedelta(hours=1))
    assert one(fill, "captions").last_activity == NOON + timedelta(hours=1)


def test_a_call_in_flight_is_activity(fill: Filling) -> None:
    item = fill.item(fill.job("captions"), state=State.CLAIMED, owner=WORKER)
    fill.attempt(item, outcome="open", at=NOON)
    assert one(fill, "captions").last_activity == NOON


def test_status_tells_when_the_first_waiting_item_is_due(fill: Filling) -> None:
    job = fill.job("captions")
    for hours in (2, 1, 3):
        fill.item(job, state=State.WAITING, next_at=NOON + timedelta(hours=hours))
    assert one(fill, "captions").next_at == NOON + timedelta(hours=1)


def test_a_simulated_and_a_real_job_of_one_name_are_both_shown(fill: Filling) -> None:
    fill.job("captions")
    fill.job("captions", simulated=True)
    assert [job.simulated for job in status(fill.connection, ["captions"])] == [False, True]


# Results


def test_results_come_in_the_order_of_the_source(fill: Filling) -> None:
    job = fill.job("captions")
    for number in range(450, 0, -1):
        fill.item(job, f"{number}")
    assert [item.custom_id for item in listed(fill, "captions")] == [str(n) for n in range(450, 0, -1)]


def test_results_go_on_after_an_item(fill: Filling) -> None:
    job = fill.job("captions")
    seen = [fill.item(job, name) for name in "abcd"][1]
    found = list(results(fill.connection, one_job(fill.connection, "captions"), after=seen, limit=1))
    assert [item.custom_id for item in found] == ["c"]


def test_only_the_items_of_the_job_and_the_states_are_given(fill: Filling) -> None:
    job, other = fill.job("captions"), fill.job("other")
    fill.item(job, "a", state=State.FAILED)
    fill.item(job, "b")
    fill.item(other, "c", state=State.FAILED)
    assert [item.custom_id for item in listed(fill, "captions", State.FAILED)] == ["a"]


def test_an_item_has_the_cost_of_all_its_attempts(fill: Filling) -> None:
    item = fill.item(fill.job("captions"), state=State.DONE)
    fill.usage(fill.attempt(item, outcome="failed"), low="0", high="0.000000000003", input_tokens=None)
    fill.usage(fill.attempt(item, text="A cat."), low="0.000000000001")
    (found,) = listed(fill, "captions")
    assert (found.cost_low, found.cost_high, found.currency) == (
        Decimal("0.000000000001"), Decimal("0.000000000004"), "USD",
    )  # fmt: skip


def test_an_item_tells_of_attempts_whose_tokens_are_not_known(fill: Filling) -> None:
    item = fill.item(fill.job("captions"), state=State.DONE)
    fill.usage(fill.attempt(item, outcome="lost"), input_tokens=None, output_tokens=None)
    fill.usage(fill.attempt(item, text="A cat."))
    (found,) = listed(fill, "captions")
    assert (found.tokens["input_tokens"], found.unknown_usage) == (100, 1)


def test_an_attempt_that_cost_nothing_adds_nothing_unknown(fill: Filling) -> None:
    item = fill.item(fill.job("captions"), state=State.WAITING)
    fill.attempt(item, outcome="failed", http_status=429, error_kind="rate_limited")
    (found,) = listed(fill, "captions")
    assert (found.unknown_cost, found.unknown_usage, found.cost_high) == (0, 0, None)


def test_the_text_of_a_broken_attempt_is_kept_with_it(fill: Filling) -> None:
    item = fill.item(fill.job("captions"), state=State.DONE)
    fill.attempt(item, outcome="failed", text="A ca")
    fill.attempt(item, text="A cat.")
    (found,) = listed(fill, "captions")
    assert ([attempt.text for attempt in found.attempts], found.text) == (["A ca", None], "A cat.")


def test_an_item_that_was_never_tried_has_no_answer(fill: Filling) -> None:
    fill.item(fill.job("captions"))
    (found,) = listed(fill, "captions")
    assert (found.text, found.attempts, found.finished_at) == (None, [], None)

"""What is kept of a call that ended, and what becomes of its item, its job and its profile."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal, localcontext

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import StatementError

from batchrun.answer import Answer, Usage
from batchrun.database import reading, writing
from batchrun.errors import ErrorKind
from batchrun.states import State
from batchrun.store.claim import Call
from batchrun.store.finish import Charge, Result
from batchrun.store.jobs import lift_pauses
from batchrun.tables import Instant, Money, Record, answers, audit, items, jobs, usage
from tests.both_databases import on_every_database
from tests.integration.rows import (
    COST,
    LONG_AGO,
    MOST,
    add_job,
    add_profile,
    add_worker,
    answered,
    attempt_of,
    broken,
    change_job,
    change_profile,
    charged,
    counted,
    item_of,
    job_of,
    opened,
    profile_of,
    reap,
    reserving,
    states_of,
    store_results,
    take,
    unsent,
    usage_of,
)

D = Decimal


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    with opened(database_url) as engine:
        yield engine


@pytest.fixture
def worker(engine: Engine) -> str:
    return add_worker(engine)


def make_job(engine: Engine, name: str = "job", **values: object) -> int:
    with writing(engine) as connection:
        return add_job(connection, name, **values)  # type: ignore[arg-type]  # columns


def calls_of(engine: Engine, size: int, **values: object) -> list[Call]:
    """All items of a new job, claimed."""
    with writing(engine) as connection:
        add_job(connection, size=size, **values)  # type: ignore[arg-type]  # columns
    return take(engine, add_worker(engine)).calls


def call_of(engine: Engine, **values: object) -> Call:
    return calls_of(engine, 1, **values)[0]


def answer_of(engine: Engine, attempt: int) -> Record | None:
    with reading(engine) as connection:
        return connection.execute(sa.select(answers).where(answers.c.attempt_id == attempt)).one_or_none()


def everything(engine: Engine) -> list[object]:
    """All rows that a result may touch."""
    tables = [items, jobs, answers, usage]
    with reading(engine) as connection:
        return [tuple(row) for table in tables for row in connection.execute(sa.select(table).order_by(*table.c[:1]))]


# A complete answer


def test_an_answer_ends_its_item(engine: Engine) -> None:
    call = call_of(engine)
    store_results(engine, answered(call, "a cat"))
    item = item_of(engine, call.item_id)
    assert (item.state, item.owner, item.answer_id) == ("done", None, call.attempt_id)


def test_an_answer_is_stored_as_it_came(engine: Engine) -> None:
    call = call_of(engine)
    given = Answer(
        text="ein Kätzchen 猫\r\n\u2028",
        reasoning="hm",
        finish_reason="stop",
        complete=True,
        usage=None,
        request_id="r",
    )
    store_results(engine, replace(answered(call), answer=given))
    row = answer_of(engine, call.attempt_id)
    assert row is not None
    assert (row.text, row.reasoning, row.finish_reason, row.complete) == (given.text, "hm", "stop", True)


def test_an_empty_answer_that_is_complete_is_an_answer(engine: Engine) -> None:
    call = call_of(engine)
    store_results(engine, answered(call, ""))
    row = answer_of(engine, call.attempt_id)
    assert row is not None
    assert row.text == ""


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_a_cut_answer_is_kept_and_counted_apart(engine: Engine, reason: str) -> None:
    call = call_of(engine)
    store_results(engine, answered(call, reason=reason))
    item = item_of(engine, call.item_id)
    assert (item.state, item.answer_id) == ("truncated", call.attempt_id)


def test_an_answer_takes_back_the_error_of_an_earlier_try(engine: Engine, worker: str) -> None:
    call = call_of(engine)
    store_results(engine, broken(call))
    store_results(engine, answered(take(engine, worker).calls[0]))
    item = item_of(engine, call.item_id)
    assert (item.error, item.error_kind) == (None, None)


def test_the_attempt_says_how_it_went(engine: Engine) -> None:
    call = call_of(engine)
    at = datetime(2026, 11, 22, 12, 0, 0, 123_456, tzinfo=UTC)
    store_results(engine, replace(answered(call), sent_at=at, first_token_at=at, ended_at=at, request_id="abc"))
    row = attempt_of(engine, call.attempt_id)
    assert (row.outcome, row.http_status, row.request_id) == ("complete", 200, "abc")
    assert (row.sent_at, row.first_token_at, row.ended_at) == (at, at, at)


# A failed attempt


def test_a_failed_attempt_sends_its_item_back(engine: Engine) -> None:
    call = call_of(engine)
    store_results(engine, broken(call, ErrorKind.TIMEOUT, next_at=LONG_AGO, message="nothing new for 120 s"))
    item = item_of(engine, call.item_id)
    assert (item.state, item.owner, item.next_at, item.paid_tries) == ("waiting", None, LONG_AGO, 1)
    assert (item.error_kind, item.error) == ("timeout", "nothing new for 120 s")


def test_a_failed_attempt_keeps_its_text(engine: Engine) -> None:
    call = call_of(engine)
    store_results(engine, broken(call, text="a ca"))
    row = answer_of(engine, call.attempt_id)
    assert row is not None
    assert (row.text, row.complete) == ("a ca", False)


def test_a_partial_text_is_no_answer_of_the_item(engine: Engine) -> None:
    call = call_of(engine)
    store_results(engine, broken(call, text="a ca"))
    assert item_of(engine, call.item_id).answer_id is None


def test_a_failed_item_is_at_its_end(engine: Engine, worker: str) -> None:
    call = call_of(engine)
    store_results(engine, broken(call, ErrorKind.INVALID, state=State.FAILED))
    assert take(engine, worker).calls == []
    assert states_of(engine, call.job_id) == {"failed": 1}


def test_an_unsent_call_costs_nothing_and_leaves_no_usage(engine: Engine) -> None:
    call = call_of(engine)
    store_results(engine, unsent(call))
    assert usage_of(engine, call.attempt_id) is None
    assert (job_of(engine, call.job_id).reserved, job_of(engine, call.job_id).spent) == (D(0), D(0))


# Money


def test_a_result_releases_what_was_reserved_and_books_what_was_spent(engine: Engine) -> None:
    call = call_of(engine)
    store_results(engine, answered(call, charge=charged(D("0.0012345"))))
    job = job_of(engine, call.job_id)
    assert (job.reserved, job.spent) == (D(0), D("0.0012345"))


@on_every_database
def test_many_results_in_one_transaction_settle_exactly(engine: Engine) -> None:
    calls = calls_of(engine, 30)
    costs = [D(number) / 10**12 for number in range(30)]
    store_results(engine, *(answered(call, charge=charged(cost)) for call, cost in zip(calls, costs, strict=True)))
    job = job_of(engine, calls[0].job_id)
    assert (job.reserved, job.spent) == (D(0), sum(costs))


def test_failed_attempts_cost_too(engine: Engine, worker: str) -> None:
    call = call_of(engine)
    store_results(engine, broken(call, charge=charged(D("0.002"))))
    store_results(engine, answered(take(engine, worker).calls[0]))
    assert job_of(engine, call.job_id).spent == D("0.002") + COST


def test_missing_usage_is_an_interval_and_the_cap_counts_its_end(engine: Engine) -> None:
    call = call_of(engine)
    store_results(engine, broken(call, charge=charged(D(0), call.reserved)))
    row = usage_of(engine, call.attempt_id)
    assert row is not None
    assert (row.cost_low, row.cost_high, row.input_tokens, row.raw) == (D(0), MOST, None, None)
    assert job_of(engine, call.job_id).spent == MOST


def test_an_unknown_price_stays_unknown(engine: Engine, worker: str) -> None:
    make_job(engine, size=1)
    call = take(engine, worker, reserve=reserving(None)).calls[0]
    store_results(engine, answered(call, charge=charged(None, used=counted())))
    row = usage_of(engine, call.attempt_id)
    assert row is not None
    assert (row.cost_low, row.cost_high, row.currency, row.input_tokens) == (None, None, None, 100)
    assert job_of(engine, call.job_id).spent == D(0)


def test_the_usage_row_is_complete(engine: Engine) -> None:
    call = call_of(engine, simulated=True)
    used = Usage(
        input_tokens=10,
        output_tokens=9,
        cached_tokens=8,
        cache_write_tokens=7,
        reasoning_tokens=6,
        image_tokens=5,
        video_tokens=None,
        raw={"prompt_tokens": 10, "käse": [None, 1.5]},
    )
    store_results(engine, answered(call, charge=charged(COST, used=used)))
    row = usage_of(engine, call.attempt_id)
    assert row is not None
    assert (row.provider, row.region, row.model, row.simulated, row.at) == ("p", "r", "m", True, call.claimed_at)
    assert (row.input_tokens, row.output_tokens, row.cached_tokens, row.cache_write_tokens) == (10, 9, 8, 7)
    assert (row.reasoning_tokens, row.image_tokens, row.video_tokens) == (6, 5, None)
    assert row.raw == {"prompt_tokens": 10, "käse": [None, 1.5]}


def test_the_mean_is_learned_from_answers_that_were_counted(engine: Engine) -> None:
    calls = calls_of(engine, 3)
    uncounted = answered(calls[2], charge=charged(COST))
    store_results(engine, answered(calls[0]), answered(calls[1]), uncounted)
    job = job_of(engine, calls[0].job_id)
    assert (job.calls_seen, job.tokens_seen) == (2, 240)


# Twice


@pytest.mark.parametrize("kind", ["answered", "truncated", "broken", "failed", "unsent", "stopped"])
def test_applying_a_result_twice_is_applying_it_once(engine: Engine, kind: str) -> None:
    """A commit whose answer got lost is tried again."""
    call = call_of(engine, expected_tokens=500, tokens_per_minute=100_000)
    result = {
        "answered": answered(call),
        "truncated": answered(call, reason="length"),
        "broken": broken(call, text="a ca", charge=charged(D(0), MOST)),
        "failed": broken(call, ErrorKind.INVALID, state=State.FAILED),
        "unsent": unsent(call),
        "stopped": stopped(call),
    }[kind]
    store_results(engine, result)
    once = everything(engine)
    store_results(engine, result)
    assert everything(engine) == once


def stopped(call: Call) -> Result:
    """Interrupted in the middle of its answer, with usage so far."""
    result = broken(call, ErrorKind.LOST, state=State.PENDING, text="a ca", charge=charged(D(0), MOST, used=counted()))
    return replace(result, outcome="lost", tokens=120)


def test_some_of_the_results_of_a_transaction_may_be_known(engine: Engine) -> None:
    calls = calls_of(engine, 3)
    store_results(engine, answered(calls[1]))
    store_results(engine, *(answered(call) for call in calls))
    job = job_of(engine, calls[0].job_id)
    assert (job.spent, job.reserved, states_of(engine, job.id)) == (3 * COST, D(0), {"done": 3})


# A worker that was taken for dead


@pytest.fixture
def stale(engine: Engine) -> Call:
    """A call whose worker was taken for dead while it was in flight; its item is claimable again."""
    make_job(engine, size=1)
    slow = add_worker(engine)
    call = take(engine, slow).calls[0]
    reap(engine, slow)
    return call


def test_a_late_failure_does_not_move_the_item_of_another(engine: Engine, stale: Call, worker: str) -> None:
    call = take(engine, worker).calls[0]
    store_results(engine, broken(stale, ErrorKind.INVALID, state=State.FAILED))
    item = item_of(engine, call.item_id)
    assert (item.state, item.owner, item.fence) == ("claimed", worker, 2)


def test_a_late_failure_does_not_move_an_item_that_waits(engine: Engine, stale: Call) -> None:
    store_results(engine, broken(stale, ErrorKind.INVALID, state=State.FAILED))
    assert states_of(engine, stale.job_id) == {"pending": 1}


def test_a_late_answer_is_the_answer_and_spares_the_second_call(engine: Engine, stale: Call, worker: str) -> None:
    store_results(engine, answered(stale))
    assert take(engine, worker).calls == []
    assert item_of(engine, stale.item_id).answer_id == stale.attempt_id


def test_a_late_answer_is_booked_where_it_was_asked_for_although_its_job_has_moved(engine: Engine, stale: Call) -> None:
    with engine.begin() as connection:
        connection.execute(sa.update(jobs).where(jobs.c.id == stale.job_id).values(region="another"))
    store_results(engine, answered(stale))
    with engine.connect() as connection:
        row = connection.execute(sa.select(usage)).one()
    assert (row.region, row.cost_high) == ("r", COST)


def test_a_late_answer_ends_the_item_under_another_worker(engine: Engine, stale: Call, worker: str) -> None:
    take(engine, worker)
    store_results(engine, answered(stale))
    item = item_of(engine, stale.item_id)
    assert (item.state, item.owner, item.answer_id) == ("done", None, stale.attempt_id)


def test_the_second_answer_is_kept_as_a_spare(engine: Engine, stale: Call, worker: str) -> None:
    call = take(engine, worker).calls[0]
    store_results(engine, answered(call, "first"))
    store_results(engine, answered(stale, "second"))
    spare = answer_of(engine, stale.attempt_id)
    assert spare is not None
    assert (spare.text, item_of(engine, stale.item_id).answer_id) == ("second", call.attempt_id)


def test_a_failure_after_a_late_answer_changes_nothing(engine: Engine, stale: Call, worker: str) -> None:
    call = take(engine, worker).calls[0]
    store_results(engine, answered(stale))
    store_results(engine, broken(call, state=State.FAILED))
    item = item_of(engine, stale.item_id)
    assert (item.state, item.error) == ("done", None)


def test_what_a_stale_worker_knows_replaces_the_bounds(engine: Engine, stale: Call) -> None:
    before = usage_of(engine, stale.attempt_id)
    assert before is not None
    store_results(engine, answered(stale))
    row = usage_of(engine, stale.attempt_id)
    assert row is not None
    assert (before.cost_high, row.cost_low, row.cost_high) == (MOST, COST, COST)
    assert (job_of(engine, stale.job_id).spent, job_of(engine, stale.job_id).reserved) == (COST, D(0))


def test_a_stale_call_that_never_left_costs_nothing(engine: Engine, stale: Call) -> None:
    store_results(engine, unsent(stale))
    assert usage_of(engine, stale.attempt_id) is None
    assert job_of(engine, stale.job_id).spent == D(0)


def test_all_answers_of_an_item_are_paid(engine: Engine, stale: Call, worker: str) -> None:
    store_results(engine, answered(take(engine, worker).calls[0]), answered(stale))
    assert job_of(engine, stale.job_id).spent == 2 * COST


def test_a_late_answer_brings_back_an_item_that_was_given_up(engine: Engine, worker: str) -> None:
    """It failed only because its last worker seemed to be dead; the answer is there and paid."""
    make_job(engine, size=1, tries=1)
    call = take(engine, worker).calls[0]
    reap(engine, worker)
    assert states_of(engine, call.job_id) == {"failed": 1}
    store_results(engine, answered(call))
    assert states_of(engine, call.job_id) == {"done": 1}


def test_a_late_answer_ends_an_item_that_was_cancelled(engine: Engine, stale: Call) -> None:
    with writing(engine) as connection:
        connection.execute(sa.update(items).values(state="cancelled"))
    store_results(engine, answered(stale))
    row = item_of(engine, stale.item_id)
    assert (row.state, row.answer_id) == ("done", stale.attempt_id)


# A job in which nothing succeeds


def streak(engine: Engine, kinds: Sequence[ErrorKind | None], *, together: bool) -> Record:
    """A job after its items failed so, None for a success."""
    calls = calls_of(engine, len(kinds))
    results = [
        answered(call) if kind is None else broken(call, kind, state=State.FAILED, message="no such thing")
        for call, kind in zip(calls, kinds, strict=True)
    ]
    for group in [results] if together else [[result] for result in results]:
        store_results(engine, *group)
    return job_of(engine, calls[0].job_id)


@pytest.mark.parametrize("together", [True, False])
def test_ten_equal_errors_before_any_success_pause_the_job(engine: Engine, together: bool) -> None:
    job = streak(engine, [ErrorKind.INVALID] * 10, together=together)
    assert (job.paused, job.pause_message) == (
        "errors",
        "the first 10 items all failed with the same error (invalid): no such thing",
    )


@pytest.mark.parametrize("together", [True, False])
def test_nine_equal_errors_do_not_pause(engine: Engine, together: bool) -> None:
    assert streak(engine, [ErrorKind.INVALID] * 9, together=together).paused is None


@pytest.mark.parametrize(("before", "paused"), [(0, None), (89, None), (90, "errors")])
def test_a_hundred_media_that_cannot_be_sent_pause_and_not_ten(engine: Engine, before: int, paused: str | None) -> None:
    calls = calls_of(engine, 10)
    change_job(engine, calls[0].job_id, errors_in_row=before, error_in_row=ErrorKind.MEDIA)
    store_results(engine, *(broken(call, ErrorKind.MEDIA, state=State.FAILED) for call in calls))
    assert job_of(engine, calls[0].job_id).paused == paused


@pytest.mark.parametrize("together", [True, False])
def test_errors_of_several_kinds_do_not_pause(engine: Engine, together: bool) -> None:
    kinds = [ErrorKind.INVALID if number % 5 else ErrorKind.MODERATED for number in range(20)]
    assert streak(engine, kinds, together=together).paused is None


@pytest.mark.parametrize("together", [True, False])
def test_once_something_has_succeeded_errors_do_not_pause(engine: Engine, together: bool) -> None:
    assert streak(engine, [None] + [ErrorKind.INVALID] * 20, together=together).paused is None


@pytest.mark.parametrize("together", [True, False])
def test_another_error_after_ten_equal_ones_does_not_hide_them(engine: Engine, together: bool) -> None:
    kinds = [ErrorKind.INVALID] * 10 + [ErrorKind.MODERATED]
    assert streak(engine, kinds, together=together).paused == "errors"


def test_attempts_that_will_be_tried_again_are_no_failed_items(engine: Engine) -> None:
    calls = calls_of(engine, 12)
    store_results(engine, *(broken(call) for call in calls))
    assert job_of(engine, calls[0].job_id).paused is None


def test_after_a_pause_the_count_begins_anew(engine: Engine, worker: str) -> None:
    calls = calls_of(engine, 12)
    store_results(engine, *(broken(call, ErrorKind.INVALID, state=State.FAILED) for call in calls[:10]))
    with writing(engine) as connection:
        lift_pauses(connection, [calls[0].job_id])
    store_results(engine, *(broken(call, ErrorKind.INVALID, state=State.FAILED) for call in calls[10:]))
    assert job_of(engine, calls[0].job_id).paused is None


def test_what_a_person_paused_stays_paused_as_he_said(engine: Engine) -> None:
    calls = calls_of(engine, 10)
    change_job(engine, calls[0].job_id, paused="person", pause_message="wait for Anna")
    store_results(engine, *(broken(call, ErrorKind.INVALID, state=State.FAILED) for call in calls))
    assert job_of(engine, calls[0].job_id).pause_message == "wait for Anna"


# The profile


def test_three_refusals_in_a_row_pause_the_profile(engine: Engine) -> None:
    calls = calls_of(engine, 3)
    store_results(engine, *(broken(call, ErrorKind.ACCOUNT, message="wrong key") for call in calls))
    profile = profile_of(engine, calls[0].job_id)
    assert (profile.paused, profile.pause_message) == ("refused", "wrong key")


def test_two_refusals_do_not_pause(engine: Engine) -> None:
    calls = calls_of(engine, 3)
    store_results(engine, *(broken(call, ErrorKind.ACCOUNT) for call in calls[:2]), answered(calls[2]))
    assert profile_of(engine, calls[0].job_id).paused is None


def test_missing_money_pauses_the_profile_at_once(engine: Engine) -> None:
    calls = calls_of(engine, 2)
    arrears = broken(calls[0], ErrorKind.ARREARS, state=State.PENDING, pauses="arrears", message="overdue")
    store_results(engine, arrears)
    profile = profile_of(engine, calls[0].job_id)
    assert (profile.paused, profile.pause_message) == ("arrears", "overdue")


def test_answers_that_were_under_way_are_stored_after_a_pause(engine: Engine) -> None:
    calls = calls_of(engine, 2)
    store_results(engine, broken(calls[0], ErrorKind.ARREARS, state=State.PENDING, pauses="arrears"))
    store_results(engine, answered(calls[1]))
    assert states_of(engine, calls[0].job_id) == {"pending": 1, "done": 1}
    assert profile_of(engine, calls[0].job_id).paused == "arrears"


def test_a_profile_that_a_person_paused_stays_so(engine: Engine) -> None:
    call = call_of(engine)
    change_profile(engine, call.profile_id, paused="person", pause_message="wait for Anna")
    store_results(engine, broken(call, ErrorKind.ARREARS, state=State.PENDING, pauses="arrears"))
    assert profile_of(engine, call.job_id).pause_message == "wait for Anna"


def test_a_new_run_lifts_pauses_of_errors_but_not_of_people(engine: Engine) -> None:
    names = ["errors", "budget", "person"]
    ids = [make_job(engine, name) for name in names]
    for job, name in zip(ids, names, strict=True):
        change_job(engine, job, paused=name)
    with writing(engine) as connection:
        lift_pauses(connection, ids)
    assert [job_of(engine, job).paused for job in ids] == [None, None, "person"]


def test_429s_are_remembered_by_the_profile(engine: Engine) -> None:
    calls = calls_of(engine, 20)
    store_results(engine, *(broken(call, ErrorKind.RATE_LIMITED) for call in calls))
    assert profile_of(engine, calls[0].job_id).rate_factor == pytest.approx(0.7)


OUTAGE = [ErrorKind.UNAVAILABLE, ErrorKind.NETWORK, ErrorKind.TIMEOUT, ErrorKind.SERVER] * 3


def test_an_outage_uses_up_no_paid_tries(engine: Engine) -> None:
    calls = calls_of(engine, 12, tries=1)
    results = [broken(call, kind, state=State.FAILED) for call, kind in zip(calls, OUTAGE, strict=True)]
    store_results(engine, *results)
    assert states_of(engine, calls[0].job_id) == {"pending": 12}
    assert {item_of(engine, call.item_id).paid_tries for call in calls} == {0}


def test_an_outage_that_is_longer_than_the_job_waits_fails_its_items(engine: Engine, worker: str) -> None:
    calls = calls_of(engine, 12)
    store_results(engine, *(broken(call, kind) for call, kind in zip(calls, OUTAGE, strict=True)))
    change_profile(engine, calls[0].profile_id, breaker_until=LONG_AGO)
    probe = take(engine, worker).calls[0]
    late = replace(probe, free_since=probe.claimed_at - timedelta(hours=24))
    store_results(engine, broken(late, ErrorKind.UNAVAILABLE))
    assert item_of(engine, probe.item_id).state == "failed"


def test_a_bad_item_fails_in_an_outage_too(engine: Engine) -> None:
    calls = calls_of(engine, 12)
    last = broken(calls[11], ErrorKind.INVALID, state=State.FAILED)
    store_results(engine, *(broken(call, ErrorKind.UNAVAILABLE) for call in calls[:11]), last)
    assert item_of(engine, calls[11].item_id).state == "failed"


def test_faults_of_our_own_say_nothing_about_the_service(engine: Engine) -> None:
    calls = calls_of(engine, 20)
    store_results(engine, *(broken(call, ErrorKind.INTERNAL, state=State.FAILED) for call in calls))
    profile = profile_of(engine, calls[0].job_id)
    assert (profile.failures_in_row, profile.breaker_until, profile.rate_factor) == (0, None, 1.0)


def test_two_profiles_are_settled_apart(engine: Engine, worker: str) -> None:
    with writing(engine) as connection:
        good = add_job(connection, "good", size=20)
        bad = add_job(connection, "bad", size=20, profile=add_profile(connection, "other"))
    results = [
        answered(call) if call.job_id == good else broken(call, ErrorKind.RATE_LIMITED)
        for call in take(engine, worker).calls
    ]
    store_results(engine, *results)
    assert [profile_of(engine, job).rate_factor for job in (good, bad)] == [1.0, pytest.approx(0.7)]


def test_unused_tokens_are_given_back_to_the_day(engine: Engine) -> None:
    call = call_of(engine, expected_tokens=500, tokens_per_day=10_000)
    assert job_of(engine, call.job_id).day_tokens == 500
    store_results(engine, answered(call))
    assert job_of(engine, call.job_id).day_tokens == 120


def test_tokens_of_an_unsent_call_are_given_back(engine: Engine) -> None:
    call = call_of(engine, expected_tokens=500, tokens_per_day=10_000)
    store_results(engine, unsent(call))
    assert job_of(engine, call.job_id).day_tokens == 0


def test_tokens_that_nobody_counted_stay_as_expected(engine: Engine) -> None:
    call = call_of(engine, expected_tokens=500, tokens_per_day=10_000)
    store_results(engine, broken(call))
    assert job_of(engine, call.job_id).day_tokens == 500


# Amounts and moments


def test_200_000_random_amounts_sum_exactly(engine: Engine) -> None:
    chance = random.Random(1)
    amounts = [D(chance.randrange(10**10)).scaleb(-12) for _ in range(200_000)]
    call = call_of(engine)
    with writing(engine) as connection:
        numbers = sa.table("amounts", sa.column("amount", Money))
        connection.execute(sa.text("CREATE TEMPORARY TABLE amounts (amount BIGINT)"))
        connection.execute(sa.insert(numbers), [{"amount": amount} for amount in amounts])
        total = connection.execute(sa.select(sa.func.sum(numbers.c.amount))).scalar_one()
    assert total == sum(amounts)
    assert call.reserved == MOST


@pytest.mark.parametrize("amount", ["1E-13", "0.0000000000001", "123.4567890123456", "1." + "0" * 40 + "1"])
def test_an_amount_that_was_not_rounded_is_refused(engine: Engine, amount: str) -> None:
    call = call_of(engine)
    with pytest.raises(StatementError, match="finer than 10⁻¹²"):
        change_job(engine, call.job_id, cap=D(amount))


@pytest.mark.parametrize("amount", ["9300000", "-9300000", "1e30"])
def test_an_amount_that_does_not_fit_is_refused(engine: Engine, amount: str) -> None:
    call = call_of(engine)
    with pytest.raises(StatementError, match="more than an amount can be"):
        change_job(engine, call.job_id, cap=D(amount))


@pytest.mark.parametrize("precision", [4, 28])
def test_amounts_are_exact_whatever_the_callers_context(precision: int) -> None:
    money, dialect = Money(), sqlite.dialect()
    amount = D("9223372.036854775807")
    with localcontext(prec=precision):
        assert money.process_bind_param(amount, dialect) == 2**63 - 1
        assert money.process_result_value(2**63 - 1, dialect) == amount


@given(st.integers(-(2**63) + 1, 2**63 - 1))
def test_every_amount_comes_back(units: int) -> None:
    money, dialect = Money(), sqlite.dialect()
    assert money.process_bind_param(money.process_result_value(units, dialect), dialect) == units


@given(st.datetimes(timezones=st.timezones()).filter(lambda moment: 1 < moment.year < 9999))
def test_every_moment_comes_back(moment: datetime) -> None:
    instant, dialect = Instant(), sqlite.dialect()
    back = instant.process_result_value(instant.process_bind_param(moment, dialect), dialect)
    assert back == moment.astimezone(UTC)


def test_a_moment_is_the_same_in_every_zone(engine: Engine) -> None:
    there = datetime(2026, 11, 22, 21, 0, 0, 1, tzinfo=timezone(timedelta(hours=9)))
    with writing(engine) as connection:
        connection.execute(sa.insert(audit).values(at=there, actor="a", action="b", detail={}))
        stored = connection.execute(sa.select(audit.c.at)).scalar_one()
    assert (stored, stored.tzinfo) == (datetime(2026, 11, 22, 12, 0, 0, 1, tzinfo=UTC), UTC)


def test_a_moment_without_a_zone_is_refused(engine: Engine) -> None:
    with pytest.raises(StatementError, match="offset-naive"):
        change_job(engine, make_job(engine), created_at=LONG_AGO.replace(tzinfo=None))


def test_unknown_amounts_stay_unknown(engine: Engine) -> None:
    assert job_of(engine, make_job(engine)).cap is None


def test_a_charge_in_doubt_is_never_zero_to_the_cap(engine: Engine, worker: str) -> None:
    """The cap counts what may have been billed, so it holds even where nothing was told."""
    make_job(engine, size=9, cap=D("0.02"))
    for _ in range(2):
        call = take(engine, worker, 1).calls[0]
        doubt = Charge(usage=None, price_id=None, cost_low=D(0), cost_high=call.reserved, currency="USD")
        store_results(engine, broken(call, charge=doubt))
    assert take(engine, worker).calls == []

"""What retry, cancel, pause, resume and set do to the rows, on both databases."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
import sqlalchemy as sa
from sqlalchemy import Engine

from batchrun.catalogue import Catalogue, load_catalogue
from batchrun.database import clock, reading, writing
from batchrun.errors import BatchrunError, ErrorKind, UsageError
from batchrun.reports.cost import cost_by
from batchrun.reports.status import JobState, status
from batchrun.states import State
from batchrun.steering import operating, setting
from batchrun.steering.operating import Cancelled, Retried
from batchrun.steering.setting import Changed
from batchrun.store import workers
from batchrun.store.claim import Call, claim
from batchrun.store.jobs import has_open_items, lift_pauses
from batchrun.tables import Record, answers, audit, items
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
    wait_for_a_lock,
)

D = Decimal
ANNA = "anna@desk"


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    with opened(database_url) as engine:
        yield engine


@pytest.fixture
def lite(sqlite_url: str) -> Iterator[Engine]:
    """For what the database has no part in."""
    with opened(sqlite_url) as engine:
        yield engine


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return load_catalogue()


def make_job(engine: Engine, name: str = "job", **values: object) -> int:
    with writing(engine) as connection:
        return add_job(connection, name, **values)  # type: ignore[arg-type]  # columns


def calls_of(engine: Engine, size: int, **values: object) -> list[Call]:
    """All items of a new job, claimed."""
    make_job(engine, size=size, **values)  # type: ignore[arg-type]  # columns
    return take(engine, add_worker(engine)).calls


def retry(
    engine: Engine,
    catalogue: Catalogue,
    *states: State,
    kinds: Collection[str] | None = None,
    items: Collection[str] | None = None,
    dry_run: bool = False,
) -> Retried:
    [done] = operating.retry(
        engine,
        ["job"],
        catalogue,
        states=states or (State.FAILED,),
        kinds=kinds,
        items=items,
        dry_run=dry_run,
        simulated=False,
        actor=ANNA,
    )
    return done


def cancel(engine: Engine, *names: str, items: Collection[str] | None = None) -> Cancelled:
    return operating.cancel(engine, names or ["job"], items=items, simulated=False, actor=ANNA)[0]


def pause(engine: Engine, *names: str, reason: str | None = None) -> None:
    operating.pause(engine, names or ["job"], reason=reason, simulated=False, actor=ANNA)


def resume(engine: Engine, *names: str) -> operating.Resumed:
    return operating.resume(engine, names or ["job"], load_catalogue, simulated=False, actor=ANNA)[0]


def put(engine: Engine, target: str = "job", **changes: object) -> Changed:
    return setting.set_values(engine, target, changes, load_catalogue, simulated=False, actor=ANNA)[0]


def fail(engine: Engine, call: Call, kind: ErrorKind = ErrorKind.SERVER) -> None:
    store_results(engine, broken(call, kind, state=State.FAILED))


def audited(engine: Engine) -> list[Record]:
    with reading(engine) as connection:
        return list(connection.execute(sa.select(audit).order_by(audit.c.id)))


def items_named(engine: Engine, job: int) -> dict[str, Record]:
    with reading(engine) as connection:
        rows = connection.execute(sa.select(items).where(items.c.job_id == job))
        return {row.custom_id: row for row in rows}


# retry


def test_a_failed_item_goes_back_as_if_it_had_never_been_tried(engine: Engine, catalogue: Catalogue) -> None:
    [call] = calls_of(engine, 1)
    fail(engine, call)
    retry(engine, catalogue)
    row = item_of(engine, call.item_id)
    assert (row.state, row.paid_tries, row.free_tries, row.free_since, row.error_kind, row.error) == (
        "pending", 0, 0, None, None, None,
    )  # fmt: skip
    assert [again.item_id for again in take(engine, add_worker(engine)).calls] == [call.item_id]


def test_only_failed_items_go_back_unless_others_are_named(engine: Engine, catalogue: Catalogue) -> None:
    done, cut, failed, _ = calls_of(engine, 4)
    store_results(engine, answered(done), answered(cut, reason="length"))
    fail(engine, failed)
    cancel(engine, items=["3"])
    assert retry(engine, catalogue).counts == {(State.FAILED, "server"): 1}
    assert states_of(engine, done.job_id) == {"done": 1, "truncated": 1, "pending": 1, "cancelled": 1}


def test_items_are_chosen_by_the_kind_of_their_error(engine: Engine, catalogue: Catalogue) -> None:
    calls = calls_of(engine, 3)
    for call, kind in zip(calls, (ErrorKind.TIMEOUT, ErrorKind.SERVER, ErrorKind.INVALID), strict=True):
        fail(engine, call, kind)
    done = retry(engine, catalogue, kinds=["timeout", "server"])
    assert done.counts == {(State.FAILED, "timeout"): 1, (State.FAILED, "server"): 1}
    assert item_of(engine, calls[2].item_id).error_kind == "invalid"


def test_an_unknown_kind_names_those_that_there_are(lite: Engine, catalogue: Catalogue) -> None:
    first, second = calls_of(lite, 2)
    fail(lite, first, ErrorKind.TIMEOUT)
    store_results(lite, broken(second, ErrorKind.SERVER))
    with pytest.raises(UsageError, match="no failed item has an error of kind `server`") as caught:
        retry(lite, catalogue, kinds=["server"])
    assert caught.value.remedy == "there are: 1 timeout"


def test_items_are_chosen_by_their_ids(engine: Engine, catalogue: Catalogue) -> None:
    calls = calls_of(engine, 3)
    for call in calls[:2]:
        fail(engine, call)
    store_results(engine, answered(calls[2]))
    done = retry(engine, catalogue, items=["1", "2"])
    assert (done.total, done.passed_over) == (1, {State.DONE: 1})
    assert states_of(engine, calls[0].job_id) == {"failed": 1, "pending": 1, "done": 1}


def test_an_unknown_item_is_refused_and_nothing_is_done(lite: Engine, catalogue: Catalogue) -> None:
    [call] = calls_of(lite, 1)
    fail(lite, call)
    with pytest.raises(UsageError, match="has no item `9`"):
        retry(lite, catalogue, items=["0", "9"])
    assert states_of(lite, call.job_id) == {"failed": 1}


def test_an_item_whose_answer_is_good_is_never_bought_again(engine: Engine, catalogue: Catalogue) -> None:
    [call] = calls_of(engine, 1)
    store_results(engine, answered(call))
    assert retry(engine, catalogue, State.DONE).total == 0
    assert states_of(engine, call.job_id) == {"done": 1}


def test_an_item_whose_answer_does_not_fit_is_bought_again_when_named(engine: Engine, catalogue: Catalogue) -> None:
    [call] = calls_of(engine, 1)
    store_results(engine, replace(answered(call), error_kind=ErrorKind.INVALID_ANSWER, error="it doesn't fit"))
    assert retry(engine, catalogue).total == 0
    assert retry(engine, catalogue, State.DONE).counts == {(State.DONE, "invalid_answer"): 1}
    assert states_of(engine, call.job_id) == {"pending": 1}


def test_a_dry_run_tells_the_same_and_changes_nothing(engine: Engine, catalogue: Catalogue) -> None:
    [call] = calls_of(engine, 1)
    fail(engine, call)
    told = retry(engine, catalogue, dry_run=True)
    assert (states_of(engine, call.job_id), audited(engine)) == ({"failed": 1}, [])
    assert retry(engine, catalogue) == told


def test_the_old_answer_of_a_cut_item_stays_as_a_spare(engine: Engine, catalogue: Catalogue) -> None:
    [call] = calls_of(engine, 1)
    store_results(engine, answered(call, "a ca", reason="length"))
    retry(engine, catalogue, State.TRUNCATED)
    assert item_of(engine, call.item_id).answer_id is None
    with reading(engine) as connection:
        assert [line.spare for line in cost_by(connection, "job")] == [1]
        assert connection.execute(sa.select(answers.c.text)).scalars().all() == ["a ca"]


def test_a_cut_item_that_was_called_again_has_its_new_answer(engine: Engine, catalogue: Catalogue) -> None:
    [call] = calls_of(engine, 1)
    store_results(engine, answered(call, "a ca", reason="length"))
    retry(engine, catalogue, State.TRUNCATED)
    [again] = take(engine, add_worker(engine)).calls
    store_results(engine, answered(again, "a cat"))
    row = item_of(engine, call.item_id)
    assert (row.state, row.answer_id) == ("done", again.attempt_id)
    with reading(engine) as connection:
        assert [(line.items, line.spare) for line in cost_by(connection, "job")] == [(1, 1)]


def test_an_item_whose_call_is_in_flight_is_not_bought_a_second_time(engine: Engine, catalogue: Catalogue) -> None:
    first, _ = calls_of(engine, 2)
    store_results(engine, unsent(first))
    cancel(engine)
    done = retry(engine, catalogue, State.CANCELLED)
    assert (done.total, done.in_flight) == (1, 1)
    assert states_of(engine, first.job_id) == {"pending": 1, "cancelled": 1}


def test_a_cancelled_item_that_was_never_called_can_still_change_its_row(engine: Engine, catalogue: Catalogue) -> None:
    job = make_job(engine, size=1)
    cancel(engine)
    retry(engine, catalogue, State.CANCELLED)
    assert items_named(engine, job)["0"].fence == 0


def test_waiting_items_become_due_at_once_when_named(engine: Engine, catalogue: Catalogue) -> None:
    [call] = calls_of(engine, 1)
    with reading(engine) as connection:
        later = clock(connection) + timedelta(hours=1)
    store_results(engine, broken(call, next_at=later))
    assert (retry(engine, catalogue).waiting, take(engine, add_worker(engine)).calls) == (1, [])
    retry(engine, catalogue, State.WAITING)
    assert [again.paid_tries for again in take(engine, add_worker(engine)).calls] == [1]


def test_the_series_of_equal_errors_begins_anew(engine: Engine, catalogue: Catalogue) -> None:
    calls = calls_of(engine, 9)
    for call in calls:
        fail(engine, call, ErrorKind.INVALID)
    retry(engine, catalogue)
    again = take(engine, add_worker(engine)).calls
    fail(engine, again[0], ErrorKind.INVALID)
    assert job_of(engine, calls[0].job_id).paused is None


def test_what_was_done_is_written_into_the_audit(lite: Engine, catalogue: Catalogue) -> None:
    [call] = calls_of(lite, 1)
    fail(lite, call)
    retry(lite, catalogue)
    cancel(lite)
    pause(lite, reason="lunch")
    resume(lite)
    put(lite, concurrency=3)
    assert [(row.actor, row.action) for row in audited(lite)] == [
        (ANNA, action) for action in ("retry", "cancel", "pause", "resume", "set")
    ]
    assert audited(lite)[4].detail["changes"] == {"concurrency": ["none", "3"]}


def test_one_job_that_is_unknown_stops_all(lite: Engine) -> None:
    job = make_job(lite)
    with pytest.raises(UsageError, match="no job `jbo`; did you mean job"):
        cancel(lite, "job", "jbo")
    assert states_of(lite, job) == {"pending": 3}


# cancel


def test_everything_that_has_not_ended_is_cancelled_at_once(engine: Engine) -> None:
    calls = calls_of(engine, 4)
    store_results(engine, answered(calls[0]), broken(calls[1]), unsent(calls[2]))
    done = cancel(engine)
    assert done.counts == {State.WAITING: 1, State.PENDING: 1, State.CLAIMED: 1}
    assert done.in_flight == 1
    assert states_of(engine, calls[0].job_id) == {"done": 1, "cancelled": 3}


def test_nothing_of_a_cancelled_job_is_claimed_and_nobody_waits_for_it(engine: Engine) -> None:
    job = make_job(engine)
    cancel(engine)
    assert take(engine, add_worker(engine)).calls == []
    with reading(engine) as connection:
        assert not has_open_items(connection, frozenset([job]))


def test_named_items_alone_are_cancelled(engine: Engine) -> None:
    job = make_job(engine)
    assert cancel(engine, items=["1"]).total == 1
    assert {name: row.state for name, row in items_named(engine, job).items()} == {
        "0": "pending", "1": "cancelled", "2": "pending",
    }  # fmt: skip


@pytest.mark.parametrize(("reason", "state"), [("stop", "done"), ("length", "truncated")])
def test_an_answer_that_was_in_flight_is_kept_and_ends_its_item(engine: Engine, reason: str, state: str) -> None:
    [call] = calls_of(engine, 1)
    cancel(engine)
    store_results(engine, answered(call, reason=reason))
    row = item_of(engine, call.item_id)
    assert (row.state, row.answer_id) == (state, call.attempt_id)


def test_a_call_that_fails_after_its_item_was_cancelled_leaves_it_so_and_is_booked(engine: Engine) -> None:
    [call] = calls_of(engine, 1)
    cancel(engine)
    store_results(engine, broken(call, charge=charged(D(0), MOST)))
    assert item_of(engine, call.item_id).state == "cancelled"
    job = job_of(engine, call.job_id)
    assert (job.reserved, job.spent) == (0, MOST)


def test_the_reaper_books_the_call_of_a_cancelled_item_and_leaves_it_cancelled(engine: Engine) -> None:
    make_job(engine, size=1)
    worker = add_worker(engine)
    [call] = take(engine, worker).calls
    cancel(engine)
    assert reap(engine, worker).calls == 1
    assert (item_of(engine, call.item_id).state, attempt_of(engine, call.attempt_id).outcome) == ("cancelled", "lost")
    job, booked = job_of(engine, call.job_id), usage_of(engine, call.attempt_id)
    assert booked is not None
    assert (job.reserved, job.spent, booked.cost_high) == (0, MOST, MOST)


def test_a_claim_that_is_handed_back_does_not_revive_a_cancelled_item(engine: Engine) -> None:
    make_job(engine, size=1)
    worker = add_worker(engine)
    [call] = take(engine, worker).calls
    cancel(engine)
    with writing(engine) as connection:
        assert workers.give_back(connection, worker) == 1
    assert item_of(engine, call.item_id).state == "cancelled"


def test_cancelling_twice_says_what_is_still_in_flight(lite: Engine) -> None:
    calls_of(lite, 2)
    cancel(lite)
    again = cancel(lite)
    assert (again.total, again.in_flight) == (0, 2)


def test_more_items_can_be_named_than_a_statement_takes(lite: Engine, catalogue: Catalogue) -> None:
    def bounded(connection: sqlite3.Connection, _: object) -> None:
        connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 999)

    job = make_job(lite, size=1_200)
    sa.event.listen(lite, "connect", bounded)
    lite.dispose()
    names = [str(number) for number in range(1_100)]
    assert cancel(lite, items=names).counts == {State.PENDING: 1_100}
    assert retry(lite, catalogue, State.CANCELLED, items=names[:-1]).total == 1_099
    assert states_of(lite, job) == {"pending": 1_199, "cancelled": 1}


def test_several_jobs_are_cancelled_together(engine: Engine) -> None:
    ids = [make_job(engine, name) for name in ("a", "b", "c")]
    operating.cancel(engine, ["c", "a"], items=None, simulated=False, actor=ANNA)
    assert [states_of(engine, job) for job in ids] == [{"cancelled": 3}, {"pending": 3}, {"cancelled": 3}]


def test_of_two_jobs_of_a_name_the_real_one_is_meant(engine: Engine) -> None:
    real, tried = (make_job(engine, simulated=simulated) for simulated in (False, True))
    cancel(engine)
    assert (states_of(engine, real), states_of(engine, tried)) == ({"cancelled": 3}, {"pending": 3})


def test_status_counts_cancelled_items(engine: Engine) -> None:
    make_job(engine)
    cancel(engine)
    with reading(engine) as connection:
        [job] = status(connection)
    assert (job.state, job.counts) == (JobState.DONE, {State.CANCELLED: 3})


# pause and resume


def test_nothing_of_a_job_that_a_person_paused_is_claimed_until_it_is_resumed(engine: Engine) -> None:
    make_job(engine)
    pause(engine)
    assert take(engine, add_worker(engine)).calls == []
    resume(engine)
    assert len(take(engine, add_worker(engine)).calls) == 3


def test_the_message_says_who_paused_and_why(lite: Engine) -> None:
    make_job(lite)
    pause(lite, reason="lunch")
    with reading(lite) as connection:
        [job] = status(connection)
    assert (job.state, job.paused) == (JobState.PAUSED, "user")
    assert (job.pause_message or "").startswith("paused by anna@desk at 20")
    assert (job.pause_message or "").endswith("Z: lunch")


def test_a_run_does_not_lift_the_pause_of_a_person(engine: Engine) -> None:
    job = make_job(engine)
    pause(engine)
    with writing(engine) as connection:
        lift_pauses(connection, [job])
    assert job_of(engine, job).paused == "user"


@pytest.mark.parametrize("reason", ["errors", "budget", "unreachable", "user"])
def test_every_pause_of_a_job_is_lifted(engine: Engine, reason: str) -> None:
    job = make_job(engine)
    change_job(engine, job, paused=reason, pause_message="why")
    assert resume(engine).lifted == [(reason, "why")]
    assert (job_of(engine, job).paused, job_of(engine, job).pause_message) == (None, None)


@pytest.mark.parametrize("reason", ["refused", "arrears"])
def test_the_pause_of_the_profile_is_lifted_too(engine: Engine, reason: str) -> None:
    job = make_job(engine)
    change_profile(engine, job_of(engine, job).profile_id, paused=reason, pause_message="overdue")
    pause(engine)
    assert [name for name, _ in resume(engine).lifted] == ["user", reason]
    assert profile_of(engine, job).paused is None


def test_all_jobs_with_something_left_are_paused(engine: Engine) -> None:
    ended, left = make_job(engine, "ended"), make_job(engine, "left")
    cancel(engine, "ended")
    operating.pause(engine, None, reason=None, simulated=False, actor=ANNA)
    assert (job_of(engine, ended).paused, job_of(engine, left).paused) == (None, "user")


def test_all_paused_jobs_are_resumed(engine: Engine) -> None:
    jobs = [make_job(engine, name) for name in ("a", "b", "c")]
    pause(engine, "a", "c")
    done = operating.resume(engine, None, load_catalogue, simulated=False, actor=ANNA)
    assert [job.job for job in done] == ["a", "c"]
    assert [job_of(engine, job).paused for job in jobs] == [None, None, None]


def test_calls_in_flight_of_a_paused_job_are_stored(engine: Engine) -> None:
    first, second = calls_of(engine, 2)
    pause(engine)
    store_results(engine, answered(first), broken(second, next_at=LONG_AGO))
    assert states_of(engine, first.job_id) == {"done": 1, "waiting": 1}
    assert job_of(engine, first.job_id).spent == COST


# set


def test_a_lowered_concurrency_waits_for_what_is_in_flight(engine: Engine) -> None:
    job = make_job(engine, size=6)
    worker = add_worker(engine)
    calls = take(engine, worker, room=4).calls
    assert put(engine, concurrency=2).in_flight == 4
    assert take(engine, worker).calls == []
    store_results(engine, *(answered(call) for call in calls[:3]))
    assert len(take(engine, worker).calls) == 1
    assert job_of(engine, job).concurrency == 2


def test_old_and_new_values_are_told(lite: Engine) -> None:
    make_job(lite, priority=3, requests_per_minute=60)
    told = [
        (change.key, change.old, change.new) for change in put(lite, priority="-1", requests_per_minute="none").changes
    ]
    assert told == [("priority", 3, -1), ("requests_per_minute", 60, None)]


def test_one_wrong_key_leaves_all_as_they_were(lite: Engine) -> None:
    job = make_job(lite)
    with pytest.raises(UsageError, match="concurrency: must be at least 1, not 0"):
        put(lite, priority=3, concurrency=0)
    assert (job_of(lite, job).priority, audited(lite)) == (0, [])


def test_a_higher_rate_limit_holds_at_once(engine: Engine) -> None:
    """The next slot lay a minute ahead under the old limit."""
    make_job(engine, requests_per_minute=1)
    worker = add_worker(engine)
    assert (len(take(engine, worker).calls), take(engine, worker).calls) == (1, [])
    put(engine, requests_per_minute=100_000)
    assert len(take(engine, worker).calls) == 2


def test_a_higher_token_limit_holds_at_once(engine: Engine) -> None:
    make_job(engine, tokens_per_minute=10, expected_tokens=100)
    worker = add_worker(engine)
    assert (len(take(engine, worker).calls), take(engine, worker).calls) == (1, [])
    put(engine, tokens_per_minute=10_000_000)
    assert len(take(engine, worker).calls) == 2


def test_limits_of_a_profile_hold_for_its_jobs(engine: Engine) -> None:
    make_job(engine)
    changed = put(engine, "p/r/m", concurrency=1)
    assert (changed.target, changed.simulated) == ("p/r/m", None)
    assert len(take(engine, add_worker(engine)).calls) == 1


def test_a_profile_under_two_keys_is_changed_under_both(engine: Engine) -> None:
    make_job(engine)
    with writing(engine) as connection:
        other = add_profile(connection)
        connection.execute(sa.text("UPDATE profiles SET key_env = 'OTHER'"))
        add_profile(connection)
    done = setting.set_values(engine, "p/r/m", {"concurrency": 1}, load_catalogue, simulated=False, actor=ANNA)
    assert (len(done), other) == (2, 1)


def test_an_unknown_profile_names_the_nearest(lite: Engine) -> None:
    make_job(lite)
    with pytest.raises(UsageError, match=r"no profile `p/r/n`; did you mean p/r/m\?"):
        put(lite, "p/r/n", concurrency=1)


def test_a_profile_has_no_budget(lite: Engine) -> None:
    make_job(lite)
    with pytest.raises(UsageError, match="nothing called `budget` can be set here"):
        put(lite, "p/r/m", budget="1.00 USD")


def test_taking_the_budget_away_lifts_its_pause(engine: Engine) -> None:
    job = make_job(engine, cap=D(1))
    change_job(engine, job, paused="budget", pause_message="used up")
    assert put(engine, budget="none").lifted
    assert (job_of(engine, job).cap, job_of(engine, job).paused) == (None, None)


def test_a_budget_for_what_has_no_price_is_refused(lite: Engine) -> None:
    make_job(lite, spec=SPEC | {"model": "sim-unpriced"})
    with pytest.raises(UsageError, match="a budget needs a price"):
        put(lite, budget="1.00 USD")


SPEC = {
    "name": "job",
    "provider": "simulator/model-studio-singapore",
    "model": "qwen3-vl-plus",
    "inputs": {"items": [{"id": "0"}]},
    "prompt": "hello",
    "params": {"max_tokens": 100},
}


def test_a_raised_budget_lifts_its_pause_and_a_lowered_one_does_not(engine: Engine) -> None:
    job = make_job(engine, cap=D(1), spec=SPEC)
    change_job(engine, job, paused="budget", pause_message="used up")
    assert not put(engine, budget="0.50 USD").lifted
    assert put(engine, budget="0.75 USD").lifted
    assert (job_of(engine, job).cap, job_of(engine, job).paused) == (D("0.75"), None)


def test_a_raised_budget_lifts_no_other_pause(lite: Engine) -> None:
    make_job(lite, cap=D(1), spec=SPEC)
    pause(lite)
    assert put(lite, budget="2.00 USD").paused == "user"


def test_a_budget_in_another_currency_is_refused(lite: Engine) -> None:
    job = make_job(lite, cap=D(1), spec=SPEC)
    with pytest.raises(BatchrunError, match="the budget is in CNY, the price of qwen3-vl-plus in USD"):
        put(lite, budget="2.00 CNY")
    assert job_of(lite, job).cap == 1


def test_a_budget_over_items_without_a_bound_is_refused(lite: Engine) -> None:
    make_job(lite, spec=SPEC)
    with writing(lite) as connection:
        connection.execute(sa.update(items).values(input_bound=None))
    with pytest.raises(UsageError, match="none is known for 3 items"):
        put(lite, budget="2.00 USD")


def test_a_budget_that_is_still_used_up_is_told_with_one_that_is_enough(lite: Engine, catalogue: Catalogue) -> None:
    make_job(lite, cap=D("0.0001"), spent=D("0.0001"), spec=SPEC)
    change_job(lite, 1, paused="budget")
    short = resume(lite).short
    assert short is not None
    assert (short.cap, short.spent, short.enough) == (D("0.0001"), D("0.0001"), D("0.01"))
    assert put(lite, budget=f"{short.enough} USD").spent is not None
    change_job(lite, 1, paused="budget")
    assert resume(lite).short is None


def test_the_cost_of_a_retry_is_told_at_most(lite: Engine, catalogue: Catalogue) -> None:
    """Three times 100 tokens of input at 0.25 and 100 of output at 1.6, per 1,000,000 tokens."""
    calls = calls_of(lite, 3, spec=SPEC | {"retry": {"attempts": 4}})
    for call in calls:
        fail(lite, call)
    change_job(lite, calls[0].job_id, cap=D(1), spent=D("0.25"))
    done = retry(lite, catalogue)
    assert (done.most, done.room, done.currency) == (D("0.000555"), D("0.75"), "USD")


def test_what_a_model_costs_that_left_the_catalogue_is_not_known(lite: Engine, catalogue: Catalogue) -> None:
    [call] = calls_of(lite, 1, spec=SPEC | {"model": "gone", "retry": {"attempts": 4}})
    fail(lite, call)
    assert retry(lite, catalogue).most is None


@pytest.mark.parametrize("act", ["cancel", "pause", "set"])
def test_it_waits_for_a_claim_in_another_transaction(engine: Engine, act: str) -> None:
    """None of them may write over what the other one is about to commit."""
    job = make_job(engine)
    worker = add_worker(engine)
    acts: dict[str, Callable[[Engine], object]] = {
        "cancel": cancel,
        "pause": pause,
        "set": lambda engine: put(engine, concurrency=1),
    }
    with ThreadPoolExecutor(1) as pool:
        with writing(engine) as connection:
            calls = claim(connection, worker=worker, room=2, only=None, reserve=reserving()).calls
            doing = pool.submit(acts[act], engine)
            if engine.dialect.name == "postgresql":
                wait_for_a_lock(engine)
        doing.result(timeout=30)
    assert len(calls) == 2
    assert take(engine, worker).calls == []
    assert job_of(engine, job).reserved == 2 * MOST

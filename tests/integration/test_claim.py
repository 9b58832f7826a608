"""What a worker is given, and what it is not."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

import pytest
import sqlalchemy as sa
from sqlalchemy import ColumnElement, Engine

from batchrun.database import clock, reading, writing
from batchrun.errors import ErrorKind
from batchrun.states import State
from batchrun.store.claim import SELECT_DUE, SELECT_RUNNABLE, Claimed
from batchrun.store.jobs import add_items
from batchrun.store.workers import OPEN
from batchrun.stream.continuing import Prefix
from batchrun.tables import Record, attempts, items
from tests.both_databases import on_every_database
from tests.integration.rows import (
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
    new_item,
    opened,
    profile_of,
    reserving,
    states_of,
    store_results,
    take,
    unsent,
    wait_for_a_lock,
)

D = Decimal
SECOND = timedelta(seconds=1)


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


def make_profile(engine: Engine, model: str = "m", **limits: int) -> int:
    with writing(engine) as connection:
        return add_profile(connection, model, **limits)


def names(claimed: Claimed) -> list[str]:
    return [call.custom_id for call in claimed.calls]


def counts(claimed: Claimed) -> dict[int, int]:
    """Calls of each job."""
    jobs = [call.job_id for call in claimed.calls]
    return {job: jobs.count(job) for job in jobs}


def future() -> datetime:
    return datetime.now(UTC) + timedelta(hours=1)


# What a claim leaves behind


def test_a_claimed_item_has_an_owner_and_a_fence(engine: Engine, worker: str) -> None:
    make_job(engine, size=1)
    call = take(engine, worker).calls[0]
    item = item_of(engine, call.item_id)
    assert (item.state, item.owner, item.fence, call.fence) == ("claimed", worker, 1, 1)


def test_the_intent_is_written_before_the_money_is_spent(engine: Engine, worker: str) -> None:
    job = make_job(engine, size=1)
    call = take(engine, worker).calls[0]
    attempt = attempt_of(engine, call.attempt_id)
    assert (attempt.outcome, attempt.reserved, attempt.worker_id, attempt.fence) == ("open", MOST, worker, 1)
    assert job_of(engine, job).reserved == MOST


def test_a_call_carries_what_its_row_says(engine: Engine, worker: str) -> None:
    make_job(engine, size=2)
    second = take(engine, worker).calls[1]
    assert (second.custom_id, second.variables, list(second.media)) == ("1", {"n": "1"}, [])


def test_items_are_taken_in_the_order_of_the_source(engine: Engine, worker: str) -> None:
    make_job(engine, size=12)
    assert names(take(engine, worker, 5)) + names(take(engine, worker)) == [str(number) for number in range(12)]


def test_the_attempts_are_those_of_their_items(engine: Engine, worker: str) -> None:
    make_job(engine, size=50)
    calls = take(engine, worker).calls
    assert [attempt_of(engine, call.attempt_id).item_id for call in calls] == [call.item_id for call in calls]


def test_every_claim_of_an_item_has_a_higher_fence(engine: Engine, worker: str) -> None:
    make_job(engine, size=1)
    fences = []
    for _ in range(3):
        call = take(engine, worker).calls[0]
        fences.append(call.fence)
        store_results(engine, unsent(call))
    assert fences == [1, 2, 3]


def test_the_tries_so_far_come_with_the_next_one(engine: Engine, worker: str) -> None:
    make_job(engine, size=1)
    store_results(engine, replace(broken(take(engine, worker).calls[0]), free_tries=2, free_since=LONG_AGO))
    call = take(engine, worker).calls[0]
    assert (call.free_tries, call.paid_tries, call.free_since) == (2, 1, LONG_AGO)


def test_the_time_of_a_claim_is_that_of_the_database(engine: Engine, worker: str) -> None:
    make_job(engine)
    with reading(engine) as connection:
        before = clock(connection)
    assert before <= take(engine, worker).now <= before + timedelta(seconds=60)


# What is not given


@pytest.mark.parametrize("state", sorted(set(State) - {State.PENDING, State.WAITING}))
def test_only_what_waits_to_be_done_is_claimed(engine: Engine, worker: str, state: State) -> None:
    make_job(engine, size=2)
    with writing(engine) as connection:
        connection.execute(sa.update(items).values(state=state.value))
    assert take(engine, worker).calls == []


def test_a_claimed_item_is_not_claimed_again(engine: Engine, worker: str) -> None:
    make_job(engine)
    take(engine, worker)
    assert take(engine, add_worker(engine)).calls == []


def test_no_room_no_calls(engine: Engine, worker: str) -> None:
    make_job(engine)
    assert take(engine, worker, 0).calls == []


def test_without_jobs_there_is_nothing_to_do(engine: Engine, worker: str) -> None:
    assert take(engine, worker).calls == []


def test_only_the_named_jobs_are_claimed_from(engine: Engine, worker: str) -> None:
    one, other = make_job(engine, "one"), make_job(engine, "other")
    assert set(counts(take(engine, worker, only=frozenset({other})))) == {other}
    assert set(counts(take(engine, worker))) == {one}


def test_nothing_of_a_paused_job_is_claimed(engine: Engine, worker: str) -> None:
    change_job(engine, make_job(engine), paused="errors")
    assert take(engine, worker).calls == []


def test_nothing_of_a_paused_profile_is_claimed(engine: Engine, worker: str) -> None:
    job = make_job(engine)
    change_profile(engine, job_of(engine, job).profile_id, paused="arrears")
    assert take(engine, worker).calls == []


def test_a_pause_holds_only_the_jobs_of_its_profile(engine: Engine, worker: str) -> None:
    stopped = make_profile(engine, "stopped")
    make_job(engine, "one", profile=stopped)
    other = make_job(engine, "other")
    change_profile(engine, stopped, paused="arrears")
    assert set(counts(take(engine, worker))) == {other}


# Order


def test_a_retry_that_is_due_goes_before_what_was_never_tried(engine: Engine, worker: str) -> None:
    make_job(engine, size=3)
    first = take(engine, worker, 1).calls[0]
    store_results(engine, broken(first))
    assert names(take(engine, worker)) == ["0", "1", "2"]


def test_a_retry_that_is_not_due_is_left(engine: Engine, worker: str) -> None:
    make_job(engine, size=2)
    first = take(engine, worker, 1).calls[0]
    store_results(engine, broken(first, next_at=future()))
    assert names(take(engine, worker)) == ["1"]


def test_a_job_whose_items_all_wait_is_not_runnable(engine: Engine, worker: str) -> None:
    job = make_job(engine, size=1)
    store_results(engine, broken(take(engine, worker).calls[0], next_at=future()))
    claimed = take(engine, worker)
    assert (claimed.calls, claimed.brakes) == ([], {})
    assert states_of(engine, job) == {"waiting": 1}


def test_the_retry_that_became_due_first_goes_first(engine: Engine, worker: str) -> None:
    make_job(engine, size=3)
    calls = take(engine, worker).calls
    due = [LONG_AGO + timedelta(hours=hours) for hours in (2, 3, 1)]
    store_results(engine, *(broken(call, next_at=at) for call, at in zip(calls, due, strict=True)))
    assert names(take(engine, worker)) == ["2", "0", "1"]


def test_the_job_of_higher_priority_goes_first(engine: Engine, worker: str) -> None:
    make_job(engine, "low", size=5, priority=-1)
    high = make_job(engine, "high", size=5, priority=1)
    assert counts(take(engine, worker, 5)) == {high: 5}


def test_what_a_higher_priority_leaves_goes_to_the_lower_one(engine: Engine, worker: str) -> None:
    low = make_job(engine, "low", size=5, priority=-1)
    high = make_job(engine, "high", size=3, priority=1)
    assert counts(take(engine, worker, 5)) == {high: 3, low: 2}


def test_jobs_of_one_priority_share_the_room(engine: Engine, worker: str) -> None:
    jobs = [make_job(engine, name, size=20) for name in ("a", "b", "c")]
    assert counts(take(engine, worker, 9)) == dict.fromkeys(jobs, 3)


def test_what_a_small_job_leaves_of_its_share_goes_to_the_others(engine: Engine, worker: str) -> None:
    small, large = make_job(engine, "a", size=1), make_job(engine, "b", size=20)
    first = counts(take(engine, worker, 10))
    assert first[small] == 1
    assert first[large] + counts(take(engine, worker, 9 - first[large])).get(large, 0) == 9


def test_the_job_with_the_fewest_calls_in_flight_goes_first(engine: Engine, worker: str) -> None:
    busy, idle = make_job(engine, "busy", size=9), make_job(engine, "idle", size=9)
    take(engine, worker, 4, only=frozenset({busy}))
    assert counts(take(engine, worker, 1)) == {idle: 1}


def test_jobs_of_one_priority_share_the_places_of_their_profile(engine: Engine, worker: str) -> None:
    """Else the job that was loaded first would take them all, and the other one wait for the end of its calls."""
    profile = make_profile(engine, concurrency=10)
    jobs = [make_job(engine, name, size=50, profile=profile) for name in ("a", "b")]
    assert counts(take(engine, worker, 1_000)) == dict.fromkeys(jobs, 5)


# Concurrency


def test_a_profile_has_64_calls_at_once_where_no_limit_is_known(engine: Engine, worker: str) -> None:
    make_job(engine, size=100)
    assert len(take(engine, worker, 1_000).calls) == 64


def test_a_job_may_ask_for_more_where_no_limit_is_known(engine: Engine, worker: str) -> None:
    make_job(engine, size=100, concurrency=80)
    assert len(take(engine, worker, 1_000).calls) == 80


def test_a_job_gets_no_more_than_the_vendor_allows(engine: Engine, worker: str) -> None:
    make_job(engine, size=20, profile=make_profile(engine, concurrency=7), concurrency=15)
    assert len(take(engine, worker).calls) == 7


def test_calls_of_all_workers_count(engine: Engine, worker: str) -> None:
    make_job(engine, size=20, profile=make_profile(engine, concurrency=7))
    take(engine, worker, 5)
    assert len(take(engine, add_worker(engine)).calls) == 2


def test_calls_of_all_jobs_of_a_profile_count(engine: Engine, worker: str) -> None:
    profile = make_profile(engine, concurrency=7)
    first = make_job(engine, "first", size=9, profile=profile, priority=1)
    second = make_job(engine, "second", size=9, profile=profile, concurrency=5)
    assert counts(take(engine, worker, 4)) == {first: 4}
    assert counts(take(engine, worker)) == {first: 3}
    assert take(engine, worker).brakes == {first: "concurrency", second: "concurrency"}


def test_the_concurrency_of_a_job_is_its_own(engine: Engine, worker: str) -> None:
    small, large = make_job(engine, "small", size=9, concurrency=2), make_job(engine, "large", size=9)
    claimed = take(engine, worker, 18)
    assert counts(claimed) == {small: 2, large: 9}
    assert claimed.brakes[small] == "job concurrency"


def test_a_finished_call_makes_room(engine: Engine, worker: str) -> None:
    make_job(engine, size=9, profile=make_profile(engine, concurrency=2))
    store_results(engine, answered(take(engine, worker).calls[0]))
    assert len(take(engine, worker).calls) == 1


def test_a_cut_rate_cuts_the_concurrency_too(engine: Engine, worker: str) -> None:
    profile = make_profile(engine, concurrency=10)
    make_job(engine, size=20, profile=profile)
    change_profile(engine, profile, rate_factor=0.5)
    assert len(take(engine, worker).calls) == 5


def test_one_call_is_allowed_however_far_the_rate_was_cut(engine: Engine, worker: str) -> None:
    profile = make_profile(engine, concurrency=3)
    make_job(engine, size=20, profile=profile)
    change_profile(engine, profile, rate_factor=0.05)
    assert len(take(engine, worker).calls) == 1


def test_a_job_that_ran_out_of_items_is_held_back_by_nothing(engine: Engine, worker: str) -> None:
    make_job(engine, size=3)
    assert take(engine, worker, 1_000).brakes == {}


# Rates


def test_600_a_minute_give_the_slots_of_the_next_second(engine: Engine, worker: str) -> None:
    job = make_job(engine, size=50, profile=make_profile(engine, requests_per_minute=600))
    claimed = take(engine, worker)
    assert len(claimed.calls) == 10
    assert all(claimed.now <= call.send_at < claimed.now + SECOND for call in claimed.calls)
    assert claimed.brakes == {job: "rate"}
    assert claimed.next_at is not None
    assert claimed.now + SECOND <= claimed.next_at <= claimed.now + 1.2 * SECOND


def test_two_claims_in_one_second_get_the_slots_of_one(engine: Engine, worker: str) -> None:
    make_job(engine, size=50, profile=make_profile(engine, requests_per_minute=60))
    assert [len(take(engine, worker).calls), len(take(engine, worker).calls)] == [1, 0]


def test_two_workers_share_the_slots(engine: Engine, worker: str) -> None:
    make_job(engine, size=50, profile=make_profile(engine, requests_per_minute=600))
    sent = sorted(call.send_at for name in (worker, add_worker(engine), worker) for call in take(engine, name, 4).calls)
    gaps = [later - earlier for earlier, later in pairwise(sent)]
    assert min(gaps) >= timedelta(milliseconds=105)


def test_the_rate_of_a_job_holds_for_that_job_alone(engine: Engine, worker: str) -> None:
    slow = make_job(engine, "slow", size=20, requests_per_minute=60)
    fast = make_job(engine, "fast", size=20)
    assert counts(take(engine, worker, 40)) == {slow: 1, fast: 20}


def test_tokens_of_a_minute_are_granted_by_what_calls_are_expected_to_use(engine: Engine, worker: str) -> None:
    make_job(engine, size=50, expected_tokens=1_000, profile=make_profile(engine, tokens_per_minute=300_000))
    assert len(take(engine, worker).calls) == 5


def test_after_some_calls_their_mean_is_expected(engine: Engine, worker: str) -> None:
    make_job(engine, size=9, expected_tokens=9_999, calls_seen=4, tokens_seen=1_202)
    assert {call.expected_tokens for call in take(engine, worker).calls} == {300}


def test_tokens_of_a_day_are_not_exceeded(engine: Engine, worker: str) -> None:
    profile = make_profile(engine, tokens_per_day=1_000)
    job = make_job(engine, size=9, expected_tokens=300, profile=profile)
    claimed = take(engine, worker)
    assert (len(claimed.calls), claimed.brakes) == (3, {job: "rate"})


def test_a_lower_limit_takes_effect_at_the_next_claim(engine: Engine, worker: str) -> None:
    job = make_job(engine, size=50)
    take(engine, worker, 1)
    change_job(engine, job, requests_per_minute=60)
    assert len(take(engine, worker).calls) == 1


# The breaker


def test_an_open_breaker_lets_nothing_through(engine: Engine, worker: str) -> None:
    job = make_job(engine)
    until = datetime.now(UTC) + timedelta(minutes=5)
    change_profile(engine, job_of(engine, job).profile_id, breaker_until=until, failures_in_row=10)
    claimed = take(engine, worker)
    assert (claimed.calls, claimed.brakes) == ([], {job: "breaker"})


def test_after_its_time_one_probe_goes_out_for_all_jobs_of_the_profile(engine: Engine, worker: str) -> None:
    profile = make_profile(engine)
    for name in ("a", "b"):
        make_job(engine, name, profile=profile)
    change_profile(engine, profile, breaker_until=LONG_AGO, failures_in_row=10)
    assert [len(take(engine, worker).calls), len(take(engine, worker).calls)] == [1, 0]


def test_ten_failures_open_the_breaker(engine: Engine, worker: str) -> None:
    make_job(engine, size=30)
    calls = take(engine, worker, 10).calls
    store_results(engine, *(broken(call, ErrorKind.UNAVAILABLE) for call in calls))
    assert take(engine, worker).calls == []


def test_what_failed_in_an_outage_waits_behind_what_was_never_tried(engine: Engine, worker: str) -> None:
    """Else the probes would meet the same few items again and again."""
    job = make_job(engine, size=12)
    calls = take(engine, worker, 10).calls
    store_results(engine, *(broken(call, ErrorKind.UNAVAILABLE) for call in calls))
    change_profile(engine, job_of(engine, job).profile_id, breaker_until=None, failures_in_row=0)
    assert names(take(engine, worker))[:2] == ["10", "11"]


def test_a_job_that_can_not_afford_the_next_item_takes_a_cheaper_one(engine: Engine, worker: str) -> None:
    job = make_job(engine, size=3, cap=D("0.015"))
    with writing(engine) as connection:
        connection.execute(sa.update(items).where(items.c.custom_id == "1").values(input_bound=9_999))
    claimed = take(
        engine, worker, reserve=lambda _, item, _prefix: D("0.005") if item.input_bound == 100 else D("0.02")
    )
    assert (names(claimed), claimed.brakes) == (["0", "2"], {job: "cap"})


# The cap


def test_reservations_never_exceed_the_cap(engine: Engine, worker: str) -> None:
    job = make_job(engine, size=9, cap=D("0.035"))
    claimed = take(engine, worker)
    assert (len(claimed.calls), claimed.brakes) == (3, {job: "cap"})
    assert job_of(engine, job).reserved == D("0.03")


def test_a_cap_may_be_used_to_its_last_unit(engine: Engine, worker: str) -> None:
    make_job(engine, size=9, cap=D("0.03"))
    assert len(take(engine, worker).calls) == 3


def test_what_was_spent_counts_against_the_cap(engine: Engine, worker: str) -> None:
    make_job(engine, size=9, cap=D("0.03"), spent=D("0.015"))
    assert len(take(engine, worker).calls) == 1


def test_while_calls_are_in_flight_the_cap_only_brakes(engine: Engine, worker: str) -> None:
    job = make_job(engine, size=9, cap=D("0.01"))
    take(engine, worker)
    assert take(engine, worker).brakes == {job: "cap"}
    assert job_of(engine, job).paused is None


def test_a_cheaper_answer_than_feared_makes_room_under_the_cap(engine: Engine, worker: str) -> None:
    make_job(engine, size=9, cap=D("0.012"))
    store_results(engine, answered(take(engine, worker).calls[0]))
    assert len(take(engine, worker).calls) == 1


def test_a_job_that_can_afford_no_call_pauses_and_says_why(engine: Engine, worker: str) -> None:
    job = make_job(engine, size=9, cap=D("0.012"), spent=D("0.0045"))
    take(engine, worker)
    row = job_of(engine, job)
    assert row.paused == "budget"
    assert row.pause_message == (
        "the next call may cost up to 0.01 USD; spent 0.0045, reserved 0 of a cap of 0.012 USD"
    )


def test_a_capped_job_is_run_to_the_cap_and_not_beyond(engine: Engine, worker: str) -> None:
    job = make_job(engine, size=60, cap=D("0.05"))
    while calls := take(engine, worker).calls:
        store_results(engine, *(answered(call) for call in calls))
    row = job_of(engine, job)
    assert (row.spent, row.reserved, row.paused) == (D("0.041"), D(0), "budget")


def test_a_call_of_unknown_cost_is_not_made_under_a_cap(engine: Engine, worker: str) -> None:
    make_job(engine, cap=D(1))
    assert take(engine, worker, reserve=reserving(None)).calls == []


def test_without_a_cap_a_call_of_unknown_cost_is_made(engine: Engine, worker: str) -> None:
    job = make_job(engine, size=1)
    call = take(engine, worker, reserve=reserving(None)).calls[0]
    assert (call.reserved, job_of(engine, job).reserved) == (None, D(0))


def test_the_cap_of_one_job_holds_no_other(engine: Engine, worker: str) -> None:
    poor, rich = make_job(engine, "poor", cap=D("0.01")), make_job(engine, "rich")
    assert counts(take(engine, worker)) == {poor: 1, rich: 3}


def test_items_added_at_the_end_are_claimed_like_the_others(engine: Engine, worker: str) -> None:
    job = make_job(engine, size=1)
    store_results(engine, answered(take(engine, worker).calls[0], charge=charged()))
    with writing(engine) as connection:
        add_items(connection, job, [new_item("new")])
    assert names(take(engine, worker)) == ["new"]


# Two at once


@on_every_database
def test_no_item_is_claimed_twice_by_workers_at_once(engine: Engine) -> None:
    make_job(engine, size=60)
    ids = [add_worker(engine) for _ in range(4)]
    start = threading.Barrier(len(ids))

    def work(worker: str) -> list[int]:
        start.wait()
        return [call.item_id for _ in range(5) for call in take(engine, worker, 3).calls]

    with ThreadPoolExecutor(len(ids)) as pool:
        claimed = [item for items_of_one in pool.map(work, ids) for item in items_of_one]
    assert len(claimed) == len(set(claimed)) == 60


@on_every_database
def test_workers_at_once_do_not_exceed_the_cap(engine: Engine) -> None:
    job = make_job(engine, size=60, cap=D("0.105"))
    ids = [add_worker(engine) for _ in range(4)]
    start = threading.Barrier(len(ids))

    def work(worker: str) -> int:
        start.wait()
        return sum(len(take(engine, worker, 2).calls) for _ in range(4))

    with ThreadPoolExecutor(len(ids)) as pool:
        assert sum(pool.map(work, ids)) == 10
    assert job_of(engine, job).reserved == D("0.1")


def test_workers_at_once_do_not_exceed_the_concurrency(engine: Engine) -> None:
    make_job(engine, size=60, profile=make_profile(engine, concurrency=9))
    ids = [add_worker(engine) for _ in range(4)]
    start = threading.Barrier(len(ids))

    def work(worker: str) -> int:
        start.wait()
        return len(take(engine, worker).calls)

    with ThreadPoolExecutor(len(ids)) as pool:
        assert sum(pool.map(work, ids)) == 9


def test_a_claim_that_was_rolled_back_left_nothing(engine: Engine, worker: str) -> None:
    job = make_job(engine, size=2)

    class StopError(Exception):
        pass

    def reserve(_job: int, _item: Record, _prefix: Prefix | None) -> Decimal:
        if asked:
            raise StopError
        asked.append(1)
        return MOST

    asked: list[int] = []
    with pytest.raises(StopError):
        take(engine, worker, reserve=reserve)
    with reading(engine) as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(attempts)).scalar() == 0
    assert (states_of(engine, job), job_of(engine, job).reserved) == ({"pending": 2}, D(0))


def test_a_claim_waits_for_a_pause_that_is_being_written(postgres_url: str) -> None:
    """The pause is seen also by a claim that began before it was committed."""
    with opened(postgres_url) as engine:
        worker, job = add_worker(engine), make_job(engine)
        profile = profile_of(engine, job).id
        with ThreadPoolExecutor(1) as pool, writing(engine) as connection:
            connection.execute(sa.text("SELECT 1 FROM jobs FOR UPDATE"))
            change = sa.text("UPDATE profiles SET paused = 'arrears' WHERE id = :id")
            connection.execute(change, {"id": profile})
            claimed = pool.submit(take, engine, worker)
            wait_for_a_lock(engine)
            connection.commit()
            assert claimed.result().calls == []


# The plan of the database


@pytest.fixture
def full(sqlite_url: str) -> Iterator[Engine]:
    """20,000 items, most of them done."""
    with opened(sqlite_url) as engine:
        make_job(engine, size=20_000)
        with writing(engine) as connection:
            connection.execute(sa.update(items).where(items.c.id % 10 > 0).values(state="done"))
            connection.execute(sa.update(items).where(items.c.id % 50 == 0).values(state="waiting"))
        yield engine


@pytest.mark.parametrize("statement", SELECT_DUE, ids=["waiting", "pending"])
def test_what_is_due_is_read_from_the_index_in_its_order(full: Engine, statement: sa.Select[tuple[object]]) -> None:
    plan = explained(full, statement)
    assert "USING INDEX items_claim (job_id=? AND state=?" in plan
    assert "TEMP B-TREE" not in plan


def test_whether_a_job_is_runnable_takes_two_looks_into_the_index(full: Engine) -> None:
    plan = explained(full, SELECT_RUNNABLE)
    assert plan.count("SEARCH items USING INDEX items_claim (job_id=? AND state=?") == 2


@pytest.mark.parametrize(
    "condition", [attempts.c.worker_id == "w", attempts.c.profile_id == 1], ids=["of a worker", "of a profile"]
)
def test_open_attempts_are_found_among_millions_that_ended(full: Engine, condition: ColumnElement[bool]) -> None:
    wanted = sa.select(attempts.c.job_id).where(OPEN, condition)
    assert "USING INDEX attempts_open" in explained(full, wanted)


def test_the_counts_of_the_states_are_read_from_the_index_alone(full: Engine) -> None:
    wanted = sa.select(items.c.state, sa.func.count()).where(items.c.job_id == sa.bindparam("job"))
    assert "USING COVERING INDEX items_claim" in explained(full, wanted.group_by(items.c.state))


def explained(engine: Engine, statement: sa.Select[tuple[object]]) -> str:
    text = str(statement.compile(engine))
    with reading(engine) as connection:
        rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", (0,) * text.count("?"))
        return "\n".join(str(row[-1]) for row in rows)


# Windows


def window_around(start: timedelta, end: timedelta) -> dict[str, str]:
    """From and until so long from now."""
    now = datetime.now(UTC)
    return {"start": f"{now + start:%H:%M}", "end": f"{now + end:%H:%M}", "timezone": "UTC"}


HOUR = timedelta(hours=1)


def test_a_job_outside_its_window_gets_nothing_and_others_go_on(engine: Engine, worker: str) -> None:
    closed = make_job(engine, "night", size=3, window=window_around(2 * HOUR, 3 * HOUR))
    make_job(engine, "day", size=2, window=window_around(-HOUR, HOUR))
    claimed = take(engine, worker, room=10)
    assert names(claimed) == ["0", "1"]
    assert claimed.brakes == {closed: "window"}
    assert states_of(engine, closed) == {"pending": 3}


def test_a_worker_that_is_told_to_passes_over_windows(engine: Engine, worker: str) -> None:
    make_job(engine, "night", size=3, window=window_around(2 * HOUR, 3 * HOUR))
    assert len(take(engine, worker, room=10, at_any_time=True).calls) == 3

"""Pacing, rate cuts and the circuit breaker, on a clock that only the tests move."""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.pacing.limits import (
    BREAKER_FAILURES,
    FLOOR,
    PACE,
    Bucket,
    Health,
    Seen,
    breaker_allows,
    day_of,
    grant,
    observe,
)

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
NEVER = datetime(1970, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def bucket(
    *,
    requests: int | None = None,
    tokens: int | None = None,
    daily: int | None = None,
    used_today: int = 0,
    factor: float = 1.0,
) -> Bucket:
    return Bucket(
        requests_per_minute=requests,
        tokens_per_minute=tokens,
        tokens_per_day=daily,
        next_slot_at=NEVER,
        tokens_at=NEVER,
        day=day_of(NOON),
        day_tokens=used_today,
        factor=factor,
    )


def most_within(moments: Sequence[datetime], span: timedelta) -> int:
    """The most of these sorted moments that fall into any window of that length."""
    return max((bisect_left(moments, at + span) - index for index, at in enumerate(moments)), default=0)


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def slots_of(pool: Bucket, now: datetime, *, wanted: int, tokens: int = 0, job: Bucket | None = None) -> list[datetime]:
    """What one claim grants; without `job`, to a job that has no limits of its own."""
    return grant(pool, job or bucket(), now, wanted=wanted, tokens=tokens).slots


# Requests per minute


def claimed_through_a_minute(shared: Bucket, *, processes: int, seed: int) -> list[datetime]:
    """Slots of processes that each claim about twice a second, as the drain does, none in step with another."""
    chance = random.Random(seed)
    looks = [
        after(second)
        for _ in range(processes)
        for second in accumulate(chance.uniform(0.4, 0.6) for _ in range(160))
        if second < 60
    ]
    return [slot for now in sorted(looks) for slot in slots_of(shared, now, wanted=100)]


@pytest.mark.parametrize("processes", [1, 4])
@pytest.mark.parametrize("seed", range(5))
def test_600_a_minute_never_put_more_than_11_into_a_second(processes: int, seed: int) -> None:
    slots = claimed_through_a_minute(bucket(requests=600), processes=processes, seed=seed)
    assert most_within(slots, SECOND) <= 11


@pytest.mark.parametrize("processes", [1, 4])
@pytest.mark.parametrize("seed", range(5))
def test_90_percent_of_600_a_minute_are_used(processes: int, seed: int) -> None:
    slots = claimed_through_a_minute(bucket(requests=600), processes=processes, seed=seed)
    assert 540 <= sum(slot < after(60) for slot in slots) <= 600


def test_a_bucket_that_rested_for_an_hour_does_not_burst() -> None:
    rested = bucket(requests=600)
    slots_of(rested, after(-3_600), wanted=100)
    assert most_within(slots_of(rested, NOON, wanted=100), SECOND) <= 10


def test_a_claim_gives_out_no_slot_beyond_the_next_second() -> None:
    assert max(slots_of(bucket(requests=600), NOON, wanted=100)) < after(1)


def test_a_claim_gives_out_no_more_than_was_wanted() -> None:
    assert len(slots_of(bucket(), NOON, wanted=3)) == 3


def test_without_limits_all_may_be_sent_at_once() -> None:
    assert slots_of(bucket(), NOON, wanted=1_000, tokens=10**6) == [NOON] * 1_000


def claimed_when_due(pool: Bucket, job: Bucket, *, seconds: int, tokens: int = 0) -> list[datetime]:
    """The slots of a job whose claims come when the one before said, and at least twice a second."""
    now, slots = NOON, list[datetime]()
    while now < after(seconds):
        granted = grant(pool, job, now, wanted=50, tokens=tokens)
        slots += granted.slots
        now = min(granted.next_at or now, now + timedelta(seconds=0.5))
    return slots


def test_the_slower_of_two_limits_holds() -> None:
    slots = claimed_when_due(bucket(requests=6_000), bucket(requests=600), seconds=60)
    assert most_within(slots, SECOND) <= 11
    assert 540 <= sum(slot < after(60) for slot in slots) <= 600


def test_a_slow_job_leaves_the_slots_of_its_profile_to_the_others() -> None:
    pool, slow = bucket(requests=600), bucket(requests=60)
    slots_of(pool, NOON, wanted=50, job=slow)
    slots_of(pool, NOON, wanted=50, job=slow)
    assert len(slots_of(pool, NOON, wanted=50)) == 9


def test_who_got_less_than_wanted_is_told_when_to_ask_again() -> None:
    granted = grant(bucket(requests=60), bucket(), NOON, wanted=3, tokens=0)
    assert granted.next_at is not None
    assert after(1) < granted.next_at < after(1.1)


def test_who_got_what_was_wanted_has_nothing_to_wait_for() -> None:
    assert grant(bucket(requests=600), bucket(), NOON, wanted=3, tokens=0).next_at is None


def test_a_clock_that_was_set_back_stops_nobody() -> None:
    pool = bucket(requests=600, tokens=1_000_000)
    slots_of(pool, NOON + timedelta(days=1), wanted=50, tokens=1_000)
    assert len(slots_of(pool, NOON, wanted=3, tokens=1_000)) == 3


def test_a_limit_that_was_raised_holds_at_once() -> None:
    pool = bucket(requests=1)
    slots_of(pool, NOON, wanted=1)
    pool.requests_per_minute = 600
    assert len(slots_of(pool, after(1), wanted=3)) == 3


def test_one_request_a_minute_is_one_a_minute() -> None:
    slow = bucket(requests=1)
    slots = [slot for second in range(180) for slot in slots_of(slow, after(second), wanted=9)]
    assert [round((slot - NOON).total_seconds(), 1) for slot in slots] == [0.0, 63.2, 126.3]


def test_a_cut_rate_is_granted_as_cut() -> None:
    assert len(slots_of(bucket(requests=600, factor=0.5), NOON, wanted=100)) == 5


@given(
    requests=st.integers(1, 100_000),
    pauses=st.lists(st.floats(0, 3), min_size=1, max_size=30),
    wanted=st.integers(1, 200),
    factor=st.floats(FLOOR, 1.0),
)
def test_no_second_ever_gets_more_than_the_limit_allows(
    requests: int, pauses: list[float], wanted: int, factor: float
) -> None:
    shared, now, slots = bucket(requests=requests, factor=factor), NOON, list[datetime]()
    for pause in pauses:
        now += timedelta(seconds=pause)
        slots += slots_of(shared, now, wanted=wanted)
    assert slots == sorted(slots)
    assert most_within(slots, SECOND) <= requests / 60 + 1


@given(pauses=st.lists(st.floats(0, 3), min_size=1, max_size=30), wanted=st.integers(1, 50))
def test_no_slot_lies_before_its_claim(pauses: list[float], wanted: int) -> None:
    shared, now = bucket(requests=600), NOON
    for pause in pauses:
        now += timedelta(seconds=pause)
        assert all(slot >= now for slot in slots_of(shared, now, wanted=wanted))


# Tokens per minute


@given(tokens=st.integers(1, 200_000), pauses=st.lists(st.floats(0, 30), min_size=1, max_size=40))
def test_no_minute_gets_more_tokens_than_the_limit_and_one_call(tokens: int, pauses: list[float]) -> None:
    shared, now, slots = bucket(tokens=1_000_000), NOON, list[datetime]()
    for pause in pauses:
        now += timedelta(seconds=pause)
        slots += slots_of(shared, now, wanted=50, tokens=tokens)
    assert tokens * most_within(slots, timedelta(minutes=1)) <= 1_000_000 * PACE + tokens


def test_tokens_that_a_call_did_not_use_are_given_back() -> None:
    shared = bucket(tokens=60_000)
    slots_of(shared, NOON, wanted=1, tokens=60_000)
    shared.settle(after(1), -57_000)
    assert slots_of(shared, after(4), wanted=1, tokens=1) == [after(4)]


def test_tokens_used_beyond_the_expected_delay_the_next_call() -> None:
    shared = bucket(tokens=60_000)
    slots_of(shared, NOON, wanted=1, tokens=10)
    shared.settle(NOON, 57_000)
    assert slots_of(shared, after(58), wanted=1, tokens=1) == []
    assert len(slots_of(shared, after(61), wanted=1, tokens=1)) == 1


def test_tokens_given_back_are_no_credit_for_later() -> None:
    shared = bucket(tokens=60_000)
    shared.settle(NOON, -(10**9))
    assert len(slots_of(shared, NOON, wanted=100, tokens=1_000)) == 1


def test_a_call_longer_than_the_limit_of_a_minute_goes_out_and_is_paid_off() -> None:
    shared = bucket(tokens=1_000)
    assert slots_of(shared, NOON, wanted=5, tokens=1_900) == [NOON]
    assert slots_of(shared, after(118), wanted=5, tokens=1_900) == []
    assert len(slots_of(shared, after(120), wanted=5, tokens=1_900)) == 1


def test_a_vendor_that_counts_absurdly_stops_nobody_for_years() -> None:
    shared = bucket(tokens=1)
    for _ in range(10):
        shared.settle(NOON, 2**53)
    assert len(slots_of(shared, NOON + timedelta(days=1), wanted=1, tokens=1)) == 1


# Tokens per day


def test_the_tokens_of_a_day_are_not_exceeded() -> None:
    assert len(slots_of(bucket(daily=1_000), NOON, wanted=100, tokens=300)) == 3


def test_what_was_used_earlier_that_day_counts() -> None:
    assert len(slots_of(bucket(daily=1_000, used_today=650), NOON, wanted=100, tokens=300)) == 1


def test_a_used_up_day_ends_at_midnight_utc() -> None:
    spent = bucket(daily=1_000, used_today=1_000)
    midnight = datetime(2026, 11, 23, tzinfo=UTC)
    assert spent.free_at(NOON, 300) == midnight
    assert len(slots_of(spent, midnight, wanted=100, tokens=300)) == 3


def test_the_first_call_of_a_day_may_be_longer_than_the_limit() -> None:
    """It would wait for ever otherwise."""
    assert len(slots_of(bucket(daily=1_000), NOON, wanted=100, tokens=5_000)) == 1


def test_tokens_given_back_never_make_a_day_negative() -> None:
    shared = bucket(daily=1_000, used_today=100)
    shared.settle(NOON, -500)
    assert shared.day_tokens == 0


def test_tokens_given_back_after_midnight_are_those_of_the_day_before() -> None:
    shared = bucket(daily=1_000, used_today=900)
    shared.settle(NOON + timedelta(days=1), -500)
    assert shared.day_tokens == 0


# The rate, after 429s


def health(
    *,
    factor: float = 1.0,
    cut_at: datetime = NEVER,
    calls: int = 0,
    limited: int = 0,
    down: int = 0,
    failures: int = 0,
    step: int = 0,
    until: datetime | None = None,
    refused: int = 0,
) -> Health:
    return Health(
        factor=factor,
        cut_at=cut_at,
        window_calls=calls,
        window_limited=limited,
        window_down=down,
        failures_in_row=failures,
        breaker_step=step,
        breaker_until=until,
        refused_in_row=refused,
    )


def good(sent_at: datetime = NOON) -> Seen:
    return Seen(sent_at=sent_at)


def limited(sent_at: datetime = NOON) -> Seen:
    return Seen(sent_at=sent_at, limited=True)


def down(sent_at: datetime = NOON) -> Seen:
    return Seen(sent_at=sent_at, down=True)


def refused(sent_at: datetime = NOON) -> Seen:
    return Seen(sent_at=sent_at, refused=True)


def test_a_429_in_twenty_calls_never_cuts_the_rate() -> None:
    profile = health()
    for number in range(1_000):
        observe(profile, [limited() if number % 20 == 0 else good()], NOON)
    assert profile.factor == 1.0


@pytest.mark.parametrize("seed", range(10))
def test_five_percent_of_429s_at_random_leave_the_rate_nearly_whole(seed: int) -> None:
    profile, chance, factors = health(), random.Random(seed), list[float]()
    for number in range(1_000):
        now = after(number / 10)
        observe(profile, [limited(now) if chance.random() < 0.05 else good(now)], after(number / 10 + 0.1))
        factors.append(profile.factor)
    assert sum(factors) / len(factors) > 0.9


def test_frequent_429s_cut_the_rate() -> None:
    profile = health()
    observe(profile, [limited()] * 20, after(1))
    assert profile.factor == pytest.approx(0.7)


def test_a_few_first_429s_are_not_yet_frequent() -> None:
    profile = health()
    observe(profile, [limited()] * 19, after(1))
    assert profile.factor == 1.0


def test_429s_of_calls_that_left_before_the_cut_are_the_same_congestion() -> None:
    profile = health()
    observe(profile, [limited()] * 64, after(1))
    assert profile.factor == pytest.approx(0.7)


def test_429s_of_calls_that_left_before_the_cut_do_not_fill_the_next_window() -> None:
    profile = health()
    observe(profile, [limited()] * 64, after(1))
    observe(profile, [good(after(2))] * 20 + [limited(after(2))], after(3))
    assert profile.factor > 0.7


def test_429s_that_go_on_cut_again() -> None:
    profile = health()
    observe(profile, [limited()] * 20, after(1))
    observe(profile, [limited(after(2))] * 20, after(3))
    assert profile.factor == pytest.approx(0.49)


def test_the_rate_is_never_cut_below_its_floor() -> None:
    profile = health()
    for second in range(200):
        observe(profile, [limited(after(second))] * 20, after(second + 0.5))
    assert profile.factor == FLOOR


def test_the_rate_comes_back_with_good_calls() -> None:
    profile = health(factor=FLOOR)
    observe(profile, [good()] * 1_001, NOON)
    assert profile.factor == 1.0


def test_an_outage_says_nothing_about_the_rate() -> None:
    profile = health(factor=0.5)
    observe(profile, [down()] * 50 + [refused()] * 50, NOON)
    assert profile.factor == 0.5


def test_failures_do_not_hide_how_frequent_429s_are() -> None:
    profile = health()
    observe(profile, [limited(), down(), down()] * 20, after(1))
    assert profile.factor < 1.0


calls = st.builds(
    lambda kind, at: {"good": good, "limited": limited, "down": down, "refused": refused}[kind](after(at)),
    st.sampled_from(["good", "limited", "down", "refused"]),
    st.integers(-100, 100),
)


@given(
    start=st.floats(FLOOR, 1.0),
    batches=st.lists(st.tuples(st.lists(calls, max_size=20), st.integers(0, 200)), max_size=30),
)
def test_the_factor_stays_within_its_bounds(start: float, batches: list[tuple[list[Seen], int]]) -> None:
    profile = health(factor=start)
    for batch, second in batches:
        observe(profile, batch, after(second))
        assert FLOOR <= profile.factor <= 1.0
        assert profile.window_limited <= profile.window_calls


# The breaker


def test_nine_failures_let_the_calls_go_on() -> None:
    profile = health()
    observe(profile, [down()] * (BREAKER_FAILURES - 1), NOON)
    assert breaker_allows(profile, NOON, in_flight=0) is None


def test_ten_failures_in_a_row_open_the_breaker_for_half_a_minute() -> None:
    profile = health()
    observe(profile, [down()] * BREAKER_FAILURES, NOON)
    assert [breaker_allows(profile, after(second), in_flight=0) for second in (0, 29.9, 30)] == [0, 0, 1]


def test_some_failures_that_are_not_in_a_row_open_nothing() -> None:
    profile = health()
    observe(profile, [down(), good(), good()] * 50, NOON)
    assert breaker_allows(profile, NOON, in_flight=0) is None


def test_more_failures_than_answers_open_the_breaker_also_out_of_a_row() -> None:
    profile = health()
    observe(profile, [down(), down(), good()] * 14, NOON)
    assert breaker_allows(profile, NOON, in_flight=0) == 0


def test_a_429_is_an_answer_of_a_service_that_is_up() -> None:
    profile = health()
    observe(profile, [down()] * 9 + [limited()] + [down()] * 9, NOON)
    assert breaker_allows(profile, NOON, in_flight=0) is None


def test_calls_in_flight_that_fail_too_do_not_prolong_the_outage() -> None:
    profile = health()
    observe(profile, [down()] * 64, NOON)
    assert profile.breaker_until == after(30)


def test_a_late_answer_of_before_the_outage_does_not_end_it() -> None:
    profile = health()
    observe(profile, [down()] * BREAKER_FAILURES + [good()] * 10, NOON)
    assert breaker_allows(profile, after(1), in_flight=0) == 0


def test_a_single_probe_goes_out() -> None:
    profile = health(failures=10, step=1, until=NOON)
    assert breaker_allows(profile, NOON, in_flight=1) == 0


def test_each_failed_probe_doubles_the_pause_up_to_ten_minutes() -> None:
    profile, now, pauses = health(failures=BREAKER_FAILURES - 1), NOON, list[float]()
    for _ in range(8):
        observe(profile, [down(now)], now)
        assert profile.breaker_until is not None
        pauses.append((profile.breaker_until - now).total_seconds())
        now = profile.breaker_until
    assert pauses == [30, 60, 120, 240, 480, 600, 600, 600]


def test_an_outage_of_eight_hours_takes_few_probes() -> None:
    profile, probes, now = health(), 0, NOON
    observe(profile, [down()] * BREAKER_FAILURES, NOON)
    while now < after(8 * 3_600):
        now += SECOND
        if breaker_allows(profile, now, in_flight=0):
            probes += 1
            observe(profile, [down(now)], now)
    assert probes < 60


def probed(answers: Sequence[Callable[[datetime], Seen]]) -> Health:
    """A profile after an outage whose probes end so, one second after the other."""
    profile = health()
    observe(profile, [down()] * BREAKER_FAILURES, NOON)
    for second, answer in enumerate(answers, start=31):
        assert breaker_allows(profile, after(second), in_flight=0) == 1
        observe(profile, [answer(after(second))], after(second))
    return profile


@pytest.mark.parametrize("answer", [good, limited])
def test_three_answers_to_probes_end_the_outage(answer: Callable[[datetime], Seen]) -> None:
    assert breaker_allows(probed([answer] * 3), after(34), in_flight=40) is None


def test_two_answers_to_probes_are_not_yet_enough() -> None:
    assert breaker_allows(probed([good] * 2), after(33), in_flight=1) == 0


def test_a_probe_that_fails_after_good_ones_begins_a_longer_pause() -> None:
    assert probed([good, good, down]).breaker_until == after(33 + 60)


def test_after_an_outage_the_next_one_starts_with_a_short_pause() -> None:
    profile = probed([good] * 3)
    observe(profile, [down(after(40))] * BREAKER_FAILURES, after(40))
    assert profile.breaker_until == after(70)


def test_after_a_clock_was_set_back_probes_close_the_breaker() -> None:
    profile = health(failures=10, step=1, until=NOON + timedelta(days=1))
    for second in range(3):
        assert breaker_allows(profile, after(second), in_flight=0) == 1
        observe(profile, [good(after(second))], after(second + 0.5))
    assert breaker_allows(profile, after(3), in_flight=9) is None


def test_after_a_clock_was_set_back_429s_count_again() -> None:
    profile = health(cut_at=NOON + timedelta(days=1))
    observe(profile, [good()], NOON)
    observe(profile, [limited(after(1))] * 20, after(2))
    assert profile.factor == pytest.approx(0.7)


# Refused keys


def test_refusals_are_counted_in_a_row() -> None:
    profile = health()
    observe(profile, [refused(), refused(), good(), refused()], NOON)
    assert profile.refused_in_row == 1

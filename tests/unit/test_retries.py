"""What becomes of an item after a failed attempt."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.errors import ErrorKind, ProviderError
from batchrun.retries import (
    ANSWER_IS_BAD,
    DOWN,
    FREE,
    ITEM_IS_BAD,
    MAYBE_BILLED,
    MONEY_IS_GONE,
    PROFILE_IS_REFUSED,
    Decision,
    Policy,
    Tries,
    decide,
)
from batchrun.states import MOVES, State

NOW = datetime(2026, 11, 22, 23, 0, tzinfo=UTC)
DAY = timedelta(hours=24)
NEARLY_ONE = math.nextafter(1.0, 0.0)


def after(
    kind: ErrorKind,
    *,
    free: int = 0,
    paid: int = 0,
    since: datetime | None = None,
    attempts: int = 4,
    retry_after: float | None = None,
    should_retry: bool | None = None,
    random: Callable[[], float] = lambda: NEARLY_ONE,
) -> Decision:
    error = ProviderError(kind, "it broke", retry_after=retry_after, should_retry=should_retry)
    tries = Tries(free=free, paid=paid, free_since=since)
    return decide(error, tries, Policy(attempts=attempts, max_elapsed=DAY), NOW, random)


def wait(decision: Decision) -> float:
    return (decision.next_at - NOW).total_seconds()


@pytest.mark.parametrize("kind", sorted(FREE))
def test_a_free_failure_uses_up_no_paid_try(kind: ErrorKind) -> None:
    decision = after(kind, free=7, paid=3)
    assert (decision.state, decision.tries.free, decision.tries.paid) == (State.WAITING, 8, 3)


@pytest.mark.parametrize("kind", sorted(FREE))
def test_a_thousand_free_failures_fail_no_item_before_its_time_is_over(kind: ErrorKind) -> None:
    assert after(kind, free=1_000, since=NOW - DAY + timedelta(seconds=1)).state is State.WAITING


@pytest.mark.parametrize("kind", sorted(FREE))
def test_free_failures_end_with_the_time_allowed(kind: ErrorKind) -> None:
    assert after(kind, since=NOW - DAY).state is State.FAILED


def test_the_time_allowed_begins_with_the_first_free_failure() -> None:
    assert after(ErrorKind.RATE_LIMITED).tries.free_since == NOW


def test_the_time_allowed_does_not_begin_anew() -> None:
    earlier = NOW - timedelta(hours=1)
    assert after(ErrorKind.RATE_LIMITED, since=earlier).tries.free_since == earlier


@pytest.mark.parametrize("kind", sorted(MAYBE_BILLED))
@pytest.mark.parametrize(("paid", "expected"), [(0, State.WAITING), (2, State.WAITING), (3, State.FAILED)])
def test_failures_that_may_have_been_billed_are_counted(kind: ErrorKind, paid: int, expected: State) -> None:
    decision = after(kind, paid=paid, attempts=4)
    assert (decision.state, decision.tries.paid, decision.tries.free) == (expected, paid + 1, 0)


def test_one_attempt_means_no_second_purchase() -> None:
    assert after(ErrorKind.TIMEOUT, attempts=1).state is State.FAILED


def test_a_billed_failure_is_tried_again_also_after_a_day() -> None:
    assert after(ErrorKind.SERVER, since=NOW - 2 * DAY).state is State.WAITING


@pytest.mark.parametrize("kind", sorted(ITEM_IS_BAD))
def test_a_bad_item_fails_at_once_and_uses_up_nothing(kind: ErrorKind) -> None:
    decision = after(kind)
    assert (decision.state, decision.tries.free, decision.tries.paid) == (State.FAILED, 0, 0)


def test_without_money_the_profile_stops_and_the_item_keeps_its_tries() -> None:
    decision = after(ErrorKind.ARREARS, free=1, paid=1)
    assert (decision.state, decision.pauses) == (State.PENDING, "arrears")
    assert decision.tries == Tries(free=1, paid=1, free_since=None)


@pytest.mark.parametrize("kind", sorted(PROFILE_IS_REFUSED))
def test_a_refused_key_fails_no_item(kind: ErrorKind) -> None:
    decision = after(kind, paid=3)
    assert (decision.state, decision.tries.paid) == (State.WAITING, 3)


@pytest.mark.parametrize(
    ("failures_before", "longest"), [(0, 1), (1, 2), (2, 4), (5, 32), (8, 256), (9, 300), (40, 300), (10**6, 300)]
)
def test_the_wait_doubles_up_to_five_minutes(failures_before: int, longest: int) -> None:
    assert wait(after(ErrorKind.RATE_LIMITED, free=failures_before)) == pytest.approx(longest)


def test_the_wait_is_spread_from_zero_on() -> None:
    assert wait(after(ErrorKind.SERVER, random=lambda: 0.0)) == 0


def test_billed_failures_have_a_wait_of_their_own() -> None:
    assert wait(after(ErrorKind.SERVER, free=9)) == pytest.approx(1)


@pytest.mark.parametrize("hint", [1, 30, 900])
def test_the_hint_of_the_server_is_never_undercut(hint: int) -> None:
    assert wait(after(ErrorKind.RATE_LIMITED, retry_after=hint, random=lambda: 0.0)) == hint


def test_not_all_come_back_at_the_very_moment_of_the_hint() -> None:
    assert 100 < wait(after(ErrorKind.RATE_LIMITED, retry_after=100)) <= 110


@pytest.mark.parametrize("hint", [901.0, 86_400.0, 1e300, math.inf])
def test_an_absurd_hint_is_cut_to_a_quarter_of_an_hour(hint: float) -> None:
    assert wait(after(ErrorKind.UNAVAILABLE, retry_after=hint, random=lambda: 0.0)) == 900


@pytest.mark.parametrize("hint", [0.0, -1.0, -1e300, -math.inf, math.nan])
def test_a_hint_that_asks_for_no_wait_is_no_hint(hint: float) -> None:
    """A server that refuses and says `Retry-After: 0` would be asked again as fast as we can."""
    assert wait(after(ErrorKind.RATE_LIMITED, free=3, retry_after=hint)) == pytest.approx(8)


def test_a_hint_does_not_give_a_bad_item_another_try() -> None:
    assert after(ErrorKind.INVALID, retry_after=1).state is State.FAILED


@pytest.mark.parametrize("kind", sorted(FREE | MAYBE_BILLED))
def test_what_the_server_calls_hopeless_is_not_tried_again(kind: ErrorKind) -> None:
    decision = after(kind, retry_after=1, should_retry=False)
    assert (decision.state, decision.tries.free + decision.tries.paid) == (State.FAILED, 1)


@pytest.mark.parametrize(("paid", "expected"), [(0, State.WAITING), (2, State.WAITING), (3, State.FAILED)])
def test_a_refusal_that_the_server_calls_passing_is_tried_as_often_as_the_job_allows(
    paid: int, expected: State
) -> None:
    decision = after(ErrorKind.INVALID, paid=paid, attempts=4, should_retry=True)
    assert (decision.state, decision.tries.paid) == (expected, paid + 1)


@pytest.mark.parametrize("word", [True, False])
@pytest.mark.parametrize("kind", sorted(PROFILE_IS_REFUSED | MONEY_IS_GONE))
def test_about_the_key_and_the_money_the_server_is_not_asked(kind: ErrorKind, word: bool) -> None:
    assert after(kind, should_retry=word) == after(kind)


def test_a_hint_does_not_lengthen_the_time_allowed() -> None:
    assert after(ErrorKind.RATE_LIMITED, retry_after=1, since=NOW - DAY).state is State.FAILED


def test_a_hint_that_did_not_help_does_not_keep_the_wait_short() -> None:
    assert wait(after(ErrorKind.RATE_LIMITED, free=9, retry_after=1)) == pytest.approx(300)


def test_a_long_hint_counts_however_often_it_came() -> None:
    assert wait(after(ErrorKind.RATE_LIMITED, free=9, retry_after=900, random=lambda: 0.0)) == 900


@given(
    kind=st.sampled_from(ErrorKind),
    free=st.integers(0, 10**6),
    paid=st.integers(0, 200),
    age=st.none() | st.integers(0, 10**7),
    hint=st.none() | st.floats(),
    word=st.none() | st.booleans(),
    random=st.floats(0, 1, exclude_max=True),
)
def test_every_decision_is_legal_and_bounded(
    kind: ErrorKind, free: int, paid: int, age: int | None, hint: float | None, word: bool | None, random: float
) -> None:
    since = None if age is None else NOW - timedelta(seconds=age)
    decision = after(
        kind, free=free, paid=paid, since=since, retry_after=hint, should_retry=word, random=lambda: random
    )
    assert decision.state in MOVES[State.CLAIMED]
    assert 0 <= wait(decision) <= 990
    assert free <= decision.tries.free <= free + 1
    assert paid <= decision.tries.paid <= paid + 1


def test_every_kind_of_error_is_in_one_class() -> None:
    classes = [FREE, MAYBE_BILLED, ITEM_IS_BAD, ANSWER_IS_BAD, PROFILE_IS_REFUSED, MONEY_IS_GONE]
    assert sorted(kind for group in classes for kind in group) == sorted(ErrorKind)


def test_what_the_breaker_counts_is_about_the_service_not_the_item() -> None:
    assert not DOWN & (ITEM_IS_BAD | PROFILE_IS_REFUSED | MONEY_IS_GONE | {ErrorKind.RATE_LIMITED})

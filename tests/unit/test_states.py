"""Which moves of an item are legal."""

from __future__ import annotations

import pytest

from batchrun.states import MOVES, OPEN, TERMINAL, State, sources


@pytest.mark.parametrize("state", [State.DONE, State.TRUNCATED])
def test_a_retry_is_the_only_way_out_of_an_answer(state: State) -> None:
    assert MOVES[state] == {State.PENDING, State.BLOCKED}


@pytest.mark.parametrize("state", [State.FAILED, State.CANCELLED])
def test_an_item_that_ended_without_an_answer_is_tried_again_or_gets_a_late_one(state: State) -> None:
    assert MOVES[state] - {State.BLOCKED} == {State.PENDING, State.DONE, State.TRUNCATED}


@pytest.mark.parametrize("state", sorted(OPEN))
def test_everything_that_has_not_ended_can_be_cancelled(state: State) -> None:
    assert State.CANCELLED in MOVES[state]


@pytest.mark.parametrize("state", sorted(TERMINAL - {State.CANCELLED}))
def test_what_has_ended_can_not_be_cancelled(state: State) -> None:
    assert State.CANCELLED not in MOVES[state]


def test_every_state_has_a_line_in_the_table() -> None:
    assert set(MOVES) == set(State)


def test_a_blocked_item_is_never_claimed_directly() -> None:
    assert sources(State.CLAIMED) == ["pending", "waiting"]


@pytest.mark.parametrize("target", [State.DONE, State.TRUNCATED])
def test_a_late_answer_ends_an_item_that_was_taken_from_its_worker_and_a_shared_one_an_item_that_waited(
    target: State,
) -> None:
    assert sources(target) == ["blocked", "cancelled", "claimed", "failed", "pending", "waiting"]


def test_only_a_claimed_item_fails_or_one_whose_parts_have() -> None:
    assert sources(State.FAILED) == ["blocked", "claimed"]


def test_a_state_is_its_own_text_in_the_database() -> None:
    assert [str(state) for state in State] == [
        "pending",
        "blocked",
        "claimed",
        "waiting",
        "done",
        "truncated",
        "failed",
        "cancelled",
    ]

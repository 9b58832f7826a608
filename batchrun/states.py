"""The states of an item and the legal moves between them; the only place that knows them.

pending ─► claimed ─► done | truncated | failed
              │  ▲
              ▼  │ next_at has passed
            waiting
waiting                  also with an answer that `max_tokens` cut, while its rest is asked for; if that never comes,
                         the item ends as truncated
pending ─► blocked       where another item asks the same
blocked ─► pending       when what it waits for is done, or was in vain
blocked ─► done | truncated   with the answer of the item that asked the same
blocked ─► failed        when a part that it merges has ended without an answer
any state that isn't terminal ─► cancelled
failed | cancelled ─► done | truncated   by a late answer: of a worker that was thought dead, or of a call that was in
                                         flight when its item was cancelled; it is paid for, so it is kept
failed | truncated | cancelled ─► pending   by `retry`, the last two only when named
done ─► pending          by `retry` when named, and only where the answer doesn't fit the job's schema
pending | waiting | done | truncated | failed ─► blocked   by `retry` of a part that it merges
"""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    PENDING = "pending"
    BLOCKED = "blocked"
    CLAIMED = "claimed"
    WAITING = "waiting"
    DONE = "done"
    TRUNCATED = "truncated"
    FAILED = "failed"
    CANCELLED = "cancelled"


MOVES: dict[State, frozenset[State]] = {
    State.PENDING: frozenset({State.BLOCKED, State.CLAIMED, State.CANCELLED, State.DONE, State.TRUNCATED}),
    State.BLOCKED: frozenset({State.PENDING, State.DONE, State.TRUNCATED, State.FAILED, State.CANCELLED}),
    State.CLAIMED: frozenset(
        {State.PENDING, State.WAITING, State.DONE, State.TRUNCATED, State.FAILED, State.CANCELLED}
    ),
    State.WAITING: frozenset({State.BLOCKED, State.CLAIMED, State.CANCELLED, State.DONE, State.TRUNCATED}),
    State.DONE: frozenset({State.BLOCKED, State.PENDING}),
    State.TRUNCATED: frozenset({State.BLOCKED, State.PENDING}),
    State.FAILED: frozenset({State.BLOCKED, State.PENDING, State.DONE, State.TRUNCATED}),
    State.CANCELLED: frozenset({State.PENDING, State.DONE, State.TRUNCATED}),
}
"""From each state, where to. A late answer of a worker that was thought dead finishes an item from `pending`,
`waiting` or `failed`."""

TERMINAL = frozenset({State.DONE, State.TRUNCATED, State.FAILED, State.CANCELLED})
OPEN = frozenset(State) - TERMINAL


def sources(target: State) -> list[str]:
    """The states from which `target` may be reached, for the WHERE of an update."""
    return sorted(state.value for state, targets in MOVES.items() if target in targets)

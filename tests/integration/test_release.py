"""Items that merge the answers of their parts: when they are called, fail, and wait again, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from sqlalchemy import Engine

from batchrun.database import clock, writing
from batchrun.errors import ErrorKind
from batchrun.states import State
from batchrun.store import operate
from batchrun.store.jobs import has_open_items
from batchrun.store.release import Released, release
from batchrun.tables import Record, items
from tests.integration.rows import add_job, add_worker, answered, broken, item_of, opened, store_results, take

PARTS = 3


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    with opened(database_url) as made:
        yield made


def split_job(engine: Engine) -> int:
    """A job whose item `0` merges the other three; returns its id."""
    with writing(engine) as connection:
        job = add_job(connection, size=1 + PARTS)
        merging = connection.execute(sa.select(sa.func.min(items.c.id))).scalar_one()
        connection.execute(sa.update(items).where(items.c.id == merging).values(state="blocked"))
        connection.execute(sa.update(items).where(items.c.id != merging).values(part_of=merging))
    return job


def look(engine: Engine, only: frozenset[int] | None = None) -> Released:
    with writing(engine) as connection:
        return release(connection, only=only)


def merging(engine: Engine) -> Record:
    return item_of(engine, 1)


def end_parts(engine: Engine, *, failing: int = 0, truncated: int = 0) -> None:
    """Call all parts: the last ones fail, those before them are cut."""
    calls = take(engine, add_worker(engine)).calls
    good = calls[: PARTS - failing]
    for number, call in enumerate(good):
        cut = number >= len(good) - truncated
        store_results(engine, answered(call, f"part {call.custom_id}", reason="length" if cut else "stop"))
    for call in calls[PARTS - failing :]:
        store_results(engine, broken(call, state=State.FAILED))


def retry(engine: Engine, *states: State) -> None:
    with writing(engine) as connection:
        operate.locked(connection, [1])
        operate.retry(connection, 1, states=states, kinds=None, names=None, now=clock(connection))


def test_only_the_parts_are_claimed_at_first(engine: Engine) -> None:
    split_job(engine)
    assert [call.custom_id for call in take(engine, add_worker(engine)).calls] == ["1", "2", "3"]


def test_what_merges_waits_while_a_part_is_under_way(engine: Engine) -> None:
    split_job(engine)
    first, *_ = take(engine, add_worker(engine)).calls
    store_results(engine, answered(first))
    assert not look(engine).changed
    assert merging(engine).state == State.BLOCKED


@pytest.mark.parametrize("truncated", [0, 1])
def test_what_merges_is_called_when_all_parts_have_an_answer(engine: Engine, truncated: int) -> None:
    split_job(engine)
    end_parts(engine, truncated=truncated)
    assert look(engine).called == 1
    assert [call.custom_id for call in take(engine, add_worker(engine)).calls] == ["0"]


def test_what_merges_fails_without_a_call_when_a_part_has_failed(engine: Engine) -> None:
    split_job(engine)
    end_parts(engine, failing=2)
    assert look(engine).failed == 1
    found = merging(engine)
    assert (found.state, found.error_kind, found.fence) == (State.FAILED, ErrorKind.PARTS, 0)
    assert found.error == (
        "2 of its 3 parts have no answer: 2 (server), 3 (server); nothing was merged. "
        "`batchrun retry` asks for them again, and merges then"
    )


def test_a_cancelled_part_is_one_without_an_answer(engine: Engine) -> None:
    split_job(engine)
    with writing(engine) as connection:
        job = operate.locked(connection, [1])[1]
        operate.cancel(connection, job, names={"2"})
    calls = take(engine, add_worker(engine)).calls
    store_results(engine, *(answered(call) for call in calls))
    look(engine)
    assert (merging(engine).error or "").startswith("1 of its 3 parts has no answer: 2 (cancelled);")


def test_a_second_look_changes_nothing(engine: Engine) -> None:
    split_job(engine)
    end_parts(engine, failing=1)
    look(engine)
    before = merging(engine)
    assert not look(engine).changed
    assert merging(engine) == before


def test_a_job_of_others_is_left_alone(engine: Engine) -> None:
    job = split_job(engine)
    end_parts(engine)
    assert not look(engine, frozenset({job + 1})).changed
    assert look(engine, frozenset({job})).called == 1


def test_a_failed_part_that_is_retried_makes_what_merges_wait_again(engine: Engine) -> None:
    split_job(engine)
    end_parts(engine, failing=1)
    look(engine)
    retry(engine, State.FAILED)
    found = merging(engine)
    assert (found.state, found.error_kind, found.error) == (State.BLOCKED, None, None)
    (call,) = take(engine, add_worker(engine)).calls
    store_results(engine, answered(call))
    assert look(engine).called == 1


def test_a_summary_of_a_part_that_is_asked_for_again_is_made_again(engine: Engine) -> None:
    split_job(engine)
    end_parts(engine, truncated=1)
    look(engine)
    (call,) = take(engine, add_worker(engine)).calls
    store_results(engine, answered(call, "the summary"))
    assert merging(engine).state == State.DONE
    retry(engine, State.TRUNCATED)
    assert (merging(engine).state, merging(engine).answer_id) == (State.BLOCKED, None)


def test_a_failed_merge_alone_is_called_again(engine: Engine) -> None:
    split_job(engine)
    end_parts(engine)
    look(engine)
    (call,) = take(engine, add_worker(engine)).calls
    store_results(engine, broken(call, state=State.FAILED))
    retry(engine, State.FAILED)
    assert merging(engine).state == State.PENDING


def test_what_merges_is_called_after_all_when_a_late_answer_comes(engine: Engine) -> None:
    split_job(engine)
    calls = take(engine, add_worker(engine)).calls
    store_results(engine, *(answered(call) for call in calls[:2]))
    with writing(engine) as connection:
        connection.execute(sa.update(items).where(items.c.id == calls[2].item_id).values(state="failed"))
    look(engine)
    assert merging(engine).state == State.FAILED
    store_results(engine, answered(calls[2], "late"))
    assert look(engine).called == 1
    assert (merging(engine).state, merging(engine).error) == (State.PENDING, None)


def test_cancelling_the_job_cancels_what_merges(engine: Engine) -> None:
    split_job(engine)
    with writing(engine) as connection:
        job = operate.locked(connection, [1])[1]
        operate.cancel(connection, job, names=None)
        assert not has_open_items(connection, frozenset([1]))
    assert merging(engine).state == State.CANCELLED


def test_two_looks_at_once_release_once(engine: Engine) -> None:
    split_job(engine)
    end_parts(engine)
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(look, [engine] * 4))
    assert sum(one.called for one in made) == 1
    worker = add_worker(engine)
    assert len(take(engine, worker).calls + take(engine, worker).calls) == 1

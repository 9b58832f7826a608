"""Continued answers in the database: who gets the text so far, whose answer counts, and what survives a failure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy import Engine

from batchrun.database import reading, writing
from batchrun.errors import ErrorKind
from batchrun.reports.cost import cost_by, totals
from batchrun.reports.results import results
from batchrun.spill import restore, spill
from batchrun.states import State
from batchrun.store import operate
from batchrun.store.claim import Call, Claimed, claim
from batchrun.store.finish import Result
from batchrun.stream.continuing import Continuing, Prefix
from batchrun.tables import answers
from tests.integration.rows import (
    MOST,
    add_job,
    add_worker,
    answered,
    broken,
    item_of,
    job_of,
    opened,
    reap,
    store_results,
    take,
)

BOTH = Continuing(broken=True, cut=True)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    with opened(database_url) as engine:
        yield engine


@pytest.fixture
def worker(engine: Engine) -> str:
    return add_worker(engine)


@pytest.fixture
def job(engine: Engine) -> int:
    with writing(engine) as connection:
        return add_job(connection, size=1)


def most(_job: int, _item: object, prefix: Prefix | None) -> Decimal:
    """Of which the text that is sent along is nine tenths."""
    return MOST / 10 if prefix is None else MOST


def take_on(engine: Engine, worker: str, rule: Continuing | None = BOTH) -> Claimed:
    """A claim for a job that continues by `rule`."""
    with writing(engine) as connection:
        return claim(connection, worker=worker, room=9, only=None, reserve=most, continuing=lambda _job, _item: rule)


def one(engine: Engine, worker: str, rule: Continuing | None = BOTH) -> Call:
    (call,) = take_on(engine, worker, rule).calls
    return call


def behind(call: Call, result: Result) -> Result:
    """The result as it is made of a call that continues a text."""
    assert call.prefix is not None
    assert result.answer is not None
    text = call.prefix.text + result.answer.text
    return replace(result, answer=replace(result.answer, text=text, continues=call.prefix.attempt_id))


def cut(call: Call, text: str) -> Result:
    """An answer that `max_tokens` cut and that will be continued."""
    return replace(
        answered(call, text, reason="length"), state=State.WAITING, paid_tries=call.paid_tries + 1, next_at=call.send_at
    )


def text_of(engine: Engine, job: int) -> tuple[str, str | None]:
    with reading(engine) as connection:
        (item,) = results(connection, job_of(engine, job))
    return item.state, item.text


# Who gets the text so far


def test_the_next_call_of_the_item_gets_what_arrived(engine: Engine, worker: str, job: int) -> None:
    first = one(engine, worker)
    assert first.prefix is None
    store_results(engine, broken(first, text="A quiet "))
    assert one(engine, worker).prefix == Prefix(attempt_id=first.attempt_id, text="A quiet ")


def test_a_job_that_continues_nothing_asks_anew(engine: Engine, worker: str, job: int) -> None:
    store_results(engine, broken(one(engine, worker), text="A quiet "))
    assert one(engine, worker, None).prefix is None
    assert take(engine, worker).calls == []


def test_a_second_break_leaves_both_parts_to_the_third_call(engine: Engine, worker: str, job: int) -> None:
    store_results(engine, broken(one(engine, worker), text="A quiet "))
    second = one(engine, worker)
    store_results(engine, behind(second, broken(second, ErrorKind.NETWORK, text="street, ")))
    assert one(engine, worker).prefix == Prefix(attempt_id=second.attempt_id, text="A quiet street, ")


def test_a_call_that_brought_nothing_leaves_the_text_of_the_one_before(engine: Engine, worker: str, job: int) -> None:
    first = one(engine, worker)
    store_results(engine, broken(first, text="A quiet "))
    store_results(engine, broken(one(engine, worker)))
    assert one(engine, worker).prefix == Prefix(attempt_id=first.attempt_id, text="A quiet ")


@pytest.mark.parametrize(
    "more",
    [{"reasoning": "Hm."}, {"tool_calls": [{"id": "a", "type": "function"}]}],
    ids=["thought", "called a tool"],
)
def test_a_text_with_something_beside_it_is_not_handed_on(
    engine: Engine, worker: str, job: int, more: dict[str, object]
) -> None:
    result = broken(one(engine, worker), text="A quiet ")
    assert result.answer is not None
    store_results(engine, replace(result, answer=replace(result.answer, **more)))  # type: ignore[arg-type]
    assert one(engine, worker).prefix is None


def test_what_the_vendor_refused_in_the_middle_is_not_continued_by_a_retry(
    engine: Engine, worker: str, job: int
) -> None:
    store_results(engine, broken(one(engine, worker), ErrorKind.MODERATED, state=State.FAILED, text="A quiet "))
    retry(engine, job, State.FAILED)
    assert one(engine, worker).prefix is None


def test_a_retry_of_a_failed_item_goes_on_where_it_had_stopped(engine: Engine, worker: str, job: int) -> None:
    first = one(engine, worker)
    store_results(engine, broken(first, state=State.FAILED, text="A quiet "))
    retry(engine, job, State.FAILED)
    assert one(engine, worker).prefix == Prefix(attempt_id=first.attempt_id, text="A quiet ")


def test_a_retry_of_a_truncated_item_asks_for_the_rest(engine: Engine, worker: str, job: int) -> None:
    first = one(engine, worker)
    store_results(engine, answered(first, "A quiet ", reason="length"))
    retry(engine, job, State.TRUNCATED)
    last = one(engine, worker)
    store_results(engine, behind(last, answered(last, "street.")))
    assert text_of(engine, job) == (State.DONE, "A quiet street.")


def test_a_continued_answer_that_the_database_would_not_take_is_stored_later(
    engine: Engine, worker: str, job: int, tmp_path: Path
) -> None:
    first = one(engine, worker)
    store_results(engine, broken(first, text="A quiet "))
    last = one(engine, worker)
    spill(engine, tmp_path, worker, [behind(last, answered(last, "street."))])
    assert restore(engine, tmp_path) == 1
    assert text_of(engine, job) == (State.DONE, "A quiet street.")
    with reading(engine) as connection:
        named = connection.execute(sa.select(answers.c.continues).where(answers.c.attempt_id == last.attempt_id))
        assert named.scalar_one() == first.attempt_id


def retry(engine: Engine, job: int, state: State) -> None:
    with writing(engine) as connection:
        operate.retry(connection, job, states=[state], kinds=None, names=None, now=datetime.now(UTC))


def test_the_text_that_is_sent_along_is_part_of_the_reservation(engine: Engine, worker: str) -> None:
    with writing(engine) as connection:
        job = add_job(connection, size=1, cap=MOST)
    first = one(engine, worker)
    assert (first.reserved, job_of(engine, job).reserved) == (MOST / 10, MOST / 10)
    store_results(engine, broken(first, text="A quiet "))
    second = one(engine, worker)
    assert (second.reserved, job_of(engine, job).reserved) == (MOST, MOST)


# Whose answer counts


def test_the_attempt_that_completes_the_text_has_the_answer_and_each_has_its_own_part(
    engine: Engine, worker: str, job: int
) -> None:
    first = one(engine, worker)
    store_results(engine, broken(first, text="A quiet "))
    second = one(engine, worker)
    store_results(engine, behind(second, broken(second, text="street, ")))
    last = one(engine, worker)
    store_results(engine, behind(last, answered(last, "at dawn.")))
    with reading(engine) as connection:
        (item,) = results(connection, job_of(engine, job))
    assert (item.state, item.text, item.answer_id) == (State.DONE, "A quiet street, at dawn.", last.attempt_id)
    assert [(attempt.text, attempt.continues) for attempt in item.attempts] == [
        ("A quiet ", None),
        ("street, ", first.attempt_id),
        (None, second.attempt_id),
    ]


def test_the_first_complete_answer_wins_over_a_continuation_that_comes_later(
    engine: Engine, worker: str, job: int
) -> None:
    frozen = add_worker(engine)
    first = one(engine, frozen)
    reap(engine, frozen)
    store_results(engine, broken(one(engine, worker), text="A quiet "))
    last = one(engine, worker)
    store_results(engine, answered(first, "A quiet street."))
    store_results(engine, behind(last, answered(last, "harbour.")))
    assert item_of(engine, first.item_id).answer_id == first.attempt_id
    assert text_of(engine, job) == (State.DONE, "A quiet street.")
    assert spares(engine) == 1


def spares(engine: Engine) -> int:
    with reading(engine) as connection:
        return sum(line.spare for line in totals(cost_by(connection, "job")))


def test_an_item_that_was_cancelled_meanwhile_keeps_the_continued_answer(engine: Engine, worker: str, job: int) -> None:
    store_results(engine, broken(one(engine, worker), text="A quiet "))
    last = one(engine, worker)
    with writing(engine) as connection:
        operate.cancel(connection, job_of(engine, job), names=None)
    store_results(engine, behind(last, answered(last, "street.")))
    assert text_of(engine, job) == (State.DONE, "A quiet street.")


# Answers that were cut


def test_a_cut_answer_is_the_items_until_its_continuation_comes(engine: Engine, worker: str, job: int) -> None:
    first = one(engine, worker)
    store_results(engine, cut(first, "A quiet "))
    item = item_of(engine, first.item_id)
    assert (item.state, item.answer_id, item.paid_tries) == (State.WAITING, first.attempt_id, 1)
    last = one(engine, worker)
    store_results(engine, behind(last, answered(last, "street.")))
    assert text_of(engine, job) == (State.DONE, "A quiet street.")
    assert item_of(engine, last.item_id).answer_id == last.attempt_id


def test_readers_see_no_answer_while_its_rest_is_asked_for(engine: Engine, worker: str, job: int) -> None:
    """Else it would be written to its file, where it would stay."""
    store_results(engine, cut(one(engine, worker), "A quiet "))
    with reading(engine) as connection:
        (item,) = results(connection, job_of(engine, job))
    assert (item.state, item.text, item.answered) == (State.WAITING, None, None)
    assert [attempt.text for attempt in item.attempts] == ["A quiet "]


def test_the_beginning_of_an_answer_is_no_second_answer(engine: Engine, worker: str, job: int) -> None:
    store_results(engine, cut(one(engine, worker), "A quiet "))
    last = one(engine, worker)
    store_results(engine, behind(last, answered(last, "street.")))
    with reading(engine) as connection:
        (line,) = totals(cost_by(connection, "job"))
    assert (line.calls, line.items, line.spare, line.failed, line.continued) == (2, 1, 0, 0, 1)


def test_a_cut_answer_whose_rest_never_comes_stays_what_it_was(engine: Engine, worker: str, job: int) -> None:
    first = one(engine, worker)
    store_results(engine, cut(first, "A quiet "))
    store_results(engine, broken(one(engine, worker), state=State.FAILED))
    item = item_of(engine, first.item_id)
    assert text_of(engine, job) == (State.TRUNCATED, "A quiet ")
    assert (item.answer_id, item.error_kind, item.error) == (first.attempt_id, None, None)


def test_the_death_of_the_last_try_leaves_the_cut_answer(engine: Engine) -> None:
    with writing(engine) as connection:
        job = add_job(connection, size=1, tries=2)
    worker = add_worker(engine)
    store_results(engine, cut(one(engine, worker), "A quiet "))
    one(engine, worker)
    reap(engine, worker)
    assert text_of(engine, job) == (State.TRUNCATED, "A quiet ")


def test_a_cut_answer_of_a_worker_that_was_thought_dead_ends_an_item_that_had_failed(engine: Engine) -> None:
    with writing(engine) as connection:
        job = add_job(connection, size=1, tries=1)
    worker = add_worker(engine)
    call = one(engine, worker)
    reap(engine, worker)
    assert item_of(engine, call.item_id).state == State.FAILED
    store_results(engine, cut(call, "A quiet "))
    assert text_of(engine, job) == (State.TRUNCATED, "A quiet ")


def test_a_cut_answer_of_such_a_worker_does_not_move_an_item_that_another_holds(
    engine: Engine, worker: str, job: int
) -> None:
    frozen = add_worker(engine)
    call = one(engine, frozen)
    reap(engine, frozen)
    held = one(engine, worker)
    store_results(engine, cut(call, "A quiet "))
    item = item_of(engine, call.item_id)
    assert (item.state, item.owner, item.fence) == (State.CLAIMED, worker, held.fence)
    store_results(engine, answered(held, "A street."))
    assert text_of(engine, job) == (State.DONE, "A street.")


def test_storing_the_same_results_twice_changes_nothing(engine: Engine, worker: str, job: int) -> None:
    first = cut(one(engine, worker), "A quiet ")
    store_results(engine, first)
    last = one(engine, worker)
    store_results(engine, first)
    store_results(engine, behind(last, answered(last, "street.")))
    store_results(engine, first)
    with reading(engine) as connection:
        rows = connection.execute(sa.select(answers.c.text).order_by(answers.c.attempt_id)).scalars().all()
    assert list(rows) == ["A quiet ", "A quiet street."]
    assert text_of(engine, job) == (State.DONE, "A quiet street.")

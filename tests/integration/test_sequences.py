"""Claims, results, deaths and repetitions in any order: what must hold after each step."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from decimal import Decimal

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Engine

from batchrun.database import writing
from batchrun.errors import ErrorKind
from batchrun.states import State
from batchrun.store import jobs as store
from batchrun.store import workers
from batchrun.store.claim import Call, claim
from batchrun.store.finish import Result, finish
from batchrun.tables import answers, attempts, items, jobs, usage
from tests.integration.rows import MOST, add_job, answered, broken, charged, counted, opened, unsent

D = Decimal
SIZE = 6
CAP = 14 * MOST
HOW = ["answered", "cut", "refused", "in doubt", "bad", "unsent"]


@pytest.fixture
def engine(sqlite_url: str) -> Iterator[Engine]:
    with opened(sqlite_url) as engine:
        yield engine


class Sequences(RuleBasedStateMachine):
    """One job under a cap, three workers. All of it is one transaction, which is rolled back at the end.

    Reaped calls stay among those in flight: their workers are slow, not dead, and may come back with a result.
    """

    engine: Engine

    def __init__(self) -> None:
        super().__init__()
        self.connection = self.engine.connect()
        self.transaction = self.connection.begin()
        self.in_flight: list[Call] = []
        self.stored: list[Result] = []
        self.bill: dict[int, Decimal] = {}
        """What the provider charges for each attempt."""
        self.ids: Iterator[int] = itertools.count()

    def teardown(self) -> None:
        self.transaction.rollback()
        self.connection.close()

    @initialize()
    def load(self) -> None:
        self.job = add_job(self.connection, size=SIZE, cap=CAP, tries=3)
        self.workers = [workers.register(self.connection, lease=60.0) for _ in range(3)]

    @rule(who=st.integers(0, 2), room=st.integers(1, 4), thousandths=st.integers(0, 10))
    def claim(self, who: int, room: int, thousandths: int) -> None:
        claimed = claim(
            self.connection, worker=self.workers[who], room=room, only=None, reserve=lambda _job, _item, _prefix: MOST
        )
        self.in_flight += claimed.calls
        self.bill |= {call.attempt_id: D(thousandths) / 1000 for call in claimed.calls}

    @precondition(lambda self: self.in_flight)
    @rule(which=st.integers(0, 100), how=st.sampled_from(HOW))
    def end(self, which: int, how: str) -> None:
        call = self.in_flight.pop(which % len(self.in_flight))
        if how in ("refused", "unsent"):
            self.bill[call.attempt_id] = D(0)
        exact = charged(self.bill[call.attempt_id], used=counted())
        doubt = charged(D(0), call.reserved)
        result = {
            "answered": answered(call, charge=exact),
            "cut": answered(call, charge=exact, reason="length"),
            "refused": broken(call, ErrorKind.RATE_LIMITED),
            "in doubt": broken(call, ErrorKind.NETWORK, text="a ca", charge=doubt),
            "bad": broken(call, ErrorKind.MODERATED, state=State.FAILED, charge=doubt),
            "unsent": unsent(call),
        }[how]
        self.stored.append(result)
        finish(self.connection, [result])

    @precondition(lambda self: self.stored)
    @rule(count=st.integers(1, 5))
    def repeat(self, count: int) -> None:
        finish(self.connection, self.stored[-count:])

    @rule(who=st.integers(0, 2))
    def reap(self, who: int) -> None:
        workers.reap(self.connection, [self.workers[who]])

    @rule()
    def lift(self) -> None:
        store.lift_pauses(self.connection, [self.job])

    @invariant()
    def every_item_is_somewhere(self) -> None:
        """Nothing is lost, and what is claimed has one open attempt and an owner."""
        assert sum(store.count_states(self.connection, self.job).values()) == SIZE
        claimed = self.ids_of(sa.select(items.c.id).where(items.c.state == "claimed"))
        owned = self.ids_of(sa.select(items.c.id).where(items.c.owner.is_not(None)))
        opened = self.ids_of(sa.select(attempts.c.item_id).where(attempts.c.outcome == "open"))
        assert claimed == owned
        assert set(claimed) <= set(opened)

    @invariant()
    def one_answer_for_each_item_that_has_one(self) -> None:
        ended = self.ids_of(sa.select(items.c.id).where(items.c.state.in_(["done", "truncated"])))
        complete = (
            sa.select(items.c.id)
            .join(attempts, attempts.c.id == items.c.answer_id)
            .join(answers, answers.c.attempt_id == attempts.c.id)
            .where(attempts.c.item_id == items.c.id, attempts.c.outcome == "complete", answers.c.complete)
        )
        assert ended == self.ids_of(complete)
        assert ended == self.ids_of(sa.select(items.c.id).where(items.c.answer_id.is_not(None)))

    @invariant()
    def no_answer_was_thrown_away(self) -> None:
        wanted = sorted(result.call.attempt_id for result in self.stored if result.outcome == "complete")
        assert self.ids_of(sa.select(answers.c.attempt_id).where(answers.c.complete)) == wanted

    @invariant()
    def the_bill_lies_within_the_ledger(self) -> None:
        rows = self.connection.execute(sa.select(usage.c.attempt_id, usage.c.cost_low, usage.c.cost_high)).all()
        for attempt, low, high in rows:
            assert low <= self.bill[attempt] <= high
        closed = self.ids_of(sa.select(attempts.c.id).where(attempts.c.outcome != "open"))
        booked = {attempt for attempt, _, _ in rows}
        assert all(self.bill[attempt] == 0 for attempt in closed if attempt not in booked)

    @invariant()
    def the_sums_of_the_job_are_those_of_its_attempts(self) -> None:
        job = self.connection.execute(sa.select(jobs).where(jobs.c.id == self.job)).one()
        held = sa.select(sa.func.sum(attempts.c.reserved)).where(attempts.c.outcome == "open")
        spent = sa.select(sa.func.sum(usage.c.cost_high))
        assert job.reserved == (self.connection.execute(held).scalar() or 0)
        assert job.spent == (self.connection.execute(spent).scalar() or 0)
        assert job.spent + job.reserved <= CAP

    def ids_of(self, wanted: sa.Select[int]) -> list[int]:
        return sorted(self.connection.execute(wanted).scalars())


@pytest.mark.timeout(600)  # a failure is made small first, which takes minutes
def test_the_invariants_hold_in_any_order_of_events(engine: Engine) -> None:
    bound = type("Bound", (Sequences,), {"engine": engine})
    run_state_machine_as_test(
        bound,
        settings=settings(
            max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
    with writing(engine) as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(items)).scalar() == 0

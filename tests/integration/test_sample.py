"""Samples: which items are called, which are not, and what a later run still has to buy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

import pytest
import sqlalchemy as sa
from sqlalchemy import Engine

from batchrun.database import reading, writing
from batchrun.running import RunEnd, run
from batchrun.store.claim import SELECT_DUE_SAMPLED
from batchrun.store.jobs import add_items
from batchrun.store.sample import PAGE, draw
from batchrun.tables import EPOCH, items
from tests.integration.rows import add_job, new_item, opened
from tests.integration.running import Bench, check_money, fresh, job


def sampled(bench: Bench, ids: list[int], size: int) -> RunEnd:
    with reading(bench.engine) as connection:
        sample = draw(connection, ids, size)
    return run(bench.engine, ids, bench.catalogue, bench.settings, sample=sample)


def done(bench: Bench, job_id: int) -> set[str]:
    return {row.custom_id for row in bench.items_of(job_id) if row.state == "done"}


def test_a_sample_is_bought_once_and_later_runs_buy_the_rest(bench: Bench) -> None:
    ids = bench.load(job("sampled", 40), job("small", 3))
    calls = [len(bench.book())]
    seen = []
    for size in (10, 10, 15):
        end = sampled(bench, ids, size)
        calls.append(len(bench.book()))
        seen.append(done(bench, ids[0]))
        assert (end.jobs[0].states, end.jobs[0].outside_sample) == ({"done": size}, {"pending": 40 - size})
        assert (end.jobs[1].states, end.jobs[1].outside_sample) == ({"done": 3}, {})
        assert end.exit_code == 0
    assert [after - before for before, after in pairwise(calls)] == [13, 0, 5]
    assert seen[0] == seen[1] < seen[2]
    bench.run(ids)
    assert len(bench.book()) - calls[-1] == 25
    assert bench.states(ids[0]) == {"done": 40}
    check_money(bench, ids)


def test_a_row_that_is_added_with_a_greater_hash_leaves_the_sample_as_it_is(bench: Bench) -> None:
    ids = bench.load(job("grown", 40))
    sampled(bench, ids, 10)
    with writing(bench.engine) as connection:
        add_items(connection, ids[0], [new_item("~last")])  # its hash is greater than those of the others
    before = len(bench.book())
    sampled(bench, ids, 10)
    assert len(bench.book()) == before


def test_what_fails_for_the_moment_is_tried_again_within_the_sample(bench: Bench) -> None:
    fault = fresh("429-first=4+reset-after=3-first=2")
    bench.at(fault)
    ids = bench.load(job("failing", 20, fault=fault))
    end = sampled(bench, ids, 5)
    assert end.jobs[0].states == {"done": 5}
    assert bench.states(ids[0]) == {"done": 5, "pending": 15}


def test_an_item_of_the_sample_that_failed_makes_the_exit_code_and_stays_in_the_sample(bench: Bench) -> None:
    fault = fresh("400-once")
    bench.at(fault)
    ids = bench.load(job("refused", 12, fault=fault))
    ends = [sampled(bench, ids, 3), sampled(bench, ids, 3)]
    assert [(end.exit_code, Counter(end.jobs[0].states)["failed"]) for end in ends] == [(1, 3), (1, 3)]
    assert [end.tally.calls for end in ends] == [3, 0]


def test_a_failure_outside_of_the_sample_is_not_its_failure(bench: Bench) -> None:
    ids = bench.load(job("elsewhere", 12))
    sampled(bench, ids, 4)
    with writing(bench.engine) as connection:
        connection.execute(
            sa.update(items).where(items.c.job_id == ids[0], items.c.state == "pending").values(state="failed")
        )
    assert sampled(bench, ids, 4).exit_code == 0


def test_a_sample_obeys_the_budget(bench: Bench) -> None:
    ids = bench.load(job("capped", 12, budget={"max_cost": "0.0001 USD"}))
    end = sampled(bench, ids, 4)
    assert (end.exit_code, end.jobs[0].paused, len(bench.book())) == (3, "budget", 0)


def test_cancelled_items_are_not_drawn(bench: Bench) -> None:
    ids = bench.load(job("cancelled", 12))
    with reading(bench.engine) as connection:
        first = draw(connection, ids, 6)[ids[0]]
    with writing(bench.engine) as connection:
        connection.execute(sa.update(items).where(items.c.id.in_(first)).values(state="cancelled"))
    assert sampled(bench, ids, 6).jobs[0].states == {"done": 6}


def test_what_waits_for_an_item_outside_of_the_sample_holds_nobody_up(bench: Bench) -> None:
    ids = bench.load(job("blocked", 12))
    with reading(bench.engine) as connection:
        first, *_ = draw(connection, ids, 12)[ids[0]]
    with writing(bench.engine) as connection:
        connection.execute(sa.update(items).where(items.c.id == first).values(state="blocked"))
    assert sampled(bench, ids, 3).jobs[0].states == {"done": 2, "blocked": 1}


def test_a_sample_of_thousands_is_claimed_whole(sqlite_bench: Bench) -> None:
    ids = sqlite_bench.load(job("large", PAGE + 300))
    end = sampled(sqlite_bench, ids, PAGE + 200)
    assert (end.jobs[0].states, end.jobs[0].outside_sample) == ({"done": PAGE + 200}, {"pending": 100})


@pytest.fixture
def empty(database_url: str) -> Iterator[Engine]:
    with opened(database_url) as engine:
        yield engine


def test_a_job_without_items_has_an_empty_sample(empty: Engine) -> None:
    with writing(empty) as connection:
        job_id = add_job(connection, size=0)
        assert draw(connection, [job_id], 5) == {job_id: []}


@pytest.mark.parametrize("statement", SELECT_DUE_SAMPLED, ids=["waiting", "pending"])
def test_the_items_of_a_sample_are_found_by_their_ids(sqlite_url: str, statement: sa.Select[tuple[object]]) -> None:
    with opened(sqlite_url) as engine, writing(engine) as connection:
        add_job(connection, size=20_000)
        text = str(
            statement.params(ids=[1, 2], wanted=9, now=EPOCH).compile(
                engine, compile_kwargs={"render_postcompile": True}
            )
        )
        rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", (0,) * text.count("?"))
        assert "SEARCH items USING INTEGER PRIMARY KEY" in "\n".join(str(row[-1]) for row in rows)

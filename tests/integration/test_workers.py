"""Workers that die, stand still or come back, and what becomes of their calls."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from decimal import Decimal
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy import Connection, Engine

from batchrun.beat import Beat
from batchrun.catalogue import Catalogue, load_catalogue
from batchrun.database import clock, reading, writing
from batchrun.errors import ErrorKind, UsageError
from batchrun.reports.facts import facts
from batchrun.roster import Roster, plan_for_calls, require_media
from batchrun.settings import Settings, read_settings
from batchrun.simulated import with_address
from batchrun.store import workers
from batchrun.store.finish import finish
from batchrun.store.jobs import jobs_with_work
from batchrun.store.workers import LOST_MESSAGE, Reaped, process_started
from batchrun.tables import Record, items, prices
from batchrun.tables import workers as worker_rows
from tests.integration.rows import (
    MOST,
    add_job,
    add_worker,
    answered,
    attempt_of,
    broken,
    item_of,
    job_of,
    opened,
    reap,
    reserving,
    states_of,
    store_results,
    take,
    usage_of,
    wait_for_a_lock,
)

D = Decimal

LEASE = 60.0


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    with opened(database_url) as engine:
        yield engine


@pytest.fixture
def worker(engine: Engine) -> str:
    return add_worker(engine)


def make_job(engine: Engine, **values: object) -> int:
    with writing(engine) as connection:
        return add_job(connection, **values)  # type: ignore[arg-type]  # columns


def worker_of(engine: Engine, worker: str) -> Record:
    with reading(engine) as connection:
        return connection.execute(sa.select(worker_rows).where(worker_rows.c.id == worker)).one()


def test_a_worker_is_alone_until_another_one_starts_and_after_it_has_ended(engine: Engine, worker: str) -> None:
    seen = []
    with writing(engine) as connection:
        seen.append(workers.is_alone(connection, worker))
        other = workers.register(connection, lease=60.0)
        seen.append(workers.is_alone(connection, worker))
        workers.end(connection, other)
        seen.append(workers.is_alone(connection, worker))
    assert seen == [True, False, True]


def change_worker(engine: Engine, worker: str, **values: object) -> None:
    with writing(engine) as connection:
        connection.execute(sa.update(worker_rows).where(worker_rows.c.id == worker).values(**values))


def beat(engine: Engine, worker: str) -> None:
    with writing(engine) as connection:
        workers.beat(connection, worker)


def beats(engine: Engine) -> dict[str, int]:
    with reading(engine) as connection:
        return {worker: heard.beats for worker, heard in workers.beats(connection).items()}


def dead_here(engine: Engine) -> list[str]:
    with reading(engine) as connection:
        return workers.dead_here(connection)


# The calls of a dead worker


def test_the_items_of_a_dead_worker_can_be_claimed_again(engine: Engine, worker: str) -> None:
    make_job(engine, size=2)
    before = [call.item_id for call in take(engine, worker).calls]
    assert reap(engine, worker) == Reaped(workers=1, calls=2)
    assert [call.item_id for call in take(engine, add_worker(engine)).calls] == before


def test_a_lost_call_says_so(engine: Engine, worker: str) -> None:
    make_job(engine, size=1)
    call = take(engine, worker).calls[0]
    reap(engine, worker)
    attempt, item = attempt_of(engine, call.attempt_id), item_of(engine, call.item_id)
    assert (attempt.outcome, attempt.error_kind, attempt.error) == ("lost", "lost", LOST_MESSAGE)
    assert (item.owner, item.error_kind, item.error) == (None, "lost", LOST_MESSAGE)


def test_calls_that_a_worker_holds_without_knowing_are_handed_back(engine: Engine, worker: str) -> None:
    job = make_job(engine, size=2)
    known, unknown = take(engine, worker).calls
    store_results(engine, answered(known))
    with writing(engine) as connection:
        assert workers.give_back(connection, worker) == 1
        assert workers.give_back(connection, worker) == 0
    assert states_of(engine, job) == {"done": 1, "pending": 1}
    assert (attempt_of(engine, known.attempt_id).outcome, attempt_of(engine, unknown.attempt_id).outcome) == (
        "complete",
        "unsent",
    )
    assert usage_of(engine, unknown.attempt_id) is None
    assert job_of(engine, job).reserved == 0
    assert [call.item_id for call in take(engine, worker).calls] == [unknown.item_id]


def test_what_a_lost_call_may_have_cost_is_in_the_ledger(engine: Engine, worker: str) -> None:
    make_job(engine, size=1)
    call = take(engine, worker).calls[0]
    reap(engine, worker)
    row = usage_of(engine, call.attempt_id)
    assert row is not None
    assert (row.cost_low, row.cost_high, row.currency, row.input_tokens) == (D(0), MOST, "USD", None)
    assert (row.at, row.provider, row.region, row.model) == (call.claimed_at, "p", "r", "m")


def test_the_reservation_of_a_lost_call_counts_as_spent(engine: Engine, worker: str) -> None:
    job = make_job(engine, size=3)
    take(engine, worker)
    reap(engine, worker)
    row = job_of(engine, job)
    assert (row.reserved, row.spent) == (D(0), 3 * MOST)


def test_the_cap_holds_over_lost_calls(engine: Engine, worker: str) -> None:
    make_job(engine, size=3, cap=D("0.025"))
    assert len(take(engine, worker).calls) == 2
    reap(engine, worker)
    assert take(engine, add_worker(engine)).calls == []


def test_a_lost_call_of_unknown_price_has_a_usage_row_without_costs(engine: Engine, worker: str) -> None:
    job = make_job(engine, size=1)
    call = take(engine, worker, reserve=reserving(None)).calls[0]
    reap(engine, worker)
    row = usage_of(engine, call.attempt_id)
    assert row is not None
    assert (row.cost_low, row.cost_high, row.currency) == (None, None, None)
    assert job_of(engine, job).spent == D(0)


def test_lost_items_go_behind_all_others(engine: Engine, worker: str) -> None:
    """If an item is what kills workers, everything else is done first."""
    make_job(engine, size=4)
    take(engine, worker, 2)
    reap(engine, worker)
    assert [call.custom_id for call in take(engine, add_worker(engine)).calls] == ["2", "3", "0", "1"]


def test_a_lost_call_uses_up_a_paid_try(engine: Engine, worker: str) -> None:
    make_job(engine, size=1)
    take(engine, worker)
    reap(engine, worker)
    call = take(engine, add_worker(engine)).calls[0]
    assert (call.paid_tries, call.free_tries) == (1, 0)


def test_an_item_that_keeps_killing_its_workers_fails(engine: Engine) -> None:
    job = make_job(engine, size=1, tries=3)
    deaths = 0
    while calls := take(engine, victim := add_worker(engine)).calls:
        assert len(calls) == 1
        reap(engine, victim)
        deaths += 1
    assert (deaths, states_of(engine, job)) == (3, {"failed": 1})


def test_reaping_twice_changes_nothing(engine: Engine, worker: str) -> None:
    job = make_job(engine, size=2)
    take(engine, worker)
    reap(engine, worker)
    assert reap(engine, worker).calls == 0
    assert (job_of(engine, job).spent, states_of(engine, job)) == (2 * MOST, {"pending": 2})


def test_calls_that_were_finished_are_not_lost(engine: Engine, worker: str) -> None:
    job = make_job(engine, size=3)
    first, second, _ = take(engine, worker).calls
    store_results(engine, answered(first), broken(second))
    assert reap(engine, worker).calls == 1
    assert states_of(engine, job) == {"done": 1, "waiting": 1, "pending": 1}


def test_calls_of_the_living_stay(engine: Engine, worker: str) -> None:
    job, other = make_job(engine, size=3), add_worker(engine)
    take(engine, worker, 1)
    take(engine, other)
    reap(engine, worker)
    assert states_of(engine, job) == {"pending": 1, "claimed": 2}


def test_nobody_dead_nothing_reaped(engine: Engine) -> None:
    assert reap(engine) == Reaped(workers=0, calls=0)


def test_a_worker_that_ends_settles_what_it_still_has_open(engine: Engine, worker: str) -> None:
    job = make_job(engine, size=1)
    take(engine, worker)
    with writing(engine) as connection:
        workers.end(connection, worker)
    assert states_of(engine, job) == {"pending": 1}
    assert worker not in beats(engine)


def test_items_of_several_jobs_are_settled_each_with_its_own(engine: Engine, worker: str) -> None:
    one, other = make_job(engine, name="one", size=1), make_job(engine, name="other", size=2, tries=1)
    take(engine, worker)
    reap(engine, worker)
    assert (states_of(engine, one), states_of(engine, other)) == ({"pending": 1}, {"failed": 2})
    assert [job_of(engine, job).spent for job in (one, other)] == [MOST, 2 * MOST]


# Two at once


def reaped(connection: Connection, dead: str) -> Reaped:
    return workers.reap(connection, [dead])


def test_two_reapers_settle_a_dead_worker_once(postgres_url: str) -> None:
    with opened(postgres_url) as engine:
        job, dead = make_job(engine, size=2), add_worker(engine)
        take(engine, dead)
        with ThreadPoolExecutor(1) as pool, writing(engine) as connection:
            assert reaped(connection, dead).calls == 2
            second = pool.submit(reap, engine, dead)
            wait_for_a_lock(engine)
            connection.commit()
            assert second.result().calls == 0
        assert job_of(engine, job).spent == 2 * MOST


def test_a_result_that_is_being_stored_is_not_reaped(postgres_url: str) -> None:
    with opened(postgres_url) as engine:
        job, slow = make_job(engine, size=1), add_worker(engine)
        call = take(engine, slow).calls[0]
        with ThreadPoolExecutor(1) as pool, writing(engine) as connection:
            finish(connection, [answered(call)])
            reaper = pool.submit(reap, engine, slow)
            wait_for_a_lock(engine)
            connection.commit()
            assert reaper.result().calls == 0
        assert states_of(engine, job) == {"done": 1}


def test_a_result_that_comes_while_its_worker_is_reaped_is_kept(postgres_url: str) -> None:
    with opened(postgres_url) as engine:
        job, slow = make_job(engine, size=1), add_worker(engine)
        call = take(engine, slow).calls[0]
        with ThreadPoolExecutor(1) as pool, writing(engine) as connection:
            reaped(connection, slow)
            late = pool.submit(store_results, engine, answered(call))
            wait_for_a_lock(engine)
            connection.commit()
            late.result()
        assert states_of(engine, job) == {"done": 1}


# Who is dead


def test_a_worker_registers_this_process(engine: Engine, worker: str) -> None:
    row = worker_of(engine, worker)
    assert (row.pid, row.host, row.ended_at, row.beat) == (os.getpid(), socket.gethostname(), None, 0)


def test_every_start_is_another_worker(engine: Engine, worker: str) -> None:
    assert add_worker(engine) != worker


def test_this_process_is_not_dead(engine: Engine, worker: str) -> None:
    assert dead_here(engine) == []


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that waits, and ends with the test."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def test_a_worker_whose_process_is_gone_is_dead(engine: Engine, worker: str, child: subprocess.Popen[bytes]) -> None:
    change_worker(engine, worker, pid=child.pid, pid_started=process_started(child.pid))
    assert dead_here(engine) == []
    child.kill()
    child.wait()
    assert dead_here(engine) == [worker]


def test_a_zombie_is_dead(engine: Engine, worker: str, child: subprocess.Popen[bytes]) -> None:
    change_worker(engine, worker, pid=child.pid, pid_started=process_started(child.pid))
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert dead_here(engine) == [worker]


def test_another_process_under_the_same_number_is_not_the_worker(
    engine: Engine, worker: str, child: subprocess.Popen[bytes]
) -> None:
    change_worker(engine, worker, pid=child.pid)
    assert dead_here(engine) == [worker]


def test_nobody_here_judges_the_processes_of_another_machine(engine: Engine, worker: str) -> None:
    change_worker(engine, worker, host="elsewhere", pid=2**22 + 1)
    assert dead_here(engine) == []


def test_nobody_here_judges_the_processes_of_another_container(engine: Engine, worker: str) -> None:
    """Containers may share the name of their host, and then have other processes under the same numbers."""
    change_worker(engine, worker, pid=2**22 + 1, pid_started="another-boot:4026531836:123")
    assert dead_here(engine) == []


def test_a_worker_that_ended_is_not_dead_again(engine: Engine, worker: str) -> None:
    change_worker(engine, worker, pid=2**22 + 1)
    reap(engine, worker)
    assert dead_here(engine) == []


# The beat


@pytest.fixture
def watch(engine: Engine) -> Beat:
    """A beat that isn't running, to look through its eyes."""
    return Beat(engine, lambda _: None, lease=LEASE)


def heard(count: int, lease: float = LEASE) -> workers.Heard:
    return workers.Heard(count, lease)


def seen_since(watch: Beat, worker: str, count: int, seconds: float) -> None:
    watch.pulse.seen[worker] = (count, time.monotonic() - seconds)


def test_a_counter_that_stands_still_for_a_minute_is_that_of_a_dead_worker(watch: Beat) -> None:
    seen_since(watch, "w", 5, LEASE + 1)
    assert watch.silent({"w": heard(5)}) == ["w"]


def test_before_a_minute_is_over_nobody_is_dead(watch: Beat) -> None:
    seen_since(watch, "w", 5, LEASE - 1)
    assert watch.silent({"w": heard(5)}) == []


def test_a_counter_that_moved_is_alive(watch: Beat) -> None:
    seen_since(watch, "w", 5, LEASE + 1)
    assert watch.silent({"w": heard(6)}) == []


def test_who_is_seen_for_the_first_time_has_a_minute(watch: Beat) -> None:
    assert watch.silent({"w": heard(5)}) == []


def test_who_has_ended_is_forgotten(watch: Beat) -> None:
    seen_since(watch, "w", 5, LEASE + 1)
    watch.silent({})
    assert watch.silent({"w": heard(5)}) == []


def test_after_a_gap_of_its_own_an_observer_takes_nobody_for_dead() -> None:
    pulse = workers.Pulse(LEASE)
    assert pulse.silent({"w": heard(5)}, 0.0, blind=30.0) == []
    assert pulse.silent({"w": heard(5)}, 100.0, blind=30.0) == []  # it stood still itself, or the database did
    assert pulse.silent({"w": heard(5)}, 125.0, blind=30.0) == []
    assert pulse.silent({"w": heard(5)}, 150.0, blind=30.0) == []
    assert pulse.silent({"w": heard(5)}, 165.0, blind=30.0) == ["w"]  # looked at all the time, and silent for a lease


def test_a_worker_with_a_longer_lease_may_be_silent_for_as_long(watch: Beat) -> None:
    seen_since(watch, "w", 5, LEASE + 1)
    assert watch.silent({"w": heard(5, lease=2 * LEASE)}) == []
    seen_since(watch, "w", 5, 2 * LEASE + 1)
    assert watch.silent({"w": heard(5, lease=2 * LEASE)}) == ["w"]


def test_a_worker_says_what_its_lease_is(database_url: str) -> None:
    with opened(database_url) as engine, Beat(engine, lambda _: None, lease=7.5) as beat, reading(engine) as connection:
        assert workers.beats(connection) == {beat.worker: (0, 7.5)}


def test_nobody_declares_himself_dead(watch: Beat) -> None:
    watch.worker = "me"
    seen_since(watch, "me", 5, LEASE + 1)
    assert watch.silent({"me": heard(5)}) == []


def test_a_beat_counts(engine: Engine, worker: str) -> None:
    beat(engine, worker)
    beat(engine, worker)
    assert beats(engine) == {worker: 2}


def test_a_worker_that_was_taken_for_dead_comes_back_with_its_next_beat(engine: Engine, worker: str) -> None:
    reap(engine, worker)
    assert beats(engine) == {}
    beat(engine, worker)
    assert beats(engine) == {worker: 1}


def test_a_worker_that_came_back_may_claim(engine: Engine, worker: str) -> None:
    make_job(engine, size=1)
    take(engine, worker)
    reap(engine, worker)
    beat(engine, worker)
    assert take(engine, worker).calls[0].fence == 2


def test_a_starting_process_takes_over_from_the_dead_of_its_host(engine: Engine, worker: str) -> None:
    job = make_job(engine, size=2)
    take(engine, worker)
    change_worker(engine, worker, pid=2**22 + 1)
    found: list[Reaped] = []
    with Beat(engine, found.append, lease=LEASE) as watch:
        assert states_of(engine, job) == {"pending": 2}
        assert list(beats(engine)) == [watch.worker]
    assert found == [Reaped(workers=1, calls=2)]


def test_a_process_that_stops_is_no_worker_any_more(engine: Engine) -> None:
    with Beat(engine, lambda _: None, lease=LEASE):
        assert len(beats(engine)) == 1
    assert beats(engine) == {}


def test_a_late_failure_after_a_death_uses_up_one_try_only(engine: Engine, worker: str) -> None:
    make_job(engine, size=1)
    call = take(engine, worker).calls[0]
    reap(engine, worker)
    store_results(engine, broken(call, ErrorKind.NETWORK))
    assert item_of(engine, call.item_id).paid_tries == 1


# What a machine can't do


def planned(connection: Connection, job: Record, catalogue: Catalogue, settings: Settings) -> None:
    plan = plan_for_calls(connection, job, catalogue, settings, now=clock(connection))
    require_media(connection, job, plan)


def test_a_machine_says_what_it_lacks_for_a_job(engine: Engine, worker: str, tmp_path: Path) -> None:
    spec = {
        "name": "j",
        "provider": "simulator/model-studio-singapore",
        "model": "qwen3-vl-plus",
        "prompt": "x",
        "inputs": {"images": "photos"},
    }
    with writing(engine) as connection:
        job = add_job(connection, spec=spec, media_root=str(tmp_path / "gone"))
        connection.execute(sa.update(items).values(media=[{"kind": "image", "path": "a.jpg"}]))
    settings = read_settings({"BATCHRUN_SIMULATOR_KEY": "sk-sim-0123456789"}, tmp_path)
    for url, code in ((None, "no-simulator"), ("http://127.0.0.1:9", "no-media-root")):
        known = with_address(load_catalogue(), url)
        with writing(engine) as connection:
            row = jobs_with_work(connection)[0]
            with pytest.raises(UsageError) as raised:
                planned(connection, row, known, settings)
        assert raised.value.code == code
    roster = Roster(catalogue=with_address(load_catalogue(), None), settings=settings)
    with writing(engine) as connection:
        assert roster.choose(connection, worker) == frozenset()
    with reading(engine) as connection:
        told = facts(connection, [job])[job].unable
    assert len(told) == 1
    assert "simulator/model-studio-singapore has no address here" in told[0]


def test_prices_of_a_claim_that_came_to_nothing_are_appended_anew(engine: Engine, worker: str) -> None:
    spec = {
        "name": "j",
        "provider": "simulator/model-studio-singapore",
        "model": "qwen3-vl-plus",
        "prompt": "x",
        "inputs": {"items": [{"id": "a"}]},
    }
    with writing(engine) as connection:
        job = add_job(connection, spec=spec)
    settings = read_settings({"BATCHRUN_SIMULATOR_KEY": "sk-sim-0123456789"}, Path("/"))
    roster = Roster(catalogue=with_address(load_catalogue(), "http://127.0.0.1:9"), settings=settings)
    with suppress(ZeroDivisionError), writing(engine) as connection:
        assert roster.choose(connection, worker) == {job}
        raise ZeroDivisionError
    with writing(engine) as connection:
        assert roster.choose(connection, worker) == {job}
        stored = set(connection.scalars(sa.select(prices.c.id)))
    assert set(roster.plan(job).price_ids.values()) == stored != set()

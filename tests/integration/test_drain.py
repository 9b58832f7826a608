"""The drain as a whole: killed, stopped, doubled, held back, and what must hold after each of it."""

from __future__ import annotations

import gc
import signal
import threading
import time
from collections import Counter
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from batchrun.drain import Stop
from batchrun.pacing import limits
from batchrun.running import RunEnd
from batchrun.tables import answers, attempts, items, profiles, usage, workers
from tests.both_databases import on_every_database
from tests.integration.running import (
    PATIENCE,
    REGION,
    Bench,
    check,
    ended,
    fresh,
    job,
    open_files,
    opened_bench,
    running_simulator,
    wait_until,
)

pytestmark = pytest.mark.usefixtures("nothing_left_behind")

SLOW = "ttft=0.2+tps=150+chunks=20"
"""An answer that takes 0.6 s: 0.2 s to the first token, and 60 tokens."""
ENDLESS = "ttft=0.05+tps=10+chunks=200"
"""An answer that takes a minute."""


def calls_seen(bench: Bench) -> int:
    """Requests that the simulator has answered or is answering, for this bench alone where it has its own."""
    return bench.simulator.stats().requests


# Killed.


def kill_after(bench: Bench, ids: list[int], calls: int) -> None:
    """Run the jobs in a process of its own, and kill it when it has made so many more calls."""
    goal = calls_seen(bench) + calls
    process = bench.drainer(ids)
    wait_until(lambda: calls_seen(bench) >= goal or process.poll() is not None, "the drain has made its calls")
    process.send_signal(signal.SIGKILL)
    process.communicate()


KILLS = (3, 25, 40)
"""Calls after which each of the processes is killed."""
WIDTH = 8


def test_killed_again_and_again_it_loses_nothing_and_buys_little_twice(database_url: str, tmp_path: Path) -> None:
    with (
        running_simulator(ttft=0.05, tokens_per_second=400) as simulator,
        opened_bench(database_url, tmp_path, simulator, "429-pct=5-once+reset-after=3-pct=5-once") as bench,
    ):
        settings = {"limits": {"concurrency": WIDTH}, "retry": {"attempts": 20}}
        ids = bench.load(
            job("killed", 100, **settings),
            job("killed-with-faults", 60, fault="429-pct=5-once+reset-after=3-pct=5-once", **settings),
        )
        for calls in KILLS:
            kill_after(bench, ids, calls)
        end = bench.run(ids)
        in_flight = 2 * WIDTH * len(KILLS)
        lost = [row for row in bench.rows(attempts) if row.outcome == "lost"]
        assert [one.states for one in end.jobs] == [{"done": 100}, {"done": 60}]
        assert 0 < len(lost) <= in_flight
        assert all(row.error_kind == "lost" and "may have been billed" in row.error for row in lost)
        check(bench, *ids, after_kills=in_flight)


def test_each_call_that_a_kill_interrupted_is_in_the_ledger_with_its_bounds(bench: Bench) -> None:
    bench.at(ENDLESS)
    ids = bench.load(job("interrupted", 4, fault=ENDLESS))
    process = bench.drainer(ids)
    wait_until(lambda: bench.simulator.stats().open == 4, "all calls are in flight")
    process.kill()
    process.communicate()
    stop = Stop()
    stop.level = 1
    bench.run(ids, stop=stop)
    lost = {row.id: row for row in bench.rows(attempts)}
    lines = bench.rows(usage)
    assert {row.outcome for row in lost.values()} == {"lost"}
    assert {line.attempt_id for line in lines} == lost.keys()
    assert all(line.cost_low == 0 < line.cost_high == lost[line.attempt_id].reserved for line in lines)
    assert all(line.input_tokens is None for line in lines)
    assert bench.states(ids[0]) == {"pending": 4}


def test_a_dead_process_is_noticed_by_the_next_one_at_once(bench: Bench) -> None:
    bench.at(fresh("ttft=20-first=3"))
    fault = next(name for name in bench.faults() if name.startswith("ttft=20"))
    ids = bench.load(job("noticed", 3, fault=fault))
    process = bench.drainer(ids)
    wait_until(lambda: bench.simulator.stats().open == 3, "all calls are in flight")
    process.kill()
    process.communicate()
    end = bench.run(ids)
    assert (end.tally.reaped, end.jobs[0].states) == (3, {"done": 3})
    assert end.seconds < 10
    assert {row.paid_tries for row in bench.items_of(ids[0])} == {1}


# Doubled.


def test_two_processes_share_the_work_and_no_call_is_made_twice(database_url: str, tmp_path: Path) -> None:
    with running_simulator(ttft=0.5) as simulator, opened_bench(database_url, tmp_path, simulator) as bench:
        ids = bench.load(job("shared", 400))
        processes = [bench.drainer(ids) for _ in range(2)]
        done = [ended(process) for process in processes]
        made = Counter(row.worker_id for row in bench.rows(attempts))
        assert sorted(made.values()) == sorted(counts["calls"] for counts in done)
        assert (len(made), sum(made.values())) == (2, 400)
        assert simulator.stats().max_open <= limits.DEFAULT_CONCURRENCY
        check(bench, *ids)


@on_every_database
def test_running_a_finished_job_again_calls_nobody(bench: Bench) -> None:
    ids = bench.load(job("finished", 5))
    ends = [bench.run(ids) for _ in range(3)]
    assert [end.tally.calls for end in ends] == [5, 0, 0]
    assert [end.exit_code for end in ends] == [0, 0, 0]
    check(bench, *ids)


def test_loading_the_same_job_again_adds_nothing(sqlite_bench: Bench) -> None:
    spec = job("loaded-twice", 5)
    first, second = sqlite_bench.loaded(spec)[0], sqlite_bench.loaded(spec)[0]
    assert (first.added, second.added, second.unchanged, first.job_id) == (5, 0, 5, second.job_id)


# Stopped.


def stopped(bench: Bench, ids: list[int], stops: int, *, in_flight: int, grace: float = 60.0) -> RunEnd:
    """A run that is asked to stop when so many calls are in flight."""
    stop = Stop()
    before = bench.simulator.stats().open
    with bench.running(ids, stop, grace) as run:
        wait_until(lambda: bench.simulator.stats().open - before >= in_flight, "calls are in flight")
        time.sleep(0.3)  # the first words have arrived
        for _ in range(stops):
            stop.ask()
        return run.result(PATIENCE)


def test_stopped_once_it_lets_the_calls_in_flight_finish(bench: Bench) -> None:
    bench.at(SLOW)
    ids = bench.load(job("stopped-once", 30, fault=SLOW, limits={"concurrency": 4}))
    end = stopped(bench, ids, 1, in_flight=4)
    states = bench.states(ids[0])
    assert 4 <= states["done"] <= 8
    assert states == {"done": states["done"], "pending": 30 - states["done"]}
    assert (end.interrupted, end.exit_code, end.tally.maybe_billed) == (True, 130, 0)
    assert {row.outcome for row in bench.rows(attempts)} == {"complete"}


def test_stopped_once_it_gives_back_what_was_not_sent(bench: Bench) -> None:
    """The slots of a whole second are taken with the first call; some of them are still to come."""
    bench.at(SLOW)
    ids = bench.load(job("given-back", 20, fault=SLOW))
    with bench.engine.begin() as connection:
        connection.execute(profiles.update().values(requests_per_minute=300))
    stop = Stop()
    with bench.running(ids, stop) as run:
        wait_until(lambda: len(bench.rows(attempts)) >= 4, "the slots of the next second are taken")
        stop.ask()
        end = run.result(PATIENCE)
    outcomes = Counter(row.outcome for row in bench.rows(attempts))
    assert outcomes["unsent"] >= 1
    assert outcomes["complete"] == end.tally.calls == len(bench.book())
    assert all(row.sent_at is None for row in bench.rows(attempts) if row.outcome == "unsent")
    assert {(row.free_tries, row.paid_tries) for row in bench.items_of(ids[0])} == {(0, 0)}
    assert bench.job_row(ids[0]).reserved == 0


def test_stopped_twice_it_hangs_up_and_says_what_may_have_been_billed(bench: Bench) -> None:
    bench.at(ENDLESS)
    ids = bench.load(job("stopped-twice", 10, fault=ENDLESS, limits={"concurrency": 4}))
    end = stopped(bench, ids, 2, in_flight=4)
    made = bench.rows(attempts)
    assert end.seconds < 10
    assert (end.exit_code, end.tally.maybe_billed) == (130, 4)
    assert {(row.outcome, row.error_kind) for row in made} == {("lost", "lost")}
    assert bench.states(ids[0]) == {"pending": 10}
    assert {row.paid_tries for row in bench.items_of(ids[0])} == {0}


def test_stopped_twice_it_keeps_the_words_that_had_arrived(sqlite_bench: Bench) -> None:
    sqlite_bench.at(ENDLESS)
    ids = sqlite_bench.load(job("half-said", 3, fault=ENDLESS))
    stopped(sqlite_bench, ids, 2, in_flight=3)
    kept = sqlite_bench.rows(answers)
    assert len(kept) == 3
    assert all(row.text.startswith("You wrote") and not row.complete for row in kept)
    assert all(line.cost_low == 0 < line.cost_high for line in sqlite_bench.rows(usage))


def test_after_its_grace_a_stopped_run_does_not_wait_longer(sqlite_bench: Bench) -> None:
    sqlite_bench.at(ENDLESS)
    ids = sqlite_bench.load(job("no-grace", 2, fault=ENDLESS))
    end = stopped(sqlite_bench, ids, 1, in_flight=2, grace=0.5)
    assert end.seconds < 8
    assert end.tally.maybe_billed == 2


def test_a_stopped_job_goes_on_where_it_was(bench: Bench) -> None:
    slow = fresh("ttft=20-first=4")
    bench.at(slow)
    ids = bench.load(job("resumed", 12, fault=slow, limits={"concurrency": 4}))
    stopped(bench, ids, 2, in_flight=4)
    end = bench.run(ids)
    assert (end.exit_code, end.jobs[0].states) == (0, {"done": 12})
    check(bench, *ids, after_kills=4)


def test_a_stop_before_the_start_calls_nobody(sqlite_bench: Bench) -> None:
    stop = Stop()
    stop.ask()
    ids = sqlite_bench.load(job("never-started", 5))
    end = sqlite_bench.run(ids, stop=stop)
    assert (end.exit_code, end.tally.calls, sqlite_bench.rows(attempts)) == (130, 0, [])


@pytest.mark.parametrize("signals", [1, 2])
def test_a_signal_stops_the_process(bench: Bench, signals: int) -> None:
    bench.at(ENDLESS if signals == 2 else SLOW)
    ids = bench.load(job(f"signalled-{signals}", 8, fault=ENDLESS if signals == 2 else SLOW, limits={"concurrency": 4}))
    process = bench.drainer(ids)
    wait_until(lambda: bench.simulator.stats().open >= 4, "calls are in flight")
    for _ in range(signals):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.05)
    assert ended(process)["exit"] == 130
    assert not bench.rows(attempts, attempts.c.outcome == "open")
    assert not bench.rows(workers, workers.c.ended_at.is_(None))


# Held back.


@pytest.mark.parametrize("width", [1, 5])
def test_no_more_calls_are_open_than_the_job_allows(sqlite_url: str, tmp_path: Path, width: int) -> None:
    with (
        running_simulator(ttft=0.03, tokens_per_second=0) as simulator,
        opened_bench(sqlite_url, tmp_path, simulator) as bench,
    ):
        bench.go(job("narrow", 10 * width, limits={"concurrency": width}))
        assert simulator.stats().max_open == width


def test_two_jobs_of_a_profile_share_its_concurrency(sqlite_url: str, tmp_path: Path) -> None:
    with (
        running_simulator(ttft=0.05, tokens_per_second=0) as simulator,
        opened_bench(sqlite_url, tmp_path, simulator) as bench,
    ):
        ids = bench.load(job("one", 40), job("other", 40))
        with bench.engine.begin() as connection:
            connection.execute(profiles.update().values(concurrency=6))
        bench.run(ids)
        assert simulator.stats().max_open == 6


def rate(bench: Bench) -> float:
    """Requests per second, from the first to the last."""
    times = sorted(row.time for row in bench.book())
    return (len(times) - 1) / (times[-1] - times[0]).total_seconds()


def busiest_second(bench: Bench) -> int:
    times = sorted(row.time for row in bench.book())
    return max(sum(start <= other < start + timedelta(seconds=1) for other in times) for start in times)


def test_a_limit_per_minute_is_kept_in_every_second_and_used(database_url: str, tmp_path: Path) -> None:
    """1,200 a minute are 20 a second; the server refuses the 26th."""
    with (
        running_simulator(limits=True, rpm=1_200) as simulator,
        opened_bench(database_url, tmp_path, simulator) as bench,
    ):
        end = bench.go(job("paced", 80, limits={"requests_per_minute": 1_200}))
        assert simulator.stats().by_status == {"200": 80}
        assert busiest_second(bench) <= 24
        assert rate(bench) >= 0.85 * 20
        assert end.exit_code == 0


def test_two_processes_share_one_limit(sqlite_url: str, tmp_path: Path) -> None:
    with running_simulator(limits=True, rpm=1_200) as simulator, opened_bench(sqlite_url, tmp_path, simulator) as bench:
        ids = bench.load(job("paced-twice", 80, limits={"requests_per_minute": 1_200}))
        for process in [bench.drainer(ids) for _ in range(2)]:
            ended(process)
        assert simulator.stats().by_status == {"200": 80}
        assert busiest_second(bench) <= 24
        assert rate(bench) >= 0.8 * 20


def gaps(bench: Bench) -> list[float]:
    """Seconds between the refusal of a request and its repetition."""
    first: dict[str, float] = {}
    found = []
    for row in sorted(bench.book(), key=lambda row: row.time):
        moment = row.time.timestamp()
        if row.body_sha256 in first:
            found.append(moment - first[row.body_sha256])
        first[row.body_sha256] = moment
    return found


@pytest.mark.parametrize("hint", ["retry-after=2", "retry-after-ms=2000"])
def test_the_servers_wish_is_obeyed(sqlite_bench: Bench, hint: str) -> None:
    fault = f"429-once-{hint}"
    sqlite_bench.at(fault)
    sqlite_bench.go(job("asked-to-wait", 6, fault=fault))
    waited = gaps(sqlite_bench)
    assert len(waited) == 6
    assert all(2.0 <= wait <= 2.2 + 1.0 for wait in waited), waited


@pytest.mark.parametrize(
    ("fault", "state", "calls"), [("400-once-should-retry=true", "done", 2), ("429-should-retry=false", "failed", 1)]
)
def test_the_servers_word_on_trying_again_is_obeyed(sqlite_bench: Bench, fault: str, state: str, calls: int) -> None:
    sqlite_bench.at(fault)
    (told,) = sqlite_bench.load(job("told", 2, fault=fault))
    sqlite_bench.run([told])
    assert sqlite_bench.states(told) == {state: 2}
    assert len(sqlite_bench.attempts_of(told)) == 2 * calls


@pytest.mark.parametrize("hint", ["retry-after=-5", "retry-after=soon", "retry-after=nan", "retry-after=0", ""])
def test_a_wish_that_makes_no_sense_is_no_obstacle(sqlite_bench: Bench, hint: str) -> None:
    fault = "-".join(filter(None, ["429-once", hint]))
    sqlite_bench.at(fault)
    end = sqlite_bench.go(job("asked-nonsense", 4, fault=fault))
    assert end.exit_code == 0
    assert all(wait <= 2.5 for wait in gaps(sqlite_bench))


def test_an_endless_wish_is_capped(sqlite_bench: Bench) -> None:
    fault = "429-once-retry-after=999999999"
    sqlite_bench.at(fault)
    ids = sqlite_bench.load(job("asked-for-years", 1, fault=fault))
    stop = Stop()
    with sqlite_bench.running(ids, stop) as run:
        wait_until(lambda: bool(sqlite_bench.rows(items, items.c.state == "waiting")), "the item waits")
        stop.ask()
        run.result(PATIENCE)
    (item,) = sqlite_bench.items_of(ids[0])
    (attempt,) = sqlite_bench.attempts_of(ids[0])
    assert timedelta(minutes=15) <= item.next_at - attempt.ended_at <= timedelta(minutes=17)


def test_an_outage_costs_time_and_no_tries(sqlite_bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service has no capacity for its first 20 calls. Ten failures open the breaker, with up to five more calls in
    flight by then; after that one call at a time looks whether it is over."""
    pause = timedelta(seconds=0.4)
    monkeypatch.setattr(limits, "BREAKER_FIRST", pause)
    monkeypatch.setattr(limits, "BREAKER_LAST", pause)
    fault = fresh("503-first=20")
    sqlite_bench.at(fault)
    ids = sqlite_bench.load(job("outage", 30, fault=fault, limits={"concurrency": 5}))
    end = sqlite_bench.run(ids)
    refused = sorted(row.time for row in sqlite_bench.book() if row.status == 503)
    probes = [later - earlier for earlier, later in pairwise(refused) if later - earlier > pause * 0.8]
    assert end.jobs[0].states == {"done": 30}
    assert {row.paid_tries for row in sqlite_bench.items_of(ids[0])} == {0}
    assert (len(sqlite_bench.book()), len(refused)) == (50, 20)
    assert len(probes) >= 5


def test_an_address_where_nobody_listens_uses_up_no_tries(sqlite_bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BREAKER_FIRST", timedelta(seconds=0.5))
    with running_simulator() as gone:
        address = gone.base_url(REGION)
    ids = sqlite_bench.load(job("unreachable", 20, limits={"concurrency": 10}))
    found = sqlite_bench.catalogue
    endpoint = found.endpoints["sim/none"]
    sqlite_bench.catalogue = type(found)(endpoints={**found.endpoints, endpoint.name: endpoint.at(address)})
    stop = Stop()
    with sqlite_bench.running(ids, stop) as run:
        wait_until(
            lambda: len(sqlite_bench.rows(attempts, attempts.c.outcome != "open")) >= 11 or run.done(), "it has probed"
        )
        stop.ask()
        run.result(PATIENCE)
    made = sqlite_bench.rows(attempts)
    sqlite_bench.catalogue = found
    assert sqlite_bench.run(ids).jobs[0].states == {"done": 20}
    assert {row.error_kind for row in made if row.outcome == "failed"} == {"not_sent"}
    assert len(made) <= 14
    assert {row.paid_tries for row in sqlite_bench.items_of(ids[0])} == {0}
    assert len(sqlite_bench.rows(usage)) == 20


def test_one_that_waits_does_not_hold_up_the_others(sqlite_bench: Bench) -> None:
    fault = fresh("429-first=1-retry-after=3")
    sqlite_bench.at(fault)
    sqlite_bench.go(job("one-waits", 20, fault=fault, limits={"concurrency": 2}))
    times = sorted(row.time for row in sqlite_bench.book())
    assert (times[-2] - times[0]).total_seconds() < 2
    assert (times[-1] - times[0]).total_seconds() >= 3


# What is left of a process.


def test_files_and_threads_are_back_where_they_were(sqlite_bench: Bench) -> None:
    """The second run finds all pools and caches as the first one left them."""
    warm = sqlite_bench.load(job("warm", 30))
    sqlite_bench.run(warm)
    before = (open_files(), threading.active_count())
    ids = sqlite_bench.load(job("again", 300))
    sqlite_bench.run(ids)
    assert (open_files(), threading.active_count()) == before
    check(sqlite_bench, *warm, *ids)


def test_calls_leave_no_objects_behind(sqlite_bench: Bench) -> None:
    sqlite_bench.go(job("counted", 200))
    gc.collect()
    of_a_call = {"Call", "ClientResponse", "Exchange", "Fold", "Live", "Result", "Task"}
    assert [found for found in gc.get_objects() if type(found).__name__ in of_a_call] == []

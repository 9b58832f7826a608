"""`mode: batch-chat`: where the calls go, what they cost, and how a job changes to it and back."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from decimal import Decimal

import pytest

from batchrun.database import reading, writing
from batchrun.drain import Stop
from batchrun.errors import CatalogueError, ChangedError
from batchrun.jobfile.spec import JobSpec
from batchrun.reports.cost import cost_by
from batchrun.reports.facts import facts
from batchrun.reports.results import results
from batchrun.simulated import with_address
from batchrun.simulator import BookRow
from batchrun.store import workers
from batchrun.store.claim import claim
from batchrun.tables import jobs, prices, usage
from tests.integration.running import Bench, check_reservations, job, wait_until

SIMULATED = "simulator/model-studio-beijing"
BATCH = f"{SIMULATED}-batch"
REGIONS = {"beijing": SIMULATED, "beijing-batch": BATCH}


@pytest.fixture(autouse=True)
def placed(request: pytest.FixtureRequest) -> None:
    """The simulated endpoints of the catalogue at their addresses."""
    made: Bench = request.getfixturevalue("bench" if "bench" in request.fixturenames else "sqlite_bench")
    made.catalogue = with_address(made.catalogue, made.simulator.url)


def batch_job(name: str, prompts: list[str] | int, **settings: object) -> JobSpec:
    return job(name, prompts, provider=SIMULATED, **{"mode": "batch-chat", **settings})


def booked(bench: Bench) -> dict[str, list[BookRow]]:
    """What the simulator has booked since the bench was made, by provider."""
    rows = bench.simulator.book()[bench.first_row :]
    return {provider: [row for row in rows if row.region == region] for region, provider in REGIONS.items()}


def bills(bench: Bench) -> dict[str, tuple[int, Decimal]]:
    return {
        provider: (len(rows), sum((row.amount for row in rows if row.amount is not None), Decimal(0)))
        for provider, rows in booked(bench).items()
        if rows
    }


def reported(bench: Bench) -> dict[str, tuple[int, Decimal | None]]:
    with reading(bench.engine) as connection:
        lines = cost_by(connection, "provider")
    assert all(line.cost_low == line.cost_high for line in lines)
    return {line.key: (line.calls, line.cost_low) for line in lines}


def test_the_report_tells_both_apart_and_each_is_what_was_booked(bench: Bench) -> None:
    texts = [f"The {word} of both modes." for word in ("first", "second", "third")]
    thinking = {"enabled": True, "budget": 50}
    online = batch_job("online", texts, mode="online", thinking=thinking)
    held = batch_job("held", texts, thinking=thinking, budget={"max_cost": "1.00 USD"})
    end = bench.go(online, held)
    assert end.exit_code == 0
    assert reported(bench) == bills(bench)
    (ordinary, full), (batch, half) = reported(bench)[SIMULATED], reported(bench)[BATCH]
    assert (ordinary, batch, full) == (3, 3, 2 * (half or 0))
    assert [row.stream for row in booked(bench)[BATCH]] == [False] * 3
    check_reservations(bench)


def test_a_call_is_booked_with_a_price_row_of_its_own(bench: Bench) -> None:
    bench.go(batch_job("held", 1), batch_job("online", 1, mode="online"))
    paid = {row.id: row for row in bench.rows(prices)}
    assert {row.region: paid[row.price_id].output for row in bench.rows(usage)} == {
        "model-studio-beijing": Decimal("1.434"),
        "model-studio-beijing-batch": Decimal("0.717"),
    }


def test_a_job_changes_its_mode_between_calls(bench: Bench) -> None:
    rows = [f"Row {number} of a night and a morning." for number in range(5)]
    [job_id] = bench.load(batch_job("captions", rows[:3]))
    bench.run([job_id])
    by_night = bench.job_row(job_id)
    [loaded] = bench.loaded(batch_job("captions", rows, mode="online"))
    by_day = bench.job_row(job_id)
    assert (loaded.added, loaded.unchanged, loaded.changed) == (2, 3, ["mode"])
    assert (by_night.region, by_day.region) == ("model-studio-beijing-batch", "model-studio-beijing")
    assert by_night.profile_id != by_day.profile_id
    bench.run([job_id])
    assert bench.states(job_id) == Counter(done=5)
    assert reported(bench) == bills(bench)
    assert {provider: calls for provider, (calls, _) in bills(bench).items()} == {BATCH: 3, SIMULATED: 2}
    with reading(bench.engine) as connection:
        assert [one.provider for one in results(connection, by_day)] == [BATCH] * 3 + [SIMULATED] * 2
    check_reservations(bench)


def test_a_job_with_calls_in_flight_keeps_its_mode(bench: Bench) -> None:
    spec = batch_job("captions", 3)
    [job_id] = bench.load(spec)
    with writing(bench.engine) as connection:
        worker = workers.register(connection, lease=60.0)
        claim(connection, worker=worker, room=2, only=None, reserve=lambda _job, _item, _prefix: Decimal(0))
    with pytest.raises(ChangedError) as raised:
        bench.load(spec.model_copy(update={"mode": "online", "stream": True}))
    assert raised.value.code == "mode-in-flight"
    assert raised.value.message == "job 'captions' has 2 calls in flight, so its mode can't be changed to online"
    assert bench.job_row(job_id).region == "model-studio-beijing-batch"
    with reading(bench.engine) as connection:
        assert facts(connection, [job_id])[job_id].batch_chat
    with writing(bench.engine) as connection:
        workers.reap(connection, [worker])
    bench.load(spec.model_copy(update={"mode": "online", "stream": True}))
    assert [row.region for row in bench.rows(usage)] == ["model-studio-beijing-batch"] * 2
    with reading(bench.engine) as connection:
        assert not facts(connection, [job_id])[job_id].batch_chat


def test_a_run_that_is_under_way_follows_the_new_mode(sqlite_bench: Bench) -> None:
    """It makes no call with the plan of the mode before."""
    bench = sqlite_bench
    bench.at("ttft=3")
    bench.catalogue = with_address(bench.catalogue, bench.simulator.url)
    spec = batch_job("captions", 4)
    slow, captions = bench.load(job("slow", 1, fault="ttft=3"), spec)
    with writing(bench.engine) as connection:
        connection.execute(jobs.update().where(jobs.c.id == captions).values(paused="user"))
    with bench.running([slow, captions], Stop()) as ended:
        wait_until(lambda: ended.done() or bool(bench.attempts_of(slow)), "the slow call was claimed")
        bench.load(spec.model_copy(update={"mode": "online", "stream": True}))
        with writing(bench.engine) as connection:
            connection.execute(jobs.update().where(jobs.c.id == captions).values(paused=None))
        assert ended.result().exit_code == 0
    assert bench.states(captions) == Counter(done=4)
    assert {provider: len(rows) for provider, rows in booked(bench).items()} == {SIMULATED: 4, BATCH: 0}
    assert {row.region for row in bench.rows(usage, usage.c.job_id == captions)} == {"model-studio-beijing"}


def test_a_run_that_can_not_follow_the_new_mode_ends_when_its_calls_have(sqlite_bench: Bench) -> None:
    """Its catalogue is older than the one that the mode was changed with."""
    bench = sqlite_bench
    bench.at("ttft=3")
    known = with_address(bench.catalogue, bench.simulator.url)
    spec = batch_job("captions", 4, mode="online", stream=True)
    bench.catalogue = replace(known, endpoints={name: one for name, one in known.endpoints.items() if name != BATCH})
    slow, captions = bench.load(job("slow", 1, fault="ttft=3"), spec)
    with writing(bench.engine) as connection:
        connection.execute(jobs.update().where(jobs.c.id == captions).values(paused="user"))
    with bench.running([slow, captions], Stop()) as ended:
        wait_until(lambda: ended.done() or bool(bench.attempts_of(slow)), "the slow call was claimed")
        bench.catalogue = known
        bench.load(spec.model_copy(update={"mode": "batch-chat", "stream": False}))
        with pytest.raises(CatalogueError, match="has no batch chat"):
            ended.result()
    assert (bench.states(slow), bench.states(captions)) == (Counter(done=1), Counter(pending=4))

"""Many workers, one database: everything is called once, whatever happens to brokers and workers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import redis
import sqlalchemy as sa
from celery import Celery
from PIL import Image

from batchrun.api.working import serve
from batchrun.database import reading
from batchrun.errors import UsageError
from batchrun.tables import attempts, items, workers
from tests.both_databases import OLDER_KIND
from tests.workers.fleet import KEY, Broker, Fleet, fleet, flower, genuine_redis, hosts_can_be_named

pytestmark = pytest.mark.timeout(180)
MANY = 10_000


def test_ten_thousand_items_on_two_machines_are_each_called_once_and_cost_what_the_book_says(ships: Fleet) -> None:
    for name in ("one", "two"):
        ships.worker(name)
    job = ships.submit(MANY)
    ships.wait_until_done(job, MANY)
    assert ships.states(job) == {"done": MANY}
    assert ships.calls() == {1: MANY}
    assert Counter(row.body_sha256 for row in ships.simulator.book()).total() == MANY
    with reading(ships.engine) as connection:
        used = connection.execute(sa.select(sa.func.count(attempts.c.worker_id.distinct()))).scalar_one()
    assert used >= 4  # every process of both had its share
    ships.check_money()


def test_a_limit_holds_for_all_workers_together_and_is_used(ships: Fleet) -> None:
    for name in ("one", "two"):
        ships.worker(name)
    job = ships.submit(120, limits="requests_per_minute: 600")
    ships.wait_until_done(job, 120)
    with reading(ships.engine) as connection:
        sent = sorted(
            connection.execute(sa.select(attempts.c.sent_at).where(attempts.c.sent_at.is_not(None))).scalars()
        )
    seconds = [at.timestamp() for at in sent]
    most = max(sum(start <= at < start + 1 for at in seconds) for start in seconds)
    seen = sorted(row.time.timestamp() for row in ships.simulator.book())
    assert most <= 11
    assert max(sum(start <= at < start + 1 for at in seen) for start in seen) <= 13
    assert 119 / (seconds[-1] - seconds[0]) >= 0.9 * 10


def test_a_broker_that_is_emptied_and_goes_away_costs_nothing(ships: Fleet, broker: Broker) -> None:
    for name in ("one", "two"):
        ships.worker(name)
    job = ships.submit(3_000, limits="concurrency: 8, requests_per_minute: 30000")
    ships.wait_for(lambda: ships.states(job)["done"] > 200)
    broker.client().flushall()
    ships.wait_for(lambda: ships.states(job)["done"] > 600)
    broker.stop()
    ships.wait_for(lambda: ships.states(job)["done"] > 1_000)
    broker.start()
    ships.wait_until_done(job, 3_000)
    assert ships.calls() == {1: 3_000}
    later = ships.submit(50, name="later")
    ships.wait_until_done(later, 50)


def test_what_is_submitted_while_the_broker_is_away_is_done_when_it_is_back(ships: Fleet, broker: Broker) -> None:
    ships.worker("one")
    ships.wait_for(lambda: "ready" in ships.log("one"))
    broker.stop()
    job = ships.submit(20)
    assert ships.states(job) == {"pending": 20}
    broker.start()
    ships.wait_until_done(job, 20)
    assert ships.calls() == {1: 20}


def test_a_worker_that_is_killed_and_one_that_freezes_lose_nothing(
    tmp_path: Path, postgres_url: str, broker: Broker
) -> None:
    with fleet(tmp_path, postgres_url, broker.url, ttft=1.0) as ships:
        killed, frozen, _ = (ships.worker(name, 1) for name in ("killed", "frozen", "third"))
        ships.wait_for(lambda: all("ready" in ships.log(name) for name in ("killed", "frozen", "third")))
        job = ships.submit(240, limits="concurrency: 30")
        ships.wait_for(lambda: held_by(ships, 3))
        os.killpg(killed.pid, signal.SIGKILL)
        os.killpg(frozen.pid, signal.SIGSTOP)
        ships.wait_for(lambda: ships.states(job)["done"] > 150)
        os.killpg(frozen.pid, signal.SIGCONT)
        ships.wait_until_done(job, 240)
        ships.wait_for(lambda: ships.simulator.stats().open == 0)
        with reading(ships.engine) as connection:
            answers = connection.execute(sa.select(sa.func.count(items.c.answer_id))).scalar_one()
            lost = connection.execute(sa.select(sa.func.count()).where(attempts.c.outcome == "lost")).scalar_one()
        assert answers == 240
        repeated = sum(count - 1 for count in Counter(row.body_sha256 for row in ships.simulator.book()).values())
        assert repeated <= 30 + lost
        ships.check_money()


def held_by(ships: Fleet, number: int) -> bool:
    """Whether so many workers have calls in flight."""
    with reading(ships.engine) as connection:
        open_calls = sa.select(sa.func.count(attempts.c.worker_id.distinct())).where(attempts.c.outcome == "open")
        return bool(connection.execute(open_calls).scalar_one() >= number)


def test_a_worker_finishes_its_calls_when_it_is_told_to_stop(tmp_path: Path, postgres_url: str, broker: Broker) -> None:
    with fleet(tmp_path, postgres_url, broker.url, ttft=2.0) as ships:
        worker = ships.worker("one")
        job = ships.submit(60, limits="concurrency: 10")
        ships.wait_for(lambda: ships.states(job)["claimed"] >= 10)
        worker.terminate()
        assert worker.wait(60) == 0, ships.log("one")
        states = ships.states(job)
        assert states["claimed"] == 0
        assert 10 <= states["done"] < 60
        assert states["done"] + states["pending"] == 60
        with reading(ships.engine) as connection:
            assert connection.execute(sa.select(sa.func.count()).where(workers.c.ended_at.is_(None))).scalar_one() == 0
        assert ships.calls() == {1: states["done"]}


def test_a_second_signal_stops_it_at_once_and_hands_the_rest_back(
    tmp_path: Path, postgres_url: str, broker: Broker
) -> None:
    with fleet(tmp_path, postgres_url, broker.url, ttft=30.0) as ships:
        worker = ships.worker("one", 1)
        job = ships.submit(20, limits="concurrency: 5")
        ships.wait_for(lambda: len(ships.simulator.book()) + ships.simulator.stats().open >= 5)
        worker.terminate()
        ships.wait_for(lambda: "Warm shutdown" in ships.log("one"))
        worker.terminate()
        assert worker.wait(20) == 0, ships.log("one")
        assert ships.states(job)["claimed"] == 0


FORK = """
import os, threading, time
from batchrun.worker.parent import Parent

parent = Parent(None)
parent.run = lambda: None
parent.thread = threading.Thread(target=parent.run)
parent.start(None)
begun = threading.Event()

def look():
    with parent.looking:
        begun.set()
        time.sleep(0.5)

threading.Thread(target=look).start()
begun.wait()
began = time.monotonic()
child = os.fork()
free = parent.looking.acquire(timeout=1)
if not child:
    os._exit(not free)
print(time.monotonic() - began >= 0.3, free, os.waitpid(child, 0)[1])
"""


def test_no_process_is_forked_while_the_parent_looks_at_the_database(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout == "True True 0\n", done.stderr


def test_processes_of_a_pool_that_are_killed_are_replaced_and_nothing_is_lost(
    tmp_path: Path, postgres_url: str, broker: Broker
) -> None:
    with fleet(tmp_path, postgres_url, broker.url, ttft=0.5) as ships:
        ships.worker("one")
        job = ships.submit(120, limits="concurrency: 20")
        for kill in range(1, 4):
            ships.wait_until_done(job, 20 * kill)
            ships.wait_for(lambda: held_by(ships, 1))
            with reading(ships.engine) as connection:
                pids = connection.execute(sa.select(workers.c.pid).where(workers.c.ended_at.is_(None))).scalars().all()
            os.kill(pids[0], signal.SIGKILL)
        ships.wait_until_done(job, 120)
        ships.check_money()


def test_a_worker_ends_in_time_although_the_broker_is_frozen(tmp_path: Path, postgres_url: str, broker: Broker) -> None:
    with fleet(tmp_path, postgres_url, broker.url, ttft=2.0) as ships:
        worker = ships.worker("one")
        job = ships.submit(40, limits="concurrency: 10")
        ships.wait_for(lambda: ships.states(job)["claimed"] >= 10)
        with broker.frozen():
            worker.terminate()
            assert worker.wait(20) == 0, ships.log("one")
            ships.wait_for(lambda: not has_processes(worker.pid))
        states = ships.states(job)
        assert (states["claimed"], states["done"] + states["pending"]) == (0, 40)
        assert ships.calls() == {1: states["done"]}


def has_processes(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_hints_that_are_forged_do_no_harm(ships: Fleet, broker: Broker) -> None:
    ships.worker("one", 1)
    ships.wait_for(lambda: "ready" in ships.log("one"))
    for nonsense in (b"not json{{{", b"[1, 2]", b"\x80\x04\xff\xfe", b'{"x": 1}'):
        broker.client().lpush("batchrun:batchrun", nonsense)
    with Celery("forger", broker=broker.url, set_as_current=False) as forger:
        forger.conf.broker_transport_options = {"global_keyprefix": "batchrun:"}
        forger.send_task("batchrun.drain", args=["A" * 1_000_000], queue="batchrun")
        forger.send_task("batchrun.drain", kwargs={"job": -1}, queue="batchrun")
        forger.send_task("os.system", args=["touch pwned"], queue="batchrun")
        forger.send_task("batchrun.drain", args=[Path("pwned")], queue="batchrun", serializer="pickle")
    job = ships.submit(20)
    ships.wait_until_done(job, 20)
    assert ships.calls() == {1: 20}
    assert not (ships.folder / "pwned").exists()


def test_a_job_that_a_machine_has_no_key_for_is_left_to_others_and_status_says_so(ships: Fleet) -> None:
    ships.worker("poor", 1, BATCHRUN_SIMULATOR_KEY="")
    job = ships.submit(5)
    ships.wait_for(lambda: "no worker that can do it" in ships.type_in("status").stdout)
    assert "BATCHRUN_SIMULATOR_KEY" in ships.type_in("status").stdout
    assert ships.states(job) == {"pending": 5}
    ships.worker("rich", 1)
    ships.wait_until_done(job, 5)


PICTURES = """
version: 1
jobs:
  - name: pictures
    provider: simulator/model-studio-singapore
    model: qwen3-vl-plus
    inputs: {images: photos/*.png}
    prompt: What is it?
    limits: {concurrency: 4, requests_per_minute: 600}
"""


def test_machines_have_names_and_folders_of_their_own(ships: Fleet) -> None:
    photos = ships.folder / "photos"
    photos.mkdir()
    for shade in range(40):
        Image.new("RGB", (32, 32), (shade, 0, 0)).save(photos / f"{shade}.png")
    (ships.folder / "jobs.yaml").write_text(PICTURES, encoding="utf-8")
    submitted = ships.type_in("submit", "jobs.yaml")
    assert submitted.returncode == 0, submitted.stderr
    shutil.copytree(photos, ships.folder / "disk-of-one")
    photos.rename(ships.folder / "disk-of-two")
    for name in ("one", "two"):
        ships.worker(name, 1, BATCHRUN_MEDIA_ROOT=f"{photos}={ships.folder / f'disk-of-{name}'}")
    ships.wait_until_done(1, 40)
    assert ships.calls() == {1: 40}
    with reading(ships.engine) as connection:
        hosts = connection.execute(sa.select(workers.c.host).join(attempts, attempts.c.worker_id == workers.c.id))
        assert set(hosts.scalars()) == ({"one", "two"} if hosts_can_be_named() else {socket.gethostname()})


@pytest.mark.parametrize("database_kind", ["sqlite", OLDER_KIND], indirect=True)
def test_redis_itself_and_other_databases_will_do(tmp_path: Path, database_url: str) -> None:
    with genuine_redis(tmp_path) as address, fleet(tmp_path, database_url, address) as ships:
        ships.worker("one")
        job = ships.submit(300)
        ships.wait_until_done(job, 300)
        assert ships.calls() == {1: 300}


def test_celery_sees_the_workers_and_their_logs_are_json(ships: Fleet) -> None:
    ships.worker("one")
    ships.wait_for(lambda: "ready" in ships.log("one"))
    lines = [json.loads(line) for line in ships.log("one").splitlines() if line.startswith("{")]
    assert [line["message"] for line in lines if "ready" in line["message"]] == ["one@one ready."]
    assert {tuple(line) for line in lines} == {("time", "level", "logger", "process", "message")}
    seen = ships.celery("inspect", "ping")
    assert "one@one" in seen
    assert "pong" in seen


def test_flower_sees_the_workers_and_their_tasks_and_no_secret(ships: Fleet) -> None:
    with flower(ships) as page:
        ships.worker("one")
        ships.wait_for(
            lambda: "batchrun.drain" in json.dumps(json.loads(page("/api/workers?refresh=1")).get("one@one"))
        )
        job = ships.submit(20)
        ships.wait_until_done(job, 20)
        ships.wait_for(lambda: '"SUCCESS"' in page("/api/tasks"))
        tasks = json.loads(page("/api/tasks")).values()
        assert {(task["name"], task["args"], task["worker"]) for task in tasks} == {("batchrun.drain", "()", "one@one")}
        shown = [
            page(path) for path in ("/api/workers", "/api/tasks", "/workers", "/worker/one@one", "/tasks", "/broker")
        ]
    assert all("one@one" in text for text in shown[:4])
    everything = "".join([*shown, (ships.folder / "flower.log").read_text(encoding="utf-8")])
    assert KEY not in everything
    assert ships.database not in everything
    assert "Say something" not in everything


def test_submit_without_a_broker_loads_nothing(ships: Fleet) -> None:
    (ships.folder / "rows.jsonl").write_text('{"id": "a", "text": "b"}', encoding="utf-8")
    (ships.folder / "jobs.yaml").write_text("version: 1\njobs: []\n", encoding="utf-8")
    refused = ships.type_in("submit", "jobs.yaml", CELERY_BROKER_URL="")
    assert refused.returncode == 2
    assert "error[no-broker]" in refused.stderr


@pytest.mark.parametrize("address", ["http://canary@x", "redis://canary@x:99999/0", "canary", "sqs://canary"])
def test_a_wrong_address_of_a_broker_is_refused_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, sqlite_url: str, address: str
) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", address)
    with pytest.raises(UsageError) as refused:
        serve(database=sqlite_url)
    assert (refused.value.code, "canary" in str(refused.value)) == ("broker-url", False)


def test_a_hint_has_nothing_in_it(ships: Fleet, broker: Broker) -> None:
    ships.submit(3, name="canary-job")
    client = redis.Redis(port=broker.port)
    [message] = client.lrange("batchrun:batchrun", 0, -1)
    assert b"canary" not in message
    assert b'"args": []' in message or b"W1tdLCB7fSwg" in message

"""Workers with RabbitMQ between them."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery

from tests.workers.fleet import fleet
from tests.workers.rabbitmq import RabbitMQ

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def rabbit(tmp_path: Path) -> Iterator[RabbitMQ]:
    folder = tmp_path / "rabbit"
    folder.mkdir()
    made = RabbitMQ(folder)
    try:
        made.start()
        yield made
    finally:
        made.end()


def test_rabbitmq_that_goes_away_and_brings_nonsense_costs_nothing(
    tmp_path: Path, postgres_url: str, rabbit: RabbitMQ
) -> None:
    with fleet(tmp_path, postgres_url, rabbit.url) as ships:
        for name in ("one", "two"):
            ships.worker(name)
        ships.wait_for(lambda: all("ready" in ships.log(name) for name in ("one", "two")))
        assert "guest:guest" not in ships.log("one")
        with (
            Celery("forger", broker=rabbit.url, set_as_current=False) as forger,
            forger.producer_pool.acquire() as producer,
        ):
            for kind in ("application/json", "application/x-python-serialize", "text/plain", None):
                producer.publish(b"\x80\x04{{{", routing_key="batchrun", content_type=kind, content_encoding="binary")
            producer.publish({"task": "os.system", "id": "1"}, routing_key="batchrun", serializer="json")
        job = ships.submit(600, limits="concurrency: 8, requests_per_minute: 3600")
        ships.wait_for(lambda: ships.states(job)["done"] > 60)
        rabbit.stop()
        ships.wait_for(lambda: ships.states(job)["done"] > 180)
        away = ships.submit(20, name="away")
        rabbit.start()
        ships.wait_until_done(job, 600)
        ships.wait_until_done(away, 20)
        later = ships.submit(50, name="later")
        ships.wait_until_done(later, 50)
        assert ships.calls() == {1: 670}
        assert "2 nodes online" in ships.celery("inspect", "ping")
        rabbit.signal(signal.SIGSTOP)
        for worker in ships.workers:
            worker.terminate()
        assert [worker.wait(30) for worker in ships.workers] == [0, 0], ships.log("one")
        ships.check_money()

"""A broker, and fleets of workers on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.workers.fleet import Broker, Fleet, fleet


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    folder = tmp_path / "broker"
    folder.mkdir()
    made = Broker(folder=folder)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def ships(tmp_path: Path, postgres_url: str, broker: Broker) -> Iterator[Fleet]:
    with fleet(tmp_path, postgres_url, broker.url) as made:
        yield made

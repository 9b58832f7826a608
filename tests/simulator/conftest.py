"""One fast simulator for all tests of a process; tests tell their requests apart by their texts."""

from collections.abc import Iterator

import pytest

from batchrun.simulator import Options, Running, start

from .raw import Client


@pytest.fixture(scope="session")
def simulator() -> Iterator[Running]:
    """Answers as fast as possible and without rate limits."""
    with start(Options(ttft=0, tokens_per_second=0, limits=False), environment={}) as running:
        yield running


@pytest.fixture
def client(simulator: Running) -> Client:
    return Client(simulator)

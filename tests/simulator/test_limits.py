"""Rate limits (contract 8.2), with a clock that the test turns."""

from decimal import Decimal

import pytest

from batchrun.simulator import Options, start
from batchrun.simulator.limits import Limits
from batchrun.simulator.refusals import Refusal

from .raw import Client


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def admitted(limits: Limits, count: int, *, tokens: int = 1, model: str = "qwen3-vl-plus") -> int:
    """How many of so many requests get through."""
    passed = 0
    for _ in range(count):
        try:
            limits.admit("virginia", model, tokens)
        except Refusal:
            continue
        passed += 1
    return passed


def test_the_second_takes_a_sixtieth_and_a_slack(clock: Clock) -> None:
    limits = Limits(enforced=True, rpm=600, tpm=None, clock=clock)
    assert admitted(limits, 100) == 13


def test_the_next_second_takes_as_many_again(clock: Clock) -> None:
    limits = Limits(enforced=True, rpm=600, tpm=None, clock=clock)
    admitted(limits, 100)
    clock.now += 1
    assert admitted(limits, 100) == 13


def test_the_minute_takes_its_limit_in_all(clock: Clock) -> None:
    limits = Limits(enforced=True, rpm=None, tpm=None, clock=clock)
    passed = 0
    for _ in range(59):
        passed += admitted(limits, 10)
        clock.now += 1
    assert passed == 60


def test_tokens_per_minute_count_input_and_output(clock: Clock) -> None:
    limits = Limits(enforced=True, rpm=60_000, tpm=1_000, clock=clock)
    admitted(limits, 1, tokens=400)
    limits.add_output("virginia", "qwen3-vl-plus", 500)
    with pytest.raises(Refusal) as caught:
        limits.admit("virginia", "qwen3-vl-plus", 101)
    assert caught.value.code == "insufficient_quota"


def test_tokens_are_free_again_after_a_minute(clock: Clock) -> None:
    limits = Limits(enforced=True, rpm=60_000, tpm=1_000, clock=clock)
    admitted(limits, 1, tokens=1_000)
    clock.now += 60
    assert admitted(limits, 1, tokens=1_000) == 1


def test_models_do_not_share_a_limit(clock: Clock) -> None:
    limits = Limits(enforced=True, rpm=60, tpm=None, clock=clock)
    admitted(limits, 10)
    assert admitted(limits, 10, model="qwen3-vl-flash") == 2


def test_a_request_above_the_limit_gets_429_and_no_bill() -> None:
    with start(Options(ttft=0, tokens_per_second=0, rpm=60), environment={}) as running:
        client = Client(running)
        raws = [client.ask(client.body()) for _ in range(4)]
        assert [raw.status for raw in raws] == [200, 200, 429, 429]
        assert (raws[-1].error["code"], client.row(raws[-1]).amount) == ("limit_requests", Decimal(0))

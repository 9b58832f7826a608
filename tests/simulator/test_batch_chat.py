"""Batch Chat (contract 8.6.2): compat at another host, held, as a whole, at half the price."""

import json
from decimal import Decimal

import pytest

from batchrun.simulator import Options, start

from .raw import Client, tokens

PLACE = "beijing-batch"


@pytest.mark.parametrize("changes", [{}, {"stream": True, "stream_options": {"include_usage": True}}])
def test_there_is_one_complete_answer_whatever_is_said_of_streaming(client: Client, changes: dict[str, object]) -> None:
    raw = client.ask(client.body(**changes), region=PLACE)
    document, row = json.loads(raw.body), client.row(raw)
    assert (raw.status, document["object"], row.stream, row.region) == (200, "chat.completion", False, PLACE)
    assert {key: document["usage"][key] for key in tokens(row)} == tokens(row)


def test_it_costs_half_of_the_ordinary_price(client: Client) -> None:
    body = client.body()
    ordinary, batch = (client.row(client.ask(body, region=region)) for region in ("beijing", PLACE))
    assert batch.billed == ordinary.billed
    assert batch.amount is not None
    assert batch.amount > Decimal(0)
    assert 2 * batch.amount == ordinary.amount


@pytest.mark.parametrize("model", ["qwen3-vl-flash", "kimi-k2.5", "sim-unpriced"])
def test_other_models_are_not_known_there(client: Client, model: str) -> None:
    assert client.ask(client.body(model=model), region=PLACE).status == 404


def test_the_key_is_that_of_beijing(client: Client) -> None:
    assert client.ask(client.body(), region=PLACE, key="sk-sim-beijing").status == 200
    assert client.ask(client.body(), region=PLACE, key="sk-sim-singapore").status == 401


def test_neither_the_rate_limits_nor_the_end_of_plain_answers_hold_there() -> None:
    options = Options(ttft=0.2, tokens_per_second=0, rpm=1, plain_timeout=0.1)
    with start(options, environment={}) as simulator:
        client = Client(simulator)
        found = [client.ask(client.body(), region=PLACE) for _ in range(3)]
        assert [(raw.status, client.row(raw).complete) for raw in found] == [(200, True)] * 3

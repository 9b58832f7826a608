"""AceData from end to end: a bad night, and the report against the simulator's bill book.

The simulator's side was written from the vendor's page alone, without a look at the dialect.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from batchrun.errors import SpecError
from batchrun.simulator import Running
from batchrun.tables import answers, attempts, items
from tests.both_databases import KINDS
from tests.integration.other_providers import BAD_NIGHT, MODEL, booked, by_job, check_arrears, check_run
from tests.integration.running import ACEDATA, KEY, PATIENCE, Bench, job, opened_bench, running_simulator


@pytest.fixture(scope="module", params=KINDS)
def database_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def simulator() -> Iterator[Running]:
    with running_simulator() as started:
        yield started


def message(url: str, body: Mapping[str, object]) -> dict[str, Any]:
    """What the server answers to a plain request."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=PATIENCE)
    try:
        connection.request(
            "POST", f"{address.path}/chat/completions", json.dumps(body), {"authorization": f"Bearer {KEY}"}
        )
        document: dict[str, Any] = json.loads(connection.getresponse().read())["choices"][0]["message"]
        return document
    finally:
        connection.close()


@pytest.fixture(scope="module")
def acedata(module_database_url: str, tmp_path_factory: pytest.TempPathFactory, simulator: Running) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("acedata")
    with opened_bench(module_database_url, folder, simulator, BAD_NIGHT, like=ACEDATA) as bench:
        bench.go(
            job("streamed", 40, model=MODEL, fault=BAD_NIGHT),
            job("plain", 20, model=MODEL, fault=BAD_NIGHT, stream=False),
            job("clean", 5, model=MODEL),
        )
        yield bench


def test_every_item_is_done_and_the_invariants_hold(acedata: Bench) -> None:
    assert {row.state for row in acedata.rows(items)} == {"done"}
    check_run(acedata)


@pytest.mark.parametrize("clause", BAD_NIGHT.split("+"))
def test_the_night_was_a_bad_one(acedata: Bench, clause: str) -> None:
    """Else the other tests would say nothing."""
    name = clause.partition("=")[0].removesuffix("-pct")
    assert [row for row in acedata.book() if name in row.hit]


def test_counts_the_tokens_of_the_book(acedata: Bench) -> None:
    pairs = booked(acedata)
    assert len(pairs) > 50
    assert {line.cached_tokens for line, _ in pairs} == {None}  # an empty object says nothing, and nothing isn't zero
    for line, row in pairs:
        assert (line.input_tokens, line.output_tokens) == (row.billed.input, row.billed.output)


def test_an_unknown_price_is_counted_as_unknown(acedata: Bench) -> None:
    lines = by_job(acedata)
    for line in lines.values():
        assert (line.currency, line.cost_low, line.cost_high, line.exact) == (None, None, None, False)
    unknown_to_the_book = sum(row.amount is None for row in acedata.book())
    assert 65 <= unknown_to_the_book <= sum(line.unknown_cost for line in lines.values())
    assert lines["clean"].unknown_cost == lines["clean"].calls == 5


def test_text_keeps_its_blank_and_thinking_is_stored_once(acedata: Bench, simulator: Running) -> None:
    told = {row.attempt_id: row for row in acedata.rows(answers)}
    for item in acedata.rows(items):
        answer = told[item.answer_id]
        body = {"model": MODEL, "messages": [{"role": "user", "content": item.variables["text"]}], "max_tokens": 300}
        expected = message(simulator.acedata_url(), body)
        assert expected["content"].startswith(" ")
        assert (answer.text, answer.reasoning) == (expected["content"], expected["reasoning_content"])


def test_the_trace_id_of_an_error_is_the_id_of_the_attempt(acedata: Bench) -> None:
    refused = [row for row in acedata.rows(attempts) if row.http_status in (429, 500, 503)]
    assert {row.request_id for row in refused} <= {row.request_id for row in acedata.book()}
    assert None not in {row.request_id for row in refused}
    assert len(refused) > 5


def test_no_balance_pauses_the_job(sqlite_url: str, tmp_path: Path, simulator: Running) -> None:
    with opened_bench(sqlite_url, tmp_path, simulator, "arrearage", like=ACEDATA) as bench:
        check_arrears(bench, "HTTP 403 used_up: ", "Add credit in the vendor's console.")


def test_is_refused_under_a_budget(sqlite_url: str, tmp_path: Path, simulator: Running) -> None:
    with (
        opened_bench(sqlite_url, tmp_path, simulator, like=ACEDATA) as bench,
        pytest.raises(SpecError, match="a budget needs a price"),
    ):
        bench.load(job("capped", 1, model=MODEL, budget={"max_cost": "1 USD"}))

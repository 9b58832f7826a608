"""Moonshot's own API from end to end: a bad night, and the report against the simulator's bill book.

The simulator's side was written from the vendor's pages alone, without a look at the dialect.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from batchrun.catalogue import load_catalogue
from batchrun.database import reading
from batchrun.errors import SpecError
from batchrun.reports.cost import cost_by, totals
from batchrun.simulator import Running
from batchrun.tables import answers, items, jobs, prices, usage
from tests.both_databases import KINDS
from tests.integration.other_providers import BAD_NIGHT, MODEL, booked, by_job, check_arrears, check_run
from tests.integration.running import KEY, KEY_VARIABLE, MOONSHOT, Bench, job, opened_bench, running_simulator

PICTURES = Path(__file__).parents[2] / "batchrun" / "demo" / "pictures"
CACHED = "cached=40"


@pytest.fixture(scope="module", params=KINDS)
def database_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def simulator() -> Iterator[Running]:
    with running_simulator() as started:
        yield started


@pytest.fixture(scope="module")
def moonshot(module_database_url: str, tmp_path_factory: pytest.TempPathFactory, simulator: Running) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("moonshot")
    with opened_bench(module_database_url, folder, simulator, BAD_NIGHT, CACHED, like=MOONSHOT) as bench:
        bench.go(
            job("streamed", 40, model=MODEL, fault=BAD_NIGHT),
            job("plain", 20, model=MODEL, fault=BAD_NIGHT, stream=False),
            job("direct", 10, model=MODEL, thinking={"enabled": False}),
            job("cached", 5, model=MODEL, fault=CACHED),
            job("pictures", 1, model=MODEL, inputs={"images": str(PICTURES)}, prompt="Describe {{ filename }}."),
        )
        yield bench


def test_every_item_is_done_and_the_invariants_hold(moonshot: Bench) -> None:
    assert {row.state for row in moonshot.rows(items)} == {"done"}
    check_run(moonshot)


@pytest.mark.parametrize("clause", BAD_NIGHT.split("+"))
def test_the_night_was_a_bad_one(moonshot: Bench, clause: str) -> None:
    """Else the other tests would say nothing."""
    name = clause.partition("=")[0].removesuffix("-pct")
    assert [row for row in moonshot.book() if name in row.hit]


def test_each_known_usage_has_the_tokens_and_the_cost_of_the_book(moonshot: Bench) -> None:
    pairs = booked(moonshot)
    assert len(pairs) > 70
    for line, row in pairs:
        assert (line.input_tokens, line.output_tokens) == (row.billed.input, row.billed.output)
        assert line.cached_tokens == row.billed.cached
        assert line.cost_low == line.cost_high == row.amount


def test_cached_tokens_were_part_of_the_night(moonshot: Bench) -> None:
    assert sum(line.cached_tokens or 0 for line in moonshot.rows(usage)) > 0


@pytest.mark.parametrize("name", ["direct", "cached", "pictures"])
def test_where_every_usage_arrived_the_report_is_the_bill(moonshot: Bench, name: str) -> None:
    line = by_job(moonshot)[name]
    (job_id,) = (row.id for row in moonshot.rows(jobs) if row.name == name)
    bill = sum((row.amount for found, row in booked(moonshot) if found.job_id == job_id and row.amount), Decimal())
    assert line.exact
    assert line.cost_low == line.cost_high == bill > 0


def test_the_report_encloses_the_bill(moonshot: Bench) -> None:
    with reading(moonshot.engine) as connection:
        (line,) = totals(cost_by(connection, "job"))
    bill = sum((row.amount for row in moonshot.book() if row.amount is not None), Decimal())
    assert line.cost_low is not None
    assert line.cost_high is not None
    assert 0 < line.cost_low < bill < line.cost_high


def test_thinks_unless_that_is_switched_off(moonshot: Bench) -> None:
    names = {row.answer_id: moonshot.job_row(row.job_id).name for row in moonshot.rows(items)}
    thought = {(names[row.attempt_id], bool(row.reasoning)) for row in moonshot.rows(answers, answers.c.complete)}
    assert thought == {(name, name != "direct") for name in ("streamed", "plain", "direct", "cached", "pictures")}


def test_no_balance_pauses_the_job(sqlite_url: str, tmp_path: Path, simulator: Running) -> None:
    with opened_bench(sqlite_url, tmp_path, simulator, "arrearage", like=MOONSHOT) as bench:
        check_arrears(bench, "HTTP 429 exceeded_current_quota_error: ", "Recharge the account in the vendor's console.")


FAR = "https://host.example/a.jpg"
BODY = {
    "model": MODEL,
    "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": FAR}}]}],
}
SOURCES: dict[str, tuple[str, dict[str, object]]] = {
    "items": ("", {"inputs": {"items": [{"id": "a", "image": FAR, "text": "x"}]}}),
    "urls": (f"{FAR}\n", {"inputs": {"urls": "source"}, "prompt": "Describe."}),
    "requests": (
        json.dumps({"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": BODY}),
        {"inputs": {"requests": "source"}, "prompt": None, "params": {}},
    ),
}


@pytest.mark.parametrize("source", SOURCES)
def test_an_address_of_a_picture_is_refused_when_it_is_loaded(
    sqlite_url: str, tmp_path: Path, simulator: Running, source: str
) -> None:
    text, settings = SOURCES[source]
    (tmp_path / "source").write_text(text, encoding="utf-8")
    with opened_bench(sqlite_url, tmp_path, simulator, like=MOONSHOT) as bench:
        with pytest.raises(SpecError) as caught:
            bench.load(job("far", 1, model=MODEL, **settings))
        (problem,) = caught.value.problems
        assert problem.message == "kimi-k2.5 fetches no pictures from addresses here"
        assert problem.remedy == "Download the pictures and name them by their paths, or write data URLs."
        assert bench.rows(jobs) == []


def upload(simulator: Running, picture: Path) -> str:
    """The id of a picture that somebody uploaded beforehand."""
    address = urlsplit(simulator.moonshot_url())
    form = (
        b'--edge\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nimage\r\n--edge\r\nContent-Disposition: '
        b'form-data; name="file"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
        + picture.read_bytes()
        + b"\r\n--edge--\r\n"
    )
    headers = {"authorization": f"Bearer {KEY}", "content-type": "multipart/form-data; boundary=edge"}
    with closing(http.client.HTTPConnection(address.netloc)) as connection:
        connection.request("POST", f"{address.path}/files", form, headers)
        return str(json.load(connection.getresponse())["id"])


def test_a_file_that_moonshot_has_is_named_by_its_id(sqlite_url: str, tmp_path: Path, simulator: Running) -> None:
    picture = PICTURES / "signature.png"
    name = f"ms://{upload(simulator, picture)}"
    rows = [{"id": one, "image": image, "text": "What?"} for one, image in (("by-id", name), ("here", "a.png"))]
    (tmp_path / "a.png").write_bytes(picture.read_bytes())
    (tmp_path / "urls").write_text(f"{name}\n", encoding="utf-8")
    body = {**BODY, "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": name}}]}]}
    line = {"custom_id": "written", "method": "POST", "url": "/v1/chat/completions", "body": body}
    (tmp_path / "requests").write_text(json.dumps(line), encoding="utf-8")
    sources: dict[str, dict[str, object]] = {
        "rows": {"inputs": {"items": rows}},
        "urls": {"inputs": {"urls": "urls"}, "prompt": "What is {{ url }}?", "media": {"strip": True}},
        "requests": {"inputs": {"requests": "requests"}, "prompt": None, "params": {}},
    }
    with opened_bench(sqlite_url, tmp_path, simulator, like=MOONSHOT) as bench:
        bench.go(*(job(source, 1, model=MODEL, **settings) for source, settings in sources.items()))
        assert {row.state for row in bench.rows(items)} == {"done"}
        assert all(line.cost_low == row.amount for line, row in booked(bench))
        by_id, here = (item.answer_id for item in bench.rows(items) if item.custom_id in ("by-id", "here"))
        counted = {line.attempt_id: line.input_tokens for line in bench.rows(usage)}
        assert counted[by_id] == counted[here] > 100


@pytest.mark.parametrize("provider", ["model-studio/beijing", "dashscope/beijing"])
def test_such_an_id_means_nothing_elsewhere(sqlite_bench: Bench, provider: str) -> None:
    for name, message, remedy in (
        (
            "ms://file-1",
            "kimi-k2.5 can't read files by an id (`ms://…`) here: only Moonshot can",
            "Name the files by their paths, or choose a provider at Moonshot.",
        ),
        ("ms://a b", "`ms://a b` is no id of a file", "Write ms:// and the id that the upload gave"),
    ):
        row = {"id": "a", "image": name, "text": "x"}
        with pytest.raises(SpecError) as caught:
            sqlite_bench.load(job("elsewhere", 1, model=MODEL, provider=provider, inputs={"items": [row]}))
        assert [(one.message, one.remedy) for one in caught.value.problems] == [(message, remedy)]


def test_a_collected_price_is_a_row_of_prices_and_gives_the_bill(
    sqlite_url: str, tmp_path: Path, simulator: Running
) -> None:
    """Of a model that the catalogue doesn't list, cached tokens included."""
    entry = {
        "base_url": simulator.moonshot_url(CACHED),
        "key_env": [KEY_VARIABLE],
        "open_models": True,
        "max_tokens_as": "max_completion_tokens",
        "prices_from": "genai-prices/moonshotai",
    }
    own = tmp_path / "own.yaml"
    own.write_text(json.dumps({"endpoints": {"proxy": entry}}), encoding="utf-8")
    with opened_bench(sqlite_url, tmp_path, simulator, like=MOONSHOT) as bench:
        bench.catalogue = load_catalogue(own)
        bench.go(job("collected", 4, model=MODEL, provider="proxy"))
        (price,) = bench.rows(prices)
        assert price.source == f"genai-prices {version('genai-prices')}, moonshotai/kimi-k2.5"
        assert (price.provider, price.model, price.cached_input) == ("proxy", MODEL, Decimal("0.1"))
        pairs = booked(bench)
        assert [line.price_id for line, _ in pairs] == [price.id] * 4
        assert all(line.cost_low == line.cost_high == row.amount for line, row in pairs)

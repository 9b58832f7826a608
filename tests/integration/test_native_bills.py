"""The native form against the simulator's own reading of it: a bad night, and the same requests in both forms.

The simulator's side was written from the vendor's pages alone, without a look at the dialect.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from batchrun.database import reading
from batchrun.reports.cost import cost_by, totals
from batchrun.tables import Record, answers, attempts, items, jobs, usage
from tests.both_databases import KINDS
from tests.integration.running import NATIVE, REAL, Bench, check, job, opened_bench, running_simulator
from tests.integration.test_bill_book import BAD_NIGHT, jobs_of_a_bad_night

PICTURES = Path(__file__).parents[2] / "batchrun" / "demo" / "pictures"


@pytest.fixture(scope="module", params=KINDS)
def database_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def night(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("night")
    with running_simulator() as simulator, opened_bench(module_database_url, folder, simulator, like=NATIVE) as bench:
        bench.at(BAD_NIGHT, "cached=25")
        bench.run(bench.load(*jobs_of_a_bad_night()))
        yield bench


@pytest.mark.parametrize("clause", BAD_NIGHT.split("+"))
def test_the_night_was_a_bad_one(night: Bench, clause: str) -> None:
    """Else the other tests of this module would say nothing."""
    name = clause.partition("=")[0].removesuffix("-pct")
    assert [row for row in night.book() if name in row.hit]


def test_every_item_is_done_and_the_invariants_hold(night: Bench) -> None:
    assert {row.state for row in night.rows(items)} == {"done"}
    check(night, *(row.id for row in night.rows(jobs)))


def test_each_known_usage_has_the_tokens_and_the_cost_of_the_book(night: Bench) -> None:
    book = {row.request_id: row for row in night.book()}
    names = {row.id: row.request_id for row in night.rows(attempts, attempts.c.outcome == "complete")}
    known = [row for row in night.rows(usage) if row.attempt_id in names and row.input_tokens is not None]
    for line in known:
        booked = book[names[line.attempt_id]]
        assert (line.input_tokens, line.output_tokens) == (booked.billed.input, booked.billed.output)
        assert (line.cached_tokens or 0, line.reasoning_tokens or 0) == (booked.billed.cached, booked.billed.reasoning)
        assert line.cost_low == line.cost_high == booked.amount
    assert len(known) > 250


def test_the_report_encloses_the_bill(night: Bench) -> None:
    with reading(night.engine) as connection:
        (line,) = totals(cost_by(connection, "job"))
    bill = sum((row.amount for row in night.book() if row.amount is not None), Decimal(0))
    assert line.cost_low is not None
    assert line.cost_high is not None
    assert 0 < line.cost_low < bill < line.cost_high


# The same requests in both forms

ROWS = {"items": [{"text": f"Name {number} boats."} for number in range(9)]}
SAME: dict[str, dict[str, object]] = {
    "pictures": {"inputs": {"images": str(PICTURES)}, "prompt": "Describe {{ filename }}."},
    "pictures-plain": {"inputs": {"images": str(PICTURES)}, "prompt": "Describe {{ filename }}.", "stream": False},
    "thinking": {"inputs": ROWS, "thinking": {"enabled": True, "budget": 300}, "system": "Be brief."},
    "thinking-plain": {"inputs": ROWS, "thinking": {"enabled": True}, "stream": False},
    "sharp": {
        "inputs": {"images": str(PICTURES)},
        "prompt": "Read.",
        "params": {"vl_high_resolution_images": True, "max_tokens": 40, "temperature": 0.5, "seed": 3},
    },
}


def outcome(bench: Bench) -> dict[tuple[str, str], tuple[object, ...]]:
    """What came of each item: state, text, thinking, and what was counted and charged."""
    bench.run(bench.load(*(job(name, 1, **settings) for name, settings in SAME.items())))
    names = {row.id: row.name for row in bench.rows(jobs)}
    told: dict[int, Record] = {row.attempt_id: row for row in bench.rows(answers)}
    ledger: dict[int, Record] = {row.attempt_id: row for row in bench.rows(usage)}
    found: dict[tuple[str, str], tuple[object, ...]] = {}
    for item in bench.rows(items):
        answer, line = told[item.answer_id], ledger[item.answer_id]
        counts = (line.input_tokens, line.output_tokens, line.image_tokens, line.reasoning_tokens or 0)
        found[names[item.job_id], item.custom_id] = (
            *(item.state, answer.text, answer.reasoning, answer.finish_reason),
            *(counts, line.cost_low, line.cost_high),
        )
    return found


def test_the_same_requests_have_the_same_answers_and_costs_in_both_forms(migrated_sqlite: Path, tmp_path: Path) -> None:
    found = []
    for like in (NATIVE, REAL):
        database = tmp_path / f"{like.rpartition('/')[2]}.db"
        database.write_bytes(migrated_sqlite.read_bytes())
        with (
            running_simulator() as started,
            opened_bench(f"sqlite:///{database}", tmp_path, started, like=like) as bench,
        ):
            found.append(outcome(bench))
    native, compat = found
    assert len(native) == 3 * 12 + 2 * 9
    assert native == compat

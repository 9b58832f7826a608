"""The cost report against the simulator's bill book, to the last digit.

The simulator prices with numbers of its own and writes down what each request costs, the broken ones included. A run
with every ingredient of a bad night must come to the same sums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from batchrun.database import reading
from batchrun.jobfile.spec import JobSpec
from batchrun.reports.cost import CostLine, cost_by, totals
from batchrun.running import RunEnd
from batchrun.simulator import Bill, BookRow
from batchrun.tables import Record, attempts, items, prices, usage
from tests.both_databases import KINDS
from tests.integration.running import Bench, check, check_money, job, opened_bench, running_simulator

TIER = 32_768
"""Input tokens of the longest request of the first tier (contract 8.4)."""
BAD_NIGHT = "+".join(
    [
        "429-pct=8-once-retry-after=1",
        "429-burst-pct=8-once",
        "500-pct=8-once",
        "503-pct=8-once",
        "reset-pct=4-once",
        "reset-after=4-pct=8-once",
        "truncate=5-pct=8-once",
        "error-event=4-pct=8-once",
        "finish=abort-pct=8-once",
        "usage=missing-pct=8",
        "cached=40-pct=50",
    ]
)
"""Each clause hits so many percent of the items, chosen by their texts; `once` lets the second call succeed."""


def long_text(tokens: int) -> str:
    """A prompt of exactly so many input tokens: 3 for the request, 4 for the message, 4 bytes for each of the rest."""
    head = f"Summarise the novel of {tokens} tokens. "
    return (head + "word " * tokens)[: 4 * (tokens - 7)]


def jobs_of_a_bad_night() -> list[JobSpec]:
    sizes = (20_000, TIER - 1, TIER, TIER + 1, 50_000, 131_072, 131_073)
    return [
        job("streamed", 160, fault=BAD_NIGHT),
        job("plain", 60, fault=BAD_NIGHT, stream=False),
        job("thinking", 60, fault=BAD_NIGHT, thinking={"enabled": True, "budget": 500}),
        job("long", [long_text(size) for size in sizes], fault="cached=25"),
        job("unpriced", 10, model="sim-unpriced"),
        job("clean", 20),
    ]


@dataclass(frozen=True, kw_only=True)
class Night:
    bench: Bench
    ids: dict[str, int]
    end: RunEnd
    book: dict[str, BookRow]
    """By both names that a request has."""
    attempts: dict[int, Record]
    usage: list[Record]
    by_job: dict[str, CostLine]
    whole: list[CostLine]

    def booked(self, line: Record) -> BookRow | None:
        """What the simulator says about the attempt of a usage row; None where no id came back."""
        return self.book.get(self.attempts[line.attempt_id].request_id or "")

    def rows_of(self, name: str) -> list[BookRow]:
        """The book's rows of one job, found by their prompts' models and addresses."""
        spec = self.bench.job_row(self.ids[name])
        known = {
            row.request_id for row in self.attempts.values() if row.job_id == spec.id and row.request_id is not None
        }
        return [row for row in self.bench.book() if {row.request_id, row.chat_id} & known]


def night_of(bench: Bench) -> Night:
    bench.at(BAD_NIGHT, "cached=25")
    specs = jobs_of_a_bad_night()
    ids = bench.load(*specs)
    end = bench.run(ids)
    with reading(bench.engine) as connection:
        lines = cost_by(connection, "job")
    return Night(
        bench=bench,
        ids=dict(zip((spec.name for spec in specs), ids, strict=True)),
        end=end,
        book={name: row for row in bench.book() for name in (row.request_id, row.chat_id)},
        attempts={row.id: row for row in bench.rows(attempts)},
        usage=bench.rows(usage),
        by_job={line.key: line for line in lines},
        whole=totals(lines),
    )


@pytest.fixture(scope="module", params=KINDS)
def database_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def night(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Night]:
    folder = tmp_path_factory.mktemp("night")
    with running_simulator() as simulator, opened_bench(module_database_url, folder, simulator) as bench:
        yield night_of(bench)


def test_every_item_has_come_to_its_end(night: Night) -> None:
    assert night.end.exit_code == 0
    assert {name: night.bench.states(job_id) for name, job_id in night.ids.items()} == {
        "streamed": {"done": 160},
        "plain": {"done": 60},
        "thinking": {"done": 60},
        "long": {"done": 7},
        "unpriced": {"done": 10},
        "clean": {"done": 20},
    }


def test_the_invariants_hold(night: Night) -> None:
    check(night.bench, *night.ids.values())


INGREDIENTS: dict[str, Callable[[Night], int]] = {
    "429 with retry-after": lambda night: hits(night, "429"),
    "429 without": lambda night: hits(night, "429-burst"),
    "500": lambda night: hits(night, "500"),
    "503": lambda night: hits(night, "503"),
    "reset before the headers": lambda night: hits(night, "reset"),
    "reset in the middle": lambda night: hits(night, "reset-after"),
    "truncation": lambda night: hits(night, "truncate"),
    "error event": lambda night: hits(night, "error-event"),
    "foreign finish reason": lambda night: hits(night, "finish"),
    "usage missing": lambda night: sum(row.input_tokens is None for row in night.usage),
    "cached tokens": lambda night: sum(row.cached_tokens or 0 for row in night.usage),
    "thinking": lambda night: sum(row.reasoning_tokens or 0 for row in night.usage),
    "paid failure of exact cost": lambda night: len(paid_failures(night, known=True)),
    "paid failure of unknown cost": lambda night: len(paid_failures(night, known=False)),
    "unpriced": lambda night: sum(row.currency is None for row in night.usage),
    "first tier": lambda night: sum(0 < (row.input_tokens or 0) <= TIER for row in night.usage),
    "second tier": lambda night: sum(TIER < (row.input_tokens or 0) <= 4 * TIER for row in night.usage),
    "third tier": lambda night: sum((row.input_tokens or 0) > 4 * TIER for row in night.usage),
}


def hits(night: Night, fault: str) -> int:
    return sum(fault in row.hit for row in night.bench.book())


def paid_failures(night: Night, *, known: bool) -> list[BookRow]:
    """Failed attempts that the simulator has billed, and whose usage has arrived or not."""
    rows = [(line, night.booked(line)) for line in night.usage if night.attempts[line.attempt_id].outcome == "failed"]
    return [row for line, row in rows if row is not None and row.amount and (line.input_tokens is not None) is known]


@pytest.mark.parametrize("ingredient", INGREDIENTS.values(), ids=INGREDIENTS.keys())
def test_the_night_was_a_bad_one(night: Night, ingredient: Callable[[Night], int]) -> None:
    """Else the other tests of this module would say nothing."""
    assert ingredient(night) > 0


def test_every_request_of_the_book_has_its_attempt_and_the_other_way_round(night: Night) -> None:
    book = night.bench.book()
    named = {row.request_id for row in night.attempts.values() if row.request_id is not None}
    unnamed = [row for row in book if not {row.request_id, row.chat_id} & named]
    assert len(book) == len(night.attempts)
    assert named <= night.book.keys()
    assert {row.hit[:1] for row in unnamed} == {("reset",)}
    assert len(unnamed) == sum(row.request_id is None for row in night.attempts.values())


def test_each_known_usage_costs_exactly_what_the_book_says(night: Night) -> None:
    known = [line for line in night.usage if line.input_tokens is not None and line.currency is not None]
    for line in known:
        booked = night.booked(line)
        assert booked is not None
        assert line.cost_low == booked.amount == line.cost_high
    assert len(known) > 250


def test_each_known_usage_has_the_tokens_of_the_book(night: Night) -> None:
    for line in night.usage:
        booked = night.booked(line)
        if booked is not None and line.input_tokens is not None:
            assert (line.input_tokens, line.output_tokens) == (booked.billed.input, booked.billed.output)
            assert (line.cached_tokens, line.reasoning_tokens or 0) == (booked.billed.cached, booked.billed.reasoning)


def test_what_is_not_known_is_bounded(night: Night) -> None:
    unknown = [line for line in night.usage if line.input_tokens is None]
    bounds = [
        (line.cost_low, booked.amount, line.cost_high)
        for line in unknown
        if (booked := night.booked(line)) is not None and booked.amount is not None
    ]
    assert all(low <= amount <= high for low, amount, high in bounds)
    assert any(amount > 0 for _, amount, _ in bounds)


def test_the_report_encloses_the_bill(night: Night) -> None:
    (line,) = night.whole
    bill = sum((row.amount for row in night.bench.book() if row.amount is not None), Decimal(0))
    assert line.cost_low is not None
    assert line.cost_high is not None
    assert 0 < line.cost_low < bill < line.cost_high


def test_the_low_end_of_the_report_is_the_bill_of_all_that_is_known(night: Night) -> None:
    known = {line.attempt_id for line in night.usage if line.input_tokens is not None and line.currency is not None}
    named = {night.attempts[number].request_id for number in known}
    bill = sum(
        (row.amount for row in night.bench.book() if {row.request_id, row.chat_id} & named and row.amount), Decimal(0)
    )
    assert night.whole[0].cost_low == bill > 0


@pytest.mark.parametrize("name", ["long", "clean"])
def test_where_every_usage_arrived_the_report_is_the_bill(night: Night, name: str) -> None:
    line, rows = night.by_job[name], night.rows_of(name)
    bill = sum((row.amount for row in rows if row.amount is not None), Decimal(0))
    assert line.exact
    assert line.cost_low == line.cost_high == bill > 0


@pytest.mark.parametrize(("size", "from_tokens"), [(TIER, 0), (TIER + 1, TIER + 1), (131_073, 131_073)])
def test_a_request_is_priced_by_the_tier_of_its_own_length(night: Night, size: int, from_tokens: int) -> None:
    (line,) = [line for line in night.usage if line.input_tokens == size]
    (price,) = night.bench.rows(prices, prices.c.id == line.price_id)
    assert price.from_tokens == from_tokens


def test_an_unknown_price_is_no_price_of_zero(night: Night) -> None:
    line = night.by_job["unpriced"]
    assert (line.currency, line.cost_low, line.cost_high) == (None, None, None)
    assert (line.calls, line.unknown_cost, line.exact) == (10, 10, False)
    assert night.whole[0].unknown_cost == 10
    assert not night.whole[0].exact


def test_the_jobs_own_counter_is_the_high_end_of_the_report(night: Night) -> None:
    for name, job_id in night.ids.items():
        if name != "unpriced":
            assert night.bench.job_row(job_id).spent == night.by_job[name].cost_high


def test_the_run_tells_the_same_money_as_the_report(night: Night) -> None:
    assert night.end.tally.cost == {"USD": (night.whole[0].cost_low, night.whole[0].cost_high)}


def test_what_was_simulated_is_marked_so(night: Night) -> None:
    assert all(line.simulated for line in night.usage)


@pytest.mark.parametrize("bill", list(Bill))
def test_the_interval_holds_whoever_pays_for_broken_calls(
    sqlite_url: str, tmp_path: Path, bill: Bill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchrun.pacing.limits.BREAKER_FIRST", timedelta(milliseconds=100))
    fault = "+".join(
        [
            "500-pct=7-once",
            "502-pct=7-once",
            "reset-pct=7-once",
            "reset-after=3-pct=12-once",
            "truncate=2-pct=20-once",
            "usage=missing-pct=10",
        ]
    )
    with running_simulator(bill=bill) as simulator, opened_bench(sqlite_url, tmp_path, simulator, fault) as bench:
        # Few at once: refusals come back sooner than answers, and ten of them in a row would open the breaker.
        few = {"fault": fault, "limits": {"concurrency": 4}}
        bench.go(job("streamed", 60, **few), job("thinking", 30, **few, thinking={"enabled": True}))
        check_money(bench, [1, 2])
        assert sum(not row.complete for row in bench.book()) > 15
        assert len({(line.cost_low, line.cost_high) for line in bench.rows(usage)}) > 10
        assert {row.state for row in bench.rows(items)} == {"done"}

"""Answers that stop half-way are continued: the text is whole, all calls are in the ledger, and nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from batchrun.database import reading
from batchrun.reports.results import ItemResult, results
from batchrun.simulator import Running
from batchrun.states import State
from batchrun.tables import answers, attempts, usage
from tests.both_databases import KINDS
from tests.integration.running import NATIVE, Bench, check, fresh, job, opened_bench

CONTINUED: dict[str, object] = {"on_incomplete": "continue", "params": {"max_tokens": 300}}
FAULTS = {
    "cut": fresh("cut-after=4-first=3"),
    "reset": fresh("reset-after=4-first=3"),
    "ended": fresh("truncate=4-first=3"),
    "server-error": fresh("error-event=4-first=3"),
    "time-limit": fresh("partial-first=3"),
}
"""Each hits the first three calls of its job's two items, so that one of them breaks twice."""


@pytest.fixture(scope="module", params=KINDS)
def database_kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@pytest.fixture(scope="module")
def night(module_database_url: str, tmp_path_factory: pytest.TempPathFactory, simulator: Running) -> Iterator[Bench]:
    """One run of a job for each fault, in the compat form."""
    faults = {name: fresh(fault) for name, fault in FAULTS.items()}
    with opened_bench(module_database_url, tmp_path_factory.mktemp("bench"), simulator, *faults.values()) as bench:
        bench.go(
            *(job(name, 2, fault=fault, stream=name != "time-limit", **CONTINUED) for name, fault in faults.items())
        )
        yield bench


def items_of(bench: Bench) -> list[ItemResult]:
    with reading(bench.engine) as connection:
        rows = [bench.job_row(job_id) for job_id in sorted({row.job_id for row in bench.rows(attempts)})]
        return [item for row in rows for item in results(connection, row)]


def test_every_text_is_what_the_model_says_without_faults_and_the_ledger_encloses_the_bill(night: Bench) -> None:
    check(night, *sorted({row.job_id for row in night.rows(attempts)}))


def test_no_broken_answer_was_asked_for_anew(night: Bench) -> None:
    found = items_of(night)
    assert [item.state for item in found] == [State.DONE] * 2 * len(FAULTS)
    assert all(len(item.attempts) > 1 for item in found)
    assert all((later.continues is None) is False for item in found for later in item.attempts[1:])


def test_the_texts_of_the_attempts_as_they_arrived_are_the_beginning_of_the_answer(night: Bench) -> None:
    for item in items_of(night):
        *broken, last = item.attempts
        assert last.id == item.answer_id
        assert all(attempt.text for attempt in broken)
        assert (item.text or "").startswith("".join(attempt.text or "" for attempt in broken))


def test_each_call_has_its_own_usage_and_what_the_vendor_counted_is_exact(night: Bench) -> None:
    """At the vendor's time limit usage comes with the text, so that the ledger is the bill to the last digit."""
    of_limit = next(
        row.id for row in night.rows(attempts.c.job_id.table.metadata.tables["jobs"]) if row.name == "time-limit"
    )
    lines = night.rows(usage, usage.c.job_id == of_limit)
    book = [row for row in night.book() if row.fault == night_fault(night, of_limit)]
    assert len(lines) == len(book) == 5
    assert sum((line.cost_low for line in lines), Decimal(0)) == sum((row.amount for row in book), Decimal(0))
    assert all(line.cost_low == line.cost_high for line in lines)


def night_fault(bench: Bench, job_id: int) -> str:
    provider = bench.job_row(job_id).spec["provider"]
    return bench.catalogue.endpoint(provider).base_url.partition("/fault/")[2].partition("/")[0]


def test_in_the_native_form_answers_are_continued_too(sqlite_url: str, tmp_path: Path, simulator: Running) -> None:
    faults = {name: fresh(fault) for name, fault in FAULTS.items()}
    with opened_bench(sqlite_url, tmp_path, simulator, *faults.values(), like=NATIVE) as bench:
        ids = bench.load(
            *(job(name, 2, fault=fault, stream=name != "time-limit", **CONTINUED) for name, fault in faults.items())
        )
        bench.run(ids)
        check(bench, *ids)
        assert {row.continues is not None for row in bench.rows(answers, answers.c.complete)} == {True}

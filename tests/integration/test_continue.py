"""Answers that stop half-way are continued: the text is whole, all calls are in the ledger, and nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import pytest

from batchrun.database import reading
from batchrun.jobfile.spec import JobSpec
from batchrun.reports.results import ItemResult, results
from batchrun.simulator import Running
from batchrun.simulator.tokens import pieces
from batchrun.states import State
from batchrun.tables import answers, attempts, jobs, usage
from tests.both_databases import KINDS
from tests.integration.running import (
    NATIVE,
    Bench,
    check,
    check_items,
    check_reservations,
    fresh,
    job,
    opened_bench,
    running_simulator,
    wait_until,
)

CONTINUED: dict[str, object] = {"on_incomplete": "continue", "params": {"max_tokens": 300}}
FAULTS = {
    "cut": "cut-after=4-first=3",
    "reset": "reset-after=4-first=3",
    "ended": "truncate=4-first=3",
    "server-error": "error-event=4-first=3",
    "time-limit": "partial-first=3",
}
"""Each hits the first three calls of its job's two items, so that one of them breaks twice."""


def jobs_with(faults: Mapping[str, str]) -> list[JobSpec]:
    """At the vendor's time limit only plain answers are cut."""
    return [job(name, 2, fault=fault, stream=name != "time-limit", **CONTINUED) for name, fault in faults.items()]


def job_ids(bench: Bench) -> list[int]:
    return [row.id for row in bench.rows(jobs)]


def items_of(bench: Bench) -> list[ItemResult]:
    with reading(bench.engine) as connection:
        return [item for row in bench.rows(jobs) for item in results(connection, row)]


@pytest.fixture(scope="module", params=KINDS)
def database_kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@pytest.fixture(scope="module")
def night(module_database_url: str, tmp_path_factory: pytest.TempPathFactory, simulator: Running) -> Iterator[Bench]:
    """One run of a job for each fault, in the compat form."""
    faults = {name: fresh(fault) for name, fault in FAULTS.items()}
    with opened_bench(module_database_url, tmp_path_factory.mktemp("bench"), simulator, *faults.values()) as bench:
        bench.go(*jobs_with(faults))
        yield bench


def test_every_text_is_what_the_model_says_without_faults_and_the_ledger_encloses_the_bill(night: Bench) -> None:
    check(night, *job_ids(night))


def test_no_answer_that_broke_off_was_asked_for_anew(night: Bench) -> None:
    found = items_of(night)
    assert [item.state for item in found] == [State.DONE] * 2 * len(FAULTS)
    assert {len(item.attempts) for item in found} <= {2, 3}
    assert all(later.continues == before.id for item in found for before, later in pairwise(item.attempts))


def test_the_texts_of_the_attempts_as_they_arrived_are_the_beginning_of_the_answer(night: Bench) -> None:
    for item in items_of(night):
        *broken, last = item.attempts
        assert last.id == item.answer_id
        assert all(attempt.text for attempt in broken)
        assert (item.text or "").startswith("".join(attempt.text or "" for attempt in broken))


def test_at_the_vendors_time_limit_the_ledger_of_both_calls_is_the_bill_to_the_last_digit(night: Bench) -> None:
    """Usage comes with the text there."""
    (limited,) = night.rows(jobs, jobs.c.name == "time-limit")
    made = {row.request_id for row in night.rows(attempts, attempts.c.job_id == limited.id)}
    billed = [row.amount for row in night.book() if row.chat_id in made]
    lines = night.rows(usage, usage.c.job_id == limited.id)
    assert sorted(line.cost_low for line in lines) == sorted(amount for amount in billed if amount is not None)
    assert [line.cost_high for line in lines] == [line.cost_low for line in lines]
    assert len(lines) == 5


def test_the_request_has_the_name_that_it_has_without_a_break(sqlite_bench: Bench) -> None:
    """The text that is sent along belongs to the attempt, not to what was asked."""
    sqlite_bench.at(fault := fresh("truncate=4-first=1"))
    prompts = ["Name three boats."]
    ids = sqlite_bench.load(job("broken", prompts, fault=fault, **CONTINUED), job("whole", prompts, **CONTINUED))
    sqlite_bench.run(ids)
    broken, whole = (sqlite_bench.items_of(job_id)[0] for job_id in ids)
    assert len(sqlite_bench.attempts_of(ids[0])) == 2
    assert broken.request_hash == whole.request_hash is not None


def test_in_the_native_form_answers_are_continued_too(sqlite_url: str, tmp_path: Path, simulator: Running) -> None:
    faults = {name: fresh(fault) for name, fault in FAULTS.items()}
    with opened_bench(sqlite_url, tmp_path, simulator, *faults.values(), like=NATIVE) as bench:
        bench.go(*jobs_with(faults))
        check(bench, *job_ids(bench))
        assert all(row.continues is not None for row in bench.rows(answers, answers.c.complete))


def test_a_plain_answer_that_a_clock_of_the_vendor_stopped_is_continued(sqlite_url: str, tmp_path: Path) -> None:
    """The rule of 180 s itself, with a limit of 0.4 s; the first answer would take 0.6 s, its rest takes none."""
    with (
        running_simulator(plain_timeout=0.4, tokens_per_second=0) as simulator,
        opened_bench(sqlite_url, tmp_path, simulator, fault := "ttft=0.6-first=1") as bench,
    ):
        (limited,) = bench.load(job("limited", 1, fault=fault, stream=False, model="qwen-vl-max", **CONTINUED))
        bench.run([limited])
        check(bench, limited)
        assert [row.outcome for row in bench.attempts_of(limited)] == ["failed", "complete"]


@pytest.mark.parametrize(("most", "continued"), [(200, [True]), (30, [True, False]), (6, [False])])
def test_max_tokens_bounds_the_whole_answer_and_never_cuts_it_short(
    sqlite_bench: Bench, most: int, continued: list[bool]
) -> None:
    """Nobody has counted what broke off. Of 6 tokens it may be all, so it is asked for anew; of 30 the rest is cut by
    what was left for certain, and the answer is asked for anew then."""
    sqlite_bench.at(fault := fresh("truncate=4-first=1"))
    limit = {"on_incomplete": "continue", "params": {"max_tokens": most}}
    broken = job("broken", 1, fault=fault, **limit)
    whole = job("whole", [str(row["text"]) for row in broken.inputs.items or ()], **limit)
    ids = sqlite_bench.load(broken, whole)
    sqlite_bench.run(ids)
    assert sqlite_bench.answers_of(ids[0]) == sqlite_bench.answers_of(ids[1])
    assert sqlite_bench.states(ids[0]) == sqlite_bench.states(ids[1])
    made = {row.id for row in sqlite_bench.attempts_of(ids[0])}
    texts = [row for row in sqlite_bench.rows(answers) if row.attempt_id in made]
    assert all(len(pieces(row.text)) <= most for row in texts)
    assert [row.continues is not None for row in texts if row.complete] == continued


def test_killed_between_a_broken_answer_and_its_rest_nothing_is_lost(bench: Bench) -> None:
    fault = fresh("cut-after=4-first=3")
    bench.at(fault)
    (killed,) = bench.load(job("killed", 3, fault=fault, **CONTINUED))
    process = bench.drainer([killed])
    wait_until(lambda: len(bench.rows(answers)) == 3, "all three have broken off")
    process.kill()
    process.communicate()
    bench.run([killed])
    check(bench, killed, after_kills=3)
    assert bench.states(killed) == {"done": 3}
    assert all(row.continues is not None for row in bench.rows(answers, answers.c.complete))


def test_an_answer_that_max_tokens_cuts_is_continued_to_its_end(bench: Bench) -> None:
    long = job("long", 3, on_truncated="continue", params={"max_tokens": 12}, retry={"attempts": 40})
    whole = job("whole", [str(row["text"]) for row in long.inputs.items or ()], params={"max_tokens": 300})
    ids = bench.load(long, whole)
    end = bench.run(ids)
    check_items(bench, ids)
    check_reservations(bench)
    assert [one.states for one in end.jobs] == [{"done": 3}, {"done": 3}]
    assert bench.answers_of(ids[0]) == bench.answers_of(ids[1])
    assert all(line.cost_low == line.cost_high for line in bench.rows(usage))
    assert sum(line.cost_low for line in bench.rows(usage)) == sum(row.amount or 0 for row in bench.book())


def test_an_answer_that_never_ends_is_truncated_with_all_that_was_paid_for(bench: Bench) -> None:
    long = job("long", 2, on_truncated="continue", params={"max_tokens": 5}, retry={"attempts": 3})
    (endless,) = bench.load(long)
    assert bench.run([endless]).exit_code == 1
    assert bench.states(endless) == {"truncated": 2}
    counts = {item.custom_id: item.tokens["output_tokens"] for item in items_of(bench)}
    assert counts == {"0": 15, "1": 15}
    assert all(text.count(" ") > 5 for text in bench.answers_of(endless).values())

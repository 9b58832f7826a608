"""What each fault of the simulator leads to: the state of the item, what is stored, and which counter grew.

All jobs of a table run side by side in one drain, each against its own fault, so that the whole takes little longer
than its slowest fault.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice

import pytest

from batchrun.jobfile.spec import JobSpec
from batchrun.simulator import Running
from batchrun.simulator.captions import ODDITIES
from batchrun.simulator.tokens import pieces
from batchrun.tables import Record, answers, jobs, usage
from tests.both_databases import KINDS
from tests.integration.running import (
    Bench,
    check_attempts,
    check_file,
    check_items,
    check_money,
    check_reservations,
    job,
    opened_bench,
    oracle,
)

SHORT = {"first_token": "3s", "silence": "3s", "total": "20s"}
PATIENT = {"first_token": "20s", "silence": "10s", "total": "30s"}
LONG = "+chunks=40"
"""An answer of forty chunks, so that a break after the third is one in the middle."""


@dataclass(frozen=True, kw_only=True)
class Broken:
    """A fault that hits the first call of each item; the second one succeeds."""

    fault: str
    kind: str
    paid: bool
    status: int | None = 200
    text: bool = False
    """Whether a part of the answer was kept."""
    usage: bool = False
    """Whether the failed attempt knows its exact cost."""
    stream: bool = True

    @property
    def spec(self) -> str:
        """The fault as it stands in the address: its first part breaks each call once."""
        first, plus, rest = self.fault.partition("+")
        return f"{first}-once{plus}{rest}"

    @property
    def name(self) -> str:
        return self.fault.replace("=", "-").replace("+", "_") + ("" if self.stream else "_plain")

    @property
    def job(self) -> JobSpec:
        stalls = "stall" in self.fault or "keepalive" in self.fault
        timeouts = SHORT if stalls else PATIENT
        return job(self.name, 2, fault=self.spec, timeouts=timeouts, stream=self.stream)


FREE = [
    Broken(fault="429", kind="rate_limited", paid=False, status=429),
    Broken(fault="429-burst", kind="rate_limited", paid=False, status=429),
    Broken(fault="429-quota", kind="rate_limited", paid=False, status=429),
    Broken(fault="503", kind="unavailable", paid=False, status=503),
    Broken(fault="529", kind="unavailable", paid=False, status=529),
]
SERVER = [
    Broken(fault="500", kind="server", paid=True, status=500),
    Broken(fault="500-timeout", kind="timeout", paid=True, status=500),
    Broken(fault="502", kind="server", paid=True, status=502),
    Broken(fault="502=300", kind="server", paid=True, status=502),
    Broken(fault="504", kind="server", paid=True, status=504),
    Broken(fault="200-html", kind="incomplete", paid=True),
    Broken(fault="200-error", kind="server", paid=True),
    Broken(fault="200-code", kind="server", paid=True),
    Broken(fault="200-empty", kind="incomplete", paid=True),
    Broken(fault="204", kind="server", paid=True, status=204),
]
CONNECTION = [
    Broken(fault="reset", kind="network", paid=True, status=None),
    Broken(fault="close", kind="network", paid=True, status=None),
    Broken(fault="bad-http", kind="network", paid=True, status=None),
    Broken(fault="big-header", kind="network", paid=True, status=None),
    Broken(fault="stall", kind="timeout", paid=True, status=None),
    Broken(fault="stall-headers", kind="timeout", paid=True),
    Broken(fault="keepalive", kind="timeout", paid=True),
    Broken(fault="reset-after=3" + LONG, kind="network", paid=True, text=True),
    Broken(fault="cut-after=3" + LONG, kind="network", paid=True, text=True),
    Broken(fault="cut-after=3" + LONG + "+framing=length", kind="network", paid=True, text=True),
    Broken(fault="cut-after=3" + LONG + "+framing=close", kind="incomplete", paid=True, text=True),
    Broken(fault="cut-after=3" + LONG + "+gzip", kind="network", paid=True, text=True),
    Broken(fault="stall-after=3" + LONG, kind="timeout", paid=True, text=True),
    Broken(fault="stall-before=finish" + LONG, kind="timeout", paid=True, text=True),
    Broken(fault="stall-before=usage" + LONG, kind="timeout", paid=True, text=True),
    Broken(fault="reset-after=0" + LONG + "+framing=length", kind="network", paid=True),
    Broken(fault="reset-after=3" + LONG, kind="network", paid=True, stream=False),
]
STREAM = [
    Broken(fault="truncate=3" + LONG, kind="incomplete", paid=True, text=True),
    Broken(fault="truncate=3" + LONG + "+framing=close", kind="incomplete", paid=True, text=True),
    Broken(fault="truncate=3" + LONG + "+framing=length", kind="incomplete", paid=True, text=True),
    Broken(fault="truncate=3" + LONG + "+gzip", kind="incomplete", paid=True, text=True),
    Broken(fault="finish=null" + LONG, kind="incomplete", paid=True, text=True, usage=True),
    Broken(fault="finish=abort" + LONG, kind="incomplete", paid=True, text=True, usage=True),
    Broken(fault="finish=error" + LONG, kind="incomplete", paid=True, text=True, usage=True),
    Broken(fault="finish=missing" + LONG, kind="incomplete", paid=True, text=True, usage=True),
    Broken(fault="error-event=0" + LONG, kind="server", paid=True),
    Broken(fault="error-event=3" + LONG, kind="server", paid=True, text=True),
    Broken(fault="error-done=3" + LONG, kind="server", paid=True, text=True),
    Broken(fault="error-done=3" + LONG + "+stall-before=done", kind="server", paid=True, text=True),
    Broken(fault="bad-json" + LONG, kind="incomplete", paid=True, text=True),
    Broken(fault="huge-line=10" + LONG, kind="incomplete", paid=True, text=True),
    Broken(fault="done-first" + LONG, kind="incomplete", paid=True, text=True, usage=True),
    Broken(fault="partial", kind="incomplete", paid=True, text=True, usage=True, stream=False),
    Broken(fault="finish=null", kind="incomplete", paid=True, text=True, usage=True, stream=False),
    Broken(fault="bad-json", kind="incomplete", paid=True, stream=False),
]
BROKEN = FREE + SERVER + CONNECTION + STREAM

TOLERATED = [
    "close-idle",
    "connection-close",
    "framing=chunked",
    "framing=length",
    "framing=close",
    "gzip",
    "wrong-type",
    "crlf",
    "crlf+split=3",
    "cr",
    "cr+split=2",
    "no-space",
    "bom",
    "bom+split=1",
    "split",
    "comments",
    "events",
    "multi-data",
    "garbage",
    "no-done",
    "done-twice",
    "stall-before=done",
    "usage=twice",
    "usage=early",
    "usage=late",
    "usage=late+split=60",
    "usage=every",
    "usage=text-chunk",
    "usage=choice",
    "usage=unasked",
    "text-in-finish",
    "cumulative+chunks=20",
    "full-final",
    "cached=30",
]
"""Nothing is wrong with these answers: the first call brings the right text at the exact price."""
THOUGHTFUL = ["mixed", "both-reasoning", "cumulative+chunks=20+think-chunks=20", "split=5+crlf"]
ODD_TEXTS = ["unicode", "unicode+split=1", "nul", "surrogate", "invalid-utf8", "duplicate"]
UNKNOWN_USAGE = ["usage=missing", "usage=null"]
REFUSED = [
    ("400", "invalid", 400),
    ("moderation", "moderated", 400),
    ("500-algo", "invalid", 500),
    ("302", "invalid", 302),
    ("307", "invalid", 307),
    ("308", "invalid", 308),
]
TRUNCATED = ["finish=length", "finish=content_filter"]


@dataclass(frozen=True, kw_only=True)
class Whole:
    """A fault that leaves the answer whole: the first call of each item brings it."""

    fault: str
    thinking: bool = False

    @property
    def name(self) -> str:
        return self.fault.replace("=", "-").replace("+", "_") + ("_thinking" if self.thinking else "")

    @property
    def job(self) -> JobSpec:
        return job(self.name, 2, fault=self.fault, timeouts=PATIENT, thinking={"enabled": self.thinking})


WHOLE = [Whole(fault=fault) for fault in TOLERATED] + [Whole(fault=fault, thinking=True) for fault in THOUGHTFUL]
OTHERS = [Whole(fault=fault) for fault in (*ODD_TEXTS, *UNKNOWN_USAGE, *TRUNCATED, *(row[0] for row in REFUSED))]
ROWS: list[Broken | Whole] = [*BROKEN, *WHOLE, *OTHERS]


@dataclass(kw_only=True)
class Ran:
    """All jobs after their run, read into memory once."""

    bench: Bench
    items: dict[str, list[Record]]
    attempts: dict[str, list[Record]]
    """The first attempt of each item."""
    answers: dict[int, Record]
    """By attempt."""
    usage: dict[int, Record]
    spoken: dict[str, dict[str, str]]
    """What the simulator says to each item when nothing goes wrong."""


@pytest.fixture(scope="module", params=KINDS)
def database_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def ran(module_database_url: str, tmp_path_factory: pytest.TempPathFactory, simulator: Running) -> Iterator[Ran]:
    with opened_bench(module_database_url, tmp_path_factory.mktemp("work"), simulator) as bench:
        bench.at(*(row.spec if isinstance(row, Broken) else row.fault for row in ROWS))
        specs = [row.job for row in ROWS]
        ids = bench.load(*specs)
        bench.run(ids)
        names = dict(zip(ids, (spec.name for spec in specs), strict=True))
        with oracle(simulator) as ask:
            yield Ran(
                bench=bench,
                items={names[job_id]: bench.items_of(job_id) for job_id in ids},
                attempts={
                    names[job_id]: [row for row in bench.attempts_of(job_id) if row.fence == 1] for job_id in ids
                },
                answers={row.attempt_id: row for row in bench.rows(answers)},
                usage={row.attempt_id: row for row in bench.rows(usage)},
                spoken={
                    names[row.id]: {
                        item.custom_id: ask(row.spec, item.variables["text"]) for item in bench.items_of(row.id)
                    }
                    for row in bench.rows(jobs)
                },
            )


def named(row: Broken | Whole) -> str:
    return row.name


broken = pytest.mark.parametrize("row", BROKEN, ids=named)
whole = pytest.mark.parametrize("row", WHOLE, ids=named)


@broken
def test_the_failure_is_stored_by_its_kind(ran: Ran, row: Broken) -> None:
    found = {(attempt.outcome, attempt.error_kind, attempt.http_status) for attempt in ran.attempts[row.name]}
    assert found == {("failed", row.kind, row.status)}


@broken
def test_the_failure_says_something(ran: Ran, row: Broken) -> None:
    assert all(attempt.error and "\n" not in attempt.error for attempt in ran.attempts[row.name])


@broken
def test_only_its_own_counter_grows(ran: Ran, row: Broken) -> None:
    assert {(item.free_tries, item.paid_tries) for item in ran.items[row.name]} == {(not row.paid, row.paid)}


@broken
def test_the_retry_brings_the_right_text(ran: Ran, row: Broken) -> None:
    expected = ran.spoken[row.name]
    if LONG in row.fault:
        expected = {name: repeated(text) for name, text in expected.items()}
    assert texts(ran, row) == expected
    assert {item.state for item in ran.items[row.name]} == {"done"}


@broken
def test_what_had_arrived_is_kept(ran: Ran, row: Broken) -> None:
    kept = [ran.answers.get(attempt.id) for attempt in ran.attempts[row.name]]
    assert [answer is not None for answer in kept] == [row.text, row.text]
    wholes = list(texts(ran, row).values())
    assert all(answer is None or text.startswith(answer.text) for answer, text in zip(kept, wholes, strict=True))
    assert not any(answer is not None and answer.complete for answer in kept)


@broken
def test_the_failed_attempt_has_a_cost_only_if_it_may_have_one(ran: Ran, row: Broken) -> None:
    for attempt in ran.attempts[row.name]:
        line = ran.usage.get(attempt.id)
        if not row.paid:
            assert line is None
        else:
            assert line is not None
            assert (line.cost_low == line.cost_high > 0) if row.usage else (line.cost_low == 0 < line.cost_high)


@whole
def test_nothing_is_wrong_with_the_answer(ran: Ran, row: Whole) -> None:
    expected = ran.spoken[row.name]
    if "chunks=" in row.fault:
        expected = {name: repeated(text, 20) for name, text in expected.items()}
    assert {item.state for item in ran.items[row.name]} == {"done"}
    assert texts(ran, row) == expected


@whole
def test_one_call_is_enough(ran: Ran, row: Whole) -> None:
    assert {(item.fence, item.free_tries, item.paid_tries) for item in ran.items[row.name]} == {(1, 0, 0)}


@whole
def test_its_cost_is_exact(ran: Ran, row: Whole) -> None:
    lines = [ran.usage[attempt.id] for attempt in ran.attempts[row.name]]
    assert all(line.cost_low == line.cost_high > 0 for line in lines)


def test_separators_and_other_scripts_survive(ran: Ran) -> None:
    for fault in ("unicode", "unicode+split=1"):
        row = Whole(fault=fault)
        assert texts(ran, row) == {name: text + ODDITIES for name, text in ran.spoken[row.name].items()}


def test_a_nul_character_becomes_a_replacement_character(ran: Ran) -> None:
    expected = {name: text + " A NUL\ufffdhere." for name, text in ran.spoken["nul"].items()}
    assert texts(ran, Whole(fault="nul")) == expected


def test_half_a_surrogate_pair_becomes_a_replacement_character(ran: Ran) -> None:
    expected = {name: text + " Half a pair: \ufffd." for name, text in ran.spoken["surrogate"].items()}
    assert texts(ran, Whole(fault="surrogate")) == expected


def test_bytes_that_are_no_text_become_replacement_characters(ran: Ran) -> None:
    found = texts(ran, Whole(fault="invalid-utf8"))
    assert all("\ufffd" in text for text in found.values())
    assert {name: text.replace("\ufffd", "") for name, text in found.items()} == ran.spoken["invalid-utf8"]


def test_a_repeated_chunk_is_not_guessed_away(ran: Ran) -> None:
    """Chunks carry no number, and texts do repeat themselves: what was sent is what is stored."""
    for item, text in texts(ran, Whole(fault="duplicate")).items():
        once = ran.spoken["duplicate"][item]
        extra = len(text) - len(once)
        assert extra > 0
        assert any(text[:at] + text[at + extra :] == once for at in range(len(text)))


@pytest.mark.parametrize("fault", UNKNOWN_USAGE)
def test_an_answer_without_usage_is_done_at_an_unknown_price(ran: Ran, fault: str) -> None:
    row = Whole(fault=fault)
    lines = [ran.usage[attempt.id] for attempt in ran.attempts[row.name]]
    assert texts(ran, row) == ran.spoken[row.name]
    assert all((line.input_tokens, line.output_tokens) == (None, None) for line in lines)
    assert all(line.cost_low == 0 < line.cost_high for line in lines)


@pytest.mark.parametrize("fault", TRUNCATED)
def test_a_cut_answer_is_kept_and_not_bought_again(ran: Ran, fault: str) -> None:
    row = Whole(fault=fault)
    assert {(item.state, item.fence) for item in ran.items[row.name]} == {("truncated", 1)}
    for item, text in texts(ran, row).items():
        assert 0 < len(text) < len(ran.spoken[row.name][item])
        assert ran.spoken[row.name][item].startswith(text)


@pytest.mark.parametrize(("fault", "kind", "status"), REFUSED)
def test_a_refusal_that_does_not_pass_is_not_repeated(ran: Ran, fault: str, kind: str, status: int) -> None:
    found = {(item.state, item.fence, item.error_kind) for item in ran.items[fault]}
    assert found == {("failed", 1, kind)}
    assert {attempt.http_status for attempt in ran.attempts[fault]} == {status}


def test_a_refusal_costs_nothing_and_moderation_may(ran: Ran) -> None:
    billed = {fault: any(attempt.id in ran.usage for attempt in ran.attempts[fault]) for fault, _, _ in REFUSED}
    assert [fault for fault, may in billed.items() if may] == ["moderation"]


def test_the_invariants_hold_after_all_these_faults(ran: Ran) -> None:
    ids = [row.id for row in ran.bench.rows(jobs)]
    check_items(ran.bench, ids)
    check_attempts(ran.bench, ids, 0)
    check_money(ran.bench, ids)
    check_reservations(ran.bench)
    check_file(ran.bench)


def texts(ran: Ran, row: Broken | Whole) -> dict[str, str]:
    """The answers by the names of their items."""
    return {
        item.custom_id: ran.answers[item.answer_id].text for item in ran.items[row.name] if item.answer_id is not None
    }


def repeated(text: str, chunks: int = 40) -> str:
    """What `chunks=N` makes of an answer: its tokens over and over, three in a chunk."""
    return "".join(islice(cycle(pieces(text.rstrip() + " ")), 3 * chunks))

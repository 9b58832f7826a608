"""What the tests of providers besides Model Studio share: their night, and what must hold after it."""

from __future__ import annotations

from batchrun.database import reading
from batchrun.reports.cost import CostLine, cost_by
from batchrun.simulator import BookRow
from batchrun.tables import Record, attempts, items, jobs, profiles, usage
from tests.integration.running import (
    Bench,
    check_attempts,
    check_file,
    check_items,
    check_money,
    check_reservations,
    job,
)

MODEL = "kimi-k2.5"
BAD_NIGHT = "+".join(
    [
        "429-pct=10-once",
        "500-pct=10-once",
        "503-pct=10-once",
        "reset-after=4-pct=10-once",
        "truncate=5-pct=10-once",
        "usage=missing-pct=10",
    ]
)


def check_run(bench: Bench) -> None:
    """All invariants but that of the texts: another region can't be asked for them."""
    ids = [row.id for row in bench.rows(jobs)]
    check_items(bench, ids)
    check_attempts(bench, ids, 0)
    check_money(bench, ids)
    check_reservations(bench)
    check_file(bench)


def check_arrears(bench: Bench, error: str, remedy: str) -> None:
    """A job at a provider of the fault `arrearage` stops at once, says why and what to do, and loses nothing."""
    end = bench.go(job("poor", 5, model=MODEL, fault="arrearage"))
    (profile,) = bench.rows(profiles)
    assert (end.exit_code, profile.paused) == (3, "arrears")
    assert profile.pause_message.startswith(error)
    assert profile.pause_message.endswith(remedy)
    assert {item.state for item in bench.rows(items)} == {"pending"}


def by_job(bench: Bench) -> dict[str, CostLine]:
    with reading(bench.engine) as connection:
        return {line.key: line for line in cost_by(connection, "job")}


def booked(bench: Bench) -> list[tuple[Record, BookRow]]:
    """Each usage row of a complete answer whose usage arrived, and the book's row of that request."""
    book = {name: row for row in bench.book() for name in (row.request_id, row.chat_id)}
    names = {row.id: row.request_id for row in bench.rows(attempts, attempts.c.outcome == "complete")}
    known = [row for row in bench.rows(usage) if row.attempt_id in names and row.input_tokens is not None]
    return [(row, book[names[row.attempt_id]]) for row in known]

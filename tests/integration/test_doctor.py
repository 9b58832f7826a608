"""`doctor` on real databases that were damaged by hand: it names each damage, mends what it says it mends, and then
finds nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy import Connection, Engine

from batchrun.call import FREE_OF_CHARGE
from batchrun.database import connect, reading, writing
from batchrun.examining import Examination, examine
from batchrun.examining.checking import Level
from batchrun.settings import Settings, read_settings
from batchrun.states import State
from batchrun.store import health
from batchrun.store.health import Damage
from batchrun.tables import answers, attempts, audit, items, jobs, profiles, usage, workers
from tests.filling import NOON, WORKER, Filling
from tests.integration.running import Bench, job

SPEC = {"retry": {"attempts": 4}}
GONE = "worker-gone"
KEY = {"DASHSCOPE_API_KEY": "sk-canary-123456"}


@dataclass(frozen=True, kw_only=True)
class Healthy:
    """Where everything agrees: a job with an item that is done, one that is pending, and a live worker."""

    url: str
    engine: Engine
    job: int
    done: int
    attempt: int
    pending: int

    def examine(self, *, mend: bool = False, environment: Mapping[str, str] = KEY) -> Examination:
        settings = Settings(database_url=self.url, catalogue=None, environment=environment)
        return examine(settings, version="0", mend=mend, offline=True)

    def change(self, act: Callable[[Connection, Healthy], None]) -> None:
        with writing(self.engine) as connection:
            act(connection, self)

    def value(self, column: sa.ColumnElement[object], *where: sa.ColumnElement[bool]) -> object:
        with reading(self.engine) as connection:
            return connection.execute(sa.select(column).where(*where)).scalar_one()

    def state(self, item: int) -> object:
        return self.value(items.c.state, items.c.id == item)


@pytest.fixture
def healthy(database_url: str) -> Iterator[Healthy]:
    engine = connect(database_url)
    with writing(engine) as connection:
        fill = Filling(connection)
        made = fill.job("captions", spec=SPEC, spent=Decimal("0.5"))
        done = fill.call(made)
        attempt = connection.execute(sa.select(items.c.answer_id).where(items.c.id == done)).scalar_one()
        pending = fill.item(made)
        connection.execute(sa.insert(workers).values(id=GONE, host="elsewhere", pid=2, started_at=NOON, ended_at=NOON))
    yield Healthy(url=database_url, engine=engine, job=made, done=done, attempt=attempt, pending=pending)
    engine.dispose()


def bad(examination: Examination) -> list[str]:
    return [found.found for found in examination.findings if found.level is Level.BAD]


# What can be wrong with rows


def lose_answer(connection: Connection, rows: Healthy) -> None:
    connection.execute(sa.delete(answers).where(answers.c.attempt_id == rows.attempt))


def forget_answer(connection: Connection, rows: Healthy) -> None:
    connection.execute(sa.update(items).where(items.c.id == rows.done).values(answer_id=None))


def swap_answer(connection: Connection, rows: Healthy) -> None:
    other = Filling(connection, first=False).item(rows.job, "other", state=State.DONE)
    connection.execute(sa.update(items).where(items.c.id == other).values(answer_id=rows.attempt))


def cut_answer(connection: Connection, rows: Healthy) -> None:
    connection.execute(sa.update(answers).where(answers.c.attempt_id == rows.attempt).values(complete=False))


def overlook_answer(connection: Connection, rows: Healthy) -> None:
    lost = {"state": "failed", "answer_id": None, "error_kind": "lost", "error": "?"}
    connection.execute(sa.update(items).where(items.c.id == rows.done).values(lost))


def orphan_call(connection: Connection, rows: Healthy) -> None:
    add_open_call(connection, rows, GONE)


def add_open_call(connection: Connection, rows: Healthy, worker: str) -> None:
    fill = Filling(connection, first=False)
    made = fill.attempt(rows.pending, outcome="open", reserved=Decimal(2), is_answer=False)
    connection.execute(sa.update(attempts).where(attempts.c.id == made).values(worker_id=worker, ended_at=None))
    connection.execute(sa.update(items).where(items.c.id == rows.pending).values(state="claimed", owner=worker))
    connection.execute(sa.update(jobs).where(jobs.c.id == rows.job).values(reserved=Decimal(2)))


def claim_without_call(connection: Connection, rows: Healthy) -> None:
    connection.execute(sa.update(items).where(items.c.id == rows.pending).values(state="claimed", owner=WORKER))


def lose_usage(connection: Connection, rows: Healthy) -> None:
    connection.execute(sa.delete(usage).where(usage.c.attempt_id == rows.attempt))
    connection.execute(sa.update(attempts).where(attempts.c.id == rows.attempt).values(reserved=Decimal("0.75")))


def invent_usage(connection: Connection, rows: Healthy) -> None:
    fill = Filling(connection, first=False)
    fill.usage(fill.attempt(rows.pending, outcome="unsent", is_answer=False), low="0.25")


DAMAGES = {
    lose_answer: Damage.NO_ANSWER,
    forget_answer: Damage.NO_ANSWER,
    swap_answer: Damage.WRONG_ANSWER,
    cut_answer: Damage.WRONG_ANSWER,
    overlook_answer: Damage.UNCLAIMED_ANSWER,
    orphan_call: Damage.CALLS_OF_DEAD,
    claim_without_call: Damage.CLAIMED_WITHOUT_CALL,
    lose_usage: Damage.MISSING_USAGE,
    invent_usage: Damage.EXTRA_USAGE,
}


def test_a_database_that_agrees_with_itself_has_nothing_bad(healthy: Healthy) -> None:
    assert bad(healthy.examine()) == []


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda act: act.__name__)
def test_each_damage_is_named_mended_and_then_gone(healthy: Healthy, damage: Callable[..., None]) -> None:
    healthy.change(damage)
    named = bad(healthy.examine())
    assert any(DAMAGES[damage].value in text and "captions" in text for text in named), named
    assert healthy.examine(mend=True).mended
    assert bad(healthy.examine()) == []


@pytest.mark.parametrize("counter", ["spent", "reserved"])
def test_a_counter_that_drifted_is_told_with_both_amounts_and_counted_again(healthy: Healthy, counter: str) -> None:
    right = healthy.value(jobs.c[counter])
    with writing(healthy.engine) as connection:
        connection.execute(sa.update(jobs).values({counter: Decimal("1.25")}))
    expected = "0.5" if counter == "spent" else "0"
    assert bad(healthy.examine()) == [f"captions: {counter} says 1.25 USD, its calls come to {expected}"]
    assert healthy.examine(mend=True).mended == [f"captions: {counter} is {expected} USD, not 1.25"]
    assert healthy.value(jobs.c[counter]) == right


def test_looking_changes_nothing(healthy: Healthy) -> None:
    for damage in (orphan_call, lose_usage):
        healthy.change(damage)
    before = contents(healthy.engine)
    healthy.examine()
    assert contents(healthy.engine) == before


def contents(engine: Engine) -> dict[str, list[tuple[object, ...]]]:
    with reading(engine) as connection:
        return {
            table.name: [tuple(row) for row in connection.execute(sa.select(table).order_by(*table.primary_key))]
            for table in (jobs, items, attempts, answers, usage, workers, audit, profiles)
        }


def test_an_item_whose_answer_is_gone_fails_and_is_not_bought_again_unasked(healthy: Healthy) -> None:
    healthy.change(lose_answer)
    healthy.examine(mend=True)
    assert healthy.state(healthy.done) == "failed"


def test_a_complete_answer_of_a_failed_item_ends_it(healthy: Healthy) -> None:
    healthy.change(overlook_answer)
    healthy.examine(mend=True)
    assert healthy.state(healthy.done) == "done"
    assert healthy.value(items.c.answer_id, items.c.id == healthy.done) == healthy.attempt


def test_an_answer_that_retry_gave_up_is_no_damage(healthy: Healthy) -> None:
    """A cut answer that was to be bought again, and then the item failed."""

    def give_up(connection: Connection, rows: Healthy) -> None:
        overlook_answer(connection, rows)
        connection.execute(sa.update(answers).values(finish_reason="length"))

    healthy.change(give_up)
    assert bad(healthy.examine()) == []


def test_a_call_of_a_dead_worker_is_booked_at_its_reservation(healthy: Healthy) -> None:
    healthy.change(orphan_call)
    healthy.examine(mend=True)
    assert healthy.state(healthy.pending) == "pending"
    assert (healthy.value(jobs.c.spent), healthy.value(jobs.c.reserved)) == (Decimal("2.5"), Decimal(0))


def test_a_call_of_a_live_worker_is_left_alone(healthy: Healthy) -> None:
    healthy.change(lambda connection, rows: add_open_call(connection, rows, WORKER))
    assert bad(healthy.examine()) == []
    assert healthy.examine(mend=True).mended == []


def test_a_missing_usage_is_booked_from_nothing_to_what_was_reserved(healthy: Healthy) -> None:
    healthy.change(lose_usage)
    healthy.examine(mend=True)
    bounds = (healthy.value(usage.c.cost_low), healthy.value(usage.c.cost_high), healthy.value(jobs.c.spent))
    assert bounds == (Decimal(0), Decimal("0.75"), Decimal("0.75"))


def test_what_was_mended_stands_in_the_audit(healthy: Healthy) -> None:
    healthy.change(claim_without_call)
    mended = healthy.examine(mend=True).mended
    detail = healthy.value(audit.c.detail, audit.c.action == "mend")
    assert detail == {"what": mended[0], "ids": [healthy.pending]}


@pytest.mark.parametrize(
    ("kind", "status", "wanted"),
    [("server", 500, True), ("rate_limited", 429, False), ("not_sent", None, False), ("invalid", 200, True)],
)
def test_only_calls_that_may_have_cost_money_need_a_usage_row(
    healthy: Healthy, kind: str, status: int | None, wanted: bool
) -> None:
    def fail(connection: Connection, rows: Healthy) -> None:
        fill = Filling(connection, first=False)
        fill.attempt(rows.pending, outcome="failed", is_answer=False, error_kind=kind, http_status=status)

    healthy.change(fail)
    assert bool(bad(healthy.examine())) is wanted


def test_pauses_of_jobs_and_profiles_are_told_with_the_way_out(healthy: Healthy) -> None:
    with writing(healthy.engine) as connection:
        connection.execute(sa.update(jobs).values(paused="budget", pause_message="all spent"))
        connection.execute(sa.update(profiles).values(paused="arrears", pause_message="overdue"))
    told = [(found.found, found.remedy) for found in healthy.examine().findings if found.check == "pauses"]
    assert [text.split(" is paused ")[1] for text, _ in told] == ["(budget): all spent", "(arrears): overdue"]
    assert all(remedy.endswith("batchrun resume captions") for _, remedy in told)


def test_a_key_that_a_job_waits_for_is_missed_by_its_names_and_never_shown(healthy: Healthy) -> None:
    missing = [finding for finding in healthy.examine(environment={}).findings if finding.check == "keys"]
    assert [(finding.level, "DASHSCOPE_API_KEY" in finding.found) for finding in missing] == [(Level.BAD, True)]
    set_now = healthy.examine()
    assert [finding.level for finding in set_now.findings if finding.check == "keys"] == [Level.OK]
    assert "canary" not in repr(set_now)


def test_a_damaged_file_is_named_and_its_rows_are_not_asked(sqlite_url: str) -> None:
    path = Path(sqlite_url.removeprefix("sqlite:///"))
    engine = connect(sqlite_url)
    with writing(engine) as connection:
        fill = Filling(connection)
        made = fill.job("captions", spec=SPEC)
        for _ in range(500):
            fill.item(made, variables={"text": "x" * 200})
    engine.dispose()
    with path.open("r+b") as file:
        file.seek(os.path.getsize(path) // 2)
        file.write(b"\xff" * 20_000)
    found = examine(
        Settings(database_url=sqlite_url, catalogue=None, environment={}), version="0", mend=False, offline=True
    )
    assert {finding.check for finding in found.findings if finding.level is Level.BAD} == {"integrity"}
    assert found.exit_code == 1


def test_a_folder_that_lies_elsewhere_is_found_where_the_environment_says(sqlite_url: str, tmp_path: Path) -> None:
    engine = connect(sqlite_url)
    with writing(engine) as connection:
        fill = Filling(connection)
        fill.item(
            fill.job("captions", spec={"inputs": {"images": "photos"}}, media_root="/home/somebody/photos"),
            path="1.jpg",
        )
    engine.dispose()
    here = tmp_path / "photos"
    here.mkdir()
    for roots, missing in (("", True), (f"/home/somebody={tmp_path}", False), (str(tmp_path / "none"), True)):
        settings = read_settings({"DATABASE_URL": sqlite_url, "BATCHRUN_MEDIA_ROOT": roots}, tmp_path)
        found = examine(settings, version="0", mend=False, offline=True)
        assert ("media" in {finding.check for finding in found.findings}) is missing


def test_after_a_run_with_faults_everything_agrees(bench: Bench) -> None:
    faults = ("429-every=3", "reset-after=3-every=3", "usage=missing")
    bench.at(*faults)
    bench.go(*(job(f"j{number}", 6, fault=fault) for number, fault in enumerate(faults)))
    with reading(bench.engine) as connection:
        found = health.damages(connection, dead=[], free=FREE_OF_CHARGE)
        assert (found, health.drifts(connection)) == ([], [])

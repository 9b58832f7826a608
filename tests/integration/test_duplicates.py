"""The same request is bought once: 240 pictures of which 60 differ, and what else may happen to them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from batchrun.call import FREE_OF_CHARGE
from batchrun.cli.render import estimate_texts, shared_text
from batchrun.database import clock, reading, writing
from batchrun.errors import ChangedError
from batchrun.jobfile.spec import JobSpec
from batchrun.output.export import export
from batchrun.output.visible import money_text
from batchrun.reports.cost import By, cost_by
from batchrun.reports.results import ItemResult, results
from batchrun.states import State
from batchrun.store import operate
from batchrun.store.health import damages
from batchrun.store.sample import draw
from batchrun.tables import usage
from tests.integration.running import (
    MODEL,
    Bench,
    check_attempts,
    check_items,
    check_money,
    check_reservations,
    ended,
    faulty,
    fresh,
    job,
    wait_until,
)
from tests.integration.test_estimating import estimated

PICTURE = Path(__file__).parents[2] / "batchrun" / "demo" / "pictures" / "chessboard.jpg"
DIFFERENT, COPIES = 60, 4


def pictures(bench: Bench, different: int = DIFFERENT, copies: int = COPIES) -> None:
    """Files of one size: what differs stands behind the end of the picture."""
    folder, picture = bench.folder / "pictures", PICTURE.read_bytes()
    folder.mkdir()
    for number in range(different):
        for copy in range(copies):
            (folder / f"{copy}-{number:03}.jpg").write_bytes(picture + f"{number:06}".encode())


def captions(name: str = "captions", *, prompt: str = "Describe it.", fault: str = "", **settings: object) -> JobSpec:
    document = {"name": name, "provider": faulty(fault), "model": MODEL, "prompt": prompt}
    return JobSpec.model_validate(
        {**document, "inputs": {"images": "pictures"}, "params": {"max_tokens": 300}, **settings}
    )


def check(bench: Bench, *ids: int, after_kills: int = 0) -> None:
    check_items(bench, ids)
    check_attempts(bench, ids, after_kills)
    check_money(bench, ids)
    check_reservations(bench)
    with bench.engine.connect() as connection:
        assert damages(connection, dead=[], free=FREE_OF_CHARGE) == []


def groups(bench: Bench, job_id: int) -> Counter[str]:
    """How many items have the same answer, by the picture's number."""
    found = Counter((item.custom_id.partition("-")[2], item.answer_id) for item in bench.items_of(job_id))
    assert len(found) == len({number for number, _ in found})
    return Counter({number: count for (number, _), count in found.items()})


def test_240_pictures_of_which_60_differ_are_60_calls(bench: Bench) -> None:
    pictures(bench)
    (loaded,) = bench.loaded(captions())
    assert (loaded.added, loaded.duplicates) == (240, 180)
    end = bench.run([loaded.job_id])
    assert end.exit_code == 0
    assert bench.states(loaded.job_id) == {"done": 240}
    assert len(bench.book()) == 60
    assert set(groups(bench, loaded.job_id).values()) == {4}
    check(bench, loaded.job_id)


def test_an_estimate_counts_60_calls_before_and_after_loading_and_its_range_holds(bench: Bench) -> None:
    pictures(bench)
    (before,) = estimated(bench, captions())
    ids = bench.load(captions())
    (loaded,) = estimated(bench, captions())
    bench.run(ids)
    (after,) = estimated(bench, captions())
    assert [(made.items, made.ended, made.left, made.shared) for made in (before, loaded, after)] == [
        (240, 0, 60, 180),
        (240, 0, 60, 180),
        (240, 240, 0, 0),
    ]
    assert before.load.calls == 60
    assert before.cost is not None
    assert after.cost is not None
    assert before.cost.low <= after.cost.low
    assert after.cost.low == after.cost.high
    assert after.cost.low <= (before.cost.high or 0)
    assert after.cost.low == sum(row.amount or 0 for row in bench.book())


def test_an_estimate_knows_that_rows_which_are_added_share_answers_that_are_there(bench: Bench) -> None:
    texts = ["one", "two", "one", "three"]
    bench.go(job("grows", texts[:2]))
    (made,) = estimated(bench, job("grows", texts))
    assert (made.ended, made.left, made.shared) == (2, 1, 1)
    pictures(bench, different=2, copies=2)
    (bench.folder / "pictures" / "0-000.jpg").rename(bench.folder / "0-000.jpg")
    bench.go(captions())
    (bench.folder / "0-000.jpg").rename(bench.folder / "pictures" / "9-000.jpg")
    (made,) = estimated(bench, captions())
    assert (made.ended, made.left, made.shared) == (3, 0, 1)


def test_two_drains_at_once_make_60_calls(bench: Bench) -> None:
    pictures(bench)
    (job_id,) = bench.load(captions())
    for process in [bench.drainer([job_id]), bench.drainer([job_id])]:
        ended(process)
    assert bench.states(job_id) == {"done": 240}
    assert len(bench.book()) == 60
    check(bench, job_id)


def test_killed_in_the_middle_only_calls_in_flight_are_repeated(bench: Bench) -> None:
    pictures(bench)
    bench.at(fault := fresh("ttft=0.2"))
    (job_id,) = bench.load(captions(fault=fault, limits={"concurrency": 8}))
    process = bench.drainer([job_id])
    wait_until(lambda: len(bench.book()) > 16, "some calls were made")
    process.kill()
    process.wait()
    bench.run([job_id])
    assert bench.states(job_id) == {"done": 240}
    assert len(bench.book()) <= 60 + 8
    check(bench, job_id, after_kills=8)


ONE_TRY = {"attempts": 1, "max_elapsed": "1s"}


def test_where_the_first_fails_for_another_reason_than_its_request_the_next_one_is_called(bench: Bench) -> None:
    pictures(bench, different=3)
    bench.at(fault := fresh("cut-after=3-once"))
    (job_id,) = bench.load(captions(fault=fault, retry=ONE_TRY))
    bench.run([job_id])
    assert bench.states(job_id) == {"failed": 3, "done": 9}
    assert len(bench.book()) == 6
    check(bench, job_id)


def test_where_the_next_one_fails_too_the_others_are_not_tried(bench: Bench) -> None:
    pictures(bench, different=3)
    bench.at(fault := fresh("cut-after=3"))
    (job_id,) = bench.load(captions(fault=fault, retry=ONE_TRY))
    assert bench.run([job_id]).tally.states["failed"] == 12
    assert bench.states(job_id) == {"failed": 12}
    assert len(bench.book()) == 6
    check(bench, job_id)


@pytest.mark.parametrize("fault", ["400", "moderation"])
def test_a_refusal_is_shared_and_a_retry_asks_once_more_for_all(bench: Bench, fault: str) -> None:
    pictures(bench, different=2)
    bench.at(fault := fresh(f"{fault}-first=2"))
    (job_id,) = bench.load(captions(fault=fault))
    bench.run([job_id])
    assert bench.states(job_id) == {"failed": 8}
    assert len(bench.book()) == 2
    found = results_of(bench, job_id)
    assert found["3-001.jpg"].error_kind == found["0-001.jpg"].error_kind
    assert found["3-001.jpg"].error == f"{found['0-001.jpg'].error} (tried as item 0-001.jpg, which asks the same)"
    check(bench, job_id)
    retried(bench, job_id, State.FAILED)
    assert bench.states(job_id) == {"pending": 2, "blocked": 6}
    bench.run([job_id])
    assert bench.states(job_id) == {"done": 8}
    assert len(bench.book()) == 4
    check(bench, job_id)


def test_what_one_of_them_was_refused_can_be_asked_again_for_it_alone(bench: Bench) -> None:
    bench.at(fault := fresh("400-first=1"))
    (job_id,) = bench.load(job("texts", ["Name a boat."] * 3, fault=fault))
    bench.run([job_id])
    retried(bench, job_id, State.FAILED, "1")
    bench.run([job_id])
    assert bench.states(job_id) == {"failed": 2, "done": 1}
    check(bench, job_id)


def test_a_file_that_can_not_be_sent_fails_all_its_copies_without_a_call(bench: Bench) -> None:
    folder = bench.folder / "pictures"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.jpg").write_bytes(PICTURE.read_bytes()[:2_000])
    (job_id,) = bench.load(captions())
    bench.run([job_id])
    assert bench.states(job_id) == {"failed": 4}
    assert len(bench.attempts_of(job_id)) == 1


def test_a_file_that_is_gone_fails_alone(bench: Bench) -> None:
    pictures(bench, different=1)
    (job_id,) = bench.load(captions())
    (bench.folder / "pictures" / "0-000.jpg").unlink()
    bench.run([job_id])
    assert bench.states(job_id) == {"failed": 1, "done": 3}
    assert len(bench.book()) == 1
    check(bench, job_id)


def test_what_a_changed_file_was_refused_for_its_copies_are_not_refused_for(bench: Bench) -> None:
    pictures(bench, different=1)
    bench.at(fault := fresh("400-first=1"))
    (job_id,) = bench.load(captions(fault=fault))
    (bench.folder / "pictures" / "0-000.jpg").write_bytes(PICTURE.read_bytes())
    bench.run([job_id])
    assert bench.states(job_id) == {"failed": 1, "done": 3}
    assert len(bench.book()) == 2


def test_without_the_folder_of_its_files_nothing_waits_for_ever(bench: Bench) -> None:
    pictures(bench, different=1, copies=2)
    (job_id,) = bench.load(captions())
    (bench.folder / "pictures").rename(bench.folder / "moved")
    bench.run([job_id])
    assert bench.states(job_id) == {"failed": 2}
    assert [row.error_kind for row in bench.attempts_of(job_id)] == ["media"] * 2


def test_copies_of_a_picture_that_the_prompt_names_are_different_requests(sqlite_bench: Bench) -> None:
    pictures(sqlite_bench, different=1)
    (loaded,) = sqlite_bench.loaded(captions(prompt="Describe {{ filename }}."))
    assert loaded.duplicates == 0


def test_switched_off_every_item_is_called(sqlite_bench: Bench) -> None:
    pictures(sqlite_bench, different=1)
    (job_id,) = sqlite_bench.load(captions(deduplicate=False))
    sqlite_bench.run([job_id])
    assert len(sqlite_bench.book()) == 4
    assert {item.request_hash for item in sqlite_bench.items_of(job_id)} == {None}


def test_switched_off_later_those_that_wait_are_called(sqlite_bench: Bench) -> None:
    pictures(sqlite_bench, different=1)
    sqlite_bench.load(captions())
    (job_id,) = sqlite_bench.load(captions(deduplicate=False))
    assert sqlite_bench.states(job_id) == {"pending": 4}


def test_equal_texts_are_one_call(bench: Bench) -> None:
    (job_id,) = bench.load(job("texts", ["Name a boat.", "Name a ship.", "Name a boat.", "Name a boat."]))
    bench.run([job_id])
    assert len(bench.book()) == 2
    assert len(set(bench.answers_of(job_id).values())) == 2
    check(bench, job_id)


def test_what_was_loaded_later_shares_what_was_bought_before(bench: Bench) -> None:
    """Its size was the only one then, so that its content is known from sending it alone."""
    pictures(bench, different=2, copies=1)
    (job_id,) = bench.load(captions())
    bench.run([job_id])
    source = bench.folder / "pictures" / "0-000.jpg"
    (bench.folder / "pictures" / "1-000.jpg").write_bytes(source.read_bytes())
    (loaded,) = bench.loaded(captions())
    assert (loaded.added, loaded.duplicates) == (1, 1)
    bench.run([job_id])
    assert bench.states(job_id) == {"done": 3}
    assert len(bench.book()) == 2
    check(bench, job_id)


def test_what_was_loaded_later_waits_for_what_is_under_way(sqlite_bench: Bench) -> None:
    pictures(sqlite_bench, different=1, copies=1)
    (job_id,) = sqlite_bench.load(captions())
    pictures_of = sqlite_bench.folder / "pictures"
    (pictures_of / "1-000.jpg").write_bytes((pictures_of / "0-000.jpg").read_bytes())
    (loaded,) = sqlite_bench.loaded(captions())
    assert loaded.duplicates == 1
    assert sqlite_bench.states(job_id) == {"pending": 1, "blocked": 1}


@pytest.mark.parametrize("touched", ["0-000.jpg", "2-000.jpg"])
def test_a_file_that_changed_since_it_was_loaded_shares_nothing(bench: Bench, touched: str) -> None:
    """Whether it is the first one, whose answer then is that to another picture, or one that waits."""
    pictures(bench, different=1)
    (job_id,) = bench.load(captions())
    path = bench.folder / "pictures" / touched
    path.write_bytes(path.read_bytes()[:-6] + b"999999")
    bench.run([job_id])
    found = {item.custom_id: item.answer_id for item in bench.items_of(job_id)}
    others = {answer for name, answer in found.items() if name != touched}
    assert bench.states(job_id) == {"done": 4}
    assert len(others) == 1
    assert found[touched] not in others
    assert len(bench.book()) == 2
    check(bench, job_id)


def test_a_row_that_changes_before_it_is_called_no_longer_waits(sqlite_bench: Bench) -> None:
    prompts = ["Name a boat."] * 3
    (job_id,) = sqlite_bench.load(job("texts", prompts))
    (loaded,) = sqlite_bench.loaded(job("texts", ["Name a boat.", "Name a ship.", "Name a boat."]))
    assert loaded.updated == 1
    assert sqlite_bench.states(job_id) == {"pending": 2, "blocked": 1}


def test_a_first_row_that_changes_before_it_is_called_lets_the_next_one_be_called(sqlite_bench: Bench) -> None:
    (job_id,) = sqlite_bench.load(job("texts", ["Name a boat."] * 3))
    sqlite_bench.load(job("texts", ["Name a ship.", "Name a boat.", "Name a boat."]))
    sqlite_bench.run([job_id])
    assert len(sqlite_bench.book()) == 2
    check(sqlite_bench, job_id)


def test_a_row_whose_shared_answer_is_there_can_not_change(sqlite_bench: Bench) -> None:
    (job_id,) = sqlite_bench.load(job("texts", ["Name a boat."] * 2))
    sqlite_bench.run([job_id])
    with pytest.raises(ChangedError, match="Name a ship"):
        sqlite_bench.load(job("texts", ["Name a boat.", "Name a ship."]))


def test_where_the_first_is_cancelled_the_next_one_is_called(bench: Bench) -> None:
    (job_id,) = bench.load(job("texts", ["Name a boat."] * 3))
    cancelled(bench, job_id, "0")
    bench.run([job_id])
    assert bench.states(job_id) == {"cancelled": 1, "done": 2}
    assert len(bench.book()) == 1
    check(bench, job_id)


def test_a_failed_item_shares_the_answer_of_its_duplicate_when_it_is_retried(bench: Bench) -> None:
    bench.at(fault := fresh("cut-after=3-first=1"))
    (job_id,) = bench.load(job("texts", ["Name a boat."] * 3, fault=fault, retry=ONE_TRY))
    bench.run([job_id])
    assert bench.states(job_id) == {"failed": 1, "done": 2}
    retried(bench, job_id, State.FAILED)
    bench.run([job_id])
    assert bench.states(job_id) == {"done": 3}
    assert len(bench.book()) == 2
    check(bench, job_id)


def test_truncated_answers_are_shared_and_bought_once_more_when_they_are_retried(bench: Bench) -> None:
    bench.at(fault := fresh("finish=length-first=1"))
    (job_id,) = bench.load(job("texts", ["Name a boat."] * 3, fault=fault))
    bench.run([job_id])
    assert bench.states(job_id) == {"truncated": 3}
    assert len(bench.book()) == 1
    retried(bench, job_id, State.TRUNCATED)
    bench.run([job_id])
    assert bench.states(job_id) == {"done": 3}
    assert len(bench.book()) == 2


def test_a_duplicate_that_is_retried_by_name_is_bought_for_itself(sqlite_bench: Bench) -> None:
    sqlite_bench.at(fault := fresh("finish=length-first=1"))
    (job_id,) = sqlite_bench.load(job("texts", ["Name a boat."] * 3, fault=fault))
    sqlite_bench.run([job_id])
    retried(sqlite_bench, job_id, State.TRUNCATED, "1")
    sqlite_bench.run([job_id])
    assert sqlite_bench.states(job_id) == {"truncated": 2, "done": 1}
    assert len(sqlite_bench.book()) == 2


def test_a_sample_is_of_different_requests(sqlite_bench: Bench) -> None:
    (job_id,) = sqlite_bench.load(job("texts", ["Name a boat."] * 20 + ["Name a ship."]))
    with sqlite_bench.engine.connect() as connection:
        drawn = draw(connection, [job_id], 3)
    assert len(drawn[job_id]) == 2


# What is told of them.


@pytest.fixture
def shared(sqlite_bench: Bench) -> tuple[Bench, int]:
    (job_id,) = sqlite_bench.load(job("texts", ["Name a boat.", "Name a ship.", "Name a boat.", "Name a boat."]))
    sqlite_bench.run([job_id])
    return sqlite_bench, job_id


def test_the_report_tells_what_was_saved(shared: tuple[Bench, int]) -> None:
    """Twice the cost of the one answer that is shared, to the last digit."""
    bench, job_id = shared
    with reading(bench.engine) as connection:
        (line,) = cost_by(connection, "job", job_ids=[job_id])
    answer = bench.items_of(job_id)[0].answer_id
    (booked,) = bench.rows(usage, usage.c.attempt_id == answer)
    assert (line.calls, line.items, line.shared, line.unknown_saved) == (2, 4, 2, 0)
    assert line.saved_low == line.saved_high == 2 * booked.cost_high
    assert line.cost_high == sum(row.amount for row in bench.book() if row.amount is not None)
    assert line.saved_high is not None
    saved = money_text(line.saved_high)
    assert [text.split(", came to")[0].endswith(" for a call of each item") for text in estimate_texts(line)] == [
        True,
        True,
    ]
    assert shared_text(line) == f"2 calls for 4 items: 2 shared an answer, saved about {saved} {line.currency}"


@pytest.mark.parametrize("by", ["model", "provider", "day"])
def test_what_was_saved_stands_in_each_report(shared: tuple[Bench, int], by: By) -> None:
    bench, _ = shared
    with reading(bench.engine) as connection:
        (line,) = cost_by(connection, by)
    assert (line.calls, line.items, line.shared) == (2, 4, 2)


def test_without_a_price_what_was_saved_is_unknown(sqlite_bench: Bench) -> None:
    (job_id,) = sqlite_bench.load(job("texts", ["Name a boat."] * 3, model="sim-unpriced"))
    sqlite_bench.run([job_id])
    with reading(sqlite_bench.engine) as connection:
        (line,) = cost_by(connection, "job", job_ids=[job_id])
    assert (line.shared, line.saved_high, line.unknown_saved) == (2, None, 2)
    assert shared_text(line).endswith("2 shared an answer, saved an unknown amount")


def results_of(bench: Bench, job_id: int) -> dict[str, ItemResult]:
    with reading(bench.engine) as connection:
        return {item.custom_id: item for item in results(connection, bench.job_row(job_id))}


def test_results_name_the_item_that_was_called(shared: tuple[Bench, int]) -> None:
    found = results_of(*shared)
    assert [item.shared_with for item in found.values()] == [None, None, "0", "0"]
    assert found["2"].text == found["0"].text
    assert found["2"].finished_at == found["0"].finished_at is not None
    assert found["2"].request_id == found["0"].request_id is not None


def test_cost_and_tokens_stand_at_the_item_that_was_called_alone(shared: tuple[Bench, int]) -> None:
    found = results_of(*shared)
    assert (found["2"].cost_high, found["2"].input_tokens, list(found["2"].attempts)) == (None, None, [])
    assert found["0"].cost_high is not None


def test_exports_have_a_line_for_each_item(shared: tuple[Bench, int], tmp_path: Path) -> None:
    bench, _ = shared
    for form in ("jsonl", "csv", "openai"):
        made = export(bench.engine, "texts", form, tmp_path / form)
        assert (made.written, made.unanswered) == (4, 0)
    lines = [json.loads(line) for line in (tmp_path / "openai").read_text().splitlines()]
    assert len({line["id"] for line in lines}) == 4
    assert [line["response"]["body"]["usage"] is None for line in lines] == [False, False, True, True]
    records = [json.loads(line) for line in (tmp_path / "jsonl").read_text().splitlines()]
    assert [record["shared_with"] for record in records] == [None, None, "0", "0"]


def test_each_copy_gets_its_text_file(sqlite_bench: Bench) -> None:
    pictures(sqlite_bench, different=2)
    (job_id,) = sqlite_bench.load(captions(output={"sidecar": "{{ stem }}.txt"}))
    sqlite_bench.run([job_id])
    export(sqlite_bench.engine, "captions", "sidecar", None)
    written = sorted((sqlite_bench.folder / "pictures").glob("*.txt"))
    assert len(written) == 8
    assert len({path.read_text() for path in written if path.stem.endswith("-000")}) == 1


def cancelled(bench: Bench, job_id: int, *names: str) -> None:
    with writing(bench.engine) as connection:
        row = operate.locked(connection, [job_id])[job_id]
        operate.cancel(connection, row, names=names)


def retried(bench: Bench, job_id: int, state: State, *names: str) -> None:
    with writing(bench.engine) as connection:
        operate.locked(connection, [job_id])
        operate.retry(connection, job_id, states={state}, kinds=None, names=names or None, now=clock(connection))

"""From a job file to rows: what is added, what takes effect, what is refused, and that a refusal leaves nothing."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import pytest
import sqlalchemy as sa
from pydantic import JsonValue
from sqlalchemy import Engine

from batchrun.catalogue import Catalogue, load_catalogue
from batchrun.database import reading
from batchrun.errors import ChangedError, SpecError
from batchrun.jobfile.spec import JobFile, JobSpec
from batchrun.loading.itemising import BATCH
from batchrun.loading.loader import Loaded, load
from batchrun.steering.operating import cancel
from batchrun.steering.setting import set_values
from batchrun.tables import Record, items, jobs, profiles
from tests.integration.rows import (
    add_worker,
    answered,
    change_job,
    job_of,
    opened,
    profile_of,
    states_of,
    store_results,
    take,
)

D = Decimal
FREE: dict[str, JsonValue] = {"name": "j", "provider": "own", "model": "unknown", "prompt": "Describe {{ x }}."}
PRICED = FREE | {"model": "known"}

OWN = """
endpoints:
  own:
    dialect: compat
    base_url: http://127.0.0.1:8000/v1
    key_env: []
    open_models: true
    models:
      known:
        max_input: 1000
        max_output: 500
        limits: {requests_per_minute: 600, concurrency: 9}
        prices:
          - currency: EUR
            tiers: [{input: 1, output: 2}]
      unbounded:
        max_input: 1000
        prices:
          - currency: EUR
            tiers: [{input: 1, output: 2}]
      boundless:
        max_output: 500
        prices:
          - currency: EUR
            tiers: [{input: 1, output: 2}]
      fast:
        limits: {requests_per_minute: 900000000000, concurrency: 900000000000}
      blind:
        images: false
"""

Row = Mapping[str, JsonValue]


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    file = tmp_path_factory.mktemp("catalogue") / "own.yaml"
    file.write_text(OWN, encoding="utf-8")
    return load_catalogue(file)


class Desk:
    """A folder with row files, and the database that they are loaded into."""

    def __init__(self, engine: Engine, catalogue: Catalogue, folder: Path) -> None:
        self.engine, self.catalogue, self.folder = engine, catalogue, folder

    def write(self, rows: Sequence[Row] | Sequence[str], name: str = "rows.jsonl") -> None:
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        (self.folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    def load(self, *specs: Mapping[str, JsonValue], heard: list[int] | None = None) -> list[Loaded]:
        """Load a file of these jobs; each takes its rows from rows.jsonl unless it says otherwise."""
        made = [JobSpec.model_validate({"inputs": {"rows": "rows.jsonl"}} | dict(spec)) for spec in specs]
        file = JobFile(version=1, jobs=tuple(made), path=self.folder / "jobs.yaml")
        hear = [] if heard is None else heard
        return load(self.engine, file, self.catalogue, base=self.folder, on_rows=hear.append)

    def refused(self, *specs: Mapping[str, JsonValue]) -> SpecError:
        with pytest.raises(SpecError) as caught:
            self.load(*specs)
        return caught.value

    def contents(self) -> list[object]:
        """All that a load may write."""
        with reading(self.engine) as connection:
            return [
                tuple(row)
                for table in (profiles, jobs, items)
                for row in connection.execute(sa.select(table).order_by(table.c.id))
            ]

    def item(self, custom_id: str) -> Record:
        with reading(self.engine) as connection:
            return connection.execute(sa.select(items).where(items.c.custom_id == custom_id)).one()

    def answer(self, only: frozenset[int] | None = None) -> None:
        """Everything that is loaded gets an answer."""
        worker = add_worker(self.engine)
        while calls := take(self.engine, worker, 1_000, only=only).calls:
            store_results(self.engine, *(answered(call) for call in calls))


@pytest.fixture
def desk(database_url: str, catalogue: Catalogue, tmp_path: Path) -> Iterator[Desk]:
    folder = tmp_path / "work"
    folder.mkdir()
    with opened(database_url) as engine:
        made = Desk(engine, catalogue, folder)
        made.write([{"id": "a", "x": "one"}, {"id": "b", "x": "two"}])
        yield made


# The first time


def test_every_row_becomes_an_item(desk: Desk) -> None:
    loaded = desk.load(FREE)[0]
    assert (loaded.added, loaded.unchanged, loaded.updated, loaded.created) == (2, 0, 0, True)
    assert states_of(desk.engine, loaded.job_id) == {"pending": 2}


def test_an_item_has_the_variables_of_its_row(desk: Desk) -> None:
    row: Row = {"id": "ключ 1", "x": "😀\u2028\\", "n": 1.5, "none": None, "list": [1, "two"]}
    desk.write([row])
    desk.load(FREE)
    assert desk.item("ключ 1").variables == row


def test_items_stand_in_the_order_of_their_rows(desk: Desk) -> None:
    names = [f"row-{number}" for number in (5, 3, 9, 1)]
    desk.write([{"id": name, "x": name} for name in names])
    desk.load(FREE)
    assert [call.custom_id for call in take(desk.engine, add_worker(desk.engine)).calls] == names


def test_a_job_keeps_what_its_file_says(desk: Desk) -> None:
    settings: dict[str, JsonValue] = {
        "priority": 7,
        "tags": ["spring"],
        "budget": {"max_cost": "5.00 EUR"},
        "limits": {"concurrency": 3, "requests_per_minute": 60, "tokens_per_minute": 10_000, "tokens_per_day": 10**6},
    }
    job = job_of(desk.engine, desk.load(PRICED | settings)[0].job_id)
    assert (job.priority, job.tags, job.cap, job.currency) == (7, ["spring"], D(5), "EUR")
    assert (job.concurrency, job.requests_per_minute, job.tokens_per_minute, job.tokens_per_day) == (
        3, 60, 10_000, 10**6,
    )  # fmt: skip


def test_a_profile_has_the_limits_of_the_catalogue(desk: Desk) -> None:
    profile = profile_of(desk.engine, desk.load(PRICED)[0].job_id)
    assert (profile.requests_per_minute, profile.concurrency, profile.tokens_per_minute) == (600, 9, None)


def test_limits_as_large_as_a_catalogue_may_write_them_fit(desk: Desk) -> None:
    profile = profile_of(desk.engine, desk.load(FREE | {"model": "fast"})[0].job_id)
    assert (profile.requests_per_minute, profile.concurrency) == (9 * 10**11, 9 * 10**11)


def test_jobs_of_one_model_share_a_profile(desk: Desk) -> None:
    loaded = desk.load(PRICED, PRICED | {"name": "other"}, FREE | {"name": "third"})
    ids = [job_of(desk.engine, one.job_id).profile_id for one in loaded]
    assert ids[0] == ids[1] != ids[2]


def test_each_job_of_a_file_expects_the_tokens_of_its_own_rows(desk: Desk) -> None:
    """They pace the first calls under a limit of tokens."""
    desk.write([{"id": "a", "x": "x" * 40_000}], "long.jsonl")
    loaded = desk.load(FREE, FREE | {"name": "long", "inputs": {"rows": "long.jsonl"}})
    expected = [job_of(desk.engine, one.job_id).expected_tokens for one in loaded]
    assert expected[0] < 400
    assert 10_000 < expected[1] < 11_000


def test_rows_are_counted_while_they_are_read(desk: Desk) -> None:
    desk.write([{"id": str(number), "x": "x"} for number in range(BATCH + 1)])
    heard: list[int] = []
    desk.load(FREE, FREE | {"name": "again"}, heard=heard)
    assert heard == [BATCH, BATCH + 1, 2 * BATCH + 1, 2 * BATCH + 2]


# The same file again


def test_the_same_file_again_adds_nothing(desk: Desk) -> None:
    first = desk.load(FREE)[0]
    before = desk.contents()
    again = desk.load(FREE)[0]
    assert (again.job_id, again.added, again.unchanged, again.created) == (first.job_id, 0, 2, False)
    assert desk.contents() == before


def test_new_rows_are_added_wherever_they_stand(desk: Desk) -> None:
    job = desk.load(FREE)[0].job_id
    desk.answer()
    desk.write([{"id": "new", "x": "x"}, {"id": "b", "x": "two"}, {"id": "a", "x": "one"}])
    again = desk.load(FREE)[0]
    assert (again.added, again.unchanged) == (1, 2)
    assert states_of(desk.engine, job) == {"done": 2, "pending": 1}


def test_a_row_that_is_gone_stays_an_item(desk: Desk) -> None:
    job = desk.load(FREE)[0].job_id
    desk.write([{"id": "a", "x": "one"}])
    desk.load(FREE)
    assert states_of(desk.engine, job) == {"pending": 2}


def test_two_loads_at_once_add_each_row_once(desk: Desk) -> None:
    desk.write([{"id": str(number), "x": "x"} for number in range(50)])
    start = threading.Barrier(2)

    def work(_: int) -> int:
        start.wait()
        return desk.load(FREE)[0].added

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(work, range(2))) == [0, 50]


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"priority": 5}, "priority"),
        ({"tags": ["new"]}, "tags"),
        ({"limits": {"concurrency": 2}}, "limits"),
        ({"retry": {"attempts": 9}}, "retry"),
        ({"timeouts": {"silence": "9s"}}, "timeouts"),
        ({"budget": {"max_cost": "9.00 EUR"}}, "budget"),
        ({"stream": False}, "stream"),
        ({"output": {"sidecar": "{{ id }}.txt"}}, "output"),
    ],
)
def test_a_changed_setting_takes_effect_and_is_told(desk: Desk, change: dict[str, JsonValue], name: str) -> None:
    desk.load(PRICED)
    desk.answer()
    loaded = desk.load(PRICED | change)[0]
    assert loaded.changed == [name]
    spec = job_of(desk.engine, loaded.job_id).spec
    assert spec == {**JobSpec.model_validate({"inputs": {"rows": "rows.jsonl"}} | PRICED | change).snapshot(), "base": str(desk.folder)}  # fmt: skip  # noqa: E501


def test_a_changed_limit_holds_at_the_next_claim(desk: Desk) -> None:
    desk.load(FREE)
    desk.load(FREE | {"limits": {"concurrency": 1}})
    assert len(take(desk.engine, add_worker(desk.engine)).calls) == 1


def test_a_limit_that_was_taken_out_is_gone(desk: Desk) -> None:
    desk.load(FREE | {"limits": {"requests_per_minute": 1}, "priority": 3, "tags": ["t"]})
    job = job_of(desk.engine, desk.load(FREE)[0].job_id)
    assert (job.requests_per_minute, job.priority, job.tags) == (None, 0, [])


def test_a_larger_budget_lets_a_job_go_on_that_had_used_up_its_own(desk: Desk) -> None:
    job = desk.load(PRICED | {"budget": {"max_cost": "1.00 EUR"}})[0].job_id
    change_job(desk.engine, job, paused="budget", pause_message="used up")
    desk.load(PRICED | {"budget": {"max_cost": "2.00 EUR"}})
    row = job_of(desk.engine, job)
    assert (row.paused, row.pause_message, row.cap) == (None, None, D(2))


def test_loading_again_lifts_no_other_pause(desk: Desk) -> None:
    job = desk.load(PRICED)[0].job_id
    change_job(desk.engine, job, paused="person")
    desk.load(PRICED | {"budget": {"max_cost": "2.00 EUR"}})
    assert job_of(desk.engine, job).paused == "person"


# What `set` has changed since


def put(desk: Desk, **changes: object) -> None:
    set_values(desk.engine, "j", changes, lambda: desk.catalogue, simulated=False, actor="anna@desk")


LIMITED: dict[str, JsonValue] = PRICED | {
    "limits": {"concurrency": 64},
    "budget": {"max_cost": "1.00 EUR"},
    "priority": 1,
}


def test_what_was_set_by_hand_survives_the_same_file(desk: Desk) -> None:
    job = desk.load(LIMITED)[0].job_id
    put(desk, concurrency=8, budget="3.00 EUR", priority=9, tokens_per_minute=500)
    desk.load(LIMITED)
    row = job_of(desk.engine, job)
    assert (row.concurrency, row.cap, row.priority, row.tokens_per_minute) == (8, 3, 9, 500)


def test_what_was_set_by_hand_is_told_with_the_way_back(desk: Desk) -> None:
    desk.load(LIMITED)
    put(desk, concurrency=8, budget="3.00 EUR", tokens_per_minute=500)
    assert desk.load(LIMITED)[0].notes == [
        "tokens_per_minute is 500, set by hand; the job file says none",
        "concurrency is 8, set by hand; the job file says 64",
        "budget is 3.00 EUR, set by hand; the job file says 1.00 EUR",
        "to follow the job file: batchrun set j tokens_per_minute=none concurrency=64 'budget=1.00 EUR'",
    ]


def test_a_value_that_the_file_changes_takes_the_place_of_one_set_by_hand(desk: Desk) -> None:
    job = desk.load(LIMITED)[0].job_id
    put(desk, concurrency=8, priority=9)
    loaded = desk.load(LIMITED | {"limits": {"concurrency": 32}})[0]
    row = job_of(desk.engine, job)
    assert (row.concurrency, row.priority, loaded.changed) == (32, 9, ["limits"])


def test_nothing_is_told_where_file_and_hand_agree(desk: Desk) -> None:
    desk.load(LIMITED)
    put(desk, concurrency=8)
    assert desk.load(LIMITED | {"limits": {"concurrency": 8}})[0].notes == []


def test_a_budget_set_by_hand_refuses_rows_that_it_can_not_hold(desk: Desk) -> None:
    boundless: dict[str, JsonValue] = {**PRICED, "model": "boundless", "params": {"max_tokens": 10}}
    desk.load(boundless)
    put(desk, budget="3.00 EUR")
    (desk.folder / "a.jpg").write_bytes(b"")
    desk.write([{"id": "a", "x": "a"}, {"id": "b", "x": "b", "image": "a.jpg"}])
    with pytest.raises(SpecError, match="a budget needs a bound of the input"):
        desk.load(boundless)


def test_cancelled_items_stay_so(desk: Desk) -> None:
    job = desk.load(FREE)[0].job_id
    cancel(desk.engine, ["j"], items=None, simulated=False, actor="anna@desk")
    assert desk.load(FREE)[0].unchanged == 2
    assert states_of(desk.engine, job) == {"cancelled": 2}


def test_what_was_spent_stays(desk: Desk) -> None:
    job = desk.load(PRICED)[0].job_id
    desk.answer()
    desk.load(PRICED | {"budget": {"max_cost": "2.00 EUR"}})
    assert job_of(desk.engine, job).spent == D("0.002")


# What would make an answer the answer to another question


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"prompt": "Count {{ x }}."}, 'prompt: "Describe {{ x }}." → "Count {{ x }}."'),
        ({"system": "Be brief."}, 'system: nothing → "Be brief."'),
        ({"model": "known"}, 'model: "unknown" → "known"'),
        ({"params": {"max_tokens": 5}}, "params.max_tokens: nothing → 5"),
    ],
)
def test_another_request_under_the_same_name_is_refused_and_shown(
    desk: Desk, change: dict[str, JsonValue], line: str
) -> None:
    desk.load(FREE)
    before = desk.contents()
    with pytest.raises(ChangedError) as caught:
        desk.load(FREE | change)
    assert caught.value.message == (
        f"job 'j' was loaded with another request, and its answers belong to that one:\n  {line}"
    )
    assert "j-2" in caught.value.remedy
    assert desk.contents() == before


def test_a_refused_job_keeps_the_other_jobs_of_its_file_out(desk: Desk) -> None:
    desk.load(FREE)
    before = desk.contents()
    with pytest.raises(ChangedError):
        desk.load(FREE | {"name": "new"}, FREE | {"prompt": "Count {{ x }}."})
    assert desk.contents() == before


def test_a_row_that_changed_before_it_was_called_is_updated(desk: Desk) -> None:
    desk.load(FREE)
    desk.write([{"id": "a", "x": "other"}, {"id": "b", "x": "two"}])
    loaded = desk.load(FREE)[0]
    assert (loaded.updated, loaded.unchanged, loaded.added) == (1, 1, 0)
    assert desk.item("a").variables == {"id": "a", "x": "other"}


def test_a_longer_row_reserves_more(desk: Desk) -> None:
    desk.load(FREE)
    before = desk.item("a").input_bound
    desk.write([{"id": "a", "x": "x" * 1_003}])
    desk.load(FREE)
    assert desk.item("a").input_bound == before + 1_000


def test_a_row_that_changed_after_it_was_called_is_refused_and_shown(desk: Desk) -> None:
    desk.load(FREE)
    desk.answer()
    before = desk.contents()
    desk.write([{"id": "a", "x": "one"}, {"id": "b", "x": "\x1b[31mred"}, {"id": "new", "x": "x"}])
    with pytest.raises(ChangedError) as caught:
        desk.load(FREE)
    first, line = caught.value.message.splitlines()
    assert first == "rows of job 'j' that have changed since they were called: 1"
    assert line.startswith('  rows.jsonl:2: x was "two", now ')
    assert "\x1b" not in line
    assert desk.contents() == before


def test_of_many_changed_rows_a_few_are_shown(desk: Desk) -> None:
    desk.write([{"id": str(number), "x": f"old {number}"} for number in range(9)])
    desk.load(FREE)
    desk.answer()
    desk.write([{"id": str(number), "x": "new"} for number in range(9)])
    with pytest.raises(ChangedError) as caught:
        desk.load(FREE)
    lines = caught.value.message.splitlines()
    assert (lines[0], len(lines), lines[-1]) == (
        "rows of job 'j' that have changed since they were called: 9",
        7,
        "  … and 4 more",
    )


def test_a_variable_that_is_gone_is_shown(desk: Desk) -> None:
    prompt = FREE | {"prompt": "Describe {{ x | default('it') }}."}
    desk.load(prompt)
    desk.answer()
    desk.write([{"id": "a"}, {"id": "b", "x": "two"}])
    with pytest.raises(ChangedError, match=r'rows\.jsonl:1: x was "one", now nothing'):
        desk.load(prompt)


def test_what_the_prompt_does_not_use_may_change(desk: Desk) -> None:
    desk.load(FREE)
    desk.answer()
    desk.write([{"id": "a", "x": "one", "note": "new"}, {"id": "b", "x": "two"}])
    assert desk.load(FREE)[0].unchanged == 2


def test_a_picture_that_changed_after_it_was_called_is_refused(desk: Desk) -> None:
    (desk.folder / "cat.jpg").write_bytes(b"12345")
    desk.write([{"id": "a", "x": "one", "image": "cat.jpg"}])
    desk.load(FREE)
    desk.answer()
    (desk.folder / "cat.jpg").write_bytes(b"123456")
    with pytest.raises(ChangedError, match="its picture was"):
        desk.load(FREE)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("https://h/a.jpg?sig=canary1", "https://h/a.jpg?sig=canary2", 'its query changed, in [{"kind": "image"'),
        ("https://h/a.jpg?sig=canary1", "https://h/b.jpg?sig=canary2", "now "),
    ],
)
def test_the_signature_of_a_url_that_changed_is_not_shown(desk: Desk, before: str, after: str, expected: str) -> None:
    desk.write([{"id": "a", "x": "one", "image": before}])
    desk.load(FREE)
    desk.answer()
    desk.write([{"id": "a", "x": "one", "image": after}])
    with pytest.raises(ChangedError) as caught:
        desk.load(FREE)
    assert (expected in caught.value.message, "canary" in caught.value.message) == (True, False)
    assert "https://h/a.jpg?…" in caught.value.message


def test_a_picture_that_comes_and_goes_stops_no_load(desk: Desk) -> None:
    (desk.folder / "p").mkdir()
    (desk.folder / "p" / "a.jpg").symlink_to("real")
    pictures: dict[str, JsonValue] = {**FREE, "inputs": {"images": "p"}, "prompt": "x"}
    desk.load(pictures)
    desk.answer()
    (desk.folder / "p" / "real").write_bytes(b"12345")
    assert desk.load(pictures)[0].unchanged == 1


def test_a_job_may_move_together_with_its_file(desk: Desk) -> None:
    job = desk.load(FREE)[0].job_id
    shutil.move(desk.folder, desk.folder.with_name("moved"))
    desk.folder = desk.folder.with_name("moved")
    desk.load(FREE)
    row = job_of(desk.engine, job)
    assert (row.media_root, row.spec["base"]) == (str(desk.folder), str(desk.folder))


def test_a_job_of_the_same_name_in_another_folder_is_refused(desk: Desk) -> None:
    desk.load(FREE)
    shutil.copytree(desk.folder, desk.folder.with_name("copy"))
    desk.folder = desk.folder.with_name("copy")
    with pytest.raises(ChangedError, match="takes its inputs from"):
        desk.load(FREE)


def test_a_trial_in_the_simulator_stands_beside_the_job_that_costs_money(desk: Desk) -> None:
    model = {"model": "qwen3-vl-plus"}
    trial = desk.load(FREE | model | {"provider": "simulator/model-studio-singapore"})[0]
    real = desk.load(FREE | model | {"provider": "model-studio/singapore"})[0]
    assert (trial.simulated, real.simulated, real.added) == (True, False, 2)
    assert profile_of(desk.engine, trial.job_id).id != profile_of(desk.engine, real.job_id).id


# Bad rows


def refused_rows(desk: Desk, rows: Sequence[Row] | Sequence[str]) -> str:
    """The message, after a check that nothing was written."""
    before = desk.contents()
    desk.write(rows, "bad.jsonl")
    error = desk.refused(FREE | {"name": "good"}, FREE | {"name": "bad", "inputs": {"rows": "bad.jsonl"}})
    assert desk.contents() == before
    return error.message


def good_rows(count: int) -> list[str]:
    return [json.dumps({"id": f"row-{number}", "x": "x"}) for number in range(count)]


def test_a_bad_row_leaves_nothing_of_the_file_behind(desk: Desk) -> None:
    assert "bad.jsonl:1201:" in refused_rows(desk, [*good_rows(1_200), "{not json"])


def test_a_bad_row_of_a_job_that_is_known_leaves_it_as_it_was(desk: Desk) -> None:
    desk.load(FREE | {"name": "bad"}, FREE | {"name": "good"})
    assert "bad.jsonl" in refused_rows(desk, ['{"id": "a", "x": "changed"}', "{not json"])


def test_a_row_without_a_variable_of_the_prompt_is_refused(desk: Desk) -> None:
    message = refused_rows(desk, ['{"id": "a", "x": "x"}', '{"id": "b", "y": "x"}'])
    assert "bad.jsonl:2" in message
    assert "x" in message


@pytest.mark.parametrize("apart", [1, BATCH + 1])
def test_an_id_that_stands_twice_is_refused(desk: Desk, apart: int) -> None:
    rows = good_rows(apart)
    message = refused_rows(desk, [*rows, rows[0]])
    assert f"bad.jsonl:{apart + 1}: the id 'row-0' stands twice in the source" in message


@pytest.mark.parametrize("apart", [1, BATCH + 1])
def test_an_id_that_stands_twice_is_refused_also_when_it_is_known(desk: Desk, apart: int) -> None:
    """Else the row that stands last would win, silently, and the other one with the next load."""
    rows = good_rows(apart)
    desk.write(rows)
    desk.load(FREE)
    before = desk.contents()
    desk.write([*rows, '{"id": "row-0", "x": "another"}'])
    assert f"rows.jsonl:{apart + 1}: the id 'row-0' stands twice" in desk.refused(FREE).message
    assert desk.contents() == before


def test_a_source_without_rows_is_refused(desk: Desk) -> None:
    desk.write([])
    assert "there are no rows in it" in desk.refused(FREE).message


def test_a_source_that_is_not_there_is_refused(desk: Desk) -> None:
    assert "gone.jsonl" in desk.refused(FREE | {"inputs": {"rows": "gone.jsonl"}}).message


def test_all_that_is_wrong_with_the_jobs_is_told_at_once(desk: Desk) -> None:
    error = desk.refused(
        FREE | {"name": "one", "provider": "nobody"},
        FREE | {"name": "fine"},
        FREE | {"name": "two", "budget": {"max_cost": "1.00 EUR"}},
    )
    assert [problem.field for problem in error.problems] == ["jobs[0] `one`", "jobs[2] `two`"]
    assert desk.contents() == []


def test_a_row_that_is_too_long_for_its_model_is_refused(desk: Desk) -> None:
    desk.write([{"id": "a", "x": "word " * 400}, {"id": "b", "x": "word " * 2_000}])
    error = desk.refused(PRICED)
    assert "rows.jsonl:2: its input has at least 1,2" in error.message
    assert "tokens, and known takes 1,000" in error.message


def test_a_picture_for_a_model_that_takes_none_is_refused(desk: Desk) -> None:
    desk.write([{"id": "a", "x": "x", "image": "https://example.org/cat.jpg"}])
    error = desk.refused(FREE | {"model": "blind"})
    assert "rows.jsonl:1: blind at own takes no pictures" in error.message


# Budgets


@pytest.mark.parametrize(
    ("spec", "cap", "message"),
    [
        (FREE, "5.00 EUR", "a budget needs a price, and the catalogue has none for unknown at own"),
        (PRICED, "5.00 USD", "the budget is in USD, the price of known in EUR"),
        (FREE | {"model": "unbounded"}, "5.00 EUR", "a budget needs a bound of the answer's length"),
        (PRICED, "9000001 EUR", "a budget of 9000001 EUR is more than can be counted"),
    ],
)
def test_a_budget_that_can_not_be_kept_is_refused(
    desk: Desk, spec: dict[str, JsonValue], cap: str, message: str
) -> None:
    error = desk.refused(spec | {"budget": {"max_cost": cap}})
    assert message in error.message
    assert error.problems[0].remedy
    assert desk.contents() == []


def test_a_bound_of_the_answer_is_enough_for_a_budget(desk: Desk) -> None:
    desk.load(FREE | {"model": "unbounded", "params": {"max_tokens": 100}, "budget": {"max_cost": "5.00 EUR"}})


def test_a_budget_for_pictures_of_unknown_size_is_refused(desk: Desk) -> None:
    """The job would stop at its first picture, after the texts were paid."""
    desk.write([{"id": "a", "x": "x"}, {"id": "b", "x": "x", "image": "https://example.org/cat.jpg"}])
    error = desk.refused(FREE | {"model": "boundless", "budget": {"max_cost": "5.00 EUR"}})
    assert "rows.jsonl:2: a budget needs a bound of the input" in error.message
    assert desk.contents() == []


def test_a_budget_in_another_currency_than_what_was_spent_is_refused(desk: Desk, tmp_path: Path) -> None:
    desk.load(PRICED)
    desk.answer()
    other = tmp_path / "other.yaml"
    other.write_text(OWN.replace("EUR", "CHF"), encoding="utf-8")
    desk.catalogue = load_catalogue(other)
    with pytest.raises(ChangedError, match="spent in EUR"):
        desk.load(PRICED | {"budget": {"max_cost": "5.00 CHF"}})


def test_a_cap_that_holds_the_job_back_is_told(desk: Desk) -> None:
    desk.write([{"id": str(number), "x": "x"} for number in range(20)])
    loaded = desk.load(PRICED | {"budget": {"max_cost": "0.005 EUR"}})[0]
    assert loaded.notes == [
        "the budget of 0.005 EUR lets 4 calls be in flight at once (one may cost up to 0.0011 EUR); "
        "lower params.max_tokens or raise the budget for more"
    ]


@pytest.mark.parametrize("cap", ["0.0215 EUR", "5.00 EUR"])
def test_a_cap_that_does_not_hold_the_job_back_is_not_mentioned(desk: Desk, cap: str) -> None:
    desk.write([{"id": str(number), "x": "x"} for number in range(9)])
    assert desk.load(PRICED | {"budget": {"max_cost": cap}})[0].notes == []


def test_a_model_that_has_ended_is_mentioned_and_not_refused(desk: Desk, tmp_path: Path) -> None:
    ended = tmp_path / "ended.yaml"
    ended.write_text(
        "endpoints: {own: {base_url: http://127.0.0.1:8000/v1, models: "
        "{old: {retirement: {on: 2026-01-31, replaced_by: new}}}}}",
        encoding="utf-8",
    )
    desk.catalogue = load_catalogue(ended)
    assert desk.load(FREE | {"model": "old"})[0].notes == ["old: announced end 2026-01-31, successor new"]


def test_what_the_vendor_advises_against_is_mentioned_and_not_refused(desk: Desk) -> None:
    job: dict[str, JsonValue] = {
        "provider": "model-studio/singapore",
        "model": "qwen3-vl-plus",
        "thinking": {"enabled": True},
    }
    loaded = desk.load(FREE | job | {"system": "Be brief."})[0]
    assert loaded.notes == ["the vendor advises against `system` while qwen3-vl-plus thinks; say it in the prompt"]


def test_an_answer_longer_than_the_model_gives_is_refused(desk: Desk) -> None:
    job: dict[str, JsonValue] = {
        "provider": "model-studio/singapore",
        "model": "qwen3-vl-plus",
        "params": {"max_tokens": 32_769},
    }
    assert "gives at most 32,768 tokens of answer, and `max_tokens` is 32,769" in desk.refused(FREE | job).message


def test_a_model_without_a_price_runs_without_a_cap(desk: Desk) -> None:
    job = job_of(desk.engine, desk.load(FREE)[0].job_id)
    assert (job.cap, job.currency) == (None, None)


def test_a_price_that_became_known_gives_the_job_its_currency(desk: Desk) -> None:
    job = desk.load(PRICED)[0].job_id
    change_job(desk.engine, job, currency=None)
    desk.load(PRICED)
    assert job_of(desk.engine, job).currency == "EUR"


def test_pdf_files_in_a_folder_of_pictures_are_told(desk: Desk) -> None:
    (desk.folder / "p" / "old").mkdir(parents=True)
    for name in ("a.jpg", "b.pdf", "old/c.PDF", "a.txt"):
        (desk.folder / "p" / name).write_bytes(b"x")
    (loaded,) = desk.load({**FREE, "inputs": {"images": "p"}, "prompt": "x"})
    assert loaded.added == 1
    assert loaded.notes == [
        "2 PDF files are left out: models don't read them; save their pages as pictures first (pdftoppm -png does it)"
    ]

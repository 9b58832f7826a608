"""A folder of lectures: measured, split, sampled, summarised, merged; on both databases."""

from __future__ import annotations

import os
import re
import shutil
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from batchrun.database import reading, writing
from batchrun.errors import ChangedError, SpecError
from batchrun.jobfile.spec import JobSpec
from batchrun.output.export import export
from batchrun.reports.cost import cost_by
from batchrun.running import run
from batchrun.store.sample import draw
from batchrun.tables import answers, items
from tests.integration.running import ROOT, Bench, fresh, job, wait_until

LECTURES = ROOT / "batchrun/demo/lectures"
"""Of 14, 24 and 27 seconds."""


def lectures(bench: Bench, name: str, *, split: str = "10s", take: str = "*.mp4", **settings: object) -> JobSpec:
    folder = bench.folder / "lectures"
    folder.mkdir(exist_ok=True)
    for path in LECTURES.glob(take):
        shutil.copy(path, folder)
    asked = {
        "inputs": {"videos": "lectures/*.mp4"},
        "media": {"split": split, "fps": 1},
        "prompt": f"{name}: answer in JSON what happens from {{{{ start }}}} to {{{{ end }}}} of {{{{ filename }}}}",
    }
    return job(name, 1, **{**asked, **settings})


def test_every_lecture_has_its_parts_and_a_summary_under_its_path(bench: Bench) -> None:
    end = bench.go(lectures(bench, "all"))
    assert (end.exit_code, end.jobs[0].states) == (0, {"done": 11})
    (job_id,) = [one.job_id for one in end.jobs]
    assert [row.custom_id for row in bench.items_of(job_id)] == [
        "bridges.mp4",
        "bridges.mp4#00:00:00-00:00:10",
        "bridges.mp4#00:00:10-00:00:14",
        "sunflowers.mp4",
        "sunflowers.mp4#00:00:00-00:00:10",
        "sunflowers.mp4#00:00:10-00:00:20",
        "sunflowers.mp4#00:00:20-00:00:27",
        "tides.mp4",
        "tides.mp4#00:00:00-00:00:10",
        "tides.mp4#00:00:10-00:00:20",
        "tides.mp4#00:00:20-00:00:24",
    ]


def test_what_the_lectures_cost_is_what_is_billed(bench: Bench) -> None:
    end = bench.go(lectures(bench, "cost", take="tides.mp4"))
    with reading(bench.engine) as connection:
        (line,) = cost_by(connection, "job", job_ids=[end.jobs[0].job_id])
    bill = sum((row.amount for row in bench.book() if row.amount is not None), Decimal(0))
    assert line.cost_low == bill == line.cost_high


def test_the_first_calls_of_short_parts_are_not_paced_as_if_they_were_long_films(bench: Bench) -> None:
    (job_id,) = bench.load(lectures(bench, "paced", take="tides.mp4"))
    assert 500 < bench.job_row(job_id).expected_tokens < 5_000


def test_a_lecture_no_longer_than_a_part_is_one_call(bench: Bench) -> None:
    end = bench.go(lectures(bench, "short", split="20s", take="bridges.mp4"))
    assert (end.jobs[0].states, len(bench.book())) == ({"done": 1}, 1)


def test_loading_again_changes_nothing(bench: Bench) -> None:
    made = lectures(bench, "same")
    bench.load(made)
    (again,) = bench.loaded(made)
    assert (again.added, again.updated, again.unchanged) == (0, 0, 11)


def test_a_video_is_looked_into_again_only_if_it_has_changed(bench: Bench) -> None:
    """Where it were looked into, what stands there now would be no video, and no longer split."""
    made = lectures(bench, "remembered", take="tides.mp4")
    (job_id,) = bench.load(made)
    path = bench.folder / "lectures" / "tides.mp4"
    status = path.stat()
    path.write_bytes(bytes(status.st_size))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    (again,) = bench.loaded(made)
    assert (again.updated, again.unchanged) == (0, 4)
    os.utime(path)
    (again,) = bench.loaded(made)
    assert (again.updated, len(bench.items_of(job_id))) == (1, 1)


@pytest.mark.parametrize(("before", "after", "left"), [("tides", "bridges", 3), ("bridges", "tides", 4)])
def test_a_file_that_was_replaced_before_any_call_has_the_parts_of_the_new_one(
    bench: Bench, before: str, after: str, left: int
) -> None:
    made = lectures(bench, "replaced", take="none")
    shutil.copy(LECTURES / f"{before}.mp4", bench.folder / "lectures" / "talk.mp4")
    (job_id,) = bench.load(made)
    shutil.copy(LECTURES / f"{after}.mp4", bench.folder / "lectures" / "talk.mp4")
    bench.load(made)
    assert len(bench.items_of(job_id)) == left
    assert bench.run([job_id]).jobs[0].states == {"done": left}


def test_a_long_file_in_the_place_of_a_short_one_is_split(bench: Bench) -> None:
    made = lectures(bench, "longer", take="none", split="20s")
    place = bench.folder / "lectures" / "talk.mp4"
    shutil.copy(LECTURES / "bridges.mp4", place)
    (job_id,) = bench.load(made)
    shutil.copy(LECTURES / "tides.mp4", place)
    bench.load(made)
    assert bench.states(job_id) == {"blocked": 1, "pending": 2}
    shutil.copy(LECTURES / "bridges.mp4", place)
    bench.load(made)
    assert bench.states(job_id) == {"pending": 1}


def test_a_file_that_was_replaced_after_its_calls_is_refused(bench: Bench) -> None:
    made = lectures(bench, "called", take="none")
    place = bench.folder / "lectures" / "talk.mp4"
    shutil.copy(LECTURES / "tides.mp4", place)
    bench.go(made)
    shutil.copy(LECTURES / "bridges.mp4", place)
    with pytest.raises(ChangedError):
        bench.load(made)


def test_a_file_that_is_no_video_costs_one_item(bench: Bench) -> None:
    made = lectures(bench, "bad", take="tides.mp4")
    (bench.folder / "lectures" / "notes.mp4").write_bytes(b"not a video at all" * 100)
    end = bench.go(made)
    assert end.jobs[0].states == {"done": 4, "failed": 1}
    failed = next(row for row in bench.items_of(end.jobs[0].job_id) if row.state == "failed")
    assert (failed.custom_id, failed.error_kind, failed.part_of) == ("notes.mp4", "media", None)


def test_a_video_behind_a_url_is_not_split(bench: Bench) -> None:
    rows = {"items": [{"id": "a", "video": "https://example.com/a.mp4"}]}
    with pytest.raises(SpecError, match="a video behind a URL can't be split"):
        bench.load(lectures(bench, "url", take="none", inputs=rows, prompt="What?"))


def test_a_kill_in_the_middle_of_a_lecture_loses_nothing(bench: Bench) -> None:
    fault = fresh("ttft=20-first=2")
    bench.at(fault)
    (job_id,) = bench.load(lectures(bench, "killed", take="tides.mp4", fault=fault, limits={"concurrency": 2}))
    process = bench.drainer([job_id])
    wait_until(lambda: bench.simulator.stats().open == 2, "two parts are in flight")
    process.kill()
    process.communicate()
    assert bench.run([job_id]).jobs[0].states == {"done": 4}
    assert len([row for row in bench.rows(answers) if row.complete]) == 4


def test_a_sampled_video_is_merged_also_where_its_parts_share_the_answers_of_another(bench: Bench) -> None:
    made = lectures(bench, "shared", take="tides.mp4", prompt="What happens?")
    shutil.copy(LECTURES / "tides.mp4", bench.folder / "lectures" / "again.mp4")
    (job_id,) = bench.load(made)
    sharing = next(row.part_of for row in bench.items_of(job_id) if row.waits_for is not None)
    with writing(bench.engine) as connection:
        connection.execute(sa.update(items).where(items.c.id == sharing).values(row_hash=""))  # the first to be drawn
        sample = draw(connection, [job_id], 1)
    run(bench.engine, [job_id], bench.catalogue, bench.settings, sample=sample)
    wholes = {row.id: row.state for row in bench.items_of(job_id) if row.part_of is None}
    assert (wholes.pop(sharing), *wholes.values()) == ("done", "pending")
    assert len(bench.book()) == 4


EVENTS = {
    "prompt": "What happens? Output in JSON with start_time, end_time and event. Use HH:mm:ss.",
    "response_schema": {
        "type": "object",
        "required": ["events"],
        "properties": {
            "events": {
                "type": "array",
                "minItems": 1,
                "items": {"type": "object", "required": ["start_time", "end_time", "event"]},
            }
        },
    },
}
LINES = {"prompt": "What happens? One line for each event, as 00:00:00 - 00:00:05 text."}


@pytest.mark.parametrize("asked", [EVENTS, LINES], ids=["events", "lines"])
def test_times_of_parts_become_times_of_the_lecture(bench: Bench, asked: dict[str, Any]) -> None:
    """In the subtitles, in the document, and in what the merging call was sent."""
    end = bench.go(lectures(bench, "timed", take="tides.mp4", merge_prompt="{{ answers }}", **asked))
    assert (end.jobs[0].states, end.jobs[0].unfit) == ({"done": 4}, 0)
    for form in ("srt", "markdown"):
        export(bench.engine, "timed", form, bench.folder / "out", simulated=True)
    spans = re.findall(r"(00:00:\d\d),000 --> (00:00:\d\d),000", (bench.folder / "out" / "tides.srt").read_text())
    assert (spans[0][0], spans[-1][1]) == ("00:00:00", "00:00:24")
    assert [start for start, _ in spans[1:]] == [stop for _, stop in spans[:-1]]
    assert {"00:00:10", "00:00:20"} < {start for start, _ in spans}
    summary, parts = (bench.folder / "out" / "tides.md").read_text().split("## Parts")
    for told in (summary, parts):
        assert re.findall(r"^(?:- )?(\d\d:\d\d:\d\d) - (\d\d:\d\d:\d\d) A", told, re.MULTILINE) == spans

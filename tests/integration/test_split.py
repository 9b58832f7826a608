"""Long videos: an item for each part and one that merges them, from load to export, on both databases."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
import sqlalchemy as sa

from batchrun.database import clock, reading, writing
from batchrun.errors import ChangedError, ErrorKind
from batchrun.jobfile.spec import JobSpec
from batchrun.loading.itemising import new_item
from batchrun.output.export import export
from batchrun.plan import prepare
from batchrun.reports.cost import cost_by
from batchrun.rows.inputs import Row
from batchrun.rows.references import MediaRef
from batchrun.running import run
from batchrun.segments.splitting import split_row
from batchrun.states import State
from batchrun.store import jobs as store
from batchrun.store import operate
from batchrun.store.claim import Call, claim
from batchrun.store.release import release
from batchrun.store.sample import draw
from batchrun.tables import answers, attempts, items, usage
from tests.integration.rows import add_worker, reap, take
from tests.integration.running import ROOT, Bench, ended, fresh, job, wait_until

PICTURE = ROOT / "batchrun/demo/pictures/signature.png"
SPLIT = timedelta(seconds=10)
PROMPT = "What happens from {{ start }} to {{ end }}, part {{ part }} of {{ parts }} of {{ path }}?"


def spec(name: str, **settings: object) -> JobSpec:
    split = {"media": {"split": "10s"}, "prompt": PROMPT, **settings}
    return job(name, 1, **split)


def load_split(bench: Bench, made: JobSpec, *, seconds: float = 30, videos: int = 1) -> int:
    """The job with so many videos of that length instead of its row. What is sent of each part is a picture: how frames
    are taken isn't looked at here."""
    (job_id,) = bench.load(made.model_copy(update={"prompt": "{{ text }}", "media": type(made.media)()}))
    plan = prepare(made, bench.catalogue)
    rows: list[Row] = []
    for number in range(videos):
        path = f"{made.name}-{number}.png"
        (bench.folder / path).write_bytes(PICTURE.read_bytes())
        media = MediaRef(kind="video", path=path, size=(bench.folder / path).stat().st_size)
        stem = path.removesuffix(".png")
        row = Row(custom_id=path, variables={"path": path, "filename": path, "stem": stem}, media=(media,), place=path)
        rows += [sent_as_picture(one) for one in split_row(row, SPLIT, lambda _: seconds)]
    with writing(bench.engine) as connection:
        connection.execute(sa.delete(items).where(items.c.job_id == job_id))
        values = {"spec": {**made.snapshot(), "base": str(bench.folder)}, "identity": made.identity()}
        store.change_job(connection, job_id, values)
        store.add_items(connection, job_id, [new_item(made, plan, row, capped=False) for row in rows])
    return job_id


def sent_as_picture(row: Row) -> Row:
    return replace(row, media=tuple(replace(media, kind="image") for media in row.media))


def states(bench: Bench, job_id: int) -> dict[str, str]:
    return {row.custom_id.partition("#")[2] or "merged": row.state for row in bench.items_of(job_id)}


DONE = {"merged": "done", "00:00:00-00:00:10": "done", "00:00:10-00:00:20": "done", "00:00:20-00:00:30": "done"}


def test_parts_are_called_and_then_merged_in_one_call(bench: Bench) -> None:
    job_id = load_split(bench, spec("merged"), videos=2)
    end = bench.run([job_id])
    assert (end.exit_code, end.jobs[0].states, len(bench.book())) == (0, {"done": 8}, 8)
    assert bench.answers_of(job_id).keys() >= {"merged-0.png", "merged-1.png"}


def test_what_was_paid_for_parts_and_merges_is_what_the_provider_bills(bench: Bench) -> None:
    job_id = load_split(bench, spec("billed"), videos=2)
    bench.run([job_id])
    with reading(bench.engine) as connection:
        (line,) = cost_by(connection, "job", job_ids=[job_id])
    bill = sum((row.amount for row in bench.book() if row.amount is not None), Decimal(0))
    assert line.cost_low == bill == line.cost_high


def test_the_merging_call_reserves_at_least_what_it_costs(bench: Bench) -> None:
    job_id = load_split(bench, spec("reserved"))
    bench.run([job_id])
    merged = next(row for row in bench.items_of(job_id) if row.part_of is None)
    (made,) = bench.rows(attempts, attempts.c.item_id == merged.id)
    (line,) = bench.rows(usage, usage.c.attempt_id == made.id)
    assert line.input_tokens <= merged.input_bound
    assert line.cost_high <= made.reserved


def test_a_failed_part_is_asked_for_again_and_merged_then(bench: Bench) -> None:
    job_id = load_split(bench, spec("again"))
    with writing(bench.engine) as connection:
        gone = [{"kind": "image", "path": "later.png", "start": 10.0, "end": 20.0}]
        connection.execute(sa.update(items).where(items.c.custom_id.like("%#00:00:10-%")).values(media=gone))
    end = bench.run([job_id])
    assert (end.exit_code, end.jobs[0].states, len(bench.book())) == (1, {"done": 2, "failed": 2}, 2)
    merged = next(row for row in bench.items_of(job_id) if row.part_of is None)
    assert (merged.error_kind, merged.fence) == (ErrorKind.PARTS, 0)
    (bench.folder / "later.png").write_bytes(PICTURE.read_bytes())
    with writing(bench.engine) as connection:
        operate.locked(connection, [job_id])
        operate.retry(connection, job_id, states=[State.FAILED], kinds=None, names=None, now=clock(connection))
    assert states(bench, job_id)["merged"] == "blocked"
    assert bench.run([job_id]).exit_code == 0
    assert (states(bench, job_id), len(bench.book())) == (DONE, 4)


def test_a_kill_in_the_middle_loses_nothing_and_doubles_nothing(bench: Bench) -> None:
    fault = fresh("ttft=20-first=2")
    bench.at(fault)
    job_id = load_split(bench, spec("killed", fault=fault, limits={"concurrency": 2}), videos=2)
    process = bench.drainer([job_id])
    wait_until(lambda: bench.simulator.stats().open == 2, "two parts are in flight")
    process.kill()
    process.communicate()
    end = bench.run([job_id])
    assert end.jobs[0].states == {"done": 8}
    complete = [row for row in bench.rows(answers) if row.complete]
    assert len(complete) == 8
    lost = [row for row in bench.attempts_of(job_id) if row.outcome == "lost"]
    assert len(bench.book()) == 8 + len(lost)


def test_a_worker_that_dies_while_it_merges_leaves_it_to_the_next(bench: Bench) -> None:
    job_id = load_split(bench, spec("merging"))
    with writing(bench.engine) as connection:
        connection.execute(sa.update(items).where(items.c.part_of.is_not(None)).values(state="done"))
        assert release(connection, only=None).called == 1
    worker = add_worker(bench.engine)
    assert len(take(bench.engine, worker).calls) == 1
    reap(bench.engine, worker)
    assert states(bench, job_id)["merged"] in ("pending", "waiting")


def test_two_drains_at_once_merge_once(bench: Bench) -> None:
    job_id = load_split(bench, spec("twice"), videos=4)
    for made in [bench.drainer([job_id]), bench.drainer([job_id])]:
        ended(made)
    assert (bench.states(job_id), len(bench.book())) == ({"done": 16}, 16)


def test_a_sample_brings_all_parts_of_its_videos(bench: Bench) -> None:
    job_id = load_split(bench, spec("sampled"), videos=3)
    with reading(bench.engine) as connection:
        sample = draw(connection, [job_id], 1)
    end = run(bench.engine, [job_id], bench.catalogue, bench.settings, sample=sample)
    assert (end.jobs[0].states, end.jobs[0].outside_sample) == ({"done": 4}, {"pending": 6, "blocked": 2})


def test_a_cancelled_job_has_nothing_left_to_merge(bench: Bench) -> None:
    job_id = load_split(bench, spec("cancelled"))
    with writing(bench.engine) as connection:
        operate.cancel(connection, operate.locked(connection, [job_id])[job_id], names=None)
    end = bench.run([job_id])
    assert (end.jobs[0].states, len(bench.book())) == ({"cancelled": 4}, 0)


@pytest.mark.parametrize("changed", [{"media": {"split": "20s"}}, {"merge_prompt": "In one line: {{ answers }}"}])
def test_another_split_or_another_merge_is_another_request(bench: Bench, changed: dict[str, object]) -> None:
    load_split(bench, made := spec("fixed"))
    other = JobSpec.model_validate({**made.snapshot(), **changed})
    with pytest.raises(ChangedError, match=r"media\.split|merge_prompt"):
        bench.load(other)


def test_answers_too_long_for_the_model_are_not_sent(bench: Bench) -> None:
    job_id = load_split(bench, spec("long"))
    bench.run([job_id])
    with writing(bench.engine) as connection:
        merged = connection.execute(sa.select(items.c.id).where(items.c.part_of.is_(None))).scalar_one()
        connection.execute(sa.update(usage).values(output_tokens=200_000, reasoning_tokens=0))
        connection.execute(sa.update(items).where(items.c.id == merged).values(state="pending", answer_id=None))
    before = len(bench.book())
    bench.run([job_id])
    row = next(row for row in bench.items_of(job_id) if row.part_of is None)
    assert (row.state, row.error_kind, len(bench.book())) == ("failed", "template", before)
    assert "its 3 parts have about 600,000 tokens" in row.error


def answer(bench: Bench, part: str, text: str, parsed: object = None) -> None:
    with writing(bench.engine) as connection:
        attempt = sa.select(items.c.answer_id).where(items.c.custom_id.like(f"%{part}")).scalar_subquery()
        connection.execute(sa.update(answers).where(answers.c.attempt_id == attempt).values(text=text, parsed=parsed))


@pytest.fixture
def told(bench: Bench) -> Bench:
    """A video in three parts with answers that have times, in three forms."""
    job_id = load_split(bench, spec("told"))
    bench.run([job_id])
    answer(bench, "00:00:00-00:00:10", "00:00:01 - 00:00:04 Opening\n\nAnd so on.")
    answer(bench, "00:00:10-00:00:20", "{}", {"events": [{"start": 2.5, "end": 5, "description": "A *dog*"}]})
    answer(bench, "00:00:20-00:00:30", "- [00:00:22 - 00:00:29] The end")
    answer(bench, "told-0.png", "All of it.\x1b[31m")
    return bench


def test_subtitles_have_the_times_of_the_whole_video(told: Bench, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert export(told.engine, "told", "srt", out).written == 1
    assert (out / "told-0.srt").read_text() == (
        "1\n00:00:01,000 --> 00:00:04,000\nOpening\n\n"
        "2\n00:00:12,500 --> 00:00:15,000\nA *dog*\n\n"
        "3\n00:00:22,000 --> 00:00:29,000\nThe end\n"
    )


def test_a_document_has_the_summary_the_parts_and_the_cost(told: Bench, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert export(told.engine, "told", "markdown", out).written == 1
    text = (out / "told-0.md").read_text()
    bill = sum((row.amount for row in told.book() if row.amount is not None), Decimal(0))
    assert text == (
        "# told-0.png\n\nAll of it.\\x1b[31m\n\n## Parts\n\n"
        "### 00:00:00 - 00:00:10\n\n00:00:01 - 00:00:04 Opening\n\nAnd so on.\n\n"
        "### 00:00:10 - 00:00:20\n\n- 00:00:12 - 00:00:15 A \\*dog\\*\n\n"
        "### 00:00:20 - 00:00:30\n\n- [00:00:22 - 00:00:29] The end\n\n"
        f"---\n\nqwen3-vl-plus, 4 calls, simulated: {bill.normalize():f} USD\n"
    )


def test_subtitles_of_answers_without_times_are_a_problem_of_that_video(bench: Bench, tmp_path: Path) -> None:
    bench.run([load_split(bench, spec("untimed"))])
    made = export(bench.engine, "untimed", "srt", tmp_path / "out")
    assert made.sidecars is not None
    assert (made.written, made.complete) == (0, False)
    assert "no answer about it has times" in made.sidecars.shown[0]


def test_a_sidecar_is_the_summary_alone(told: Bench, tmp_path: Path) -> None:
    with writing(told.engine) as connection:
        row = store.job_named(connection, "told", simulated=True)
        assert row is not None
        store.change_job(connection, row.id, {"spec": {**row.spec, "output": {"sidecar": "{{ stem }}.md"}}})
    export(told.engine, "told", "sidecar", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["told-0.md"]
    assert (tmp_path / "out" / "told-0.md").read_text() == "All of it.\x1b[31m\n"


def test_the_merging_call_reads_the_answers_with_their_times(told: Bench) -> None:
    with writing(told.engine) as connection:
        merged = connection.execute(sa.select(items.c.id).where(items.c.part_of.is_(None))).scalar_one()
        connection.execute(sa.update(items).where(items.c.id == merged).values(state=State.PENDING.value))
    (call,) = taken(told)
    said = [(part.start, part.end, part.text) for part in call.parts]
    assert said[1:] == [(10.0, 20.0, "{}"), (20.0, 30.0, "- [00:00:22 - 00:00:29] The end")]


def taken(bench: Bench) -> list[Call]:
    worker = add_worker(bench.engine)
    with writing(bench.engine) as connection:
        return claim(
            connection,
            worker=worker,
            room=10,
            only=None,
            reserve=lambda *_: Decimal(0),
            merges=lambda _job, item: "part" not in item.variables,
        ).calls

"""The same request is bought once: 240 pictures of which 60 differ, and what else may happen to them."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
import sqlalchemy as sa

from batchrun.jobfile.spec import JobSpec
from batchrun.states import State
from batchrun.store.health import damages
from batchrun.tables import items
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
        assert damages(connection, dead=[], free=[]) == []


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
    bench.at(fault := fresh("ttft=200"))
    (job_id,) = bench.load(captions(fault=fault, limits={"concurrency": 8}))
    process = bench.drainer([job_id])
    wait_until(lambda: len(bench.book()) > 16, "some calls were made")
    process.kill()
    process.wait()
    bench.run([job_id])
    assert bench.states(job_id) == {"done": 240}
    assert len(bench.book()) <= 60 + 8
    check(bench, job_id, after_kills=8)


def test_where_the_first_fails_the_next_one_is_called(bench: Bench) -> None:
    pictures(bench, different=3)
    bench.at(fault := fresh("400-once"))
    (job_id,) = bench.load(captions(fault=fault))
    bench.run([job_id])
    assert bench.states(job_id) == {"failed": 3, "done": 9}
    assert len(bench.book()) == 6
    check(bench, job_id)

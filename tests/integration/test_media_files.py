"""Local pictures in a run: sent as they are, and never when they have changed since they were opened."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from batchrun.drain import Stop
from batchrun.jobfile.spec import JobSpec
from batchrun.tables import profiles, usage
from tests.integration.running import MODEL, PATIENCE, Bench, check_items, check_money, check_reservations, faulty

PICTURES = Path(__file__).parents[2] / "batchrun" / "demo" / "pictures"
NAMES = ("chessboard.jpg", "fruit-bowl.jpg")


@pytest.fixture
def folder(sqlite_bench: Bench) -> Path:
    pictures = sqlite_bench.folder / "pictures"
    pictures.mkdir()
    for name in NAMES:
        (pictures / name).write_bytes((PICTURES / name).read_bytes())
    return pictures


def captions(**settings: object) -> JobSpec:
    document = {"name": "captions", "provider": faulty(""), "model": MODEL, "prompt": "Describe {{ filename }}."}
    return JobSpec.model_validate(
        {**document, "inputs": {"images": "pictures"}, "params": {"max_tokens": 300}, **settings}
    )


@pytest.mark.usefixtures("folder")
def test_the_simulator_saw_the_pictures_themselves(sqlite_bench: Bench) -> None:
    ids = sqlite_bench.load(captions())
    assert sqlite_bench.run(ids).exit_code == 0
    texts = sqlite_bench.answers_of(ids[0])
    assert texts["chessboard.jpg"].startswith("A 1200 by 900 pixel JPEG picture")
    assert texts["fruit-bowl.jpg"].startswith("A 1000 by 750 pixel JPEG picture")


@pytest.mark.usefixtures("folder")
def test_the_costs_of_pictures_are_exact(sqlite_bench: Bench) -> None:
    ids = sqlite_bench.load(captions())
    sqlite_bench.run(ids)
    check_money(sqlite_bench, ids)
    assert all(row.image_tokens for row in sqlite_bench.rows(usage))


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def shrink(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("change", [grow, shrink])
def test_a_picture_that_changes_between_opening_and_sending_fails_its_item_for_nothing(
    sqlite_bench: Bench, folder: Path, change: Callable[[Path], None]
) -> None:
    """The second call has been claimed and its file opened; its slot is most of a second after the first one's."""
    (job_id,) = sqlite_bench.load(captions())
    with sqlite_bench.engine.begin() as connection:
        connection.execute(profiles.update().values(requests_per_minute=70))
    with sqlite_bench.running([job_id], Stop()) as run:
        while not any(attempt.outcome == "complete" for attempt in sqlite_bench.attempts_of(job_id)):
            assert not run.done()
        change(folder / NAMES[1])
        end = run.result(PATIENCE)
    first, second = sqlite_bench.items_of(job_id)
    assert (first.state, second.state, second.error_kind) == ("done", "failed", "media")
    assert (second.free_tries, second.paid_tries) == (0, 0)
    assert "changed while it was being sent" in second.error
    assert len(sqlite_bench.book()) == len(sqlite_bench.rows(usage)) == 1
    assert end.exit_code == 1
    check_items(sqlite_bench, [job_id])
    check_reservations(sqlite_bench)

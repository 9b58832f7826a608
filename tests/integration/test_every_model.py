"""Every model of the catalogue that a simulator stands in for, in both wire forms, asked in all ways it allows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from batchrun.catalogue import load_catalogue
from tests.integration.every_model import Asked, Outcome, all_ways, ask_all, billed
from tests.integration.models_page import COMMAND, PAGE, page
from tests.integration.running import running_simulator

CATALOGUE = load_catalogue()
ASKED = all_ways(CATALOGUE)


@pytest.fixture(scope="module")
def outcome(migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    folder = tmp_path_factory.mktemp("models")
    database = folder / "models.db"
    database.write_bytes(migrated_sqlite.read_bytes())
    with running_simulator() as simulator:
        yield ask_all(f"sqlite:///{database}", folder, simulator)


@pytest.mark.parametrize("asked", ASKED, ids=lambda asked: asked.job)
def test_every_way_of_asking_is_answered(outcome: Outcome, asked: Asked) -> None:
    expected = [("text", "done"), ("image", "done")] if asked.images else [("text", "done")]
    assert [(item.custom_id, item.state) for item in outcome.items[asked.job]] == expected
    assert all(outcome.answers[item.answer_id].text for item in outcome.items[asked.job])


@pytest.mark.parametrize("asked", ASKED, ids=lambda asked: asked.job)
def test_a_model_thinks_exactly_when_it_should(outcome: Outcome, asked: Asked) -> None:
    thoughts = {bool(outcome.answers[item.answer_id].reasoning) for item in outcome.items[asked.job]}
    assert thoughts == {asked.thinks}


@pytest.mark.parametrize("asked", ASKED, ids=lambda asked: asked.job)
def test_the_report_of_each_way_is_its_bill(outcome: Outcome, asked: Asked) -> None:
    line = outcome.costs[asked.job]
    assert line.cost_low == billed(outcome, asked) == line.cost_high


@pytest.mark.parametrize("asked", [asked for asked in ASKED if asked.images], ids=lambda asked: asked.job)
def test_a_picture_is_counted(outcome: Outcome, asked: Asked) -> None:
    text, image = (outcome.usage[item.answer_id] for item in outcome.items[asked.job])
    assert image.input_tokens > text.input_tokens


def test_the_page_of_models_is_what_the_catalogue_and_this_run_say(outcome: Outcome) -> None:
    now = page(CATALOGUE, outcome)
    assert PAGE.read_text(encoding="utf-8") == now, f"docs/models.md is stale; write it with: {COMMAND}"


def test_the_page_of_models_fits_80_columns(outcome: Outcome) -> None:
    assert max(len(line) for line in page(CATALOGUE, outcome).splitlines()) <= 80

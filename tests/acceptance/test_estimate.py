"""`estimate` as a person uses it: before the first call, with a sample, after the last; against the bill book."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from PIL import Image

import batchrun
from batchrun.cli import carry_out
from batchrun.errors import UsageError
from batchrun.simulator import BookRow, read_book

BATCHRUN = [sys.executable, "-m", "batchrun"]
JOBS = """
version: 1
defaults: {provider: simulator/model-studio-singapore}
jobs:
  - name: captions
    model: qwen3-vl-plus
    inputs: {images: photos}
    prompt: "Describe {{ filename }} in a sentence."
    params: {max_tokens: 300}
  - name: summaries
    model: qwen-vl-max
    inputs: {rows: rows.jsonl}
    system: "You write for people in a hurry."
    prompt: "Summarise: {{ text }}"
"""
PICTURES, ROWS, SAMPLE = 24, 20, 10
SIDES = (40, 120, 333, 640, 1080, 2500)
TEXTS = (
    "The quick brown fox jumps over the lazy dog. ",
    "请总结这篇文章的主要内容。",
    "Широкая электрификация южных губерний. ",
    "1,234.50 | ",
)

Document = dict[str, Any]


def command(
    folder: Path, *arguments: str, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*BATCHRUN, *arguments],
        cwd=folder,
        env={**os.environ, "COLUMNS": "80", **(environment or {})},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=90,
        check=False,
    )


def document(folder: Path, *arguments: str) -> Document:
    ended = command(folder, *arguments, "--json", "-q")
    assert ended.returncode == 0, ended.stderr
    found: Document = json.loads(ended.stdout)
    return found


def jobs_of(found: Document) -> dict[str, Document]:
    return {job["name"]: job for job in found["jobs"]}


def ends(found: Document) -> tuple[Decimal, Decimal]:
    return Decimal(found["low"]), Decimal(found["high"])


def fill(folder: Path) -> None:
    (folder / "photos").mkdir()
    for number in range(PICTURES):
        size = SIDES[number % len(SIDES)], SIDES[number // 2 % len(SIDES)]
        Image.new("RGB", size, (number, 90, 90)).save(folder / "photos" / f"{number}.png")
    texts = [TEXTS[number % len(TEXTS)] * (1 + number * 3) for number in range(ROWS)]
    lines = [json.dumps({"id": str(number), "text": text}) for number, text in enumerate(texts)]
    (folder / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (folder / "jobs.yaml").write_text(JOBS, encoding="utf-8")


@dataclass(frozen=True, kw_only=True)
class Story:
    """What was said and billed at each step; each step found what the ones before it had left."""

    before: Document
    left_by_it: list[str]
    """Names in the folder after the first estimate."""
    sampled: Document
    again: Document
    printed: str
    full: Document
    after: Document
    books: list[list[BookRow]]
    """The bills after each of: the sample, the sample again, the full run."""

    @property
    def bill(self) -> dict[str, Decimal]:
        """By model, all that was billed in the end."""
        sums: dict[str, Decimal] = {}
        for row in self.books[-1]:
            assert row.amount is not None
            assert row.model is not None
            sums[row.model] = sums.get(row.model, Decimal(0)) + row.amount
        return sums


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("estimate")
    fill(folder)
    before = document(folder, "estimate", "jobs.yaml")
    left = sorted(path.name for path in folder.iterdir())
    book, books = folder / "book.jsonl", []
    with_sample = ("estimate", "jobs.yaml", "--sample", str(SAMPLE), "--simulator-book", str(book))
    sampled = document(folder, *with_sample)
    books.append(read_book(book))
    again = document(folder, *with_sample)
    books.append(read_book(book))
    printed = command(folder, "estimate", "jobs.yaml").stdout
    full = document(folder, "run", "jobs.yaml", "--simulator-book", str(book))
    books.append(read_book(book))
    return Story(
        before=before,
        left_by_it=left,
        sampled=sampled,
        again=again,
        printed=printed,
        full=full,
        after=document(folder, "estimate", "jobs.yaml"),
        books=books,
    )


MODELS = {"captions": "qwen3-vl-plus", "summaries": "qwen-vl-max"}


@pytest.mark.parametrize("job", MODELS)
def test_the_final_bill_lies_in_the_range_before_and_after_the_sample(story: Story, job: str) -> None:
    for said in (story.before, story.sampled):
        low, high = ends(jobs_of(said)[job]["cost"])
        assert low <= story.bill[MODELS[job]] <= high


@pytest.mark.parametrize("job", MODELS)
def test_the_range_is_narrower_after_the_sample(story: Story, job: str) -> None:
    (low, high), (narrow_low, narrow_high) = (
        ends(jobs_of(said)[job]["cost"]) for said in (story.before, story.sampled)
    )
    assert narrow_high - narrow_low < (high - low) / 2


@pytest.mark.parametrize("job", MODELS)
def test_the_tokens_of_the_bill_lie_in_their_ranges(story: Story, job: str) -> None:
    billed = [row for row in story.books[-1] if row.model == MODELS[job]]
    said = jobs_of(story.before)[job]
    for name, total in (
        ("input_tokens", sum(row.billed.input for row in billed)),
        ("output_tokens", sum(row.billed.output for row in billed)),
    ):
        assert said[name]["low"] <= total <= said[name]["high"]


def test_the_first_estimate_leaves_nothing_behind(story: Story) -> None:
    assert story.left_by_it == ["jobs.yaml", "photos", "rows.jsonl"]


def test_a_sample_is_bought_once(story: Story) -> None:
    assert [len(book) for book in story.books[:2]] == [2 * SAMPLE, 2 * SAMPLE]
    assert (story.sampled["sample"]["calls"], story.again["sample"]["calls"]) == (2 * SAMPLE, 0)


def test_the_full_run_makes_exactly_the_other_calls(story: Story) -> None:
    assert len(story.books[2]) == PICTURES + ROWS
    assert story.full["calls"] == PICTURES + ROWS - 2 * SAMPLE
    bought = [row.body_sha256 for row in story.books[2]]
    assert len(set(bought)) == len(bought)


def test_what_the_sample_cost_is_told_exactly(story: Story) -> None:
    billed = sum((row.amount or Decimal(0) for row in story.books[0]), Decimal(0))
    (cost,) = story.sampled["sample"]["cost"]
    assert (Decimal(cost["low"]), Decimal(cost["high"])) == (billed, billed)
    spent = sum((Decimal(job["cost"]["spent"]["high"]) for job in story.sampled["jobs"]), Decimal(0))
    assert spent == billed


def test_when_all_has_ended_the_estimate_is_the_bill(story: Story) -> None:
    bill = sum(story.bill.values(), Decimal(0))
    assert [ends(total) for total in story.after["totals"]] == [(bill, bill)]
    assert [job["items"]["left"] for job in story.after["jobs"]] == [0, 0]


def test_the_total_is_the_sum_of_the_jobs(story: Story) -> None:
    (total,) = story.before["totals"]
    costs = [ends(job["cost"]) for job in story.before["jobs"]]
    assert ends(total) == (sum(low for low, _ in costs), sum(high for _, high in costs))
    assert (total["simulated"], total["currency"], total["jobs"]) == (True, "USD", 2)


def test_a_measured_job_has_a_time_with_both_ends(story: Story) -> None:
    assert all(job["time"]["seconds_high"] is None for job in story.before["jobs"])
    for job in story.sampled["jobs"]:
        assert 0 < job["time"]["seconds_low"] <= job["time"]["seconds_high"]


def test_the_document_has_these_fields(story: Story) -> None:
    assert story.before.keys() == {"jobs", "totals", "time", "sample"}
    assert story.before["sample"] is None
    captions = jobs_of(story.before)["captions"]
    assert captions | {"cost": None, "time": None, "input_tokens": None, "output_tokens": None} == {
        "name": "captions",
        "simulated": True,
        "provider": "simulator/model-studio-singapore",
        "model": "qwen3-vl-plus",
        "items": {"total": PICTURES, "ended": 0, "left": PICTURES, "unsendable": 0, "shared": 0},
        "measured_items": 0,
        "input_tokens": None,
        "output_tokens": None,
        "cost": None,
        "time": None,
        "budget": None,
        "notes": [],
    }
    assert captions["output_tokens"] == {"low": PICTURES, "high": 300 * PICTURES, "expected": None}
    assert captions["cost"].keys() == {"currency", "low", "high", "expected", "spent", "to_come", "unknown"}
    assert captions["cost"]["spent"] == {"low": "0.00", "high": "0.00"}
    assert captions["time"].keys() == {"seconds_low", "seconds_high", "brake"}


def test_the_printed_estimate_begins_with_what_matters_and_fits_80_columns(story: Story) -> None:
    first, second = story.printed.splitlines()[:2]
    assert first.startswith("This will cost between 0.0")
    assert first.endswith(" USD (simulated).")
    assert second.startswith("It will take about ")
    assert [line for line in story.printed.splitlines() if len(line) > 80] == []


# One job alone

CHEAP = """
version: 1
jobs:
  - name: cheap
    provider: {provider}
    model: {model}
    inputs: {{images: photos}}
    prompt: "Describe."
    params: {{max_tokens: 100}}
    {more}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for number in range(10):
        Image.new("RGB", (640, 480), (number, 0, 0)).save(tmp_path / "photos" / f"{number}.png")
    return tmp_path


class Shown(NamedTuple):
    """What a command wrote."""

    out: str
    err: str


Here = Callable[..., Shown]


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    """Carries out a command line in this process, in the folder: a process of its own takes seconds to start."""
    monkeypatch.chdir(folder)

    def carried_out(*arguments: str, code: int = 0) -> Shown:
        assert carry_out(arguments) == code
        return Shown(*capsys.readouterr())

    return carried_out


def write(
    folder: Path, *, provider: str = "model-studio/singapore", model: str = "qwen3-vl-plus", more: str = ""
) -> Path:
    file = folder / "jobs.yaml"
    file.write_text(CHEAP.format(provider=provider, model=model, more=more), encoding="utf-8")
    return file


def database_of(folder: Path) -> Path:
    return folder / "batchrun.db"


def test_no_key_is_needed(folder: Path) -> None:
    made = batchrun.estimate(write(folder), database=database_of(folder))
    (job,) = made.jobs
    # Ten pictures of 302 tokens; 4 to 46 tokens of text; answers of 1 to 100 tokens.
    assert job.cost is not None
    assert job.cost.low == Decimal(10) * (306 * Decimal("0.2") + Decimal("1.6")) / 1_000_000
    assert job.cost.high == Decimal(10) * (348 * Decimal("0.2") + Decimal("160")) / 1_000_000
    assert not job.simulated


def test_a_model_without_a_price_says_so(folder: Path, here: Here) -> None:
    write(folder, provider="simulator/model-studio-singapore", model="sim-unpriced")
    printed = here("estimate", "jobs.yaml").out
    assert "The cost isn't known." in printed
    assert "the catalogue has no price for sim-unpriced" in printed
    found = json.loads(here("estimate", "jobs.yaml", "--json").out)
    cost = found["jobs"][0]["cost"]
    assert (cost["low"], cost["high"], cost["currency"], found["totals"]) == (None, None, None, [])


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ("1.00 USD", "budget   1.00 USD is enough"),
        ("0.01 USD", "budget   0.01 USD is enough"),
        ("0.0053 USD", "budget   0.0053 USD may not be enough: it covers 5–10 of 10 items"),
        ("0.0001 USD", "budget   0.0001 USD is not enough for one call, which may cost up to 0.00430"),
    ],
)
def test_a_budget_is_compared_with_the_cost(folder: Path, here: Here, budget: str, said: str) -> None:
    write(folder, more=f"budget: {{max_cost: {budget}}}")
    assert said in here("estimate", "jobs.yaml").out


def test_a_sample_obeys_the_budget_and_its_exit_code_says_so(folder: Path) -> None:
    write(folder, provider="simulator/model-studio-singapore", more="budget: {max_cost: 0.0001 USD}")
    ended = command(folder, "estimate", "jobs.yaml", "--sample", "3")
    assert ended.returncode == 3
    assert "cheap (simulated) stopped (budget): the next call may cost up to" in ended.stdout


def test_copies_of_a_picture_are_told_apart_from_calls(folder: Path, here: Here) -> None:
    for number in range(10):
        shutil.copy(folder / "photos" / f"{number % 2}.png", folder / "photos" / f"copy-{number}.png")
    write(folder)
    assert "  items    20: 10 calls, 10 ask the same and share the answers\n" in here("estimate", "jobs.yaml").out
    write(folder, more="deduplicate: false")
    assert "  items    20\n" in here("estimate", "jobs.yaml").out


def test_pictures_that_cannot_be_sent_cost_nothing(folder: Path, here: Here) -> None:
    (folder / "photos" / "broken.png").write_bytes(b"no picture")
    (job,) = batchrun.estimate(write(folder), database=database_of(folder)).jobs
    assert (job.items, job.left, job.unsendable) == (11, 10, 1)
    assert "1 more will fail without a call" in here("estimate", "jobs.yaml").out


def test_another_request_under_a_known_name_is_estimated_as_a_new_job(folder: Path, here: Here) -> None:
    write(folder, provider="simulator/model-studio-singapore")
    here("load", "jobs.yaml")
    file = folder / "jobs.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("Describe.", "Praise."), encoding="utf-8")
    found = json.loads(here("estimate", "jobs.yaml", "--json").out)["jobs"][0]
    assert found["items"] == {"total": 10, "ended": 0, "left": 10, "unsendable": 0, "shared": 0}
    assert "`run` will refuse this one" in found["notes"][0]


@pytest.mark.parametrize("function", [batchrun.estimate, batchrun.run])
def test_a_sample_of_nothing_is_refused(folder: Path, function: Any) -> None:
    with pytest.raises(UsageError, match="a sample of 0 items") as caught:
        function(write(folder), sample=0, database=database_of(folder))
    assert caught.value.code == "sample-size"
    assert not database_of(folder).exists()


def test_a_wrong_job_file_is_refused_as_run_refuses_it(folder: Path, here: Here) -> None:
    write(folder, model="qwen3-vl-pluss")
    estimated, ran = (here(name, "jobs.yaml", code=2) for name in ("estimate", "run"))
    assert estimated.err == ran.err != ""


def test_the_hint_says_what_a_sample_would_cost(folder: Path, here: Here) -> None:
    for number in range(10, 40):
        Image.new("RGB", (640, 480), (number, 0, 0)).save(folder / "photos" / f"{number}.png")
    write(folder)
    hint = here("estimate", "jobs.yaml").err
    assert "narrow it for about 0.00460 USD at most" in hint
    assert "batchrun estimate jobs.yaml --sample 20" in hint

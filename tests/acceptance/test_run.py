"""`run`, `load` and `demo` as a person uses them: real processes, real pictures, the simulator over a socket."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest

from batchrun import simulator
from batchrun.catalogue import load_catalogue
from batchrun.simulated import without_secrets
from batchrun.simulator import Options, Running, read_book

ROOT = Path(__file__).parents[2]
BATCHRUN = [sys.executable, "-m", "batchrun"]
KEY = "sk-sim-canary-5e1f7a90cc"
PICTURES = ROOT / "batchrun" / "demo" / "pictures"

FOREIGN_SECRETS = ("DASHSCOPE_API_KEY", "DATABASE_URL", "HF_TOKEN", "my_secret", "ANY_API_KEY", "PGPASSWORD")

JOB = """
version: 1
jobs:
  - name: captions
    provider: {provider}
    model: qwen3-vl-plus
    inputs: {{images: photos}}
    prompt: "{prompt}"
    params: {{max_tokens: {max_tokens}}}
    thinking: {{enabled: false}}
    limits: {{concurrency: {concurrency}}}
    output: {{sidecar: "{{{{ stem }}}}.txt", folder: captions}}
    {more}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with four pictures and a job file that names the bundled simulator."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("chessboard.jpg", "receipt.jpg", "signature.png", "night-sky.webp"):
        shutil.copyfile(PICTURES / name, photos / name)
    write_job(tmp_path)
    return tmp_path


def write_job(
    folder: Path,
    *,
    provider: str = "simulator/model-studio-singapore",
    prompt: str = "Describe {{ filename }}.",
    concurrency: int = 8,
    max_tokens: int = 100,
    more: str = "",
) -> None:
    text = JOB.format(provider=provider, prompt=prompt, concurrency=concurrency, max_tokens=max_tokens, more=more)
    (folder / "jobs.yaml").write_text(text, encoding="utf-8")


def batchrun(
    folder: Path, *arguments: str, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*BATCHRUN, *arguments],
        cwd=folder,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def rows(folder: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(folder / ".batchrun" / "batchrun.db")) as connection:
        return connection.execute(query).fetchall()


def states(folder: Path) -> dict[object, object]:
    return dict(rows(folder, "SELECT state, count(*) FROM items GROUP BY state"))  # type: ignore[arg-type]


def test_the_demo_captions_its_pictures_and_its_report_equals_the_bill_book(tmp_path: Path) -> None:
    first = batchrun(tmp_path, "demo")
    assert first.returncode == 0, first.stderr
    home = tmp_path / "batchrun-demo"
    assert "demo-captions (simulated): 12 done of 12" in first.stdout
    captions = sorted(path.relative_to(home / "captions") for path in (home / "captions").rglob("*.txt"))
    assert len(captions) == 12
    assert Path("signs/café menu.txt") in captions
    report = json.loads(batchrun(home, "report", "cost", "--json").stdout)
    billed = sum(row.amount or Decimal(0) for row in read_book(home / ".batchrun" / "simulator-book.jsonl"))
    costs = {(Decimal(line["cost_low"]), Decimal(line["cost_high"])) for line in report["lines"]}
    assert costs == {(billed, billed)}
    assert billed > 0
    again = batchrun(tmp_path, "demo")
    assert again.returncode == 0
    assert "nothing to do" in again.stdout
    assert len(read_book(home / ".batchrun" / "simulator-book.jsonl")) == 12


def test_a_rotated_picture_is_sent_as_its_own_bytes(folder: Path) -> None:
    assert batchrun(folder, "run", "jobs.yaml").returncode == 0
    caption = (folder / "captions" / "receipt.txt").read_text(encoding="utf-8")
    # The file is 1350 by 900 pixels with EXIF orientation 6: whoever reads the orientation sees it upright.
    assert caption.startswith("A 900 by 1350 pixel JPEG picture")


def test_the_example_file_runs_also_after_a_kill_in_the_middle_of_its_lectures(tmp_path: Path) -> None:
    shutil.copyfile(ROOT / "jobs.example.yaml", tmp_path / "jobs.example.yaml")
    for name in ("pictures", "lectures"):
        shutil.copytree(PICTURES.parent / name, tmp_path / "batchrun" / "demo" / name)
    run = ["run", "jobs.example.yaml", "--simulator-book"]
    with subprocess.Popen([*BATCHRUN, *run, "1.jsonl"], cwd=tmp_path, stderr=subprocess.DEVNULL) as process:
        wait_for(tmp_path, lambda _: 0 < len(rows(tmp_path, DONE_PARTS)) < 8)
        process.kill()
    [(lost,)] = rows(tmp_path, "SELECT count(*) FROM attempts WHERE outcome = 'open'")
    done = batchrun(tmp_path, *run, "2.jsonl", "--json")
    assert done.returncode == 0, done.stderr
    assert {job["name"]: job["states"] for job in json.loads(done.stdout)["jobs"]} == {
        "captions": {"done": 12},
        "lectures": {"done": 11},
        "taglines": {"done": 3},
    }
    outcomes = rows(tmp_path, "SELECT outcome, count(*) FROM attempts GROUP BY outcome ORDER BY outcome")
    assert outcomes == [("complete", 26)] + ([("lost", lost)] if lost else [])
    report = json.loads(batchrun(tmp_path, "report", "cost", "--json").stdout)
    billed = sum(row.amount or Decimal(0) for name in ("1", "2") for row in read_book(tmp_path / f"{name}.jsonl"))
    low, high = (sum(Decimal(line[end]) for line in report["lines"]) for end in ("cost_low", "cost_high"))
    assert 0 < low <= billed <= high


DONE_PARTS = "SELECT id FROM items WHERE part_of IS NOT NULL AND state = 'done'"


NATIVE = """
version: 1
jobs:
  - name: seen
    provider: simulator/dashscope-singapore
    model: qwen3-vl-plus
    inputs: {images: photos}
    prompt: "Describe {{ filename }}."
    thinking: {enabled: true, budget: 200}
  - name: thought
    provider: simulator/dashscope-beijing
    model: kimi-k2-thinking
    inputs: {items: [{text: Name three boats.}, {text: Name four boats.}]}
    prompt: "{{ text }}"
    stream: false
"""


def test_the_native_form_runs_and_its_report_equals_the_bill_book(folder: Path) -> None:
    (folder / "jobs.yaml").write_text(NATIVE, encoding="utf-8")
    ended = batchrun(folder, "run", "jobs.yaml", "--simulator-book", "book.jsonl")
    assert (ended.returncode, states(folder)) == (0, {"done": 6}), ended.stderr
    report = json.loads(batchrun(folder, "report", "cost", "--json").stdout)
    billed = sum(row.amount or Decimal(0) for row in read_book(folder / "book.jsonl"))
    low, high = (sum(Decimal(line[end]) for line in report["lines"]) for end in ("cost_low", "cost_high"))
    assert low == high == billed > 0


def test_running_again_calls_only_what_is_new(folder: Path) -> None:
    book = folder / "book.jsonl"
    run = ["run", "jobs.yaml", "--simulator-book", str(book)]
    assert batchrun(folder, *run).returncode == 0
    shutil.copyfile(PICTURES / "fruit-bowl.jpg", folder / "photos" / "new.jpg")
    again = batchrun(folder, *run)
    assert again.returncode == 0
    assert "captions (simulated): 1 new, 4 known" in again.stderr
    assert "1 file written to captions, 4 were there already" in again.stdout
    assert len(read_book(book)) == 5


def test_a_changed_prompt_is_refused_with_the_difference_and_the_way_out(folder: Path) -> None:
    assert batchrun(folder, "run", "jobs.yaml").returncode == 0
    before = rows(folder, "SELECT identity, spec FROM jobs")
    write_job(folder, prompt="Name the colours of {{ filename }}.", concurrency=3)
    refused = batchrun(folder, "run", "jobs.yaml")
    assert refused.returncode == 2
    assert "error[job-changed]" in refused.stderr
    assert 'prompt: "Describe {{ filename }}." → "Name the colours of {{ filename }}."' in refused.stderr
    assert "captions-2" in refused.stderr
    assert rows(folder, "SELECT identity, spec FROM jobs") == before


def test_limits_budget_priority_and_tags_change_without_refusal(folder: Path) -> None:
    assert batchrun(folder, "load", "jobs.yaml").returncode == 0
    write_job(folder, concurrency=2, more="budget: {max_cost: 0.50 USD}\n    priority: 5\n    tags: [spring]")
    changed = batchrun(folder, "load", "jobs.yaml")
    assert changed.returncode == 0
    assert "now in effect: budget, limits, priority, tags" in changed.stderr
    assert rows(folder, "SELECT concurrency, cap, priority, tags FROM jobs") == [(2, 500_000_000_000, 5, '["spring"]')]


def test_a_bad_job_file_loads_nothing_and_names_every_problem(folder: Path) -> None:
    write_job(folder, more="budgett: {max_cost: 1.00 USD}\n    priority: high")
    refused = batchrun(folder, "run", "jobs.yaml")
    assert refused.returncode == 2
    assert "jobs.yaml:13:5" in refused.stderr
    assert "did you mean `budget`" in refused.stderr.replace("Did", "did")
    assert "priority" in refused.stderr
    assert not (folder / ".batchrun").exists()


def test_a_missing_key_is_named_before_anything_is_written(folder: Path) -> None:
    write_job(folder, provider="model-studio/singapore")
    refused = batchrun(folder, "run", "jobs.yaml")
    assert refused.returncode == 2
    assert "error[key-missing]" in refused.stderr
    assert "DASHSCOPE_API_KEY" in refused.stderr
    assert not (folder / ".batchrun").exists()


def test_one_bad_picture_costs_one_item(folder: Path) -> None:
    (folder / "photos" / "notes.jpg").write_text("not a picture", encoding="utf-8")
    ended = batchrun(folder, "run", "jobs.yaml")
    assert ended.returncode == 1
    assert states(folder) == {"done": 4, "failed": 1}
    [(kind, message)] = rows(folder, "SELECT error_kind, error FROM items WHERE state = 'failed'")
    assert kind == "media"
    assert "notes.jpg" in str(message)
    assert rows(folder, "SELECT count(*) FROM attempts WHERE sent_at IS NOT NULL") == [(4,)]


def test_a_dangling_link_costs_one_item_and_mending_it_stops_nothing(folder: Path) -> None:
    (folder / "photos" / "later.jpg").symlink_to("../nowhere.jpg")
    assert batchrun(folder, "run", "jobs.yaml").returncode == 1
    assert states(folder) == {"done": 4, "failed": 1}
    assert rows(folder, "SELECT error_kind, error LIKE '%later.jpg%' FROM items WHERE state = 'failed'") == [
        ("media", 1)
    ]
    (folder / "photos" / "later.jpg").unlink()
    shutil.copyfile(PICTURES / "fruit-bowl.jpg", folder / "photos" / "later.jpg")
    assert "nothing to do" in batchrun(folder, "run", "jobs.yaml").stdout


def test_an_answer_that_can_not_be_written_is_exit_code_1(folder: Path) -> None:
    shutil.copyfile(PICTURES / "receipt.jpg", folder / "photos" / "receipt.png")
    ended = batchrun(folder, "run", "jobs.yaml", "--json")
    summary = json.loads(ended.stdout)
    assert (ended.returncode, summary["exit_code"], summary["jobs"][0]["files"]["problems"]) == (1, 1, 1)


def test_an_unknown_model_leaves_no_database_behind(folder: Path) -> None:
    text = (folder / "jobs.yaml").read_text(encoding="utf-8").replace("qwen3-vl-plus", "qwen-nosuch")
    (folder / "jobs.yaml").write_text(text, encoding="utf-8")
    for command in ("load", "run"):
        assert batchrun(folder, command, "jobs.yaml").returncode == 2
    assert not (folder / ".batchrun").exists()


def test_a_book_that_can_not_be_written_is_wrong_use(folder: Path) -> None:
    ended = batchrun(folder, "run", "jobs.yaml", "--simulator-book", str(folder / "none" / "book.jsonl"))
    assert (ended.returncode, "error[simulator]" in ended.stderr) == (2, True)


def test_the_simulator_does_not_get_the_keys_of_others() -> None:
    environment = dict.fromkeys([*FOREIGN_SECRETS, "PATH", "BATCHRUN_SIMULATOR_KEY"], "x")
    assert set(without_secrets(environment, load_catalogue(None))) == {"PATH", "BATCHRUN_SIMULATOR_KEY"}


@pytest.mark.parametrize("name", ["in the way", "in the way/below"])
def test_a_demo_that_has_no_folder_is_wrong_use(tmp_path: Path, name: str) -> None:
    (tmp_path / "in the way").touch()
    ended = batchrun(tmp_path, "demo", "--folder", name)
    assert (ended.returncode, "error[not-writable]" in ended.stderr) == (2, True)


def test_the_folder_of_the_demo_may_have_any_name(tmp_path: Path) -> None:
    ended = batchrun(tmp_path, "demo", "--folder", "which one? 100%41 #1")
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "which one? 100%41 #1" / ".batchrun" / "batchrun.db").exists()


def test_an_answer_cut_by_max_tokens_is_kept_counted_apart_and_exits_1(folder: Path) -> None:
    write_job(folder, max_tokens=3)
    ended = batchrun(folder, "run", "jobs.yaml")
    assert ended.returncode == 1
    assert "4 truncated of 4" in ended.stdout
    assert rows(folder, "SELECT count(*) FROM answers WHERE complete AND finish_reason = 'length'") == [(4,)]
    again = batchrun(folder, "run", "jobs.yaml")
    assert again.returncode == 1
    assert "nothing to do" in again.stdout


def test_a_budget_that_is_used_up_stops_with_3_and_a_higher_one_goes_on(folder: Path) -> None:
    write_job(folder, more="budget: {max_cost: 0.0001 USD}")
    stopped = batchrun(folder, "run", "jobs.yaml")
    assert stopped.returncode == 3
    assert "stopped (budget): the next call may cost up to" in stopped.stdout
    assert rows(folder, "SELECT count(*) FROM attempts") == [(0,)]
    write_job(folder, more="budget: {max_cost: 1.00 USD}")
    assert batchrun(folder, "run", "jobs.yaml").returncode == 0
    assert states(folder) == {"done": 4}


# Ctrl-C, kill -9 and two runs at once need calls that last: a simulator of the test's own, paced.


@pytest.fixture(scope="module")
def slow() -> Iterator[Running]:
    options = Options(ttft=0.3, tokens_per_second=80, limits=False)
    with simulator.start(options, environment={**os.environ, "BATCHRUN_SIMULATOR_KEY": KEY}) as running:
        yield running


@pytest.fixture
def paced(folder: Path, slow: Running) -> tuple[Path, dict[str, str]]:
    """A job of 14 pictures at a simulator that takes about a second for each, and the environment to call it."""
    for number in range(14):
        data = (PICTURES / "chessboard.jpg").read_bytes() + bytes(number)
        (folder / "photos" / f"copy-{number:02}.jpg").write_bytes(data)
    for name in ("chessboard.jpg", "receipt.jpg", "signature.png", "night-sky.webp"):
        (folder / "photos" / name).unlink()
    (folder / "catalogue.yaml").write_text(
        f"endpoints:\n  simulator/model-studio-singapore:\n    base_url: {slow.base_url()}\n", encoding="utf-8"
    )
    write_job(folder, concurrency=4)
    return folder, {"BATCHRUN_CATALOGUE": "catalogue.yaml", "BATCHRUN_SIMULATOR_KEY": KEY}


def started(paced: tuple[Path, dict[str, str]], *arguments: str) -> subprocess.Popen[str]:
    folder, environment = paced
    return subprocess.Popen(
        [*BATCHRUN, "run", "jobs.yaml", *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(folder: Path, condition: Callable[[dict[object, object]], bool]) -> None:
    """Until the states of the items fulfil the condition; fails after 30 s."""
    last = time.monotonic() + 30
    while time.monotonic() < last:
        try:
            if condition(states(folder)):
                return
        except sqlite3.OperationalError:
            pass  # the database isn't there yet
        time.sleep(0.05)
    pytest.fail(f"never reached: {states(folder)}")


def some_done(found: dict[object, object]) -> bool:
    return int(str(found.get("done", 0))) >= 2 and int(str(found.get("claimed", 0))) >= 2


def billed_twice(folder: Path, slow: Running) -> int:
    """Requests of this folder's pictures that the simulator completed more than once."""
    known = {str(row[0]) for row in rows(folder, "SELECT request_id FROM attempts WHERE request_id IS NOT NULL")}
    bodies = Counter(row.body_sha256 for row in slow.book() if row.complete and row.chat_id in known)
    return sum(count - 1 for count in bodies.values())


def test_ctrl_c_lets_calls_in_flight_finish_and_run_goes_on(paced: tuple[Path, dict[str, str]]) -> None:
    folder, environment = paced
    process = started(paced)
    wait_for(folder, some_done)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "stopping: no new calls" in err
    assert "items left: run the same command to go on" in out
    assert "may have been billed" not in out
    assert rows(folder, "SELECT count(*) FROM attempts WHERE outcome IN ('open', 'lost')") == [(0,)]
    done = batchrun(folder, "run", "jobs.yaml", environment=environment)
    assert done.returncode == 0, done.stderr
    assert states(folder) == {"done": 14}
    assert rows(folder, "SELECT count(*) FROM attempts WHERE outcome = 'complete'") == [(14,)]


def test_ctrl_c_twice_stops_now_and_says_what_may_have_been_billed(paced: tuple[Path, dict[str, str]]) -> None:
    folder, _ = paced
    process = started(paced)
    wait_for(folder, some_done)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert time.monotonic() - began < 5
    assert process.returncode == 130, err
    assert "were stopped in flight and may have been billed" in out
    [(lost,)] = rows(folder, "SELECT count(*) FROM attempts WHERE outcome = 'lost'")
    assert int(str(lost)) >= 1
    assert rows(
        folder, "SELECT count(*) FROM usage u JOIN attempts a ON a.id = u.attempt_id WHERE a.outcome = 'lost'"
    ) == [(lost,)]
    assert "claimed" not in states(folder)


def test_kill_9_loses_nothing_and_run_goes_on_at_once(paced: tuple[Path, dict[str, str]], slow: Running) -> None:
    folder, environment = paced
    process = started(paced)
    wait_for(folder, some_done)
    process.kill()
    process.communicate()
    [(open_calls,)] = rows(folder, "SELECT count(*) FROM attempts WHERE outcome = 'open'")
    began = time.monotonic()
    done = batchrun(folder, "run", "jobs.yaml", environment=environment)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began < 30
    calls, were = ("call", "was") if open_calls == 1 else ("calls", "were")
    assert f"{open_calls} {calls} of a process that died {were} taken over and may have been billed" in done.stdout
    assert states(folder) == {"done": 14}
    assert rows(folder, "SELECT count(*) FROM attempts WHERE outcome = 'lost'") == [(open_calls,)]
    assert rows(folder, "SELECT count(*) FROM attempts WHERE outcome = 'complete'") == [(14,)]
    assert billed_twice(folder, slow) == 0


def test_two_runs_at_once_call_every_item_once(paced: tuple[Path, dict[str, str]]) -> None:
    folder, _ = paced
    both = [started(paced), started(paced)]
    ends = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], ends
    assert states(folder) == {"done": 14}
    assert rows(folder, "SELECT count(*) FROM attempts WHERE sent_at IS NOT NULL") == [(14,)]


def test_no_file_holds_the_key(paced: tuple[Path, dict[str, str]], slow: Running) -> None:
    folder, environment = paced
    (folder / "catalogue.yaml").write_text(
        f"endpoints:\n  simulator/model-studio-singapore:\n    base_url: {slow.base_url(fault='key-echo-first=2')}\n",
        encoding="utf-8",
    )
    done = batchrun(folder, "run", "jobs.yaml", "-v", environment=environment)
    assert done.returncode == 0, done.stderr
    assert rows(folder, "SELECT count(*) FROM attempts WHERE error_kind = 'account'") == [(2,)]
    assert KEY not in done.stdout + done.stderr
    for path in folder.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path


def test_a_sample_is_run_and_the_same_command_without_it_goes_on(folder: Path) -> None:
    for size, calls, said in (("2", 2, "2 done of a sample of 2 of 4"), ("2", 2, "every item of the sample has ended")):
        ran = batchrun(folder, "run", "jobs.yaml", "--sample", size)
        assert ran.returncode == 0, ran.stderr
        assert said in ran.stdout
        assert "without --sample goes on with the rest" in ran.stdout
        assert rows(folder, "SELECT count(*) FROM attempts") == [(calls,)]
    full = batchrun(folder, "run", "jobs.yaml")
    assert "4 done of 4" in full.stdout
    assert rows(folder, "SELECT count(*) FROM attempts") == [(4,)]


def test_a_sample_of_nothing_is_refused(folder: Path) -> None:
    refused = batchrun(folder, "run", "jobs.yaml", "--sample", "0")
    assert (refused.returncode, (folder / ".batchrun").exists()) == (2, False)

"""The commands that only read, run as a person runs them."""

from __future__ import annotations

import json
import os
import re
import shlex
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from batchrun.database import connect
from batchrun.states import State
from tests.filling import NOON, Filling

HOSTILE = "\x1b[2J\x1b]0;owned\x07 \x9b31m \u202egnp.exe\nsecond line"
BATCHRUN = [sys.executable, "-m", "batchrun"]


@pytest.fixture
def folder(sqlite_url: str, tmp_path: Path) -> Path:
    """Where the commands run; its database holds the jobs `captions`, real and simulated, and `odd`."""
    home = tmp_path / "work"
    (home / ".batchrun").mkdir(parents=True)
    engine = connect(sqlite_url)
    with engine.connect() as connection:
        fill(Filling(connection), home)
        connection.commit()
    engine.dispose()
    os.replace(sqlite_url.removeprefix("sqlite:///"), home / ".batchrun" / "batchrun.db")
    return home


def fill(filling: Filling, home: Path) -> None:
    spec = {"output": {"sidecar": "{{ stem }}.txt", "folder": "texts"}, "base": str(home)}
    job = filling.job("captions", spec=spec, media_root=str(home))
    for name, text in (("a.jpg", "A cat."), ("a.png", "A dog.")):
        item = filling.item(job, path=name, state=State.DONE)
        filling.usage(filling.attempt(item, text=text), low="0.25")
    filling.item(job, "b.jpg", state=State.FAILED, error_kind="invalid", error="too \x1b[31mlarge")
    filling.call(filling.job("captions", simulated=True), low="7", at=NOON + timedelta(days=1))
    odd = filling.job("odd", currency=None)
    item = filling.item(odd, "x\x1b[2J", state=State.DONE)
    filling.usage(filling.attempt(item, text=HOSTILE), low=None)


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    home = tmp_path / "empty"
    home.mkdir()
    return home


def run(
    folder: Path, *arguments: str, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*BATCHRUN, *arguments],
        cwd=folder,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


def document(folder: Path, *arguments: str) -> dict[str, object]:
    ended = run(folder, *arguments, "--json")
    assert ended.returncode == 0, ended.stderr
    found: dict[str, object] = json.loads(ended.stdout)
    return found


def rows(found: dict[str, object], name: str) -> list[dict[str, object]]:
    listed = found[name]
    assert isinstance(listed, list)
    return listed


# All commands


def test_help_lists_commands_and_exit_codes(empty: Path) -> None:
    text = run(empty, "--help").stdout
    assert all(word in text for word in ("status", "export", "Exit codes", "130 interrupted"))


def test_help_imports_nothing_heavy(empty: Path) -> None:
    script = (
        "import sys\nfrom batchrun.cli import carry_out\ncarry_out(['--help'])\n"
        "print(sorted({'sqlalchemy', 'pydantic', 'PIL', 'httpx', 'celery', 'alembic'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout.splitlines()[-1] == "[]"


def test_the_version_is_printed(empty: Path) -> None:
    assert run(empty, "--version").stdout.startswith("batchrun 0.")


@pytest.mark.parametrize(
    "arguments", [["nosuch"], ["status", "--nosuch"], ["results"], ["export", "x", "--format", "y"]]
)
def test_wrong_use_is_exit_code_2_in_two_lines(empty: Path, arguments: list[str]) -> None:
    ended = run(empty, *arguments)
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 2)
    assert ended.stderr.startswith("error[usage]: ")


def test_a_misspelt_command_is_answered_with_the_nearest(empty: Path) -> None:
    assert "'status'" in run(empty, "statsu").stderr


@pytest.mark.parametrize(
    "command",
    ["status", "results captions", "export captions", "report cost", "db status", "prices --database sqlite:///x"],
)
def test_a_reading_command_makes_no_database(empty: Path, command: str) -> None:
    ended = run(empty, *shlex.split(command))
    assert (ended.returncode, os.listdir(empty)) == (2, [])
    assert "error[no-database]: there is no database at" in ended.stderr


@pytest.mark.parametrize("command", ["status", "results odd", "results odd --full", "results captions", "report cost"])
def test_nothing_that_a_terminal_obeys_is_printed(folder: Path, command: str) -> None:
    for extra in ([], ["--json"] if "--full" not in command else ["--simulated"]):
        ended = run(folder, *command.split(), *extra)
        assert all(char.isprintable() or char == "\n" for char in ended.stdout + ended.stderr)


@pytest.mark.parametrize("command", ["status", "report cost", "results captions"])
def test_lines_fit_into_80_columns(folder: Path, command: str) -> None:
    assert max(map(len, run(folder, *command.split()).stdout.splitlines())) <= 80


@pytest.mark.parametrize("force", [{"FORCE_COLOR": "1", "NO_COLOR": "1"}, {"FORCE_COLOR": "1", "TERM": "dumb"}])
def test_colours_are_left_out_where_they_are_not_wanted(folder: Path, force: dict[str, str]) -> None:
    assert "\x1b[3" not in run(folder, "status", "nosuch", environment=force).stderr


def test_an_error_is_red_on_a_terminal_that_wants_colours(folder: Path) -> None:
    assert "\x1b[1;31merror" in run(folder, "status", "nosuch", environment={"FORCE_COLOR": "1"}).stderr


def test_no_color_is_understood_behind_the_command_too(folder: Path) -> None:
    assert "\x1b[1;31m" not in run(folder, "status", "nosuch", "--no-color", environment={"FORCE_COLOR": "1"}).stderr


def test_a_reader_who_leaves_ends_the_command_quietly(folder: Path) -> None:
    command = f"{shlex.join(BATCHRUN)} results captions --jsonl | head -c 1 >/dev/null; echo ${{PIPESTATUS[0]}}"
    ended = subprocess.run(
        ["bash", "-c", f"for i in $(seq 3); do {command}; done"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ended.stderr == ""
    assert set(ended.stdout.split()) <= {"0", "141"}  # 0 where all was written before the reader left


def test_a_closed_pipe_is_exit_code_141(folder: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with subprocess.Popen(
        [*BATCHRUN, "status"],
        cwd=folder,
        stdout=writing,
        stderr=subprocess.PIPE,
    ) as process:
        os.close(writing)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (141, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has it")
@pytest.mark.parametrize("command", ["models", "--help", "export captions", "results captions --json", "status"])
def test_an_output_that_is_full_is_exit_code_2(folder: Path, command: str) -> None:
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [*BATCHRUN, *command.split()], cwd=folder, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert ended.returncode == 2
    assert ended.stderr.startswith("error[not-writable]: the output can't be written: No space left")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_no_fault(folder: Path, closed: str) -> None:
    before = (folder / ".batchrun" / "batchrun.db").read_bytes()[:16]
    ended = subprocess.run(
        f"{shlex.join(BATCHRUN)} status {closed}", shell=True, cwd=folder, capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert (folder / ".batchrun" / "batchrun.db").read_bytes()[:16] == before


@pytest.fixture
def damaged(folder: Path) -> Path:
    """Nobody but us writes there, so this can only be a fault of ours."""
    with closing(sqlite3.connect(folder / ".batchrun" / "batchrun.db")) as connection, connection:
        connection.execute("UPDATE items SET variables = '{broken'")
    return folder


def test_a_fault_of_ours_is_told_without_traceback(damaged: Path) -> None:
    ended = run(damaged, "results", "captions")
    assert (ended.returncode, ended.stderr.count("\n"), "Traceback" in ended.stderr) == (70, 2, False)
    assert ended.stderr.startswith("error[internal]: ")


@pytest.mark.parametrize("arguments", [["-v", "results", "captions"], ["results", "captions", "--verbose"]])
def test_verbose_shows_where_a_fault_came_from(damaged: Path, arguments: list[str]) -> None:
    assert "Traceback" in run(damaged, *arguments).stderr


# Status


def test_status_shows_the_simulated_and_the_real_job(folder: Path) -> None:
    found = rows(document(folder, "status", "captions"), "jobs")
    assert [(job["simulated"], job["state"]) for job in found] == [(False, "done with failures"), (True, "done")]


def test_status_of_an_unknown_job_names_the_nearest(folder: Path) -> None:
    ended = run(folder, "status", "caption")
    assert (ended.returncode, "did you mean captions?" in ended.stderr) == (2, True)


def test_status_of_a_database_without_jobs_is_no_error(sqlite_url: str, empty: Path) -> None:
    ended = run(empty, "status", "--database", sqlite_url)
    assert (ended.returncode, ended.stdout) == (0, "")


# Results


def test_results_show_the_first_line_of_each_answer(folder: Path) -> None:
    lines = run(folder, "results", "captions").stdout.splitlines()
    assert [line.split(maxsplit=2) for line in lines] == [
        ["ITEM", "STATE", "ANSWER"],
        ["a.jpg", "done", "A cat."],
        ["a.png", "done", "A dog."],
        ["b.jpg", "failed", "invalid: too \\x1b[31mlarge"],
    ]


def test_results_can_be_chosen_by_state_and_number(folder: Path) -> None:
    found = document(folder, "results", "captions", "--state", "done", "--limit", "1")
    assert [item["custom_id"] for item in rows(found, "items")] == ["a.jpg"]


def test_whole_results_show_every_line(folder: Path) -> None:
    assert "\n  second line\n" in run(folder, "results", "odd", "--full").stdout


def test_results_of_the_simulated_job_are_asked_for(folder: Path) -> None:
    found = document(folder, "results", "captions", "--simulated")
    assert (found["simulated"], len(rows(found, "items"))) == (True, 1)


def test_lines_of_results_are_those_of_the_export(folder: Path) -> None:
    assert run(folder, "results", "captions", "--jsonl").stdout == run(folder, "export", "captions").stdout


# Export


def test_an_export_to_standard_output_tells_rows_and_hash_on_standard_error(folder: Path) -> None:
    ended = run(folder, "export", "captions", "--out", "-")
    assert (len(ended.stdout.splitlines()), ended.stderr.startswith("rows written to standard output: 3, sha256 ")) == (
        3,
        True,
    )


def test_quiet_leaves_the_note_out(folder: Path) -> None:
    assert run(folder, "export", "captions", "-q").stderr == ""


def test_an_export_does_not_replace_a_file_unasked(folder: Path) -> None:
    (folder / "out.csv").write_text("mine")
    ended = run(folder, "export", "captions", "--format", "csv", "--out", "out.csv")
    assert (ended.returncode, (folder / "out.csv").read_text()) == (2, "mine")


def test_colliding_sidecars_are_exit_code_1_and_named(folder: Path) -> None:
    ended = run(folder, "export", "captions", "--format", "sidecar")
    assert (ended.returncode, (folder / "texts" / "a.txt").read_text()) == (1, "A cat.\n")
    assert "not written: a.png: a.txt belongs to a.jpg; use `{{ filename }}.txt`" in ended.stderr


# Report


def test_simulated_money_stands_apart(folder: Path) -> None:
    real, simulated = run(folder, "report", "cost").stdout.split("simulated: no money was spent on these\n")
    assert ("0.50 USD" in real, "7.00 USD" in simulated, "7.50" in real + simulated) == (True, True, False)


def test_a_job_without_a_price_has_an_unknown_cost(folder: Path) -> None:
    lines = run(folder, "report", "cost", "--job", "odd").stdout.splitlines()
    assert lines[1].split() == ["odd", "1", "1", "100", "10", "unknown"]


def test_a_total_that_misses_unpriced_calls_says_so(folder: Path) -> None:
    text = run(folder, "report", "cost", "--by", "provider").stdout
    assert ("≥ 0.50 USD" in text, "of unknown cost, not in the sum: 1" in text) == (True, True)


def test_money_is_text_in_json(folder: Path) -> None:
    (line,) = rows(document(folder, "report", "cost", "--by", "day", "--since", "2026-11-02"), "lines")
    assert (line["key"], line["cost_low"], line["exact"], line["simulated"]) == ("2026-11-02", "7.00", True, True)


@pytest.mark.parametrize("day", ["yesterday", "2026-13-01", "1"])
def test_a_day_that_is_none_is_refused(folder: Path, day: str) -> None:
    ended = run(folder, "report", "cost", "--since", day)
    assert (ended.returncode, "write it as 2026-11-30" in ended.stderr) == (2, True)


# Catalogue and database


def test_models_of_a_provider_are_listed_by_region(empty: Path) -> None:
    names = [provider["name"] for provider in rows(document(empty, "models", "model-studio"), "providers")]
    regions = ("singapore", "virginia", "beijing", "beijing-batch")
    assert names == [f"model-studio/{region}" for region in regions]


def test_models_show_price_and_successor(empty: Path) -> None:
    text = run(empty, "models", "model-studio/singapore").stdout
    assert "0.2 / 1.6 USD" in text
    assert "  announced end 2026-10-10, successor qwen3.6-flash: qwen3-vl-flash\n" in text


def test_all_models_fit_into_80_columns(empty: Path) -> None:
    assert max(len(line) for line in run(empty, "models").stdout.splitlines()) <= 80


def test_models_show_what_they_take_and_whether_they_think(empty: Path) -> None:
    lines = run(empty, "models", "model-studio/beijing").stdout.splitlines()
    words = {line.split()[0]: line.split()[1:4] for line in lines[2:5]}
    assert words["kimi-k2.5"] == ["optional", "image", "video"]
    assert words["kimi-k2-thinking"][:2] == ["always", "text"]


def test_wide_models_show_features_and_what_is_not_known(empty: Path) -> None:
    text = run(empty, "models", "model-studio/beijing", "--wide").stdout
    assert re.search(r"^Moonshot-Kimi-K2-Instruct .* 8,192  tools web_search +none +2026-10-10$", text, re.MULTILINE)
    assert re.search(r"^qwen3-vl-plus .* partial cache tools\? web_search\? ", text, re.MULTILINE)


def test_features_of_a_model_as_json(empty: Path) -> None:
    (provider,) = rows(document(empty, "models", "model-studio/beijing"), "providers")
    (kimi,) = (model for model in rows(provider, "models") if model["id"] == "kimi-k2.5")
    assert (kimi["features"], kimi["lacks"]) == ([], ["web_search", "partial", "cache"])
    assert (kimi["tools"], kimi["structured"]) == (True, "none")


def test_models_of_another_wire_form_are_listed_once(empty: Path) -> None:
    text = run(empty, "models").stdout
    assert "dashscope/beijing, the models of model-studio/beijing in dialect native\n\n" in text
    assert text.count("kimi-k2.5  ") == 4  # at Model Studio, AceData, and Moonshot's two


def test_models_of_another_wire_form_are_shown_where_it_is_named(empty: Path) -> None:
    assert "kimi-k2.5  " in run(empty, "models", "dashscope/beijing").stdout


def test_an_unknown_provider_is_exit_code_2(empty: Path) -> None:
    assert run(empty, "models", "model-studio/mars").returncode == 2


def test_prices_have_a_row_for_each_tier(empty: Path) -> None:
    found = rows(document(empty, "prices", "--model", "qwen3-vl-plus"), "prices")
    singapore = [(tier["up_to"], tier["input"]) for tier in found if tier["provider"] == "model-studio/singapore"]
    assert singapore == [(32768, "0.20"), (131072, "0.30"), (262144, "0.60")]


def test_a_price_of_both_wire_forms_stands_there_once(empty: Path) -> None:
    found = rows(document(empty, "prices", "--model", "kimi-k2.5"), "prices")
    places = [(tier["provider"], tier["also_at"]) for tier in found if tier["provider"] != "moonshot"]
    assert places == [("model-studio/beijing", ["dashscope/beijing"])]


def test_prices_of_an_unknown_model_are_refused(empty: Path) -> None:
    assert run(empty, "prices", "--model", "nosuch").returncode == 2


def test_upgrade_makes_a_database_that_is_then_current(empty: Path) -> None:
    upgraded = run(empty, "db", "upgrade")
    assert (upgraded.returncode, document(empty, "db", "status")["current"]) == (0, True)


def test_a_database_without_tables_is_exit_code_2(empty: Path) -> None:
    (empty / "new.db").touch()
    ended = run(empty, "db", "status", "--database", "sqlite:///new.db")
    assert (ended.returncode, "batchrun db upgrade" in ended.stderr) == (2, True)


def test_a_password_in_the_address_is_not_shown(empty: Path) -> None:
    ended = run(empty, "db", "status", "--database", "postgresql://user:hunter22@127.0.0.1:1/none")
    assert (ended.returncode, "hunter22" in ended.stdout + ended.stderr) == (4, False)


def test_the_simulator_gets_its_own_options(empty: Path) -> None:
    assert "--list-faults" in run(empty, "simulate", "--help").stdout


@pytest.fixture
def simulator(empty: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [*BATCHRUN, "simulate", "--port", "0", "--exit-on-stdin-eof"],
        cwd=empty,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process


def test_simulate_serves_until_it_is_stopped(simulator: subprocess.Popen[str]) -> None:
    assert simulator.stdout is not None
    assert json.loads(simulator.stdout.readline())["url"].startswith("http://127.0.0.1:")
    simulator.terminate()
    assert simulator.wait(timeout=30) == 0

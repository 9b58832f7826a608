"""What every command owes its user, asked of every command that there is: help, pipes, colours, JSON, completion."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import typer

from batchrun.cli import COMMANDS, Commands, app, carry_out
from batchrun.database import connect
from batchrun.states import State
from tests.filling import Filling

BATCHRUN = [sys.executable, "-m", "batchrun"]
ARGUMENTS = {"JOB": ["captions"]}
"""What stands for a required argument, by how the help calls it."""
WRITES = frozenset({"run", "load", "demo", "submit", "worker", "simulate", "serve"})
"""Commands that are no readers, whatever their heading."""
EXTRA = {"doctor": ["--offline"], "watch": ["--once"]}


def leaves(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    inner = getattr(command, "commands", None)
    if not inner:
        yield path, command
    for name, below in (inner or {}).items():
        yield from leaves(below, (*path, name))


def all_commands() -> dict[str, Any]:
    """Every command and sub-command by how it is typed."""
    group = typer.main.get_command(app)
    assert isinstance(group, Commands)
    context = typer.Context(group, info_name="batchrun")
    found = {}
    for entry in COMMANDS:
        built = group.load(entry, context)
        found[entry.name] = built
        found |= {" ".join(path): command for path, command in leaves(built, (entry.name,))}
    return found


ALL = all_commands()
READERS = {
    name: command
    for name, command in ALL.items()
    if name.split()[0] not in WRITES
    and not getattr(command, "commands", None)
    and any("--json" in parameter.opts for parameter in command.params)
    and all(parameter.metavar in ARGUMENTS for parameter in command.params if parameter.required)
    and next(entry.group for entry in COMMANDS if entry.name == name.split()[0]) in ("Read", "Look up", "System")
}


def typed(name: str) -> list[str]:
    """The words of a reading command, with what it requires."""
    needed = [ARGUMENTS[parameter.metavar] for parameter in READERS[name].params if parameter.required]
    return [*name.split(), *EXTRA.get(name, []), *(word for words in needed for word in words)]


@pytest.fixture(scope="module")
def filled(migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose database has a job with an answer, a failure and something left."""
    home = tmp_path_factory.mktemp("filled")
    (home / ".batchrun").mkdir()
    shutil.copyfile(migrated_sqlite, home / ".batchrun" / "batchrun.db")
    engine = connect(f"sqlite:///{home}/.batchrun/batchrun.db")
    with engine.begin() as connection:
        fill = Filling(connection)
        job = fill.job("captions", spec={"retry": {"attempts": 4}})
        fill.call(job)
        fill.item(job, state=State.FAILED, error_kind="invalid", error="too large")
        fill.item(job)
    engine.dispose()
    return home


@pytest.fixture(scope="module")
def empty(migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose database has no jobs."""
    home = tmp_path_factory.mktemp("empty")
    (home / ".batchrun").mkdir()
    shutil.copyfile(migrated_sqlite, home / ".batchrun" / "batchrun.db")
    return home


def run(folder: Path, words: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*BATCHRUN, *words],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def here(
    words: list[str], capfd: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch, environment: Mapping[str, str]
) -> tuple[int, str, str]:
    """The command in this process, which is much faster; its code and what it wrote."""
    for name, value in environment.items():
        patch.setenv(name, value)
    code = carry_out(words)
    written = capfd.readouterr()
    return code, written.out, written.err


def test_reading_commands_were_found() -> None:
    assert {"status", "watch", "results", "report cost", "models", "prices", "db status", "doctor"} <= set(READERS)


@pytest.mark.parametrize("name", [name for name in ALL if name != "simulate"])
def test_help_explains_with_an_example_and_fits_80_columns(
    name: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = here([*name.split(), "--help"], capfd, monkeypatch, {"COLUMNS": "80"})
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    assert "Example: batchrun " in out or getattr(ALL[name], "commands", None)


@pytest.mark.parametrize("name", READERS)
def test_json_is_one_document_and_nothing_else(
    name: str, filled: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(filled)
    _, out, _ = here([*typed(name), "--json"], capfd, monkeypatch, {})
    assert json.loads(out)


@pytest.mark.parametrize("name", READERS)
def test_json_of_a_database_without_jobs_parses_or_is_an_error(
    name: str, empty: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(empty)
    code, out, err = here([*typed(name), "--json"], capfd, monkeypatch, {})
    if out:
        json.loads(out)
    else:
        assert (code, err.split(":")[0]) == (2, "error[unknown-job]")


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize(
    ("option", "environment"),
    [
        ("--no-color", {"FORCE_COLOR": "1"}),
        ("-q", {"FORCE_COLOR": "1", "NO_COLOR": "1"}),
        ("-v", {"FORCE_COLOR": "1", "TERM": "dumb"}),
        ("-q", {}),
    ],
)
def test_no_colours_where_none_are_wanted(
    name: str,
    option: str,
    environment: dict[str, str],
    filled: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(filled)
    _, out, err = here([*typed(name), option], capfd, monkeypatch, {"COLUMNS": "80", **environment})
    assert "\x1b[3" not in out + err
    assert out


@pytest.mark.parametrize("name", READERS)
def test_a_reading_command_makes_no_database(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    here(typed(name), capfd, monkeypatch, {})
    assert os.listdir(tmp_path) == []


CHILDREN = """
import json, os, sys
from batchrun.cli import carry_out, main

def output(kind):
    if kind == "full":
        return os.open("/dev/full", os.O_WRONLY)
    reading, writing = os.pipe()
    os.close(reading)
    return writing

lines = json.loads(sys.argv[1])
kept = os.dup(1)
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
for words in lines.values():
    carry_out(words)  # what it imports is there for all children
os.dup2(kept, 1)

told = {}
for name, words in lines.items():
    for kind in ("full", "pipe", "closed"):
        child = os.fork()
        if not child:
            os.dup2(os.open("errors", os.O_CREAT | os.O_WRONLY | os.O_TRUNC), 2)
            if kind == "closed":
                os.close(1)
                sys.stdout = None
            else:
                os.dup2(output(kind), 1)
            sys.argv = ["batchrun", *words]
            code = 99
            try:
                main()
            except SystemExit as ended:
                code = ended.code
                sys.stdout.flush()
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        told[f"{name} {kind}"] = (code, open("errors").read())
print(json.dumps(told))
"""
"""One interpreter for all of them: to start one for each takes a second of its own."""


@pytest.fixture(scope="module")
def told(filled: Path) -> dict[str, list[object]]:
    """Exit code and errors of each reading command whose output is a full disk, a closed pipe, or nothing."""
    lines = json.dumps({name: typed(name) for name in READERS})
    ended = subprocess.run(
        [sys.executable, "-c", CHILDREN, lines], cwd=filled, capture_output=True, text=True, timeout=100, check=True
    )
    found: dict[str, list[object]] = json.loads(ended.stdout)
    return found


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has it")
@pytest.mark.parametrize("name", READERS)
def test_a_full_disk_is_told(name: str, told: dict[str, list[object]]) -> None:
    code, errors = told[f"{name} full"]
    assert code == 2
    assert str(errors).startswith("error[not-writable]: the output can't be written")


@pytest.mark.parametrize("name", READERS)
def test_a_closed_pipe_ends_quietly(name: str, told: dict[str, list[object]]) -> None:
    assert told[f"{name} pipe"] == [141, ""]


@pytest.mark.parametrize("name", READERS)
def test_a_closed_standard_output_is_no_fault(name: str, told: dict[str, list[object]]) -> None:
    code, errors = told[f"{name} closed"]
    assert code in (0, 1)
    assert "error" not in str(errors)


@pytest.mark.parametrize("words", [["load", "jobs.yaml", "-q"], ["-q", "run", "jobs.yaml"], ["demo", "-q"]])
def test_quiet_leaves_standard_error_empty(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "jobs.yaml").write_text(
        "version: 1\njobs:\n  - {name: words, provider: simulator/model-studio-singapore, model: qwen3-vl-plus,\n"
        "     inputs: {items: [{id: a, text: hello}]}, prompt: '{{ text }}'}\n"
    )
    ended = run(tmp_path, words)
    assert (ended.returncode, ended.stderr) == (0, "")


# Completion


def completed(folder: Path, line: str, **environment: str) -> list[str]:
    """What bash offers for the last word of the line, by its own script and a real bash."""
    script = f"""
        batchrun() {{ {shlex.join(BATCHRUN)} "$@"; }}
        eval "$(_BATCHRUN_COMPLETE=source_bash batchrun)"
        COMP_WORDS=({line}); [[ "$1" == *" " ]] && COMP_WORDS+=("")
        COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
        _batchrun_completion {shlex.quote(str(folder / "batchrun"))}
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    (folder / "batchrun").write_text(f'#!/bin/sh\nexec {shlex.join(BATCHRUN)} "$@"\n')
    (folder / "batchrun").chmod(0o755)
    ended = subprocess.run(
        ["bash", "--norc", "-c", script, "bash", line],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ended.stderr == ""
    return ended.stdout.split()


def test_bash_completes_commands(filled: Path) -> None:
    assert completed(filled, "batchrun stat") == ["status"]


def test_bash_completes_options(filled: Path) -> None:
    assert completed(filled, "batchrun doctor --of") == ["--offline"]


def test_bash_completes_the_names_of_jobs(filled: Path) -> None:
    assert completed(filled, "batchrun results ") == ["captions"]


def test_bash_completes_job_files(filled: Path) -> None:
    for name in ("jobs.yaml", "jobs.txt"):
        (filled / name).touch()
    assert completed(filled, "batchrun run jo") == ["jobs.yaml"]


@pytest.mark.parametrize("address", ["postgresql://nobody@127.0.0.1:1/none", "sqlite:////no/such.db", "nonsense"])
def test_a_database_that_can_not_be_asked_completes_nothing_and_says_nothing(filled: Path, address: str) -> None:
    assert completed(filled, "batchrun status ", DATABASE_URL=address) == []


def test_zsh_gets_its_script_and_the_names_of_jobs(filled: Path) -> None:
    script = run(filled, [], _BATCHRUN_COMPLETE="source_zsh")
    assert (script.returncode, script.stdout.split()[:2]) == (0, ["#compdef", "batchrun"])
    offered = run(filled, [], _BATCHRUN_COMPLETE="complete_zsh", _TYPER_COMPLETE_ARGS="batchrun status cap")
    assert (offered.returncode, offered.stderr) == (0, "")
    assert '"captions"' in offered.stdout

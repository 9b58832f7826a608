"""Documentation that is carried out: the commands of a page run in order, and what they print is what the page shows.

What the blocks of a page mean, by the words behind their three backticks:

- `console`: lines that begin with `$ ` are commands (`\\` at an end goes on in the next line); the lines below each are
  what it prints, on standard output and error. `… exit code 3` below them tells its exit code, which else is 0.
- `sh`: every line is a command that must succeed; what it prints isn't shown.
- `yaml NAME`: the content of the file NAME, written before the commands that follow.
- `python`: a script that is run; a `text` block right below it is what it prints.

A comment `<!-- sh ... -->` holds commands that prepare the page and that readers need not see. A comment
`<!-- stand-in ADDRESS -->` puts a simulator in the place of a server at that address.

What may differ from one run to the next is written `…` in the page: see VARYING. A line `…` alone stands for any lines.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from batchrun import simulator
from batchrun.simulator import Options

ROOT = Path(__file__).parents[2]
VARYING = (
    (re.compile(r"\b[\d.]+ s, [\d.]+ items/s"), "… s, … items/s"),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ"), "…"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)"), "…"),
    (re.compile(r"\b[0-9a-f]{64}\b|\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"), "…"),
    (re.compile(r"127\.0\.0\.1:\d{4,5}|\('127\.0\.0\.1', \d+\)"), "127.0.0.1:…"),
)
"""Times, rates, hashes, request ids and ports. The folder that a page runs in is `…` as well."""
PROGRESS = re.compile(r"^\d[\d,]*/\d[\d,]* items · .*\n", re.MULTILINE)
"""Progress is written every ten seconds, which a slow machine reaches and others don't."""
INSTALL = re.compile(
    r"^python3 -m venv \.venv && \.venv/bin/pip install -q -c constraints\.txt "
    r'-e "\.\[(?:video|test|genai-prices)\]" && \.venv/bin/'
)
"""Installing is left out here: `.ci/run` installs by the very line of the README. What is run afterwards is not."""
ELSEWHERE = {"pytest": "the tests, which are running", "bash .ci/run": "what runs the tests"}

_BLOCK = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<text>.*?)^```$|^<!-- (?P<comment>.*?)-->$", re.MULTILINE | re.DOTALL)


class DocumentationError(AssertionError):
    """A page that doesn't say what happens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    language: str
    name: str
    text: str
    line: int
    start: int
    """Where the text begins in the page."""
    hidden: bool = False
    """Whether it stands in a comment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    command: str
    shown: str | None
    """What it prints; None where the page doesn't show it."""
    line: int
    start: int
    exit_code: int = 0


def blocks_of(page: str) -> Iterator[Block]:
    for match in _BLOCK.finditer(page):
        line = page.count("\n", 0, match.start()) + 1
        if match["comment"] is not None:
            language, _, text = match["comment"].partition("\n")
            word, _, name = language.strip().partition(" ")
            yield Block(language=word, name=name, text=text, line=line, start=match.start("comment"), hidden=True)
        else:
            language, _, name = match["info"].partition(" ")
            yield Block(language=language, name=name, text=match["text"], line=line, start=match.start("text"))


def commands_of(block: Block) -> Iterator[Command]:
    if block.hidden:
        yield Command(command=block.text, shown=None, line=block.line, start=block.start)
        return
    if block.language == "sh":
        for number, line in enumerate(joined(block.text)):
            yield Command(command=line, shown=None, line=block.line + number + 1, start=block.start)
        return
    parts = re.split(r"^\$ ((?:.*\\\n)*.*)\n", block.text, flags=re.MULTILINE)
    if parts[0]:
        raise DocumentationError(f"line {block.line + 1}: text before the first command of a console block")
    offset = block.start
    for command, shown in zip(parts[1::2], parts[2::2], strict=True):
        start = offset + len("$ ") + len(command) + 1
        exit_code = re.search(r"^… exit code (\d+)\n\Z", shown, re.MULTILINE)
        text = shown if exit_code is None else shown[: exit_code.start()]
        offset = start + len(shown)
        code = 0 if exit_code is None else int(exit_code[1])
        yield Command(command=command, shown=text, line=block.line, start=start, exit_code=code)


def joined(text: str) -> list[str]:
    lines = text.replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


class Shell:
    """One bash for a whole page, so that `cd` and `export` last."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def run(self, command: str) -> tuple[str, int]:
        """What it printed, and its exit code."""
        mark = uuid.uuid4().hex
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{{\n{command}\n}} </dev/null\nprintf '\\n%s %d\\n' {mark} $?\n".encode())
        self.process.stdin.flush()
        printed = bytearray()
        while (line := self.process.stdout.readline()) and not line.startswith(mark.encode()):
            printed += line
        if not line:
            raise DocumentationError(f"the shell ended in: {command}")
        return printed.decode().removesuffix("\n"), int(line.split()[1])

    def close(self) -> None:
        """Ends everything that a page has started."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()


class Page:
    """A page, and the folder that it is carried out in."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.path, self.text, self.folder = path, path.read_text(encoding="utf-8"), folder
        self.stand_ins: dict[str, str] = {}
        self.ran = 0

    def carry_out(self) -> str:
        """Run it; returns the page with what its commands print now. Raises DocumentationError where one fails."""
        changes: list[tuple[int, int, str]] = []
        with ExitStack() as stack:
            shell = Shell(self.folder, self.environment())
            stack.callback(shell.close)
            shown_by: Block | None = None
            printed = ""
            for block in blocks_of(self.text):
                if block.language in ("console", "sh"):
                    for command in commands_of(block):
                        changes += self.command(shell, command)
                elif block.language == "yaml" and block.name:
                    self.write(block)
                elif block.language == "python":
                    printed, shown_by = self.script(shell, block), block
                elif block.language == "text" and shown_by is not None:
                    changes += self.compared(block.text, printed, block.start)
                    shown_by = None
                elif block.language == "stand-in":
                    self.stand_ins[block.name] = self.stand_in(stack)
        text = self.text
        for start, end, new in sorted(changes, reverse=True):
            text = text[:start] + new + text[end:]
        return text

    def environment(self) -> dict[str, str]:
        programs = self.folder.parent / "programs"
        programs.mkdir()
        for name, arguments in (("batchrun", "-m batchrun"), ("python", "")):
            (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n', encoding="utf-8")
            (programs / name).chmod(0o755)
        return {
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "COLUMNS": "80",
            "NO_COLOR": "1",
            "LC_ALL": "C.UTF-8",
        }

    def command(self, shell: Shell, command: Command) -> list[tuple[int, int, str]]:
        line = INSTALL.sub("", command.command)
        if line in ELSEWHERE:
            return []
        self.ran += 1
        printed, exit_code = shell.run(line)
        if exit_code != command.exit_code:
            found = f"exit code {exit_code}, not {command.exit_code}"
            raise DocumentationError(f"{self.path.name}:{command.line}: `{line}`: {found}:\n{printed}")
        return [] if command.shown is None else self.compared(command.shown, printed, command.start)

    def write(self, block: Block) -> None:
        target = self.folder / block.name
        target.parent.mkdir(parents=True, exist_ok=True)
        text = block.text
        for address, other in self.stand_ins.items():
            text = text.replace(address, other)
        target.write_text(text, encoding="utf-8")

    def script(self, shell: Shell, block: Block) -> str:
        target = self.folder / ".script.py"
        target.write_text(block.text, encoding="utf-8")
        self.ran += 1
        printed, exit_code = shell.run(f"python {target.name}")
        if exit_code:
            raise DocumentationError(f"{self.path.name}:{block.line}: the script ended with {exit_code}:\n{printed}")
        return printed

    def stand_in(self, stack: ExitStack) -> str:
        """The address of a simulator that accepts the key that the page's own server would have."""
        options = Options(ttft=0, tokens_per_second=0)
        environment = {**os.environ, "BATCHRUN_SIMULATOR_KEY": "token-abc123"}
        return stack.enter_context(simulator.start(options, environment=environment)).base_url()

    def compared(self, shown: str, printed: str, start: int) -> list[tuple[int, int, str]]:
        """The change that makes the page show what was printed; none where it does."""
        now = self.steady(printed)
        if matches(shown, now):
            return []
        return [(start, start + len(shown), now)]

    def steady(self, printed: str) -> str:
        """What was printed, with `…` for what differs from run to run."""
        text = PROGRESS.sub("", printed)
        for address, other in self.stand_ins.items():
            text = text.replace(other, address)
        text = text.replace(os.path.realpath(self.folder), "…").replace(str(self.folder), "…")
        for pattern, steady in VARYING:
            text = pattern.sub(steady, text)
        return "\n".join(line.rstrip() for line in text.splitlines()) + ("\n" if text else "")


def matches(shown: str, printed: str) -> bool:
    """Whether they are the same, a line `…` of the page standing for any lines."""
    pattern = "".join(r"(?:.*\n)*?" if line == "…\n" else re.escape(line) for line in shown.splitlines(keepends=True))
    return re.fullmatch(pattern, printed) is not None


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def lay_out(folder: Path) -> None:
    """What a checkout has beside its README: the example, and pictures to work with."""
    shutil.copyfile(ROOT / "jobs.example.yaml", folder / "jobs.example.yaml")
    shutil.copytree(ROOT / "batchrun" / "demo" / "pictures", folder / "photos")
    shutil.copytree(ROOT / "batchrun" / "demo" / "lectures", folder / "lectures")

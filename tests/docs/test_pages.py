"""Every command, script and file of the documentation is carried out, and prints what the page shows.

`BATCHRUN_UPDATE_DOCS=1 pytest tests/docs` writes what the commands print now into the pages; read the difference.
"""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.docs.pages import ROOT, Page, blocks_of, commands_of, lay_out, matches, pages

UPDATE = bool(os.environ.get("BATCHRUN_UPDATE_DOCS"))
CARRIED_OUT = {"console", "sh", "yaml", "python", "text", "stand-in", "", "Made"}
"""Languages of blocks. A block of another one would escape the tests; one without a name is a drawing."""


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", pages(), ids=name_of)
@pytest.mark.timeout(300)
def test_a_page_shows_what_its_commands_print(path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    lay_out(folder)
    page = Page(path, folder)
    now = page.carry_out()
    if UPDATE:
        path.write_text(now, encoding="utf-8")
        return
    difference = difflib.unified_diff(page.text.splitlines(), now.splitlines(), "the page", "what happens", lineterm="")
    assert page.text == now, "\n".join([*difference, "", "see tests/docs/test_pages.py for how to update the page"])


@pytest.mark.parametrize("path", pages(), ids=name_of)
def test_no_block_escapes(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    blocks = list(blocks_of(text))
    assert {block.language for block in blocks} <= CARRIED_OUT
    assert len(re.findall(r"^ *```", text, re.MULTILINE)) == 2 * sum(not block.hidden for block in blocks)


@pytest.mark.parametrize("path", pages(), ids=name_of)
def test_every_yaml_of_a_page_is_one(path: Path) -> None:
    for block in blocks_of(path.read_text(encoding="utf-8")):
        if block.language == "yaml":
            YAML(typ="safe", pure=True).load(block.text)


@pytest.mark.parametrize("path", pages(), ids=name_of)
def test_links_to_files_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))
    assert [link for link in links if not (path.parent / link).exists()] == []


# The harness itself


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("a\nb\n", "a\nb\n", True),
        ("a\n", "a\nb\n", False),
        ("a\n…\nd\n", "a\nb\nc\nd\n", True),
        ("a\n…\n", "a\n", True),
        ("…\nd\n", "a\n", False),
        ("a.c\n", "abc\n", False),
    ],
)
def test_a_line_of_dots_stands_for_any_lines(shown: str, printed: str, same: bool) -> None:
    assert matches(shown, printed) is same


def test_a_page_that_shows_something_else_is_found(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("```console\n$ echo one\ntwo\n$ echo three\nthree\n```\n", encoding="utf-8")
    (tmp_path / "work").mkdir()
    now = Page(tmp_path / "page.md", tmp_path / "work").carry_out()
    assert now == "```console\n$ echo one\none\n$ echo three\nthree\n```\n"


def test_a_command_that_fails_is_found(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("```sh\ncd nowhere\n```\n", encoding="utf-8")
    (tmp_path / "work").mkdir()
    with pytest.raises(AssertionError, match=r"page\.md:2: `cd nowhere`: exit code 1, not 0"):
        Page(tmp_path / "page.md", tmp_path / "work").carry_out()


def test_a_command_may_go_on_in_the_next_line_and_end_badly() -> None:
    [block] = blocks_of("```console\n$ one \\\n  two\nout\n… exit code 3\n```\n")
    [command] = commands_of(block)
    assert (command.command, command.shown, command.exit_code) == ("one \\\n  two", "out\n", 3)

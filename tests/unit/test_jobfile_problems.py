"""What is wrong with a job file: named with file, line, column, field, and what to write instead."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

import pytest

from batchrun.errors import EXIT_USAGE, SpecError
from batchrun.jobfile.reader import read_job_file
from tests.unit.test_jobfile import JOB


def problems(tmp_path: Path, content: str | bytes) -> list[str]:
    """The problems of a file as printed, without its path."""
    path = tmp_path / "jobs.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return refused(path)


def refused(path: Path) -> list[str]:
    with pytest.raises(SpecError) as caught:
        read_job_file(path)
    assert caught.value.exit_code == EXIT_USAGE
    return [str(problem).removeprefix(f"{path}:").strip() for problem in caught.value.problems]


def test_all_problems_come_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = """\
version: 2
default: {}
defaults:
  limits: {concurency: 8, requests_per_minute: -5}
  name: x
jobs:
  - name: 012
    model: qwen3-vl-plus
    inputs: {images: a, parquet: b}
    prompt: "Describe {{ filenam }}."
    params: {max_tokens: 2e2, temperature: hot, tempratur: 1}
    thinking: true
    depends_on: others
    budget: {max_cost: 5}
    max_tokens: 6
  - name: b
    base_url: http://x
    prompt: ""
    retry: {max_elapsed: 24}
  - name: b
  - 5
"""
    found = [line.split(". ", 1)[0] for line in problems(tmp_path, text)]
    assert found == [
        "1:10: version: this batchrun reads version 1, not 2",
        "2:1: default: unknown key `default`",
        "4:12: defaults.limits.concurency: unknown key `concurency`",
        "4:48: defaults.limits.requests_per_minute: must be at least 1, not -5",
        "5:3: defaults.name: each job has a name of its own",
        "7:5: jobs[0].provider: `provider` is missing",
        "7:11: jobs[0].name: must be text, but `012` is read as 12",
        "9:25: jobs[0].inputs.parquet: `parquet` does not work yet in this version",
        "10:13: jobs[0].prompt: there is no `filenam` for this source; there is: filename, folder, path, stem",
        "11:26: jobs[0].params.max_tokens: must be a whole number, not 200.0",
        "11:44: jobs[0].params.temperature: must be a number, not the text `hot`",
        "11:49: jobs[0].params.tempratur: unknown key `tempratur`",
        "12:15: jobs[0].thinking: must be a mapping, not true",
        "13:5: jobs[0].depends_on: `depends_on` does not work yet in this version",
        "14:24: jobs[0].budget.max_cost: 5 names no currency",
        "15:5: jobs[0].max_tokens: unknown key `max_tokens`",
        "16:5: jobs[1].provider: `provider` is missing",
        "17:5: jobs[1].base_url: unknown key `base_url`: a job file names no addresses",
        "18:13: jobs[1].prompt: must not be empty",
        "19:26: jobs[1].retry.max_elapsed: 24 has no unit",
        "20:5: jobs[2].provider: `provider` is missing",
        "20:11: jobs[2].name: the name `b` is taken by line 16",
        "21:5: jobs[3]: must be a mapping, not 5",
    ]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("modell: x", "8:5: jobs[0].modell: unknown key `modell`. Did you mean `model`?"),
        ("concurrency: 3", "8:5: jobs[0].concurrency: unknown key `concurrency`. It belongs under `limits`"),
        ("params: {min_p: 1}", "write it under `params: {extra: {min_p: …}}`"),
        ("params: {n: 2}", "8:14: jobs[0].params.n: `n` does not work yet in this version"),
        ("params: {extra: {stream: true}}", "8:22: jobs[0].params.extra.stream: `stream` is set by batchrun itself"),
        ("params: {extra: {my_api_key: x}}", "`my_api_key` can't be sent with a request. Keys belong in"),
        ("params: {max_tokens: 1.5e308}", "not 1.5e+308. Write the number in plain digits"),
        ("params: {seed: 12345678901234567890}", "must be at most 2,147,483,647, not 1.23457e+19"),
        ("media: {split: 10m}", "jobs[0].media: there are no videos to split in `inputs.images`. Delete `split`"),
        ("depends_on: x", "`depends_on` does not work yet in this version"),
        ("window: {start: '22:00', timezone: UTC}", "8:13: jobs[0].window.end: `end` is missing"),
        ("window: {start: '22:00', end: '06:00'}", "`timezone` is missing"),
        ("window: {start: '22:00', end: '22:00', timezone: UTC}", "8:13: jobs[0].window: opens when it closes"),
        ("window: {start: '25:00', end: '06:00', timezone: UTC}", "8:21: jobs[0].window.start: "),
        (
            "window: {start: '22:00', end: '06:00', timezone: Mars}",
            "`Mars` is no time zone. Write a name of the time zone database",
        ),
        ("window: {start: '22:00', end: '06:00', timezone: ../../etc/passwd}", "is no time zone. Write a name of"),
        ("limits: {concurrency: 1000000000}", "must be at most 10,000, not 1,000,000,000"),
        ("limits: {concurrency: '5'}", "must be a whole number, not the text `5`. Write the number in plain digits"),
        ("limits: [5]", "8:13: jobs[0].limits: must be a mapping, not a list"),
        ("timeouts: {silence: 0s}", "must be from 1s to 24h, not 0s"),
        ("params: {temperature: .nan}", "8:27: `.nan` is not a number that can be used"),
        ("params: {seed: 1e400}", "8:20: `1e400` is not a number that can be used"),
        ("tags: [a, 012]", '8:15: jobs[0].tags[1]: must be text, but `012` is read as 12. Put it in quotes: "012"'),
        ("tags: [true]", 'must be text, but `true` is read as true. Put it in quotes: "true"'),
        ("stream: yes", "must be true or false, not the text `yes`. Write true or false, without quotes"),
        ("output: {sidecar: out.txt}", "all answers would go into the same file"),
        ("output: {sidecar: '{{ title }}.txt'}", "8:23: jobs[0].output.sidecar: there is no `title`"),
        ("system: 'a {% b'", "8:13: jobs[0].system: template 1:3: `{%` starts a block"),
        ("api_key: x", "keys don't belong in a job file. Put it in the environment, such as DASHSCOPE_API_KEY"),
        ("endpoint: x", "a job file names no addresses. Add an entry to your catalogue"),
        ("prompt: twice", "8:5: the key `prompt` stands here a second time; the first is at 7:5"),
        ("? [a]\n    : b", "8:7: a mapping or list can't be a key"),
        ("system: &a x", "8:13: anchors such as `&a` are not allowed"),
        ("system: *a", "8:13: aliases such as `*a` are not allowed"),
        ("<<: {a: 1}", "8:5: merge keys `<<` are not allowed"),
        ("system: !!python/object/apply:os.system [x]", "8:13: tags are not allowed"),
        ("system: {{ x }}", "8:14: a mapping or list can't be a key. Put a text that starts with `{` or `[` in quotes"),
        ("system: a {{ x }}: b", "Put a text that contains `{{ }}` in quotes"),
        ("\tsystem: x", "8:5: not valid YAML"),
        ("1: x", "8:5: the key `1` is not text. Put the key in quotes"),
        ('system: "open', "that starts at 8:13. Close the quote or bracket"),
        ('system: "\\0"', "8:13: holds a NUL or half a surrogate pair"),
        ('system: "\\ud800"', "8:13: holds a NUL or half a surrogate pair"),
        ("system: \x01", "8:13: the character U+0001 is not allowed"),
        ("---\n", "a second YAML document starts here"),
    ],
)
def test_a_bad_line(tmp_path: Path, line: str, expected: str) -> None:
    text = JOB + ("" if line.startswith("---") else "    ") + line + "\n" + (JOB if line.startswith("---") else "")
    assert expected in "\n".join(problems(tmp_path, text))


def test_a_tab_is_named_with_its_remedy(tmp_path: Path) -> None:
    assert (
        "3:1: not valid YAML: found character '\\t' that cannot start any token. Indent with spaces"
        in (problems(tmp_path, "version: 1\njobs:\n\t- name: x\n")[0])
    )


@pytest.mark.parametrize("written", ["012", "1.50", "1e3", "0x1F", "+5", "1."])
def test_a_number_in_inline_rows_that_would_change_is_refused(tmp_path: Path, written: str) -> None:
    text = JOB.replace("{images: photos}", f"{{items: [{{id: {written}}}]}}")
    assert f"6:27: jobs[0].inputs.items[0].id: `{written}` would be read as the number" in problems(tmp_path, text)[0]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "1:1: the file is empty. Start with `version: 1`"),
        (b"# only\n# comments\n", "1:1: the file is empty"),
        (b"just text", "must be a mapping"),
        (b"- a list", "must be a mapping"),
        (b"---\n", "must be a mapping"),
        (b"version: 1\n", "jobs: `jobs` is missing"),
        (b"version: 1\njobs: []\n", "2:7: jobs: must not be empty"),
        (b"version: 1\njobs:\n", "2:1: jobs: must be a list, not null"),
        (b"version: 1\ndefaults: 5\njobs: [{}]\n", "2:11: defaults: must be a mapping"),
        (b"version: '1'\njobs: []\n", "1:10: version: this batchrun reads version 1, not the text `1`"),
        ("version: 1\n".encode("utf-16"), "is UTF-16 or UTF-32, not UTF-8"),
        ("version: 1\n".encode("utf-16-le"), "is UTF-16 or UTF-32, not UTF-8"),
        (b"version: 1\n# caf\xe9\n", "2:6: the byte 0xE9 is not UTF-8 (is the file Latin-1?)"),
        (b"version: 1\na: \x00\n", "2:4: the character U+0000 is not allowed"),
        (b"%YAML 1.1\n---\nversion: 1\n", "only YAML 1.2 without directives is read"),
    ],
)
def test_a_bad_file(tmp_path: Path, content: bytes, expected: str) -> None:
    assert expected in "\n".join(problems(tmp_path, content))


def test_a_missing_file(tmp_path: Path) -> None:
    assert "can't be opened: No such file or directory" in refused(tmp_path / "none.yaml")[0]


def test_a_folder(tmp_path: Path) -> None:
    assert "is a folder, not a regular file" in refused(tmp_path)[0]


def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    assert "is a pipe, not a regular file" in refused(tmp_path / "pipe.yaml")[0]


def test_a_device() -> None:
    assert "is a device, not a regular file" in refused(Path("/dev/zero"))[0]


def test_a_loop_of_links(tmp_path: Path) -> None:
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    assert "can't be opened: Too many levels of symbolic links" in refused(tmp_path / "loop.yaml")[0]


def test_a_path_with_nul() -> None:
    assert "can't be opened: embedded null byte" in refused(Path("a\x00b"))[0]


def test_a_huge_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.yaml"
    with path.open("wb") as file:
        file.truncate(2_000_000_000)
    start, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "2,000,000,000 bytes long; at most 5,000,000 are read. Put rows into a JSONL or CSV file" in refused(path)[0]
    assert time.process_time() - start < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000


def test_an_alias_bomb_is_not_expanded(tmp_path: Path) -> None:
    levels = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 10))
    start = time.process_time()
    found = problems(tmp_path, "l0: &l0 [x, x]\n" + levels + JOB)
    assert "1:5: anchors such as `&l0` are not allowed. Delete the anchor" in found
    assert time.process_time() - start < 1


@pytest.mark.parametrize("opening", ["[", "{a: ", "- "])
def test_deep_nesting(tmp_path: Path, opening: str) -> None:
    assert "nested more than 32 levels deep" in problems(tmp_path, opening * 5_000)[0]


def test_too_many_inline_rows(tmp_path: Path) -> None:
    text = JOB.replace("{images: photos}", "{items: [" + "0," * 10_001 + "]}")
    assert "more than 10,000 entries in a list. Put rows into a JSONL or CSV file" in problems(tmp_path, text)[-1]


@pytest.mark.parametrize(
    "place",
    [
        "model: {0}",
        "api_key: {0}",
        "{0}: x",
        "# {0}",
        "headers: {{Authorization: Bearer abcdefgh12345678}}",
        "params: {{temperature: {0}}}",
        "prompt: use {0} please",
        "tags: [{0}, {0}: [",
    ],
)
def test_a_key_is_refused_and_not_repeated(tmp_path: Path, place: str) -> None:
    secret = "sk-canary0123456789"
    found = "\n".join(problems(tmp_path, JOB + "    " + place.format(secret) + "\n"))
    assert "this looks like a key, and a key doesn't belong in a job file" in found
    assert "canary" not in found
    assert "abcdefgh12345678" not in found


def test_prose_is_not_a_key(tmp_path: Path) -> None:
    path = tmp_path / "jobs.yaml"
    path.write_text(JOB.replace("Describe.", "Is the ring-bearer or a bearer of news on a task-0123456789 sk-SK?"))
    assert str(read_job_file(path).jobs[0].prompt).startswith("Is the ring")


def test_a_problem_in_defaults_is_told_once(tmp_path: Path) -> None:
    job = JOB.split("jobs:\n")[1]
    text = "version: 1\ndefaults: {priority: x}\njobs:\n" + job + job.replace("captions", "other")
    assert [line[:25] for line in problems(tmp_path, text)] == ["2:22: defaults.priority: "]


def test_very_many_problems_are_cut(tmp_path: Path) -> None:
    text = JOB + "".join(f"    key{n}: 1\n" for n in range(150))
    found = problems(tmp_path, text)
    assert len(found) == 101
    assert found[-1] == "and 50 more problems. Correct these first"


def test_control_characters_of_a_value_are_shown_as_escapes(tmp_path: Path) -> None:
    found = problems(tmp_path, JOB + '    priority: "\\e[31mred"\n')
    assert "the text `\\x1b[31mred`" in found[0]

"""What is wrong with a source or its rows: named with file and line, twenty at a time, nothing lost."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from pydantic import JsonValue

from batchrun.errors import SpecError
from batchrun.rows.inputs import read_rows
from tests.unit.test_inputs import job, written


def problems(base: Path, **inputs: JsonValue) -> list[str]:
    with pytest.raises(SpecError) as caught:
        list(read_rows(job(**inputs), base))
    return [str(problem).removeprefix(f"{base}/") for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("photos/*.webp", "inputs.images: job `j`: no picture matches {0}/photos/*.webp. Check the spelling"),
        ("none", "there is no {0}/none. Check"),
        ("photos", "there are no pictures in {0}/photos. Files that end in bmp, gif"),
        ("none/**/*.jpg", "there is no {0}/none. Check"),
        ("photos/*.{{jpg,png}}", "Braces aren't alternatives in a pattern"),
        ("photos/*/../*.jpg", "`..` can't stand behind a wildcard"),
    ],
)
def test_nothing_found(tmp_path: Path, pattern: str, expected: str) -> None:
    (tmp_path / "photos").mkdir()
    assert expected.format(os.path.realpath(tmp_path)) in problems(tmp_path, images=pattern.replace("{{", "{"))[0]


def test_a_folder_of_pdf_files_is_told_what_to_do_with_them(tmp_path: Path) -> None:
    written(tmp_path, "scans/a.PDF", "%PDF-1.7")
    assert problems(tmp_path, images="scans")[0].endswith("save the pages as pictures first (pdftoppm -png does it)")


@pytest.mark.parametrize(
    ("name", "content"), [("r.jsonl", ""), ("r.jsonl", "\n \n"), ("r.csv", ""), ("r.csv", "id,a\n")]
)
def test_no_rows(tmp_path: Path, name: str, content: str) -> None:
    written(tmp_path, name, content)
    assert problems(tmp_path, rows=name) == [
        f"{name}: inputs.rows: job `j`: there are no rows in it. Add rows, or take the job out"
    ]


def test_no_urls(tmp_path: Path) -> None:
    written(tmp_path, "u.txt", "# nothing\n")
    assert "there are no rows in it" in problems(tmp_path, urls="u.txt")[0]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("nonsense", "not JSON: Expecting value at column 1. Write one JSON object per line"),
        ('{"a": 1', "not JSON: Expecting ',' delimiter at column 8"),
        ('{"a": 1} {"b": 2}', "not JSON: Extra data at column 10"),
        ("[1, 2]", "the line holds a list, not an object"),
        ("5", "the line holds 5, not an object"),
        ('{"a": NaN}', "NaN is not JSON"),
        ('{"a": -Infinity}', "-Infinity is not JSON"),
        ('{"a": 1e400}', "the number 1e400 is too large. Write it as text"),
        ('{"a": ' + "9" * 5000 + "}", "a number is too long"),
        ('{"a": 1, "a": 2}', "the key `a` stands twice in an object"),
        ('{"b": {"a": 1, "a": 2}}', "the key `a` stands twice in an object"),
        ('{"a": ' + "[" * 40 + "]" * 40 + "}", "nested more than 32 levels deep"),
        ('{"a": ' + "[" * 100_000, "nested more than 32 levels deep"),
        ('{"a": "\\ud800"}', "a text holds a NUL or half a surrogate pair"),
        ('{"\\udfff": 1}', "a text holds a NUL or half a surrogate pair"),
        ('{"a": "\\u0000"}', "a text holds a NUL or half a surrogate pair"),
        ('{"a": "x\x00"}', "not JSON: Invalid control character"),
        ('{"id": ""}', "the id is empty"),
        ('{"id": null}', "the id must be text or a whole number"),
        ('{"id": 1.5}', "the id must be text or a whole number"),
        ('{"id": true}', "the id must be text or a whole number"),
        ('{"id": "a\\nb"}', "the id `a\\nb` has a control character"),
        ('{"id": "a\\u202eb"}', "the id `a\\u202eb` has a control character"),
        ('{"id": "a\\u2066b"}', "the id `a\\u2066b` has a control character"),
        (json.dumps({"id": "€" * 86}), "is longer than 256 bytes"),
        ('{"image": "a.jpg", "images": []}', "the row has both `image` and `images`"),
        ('{"image": 5}', "`image` must be a path or URL, or a list of them"),
        ('{"images": ["a.jpg", 5]}', "`images` holds something that is not text"),
    ],
)
def test_a_bad_line(tmp_path: Path, line: str, expected: str) -> None:
    written(tmp_path, "a.jpg", "x")
    written(tmp_path, "r.jsonl", '{"id": "ok"}\n' + line + "\n")
    (problem,) = problems(tmp_path, rows="r.jsonl")
    assert problem.startswith("r.jsonl:2: inputs.rows: ")
    assert expected in problem


@pytest.mark.parametrize("line", ['{"a": "\\ud83d\\ude00"}', '{"a": "\\\\ud800"}', '{"a": "\\\\u0000"}'])
def test_escapes_that_are_fine(tmp_path: Path, line: str) -> None:
    written(tmp_path, "r.jsonl", line)
    assert next(read_rows(job(rows="r.jsonl"), tmp_path)).variables == json.loads(line)


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("../../etc/passwd", "leads out of its folder"),
        ("a/../../b.jpg", "leads out of its folder"),
        ("..", "leads out of its folder"),
        ("%2e%2e/etc/passwd", "leads out of its folder"),
        ("%252e%252e%252fetc", "leads out of its folder"),
        ("a%00.jpg", "leads out of its folder"),
        ("/etc/passwd", "is not relative"),
        ("~/secret.jpg", "is not relative"),
        ("~root/secret.jpg", "is not relative"),
        ("file:///etc/passwd", "has a scheme other than http, https or data"),
        ("file:/etc/passwd", "has a scheme other than http, https or data"),
        ("FILE://x/y", "has a scheme other than http, https or data"),
        ("ftp://user:canary@h/x", "`ftp://…` has a scheme other than"),
        ("C:/x.jpg", "has a scheme other than"),
        ("\\\\host\\share\\a.jpg", "has a backslash"),
        ("a\\b.jpg", "has a backslash"),
        ("a\x01.jpg", "has a control character"),
        ("", "the path is empty"),
        (" ", "the path is empty"),
        (".", "names a folder"),
        ("none.jpg", "`none.jpg` can't be read below {0}: No such file or directory"),
        ("real.jpg/x", "Not a directory"),
        ("x" * 300, "File name too long"),
        ("sub", "`sub` is not a regular file"),
        ("pipe", "`pipe` is not a regular file"),
        ("out.jpg", "`out.jpg` is a link that leads out of {0}"),
        ("outdir/target.jpg", "is a link that leads out of {0}"),
        ("loop.jpg", "Too many levels of symbolic links"),
        ("http://", "is not an http(s) URL with a host"),
        ("https:///a.jpg", "is not an http(s) URL with a host"),
        ("https://user:canary@h.example/a.jpg", "the URL has a user name or password"),
        ("https://h.example:99999/a.jpg", "`https://h.example…` can't be read: its host or its port is malformed"),
        ("https://[::1/a.jpg", "`https://…` can't be read"),
        ("https://h.example:canary/a.jpg", "`https://h.example…` can't be read"),
        ("https://user:p?canary@h.example/ a.jpg", "the URL `https://…` has a character"),
        ("https://user:p/canary@h.example/ a.jpg", "the URL `https://…` has a character"),
        ("https://user:canary@[h/a.jpg", "the URL `https://…` can't be read"),
        ("https:\\\\user:canary@h/a.jpg", "`https://…` has a backslash"),
        (" https://user:canary@h/a.jpg", "can't be read below"),
        ("https://h.example/a b.jpg?sig=canary", "the URL `https://h.example/a b.jpg` has a character"),
        ("a\u202egpj.exe", "has a control character"),
        ("https://h.example/a b.jpg", "has a character that URLs can't have"),
        ("https://h.example/\ta.jpg", "has a character that URLs can't have"),
        ("https://h.example\\@evil/a.jpg", "has a character that URLs can't have"),
        ("https://h.example/" + "a" * 8_192, "at most 8,192"),
        ("data:text/plain;base64,AAAA", "doesn't start with `data:image/…;base64,`"),
        ("data:image/png,AAAA", "doesn't start with `data:image/…;base64,`"),
        ("data:image/png;base64,AA*A", "is not valid base64"),
        ("data:image/png;base64,AAA", "is not valid base64"),
        ("data:image/png;base64,", "is not valid base64"),
        ("data:image/png;base64," + "A" * 10_485_760, "at most 10,485,760 are taken"),
    ],
    ids=lambda value: value[:30],
)
def test_a_reference_that_is_refused(tmp_path: Path, reference: str, expected: str) -> None:
    root = tmp_path / "root"
    written(tmp_path, "outside/target.jpg", "x")
    written(root, "real.jpg", "x")
    (root / "sub").mkdir()
    os.mkfifo(root / "pipe")
    (root / "out.jpg").symlink_to("../outside/target.jpg")
    (root / "outdir").symlink_to("../outside")
    (root / "loop.jpg").symlink_to("loop.jpg")
    written(root, "r.jsonl", json.dumps({"id": "x", "image": reference}))
    (problem,) = problems(root, rows="r.jsonl")
    assert problem.startswith("r.jsonl:1: inputs.rows: ")
    assert expected.format(os.path.realpath(root)) in problem
    assert "canary" not in problem


@pytest.mark.parametrize("reference", ["in.jpg", "indir/real.jpg", "./~x.jpg", "50%.jpg", "a:b.jpg", "sub//..x.jpg"])
def test_a_reference_that_is_fine(tmp_path: Path, reference: str) -> None:
    for name in ("sub/real.jpg", "~x.jpg", "50%.jpg", "a:b.jpg", "sub/..x.jpg"):
        written(tmp_path, name, "123")
    (tmp_path / "in.jpg").symlink_to("sub/real.jpg")
    (tmp_path / "indir").symlink_to("sub")
    written(tmp_path, "r.jsonl", json.dumps({"image": reference}))
    assert next(read_rows(job(rows="r.jsonl"), tmp_path)).media[0].size == 3


def test_a_data_url_of_the_largest_size_fits_into_a_line(tmp_path: Path) -> None:
    head = "data:image/jpeg;base64,"
    url = head + "A" * ((10_485_760 - len(head)) // 4 * 4)
    written(tmp_path, "r.jsonl", json.dumps({"id": "x", "image": url}))
    assert next(read_rows(job(rows="r.jsonl"), tmp_path)).media[0].url == url


def test_a_line_that_is_too_long_does_not_stop_the_reading(tmp_path: Path) -> None:
    written(tmp_path, "r.jsonl", b'{"a": "' + b"x" * 16_777_216 + b'"}\n{"id": ""}\n')
    first, second = problems(tmp_path, rows="r.jsonl")
    assert first.startswith("r.jsonl:1: inputs.rows: the line is longer than 16,777,216 bytes")
    assert second.startswith("r.jsonl:2: inputs.rows: the id is empty")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('id,a\n1,"open\n2,x\n', "r.csv:2: inputs.rows: the row that starts here can't be read: a quote isn't closed"),
        ('id,a\n1,x\n2,"a"b\n', "r.csv:3: inputs.rows: the row that starts here can't be read: ',' expected after"),
        ("id,a\n1,x\n2\n", "r.csv:3: inputs.rows: the row has 1 cells, the header has 2"),
        ('id,a\n1,"x\ny"\n2,b,c\n', "r.csv:4: inputs.rows: the row has 3 cells, the header has 2"),
        ("id,a\n1," + "x" * 1_048_577, "r.csv:2: inputs.rows: the row that starts here can't be read: a cell has more"),
        ("id;a\n1;2\n", "r.csv:1: inputs.rows: the header `id;a` has no comma. Separate .csv by commas"),
        ("id,a,a\n", "r.csv:1: inputs.rows: the column `a` stands twice"),
        ("id,,b\n", "r.csv:1: inputs.rows: a column has no name"),
        ("id,image\n1,\n", "r.csv:2: inputs.rows: the path is empty"),
        ("id,a\n,x\n", "r.csv:2: inputs.rows: the id is empty"),
        ("id,a\n1,x\x00\n", "r.csv:2: inputs.rows: a cell holds a NUL"),
        (b"id,a\n1,caf\xe9\n", "r.csv:2: inputs.rows: the byte 0xE9 is not UTF-8"),
        ("id,a\n".encode("utf-16"), "r.csv:1: inputs.rows: the file is UTF-16 or UTF-32"),
    ],
)
def test_a_bad_csv(tmp_path: Path, content: str | bytes, expected: str) -> None:
    written(tmp_path, "r.csv", content)
    assert problems(tmp_path, rows="r.csv")[0].startswith(expected)


def test_problems_stop_at_twenty(tmp_path: Path) -> None:
    written(tmp_path, "r.jsonl", "x\n" * 1_000)
    found = problems(tmp_path, rows="r.jsonl")
    assert (len(found), found[-1]) == (
        21,
        "r.jsonl: inputs.rows: … and perhaps more: the reading stopped here. Correct these first",
    )


def test_a_bad_line_far_down_is_found(tmp_path: Path) -> None:
    written(tmp_path, "r.jsonl", '{"id": "a"}\n' * 5_000 + "x\n" + '{"id": "a"}\n' * 10)
    assert problems(tmp_path, rows="r.jsonl")[0].startswith("r.jsonl:5001: ")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("r.parquet", "Parquet files do not work yet in this version"),
        ("r.json", "the extension `.json` is not one of .jsonl, .ndjson, .csv, .tsv"),
        ("rows", "the extension `` is not one of"),
    ],
)
def test_an_extension_that_is_not_read(tmp_path: Path, name: str, expected: str) -> None:
    written(tmp_path, name, "x")
    assert expected in problems(tmp_path, rows=name)[0]


def test_a_missing_row_file(tmp_path: Path) -> None:
    assert problems(tmp_path, rows="r.csv") == [
        "r.csv: inputs.rows: can't be opened: No such file or directory. Check the path and its permissions"
    ]


def test_a_row_file_that_is_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "r.csv")
    assert "is a pipe, not a regular file" in problems(tmp_path, rows="r.csv")[0]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ftp://h/x", "`ftp://h/x` is not an http(s) URL with a host"),
        ("a.jpg", "`a.jpg` is not an http(s) URL with a host"),
        ("https://u:canary@h/x", "the URL has a user name or password"),
    ],
)
def test_a_bad_url_line(tmp_path: Path, line: str, expected: str) -> None:
    written(tmp_path, "u.txt", f"https://h.example/1.jpg\n{line}\n")
    assert problems(tmp_path, urls="u.txt")[0].startswith(f"u.txt:2: inputs.urls: {expected}")


def test_an_inline_item_is_named_by_its_index(tmp_path: Path) -> None:
    found = problems(tmp_path, items=[{"id": "a"}, {"id": ""}])
    assert found == ["inputs.items[1]: the id is empty. Write an id, or leave the field out of all rows"]


def test_a_file_name_that_can_not_be_an_id(tmp_path: Path) -> None:
    written(tmp_path, "p/a\nb.jpg", "x")
    assert "the name `a\\nb.jpg` has a control character" in problems(tmp_path, images="p")[0]


def test_a_file_name_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"x")
    assert "the name `caf\\udce9.jpg` has a control character or isn't UTF-8" in problems(tmp_path, images="p")[0]


@pytest.mark.parametrize("target", ["../secret.jpg", "nowhere.jpg", "bad.jpg", "../pipe"])
def test_a_picture_that_can_not_be_sent_stops_no_other_one(tmp_path: Path, target: str) -> None:
    written(tmp_path, "secret.jpg", "x")
    written(tmp_path, "p/good.jpg", "123")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "p" / "bad.jpg").symlink_to(target)
    found = {row.custom_id: row.media[0].size for row in read_rows(job(images="p"), tmp_path)}
    assert found == {"bad.jpg": None, "good.jpg": 3}


def test_a_linked_folder_outside_is_told_and_not_followed(tmp_path: Path) -> None:
    written(tmp_path, "other/b.jpg", "x")
    written(tmp_path, "p/a.jpg", "x")
    (tmp_path / "p" / "more").symlink_to("../other")
    assert "`more` is a link to a folder outside of" in problems(tmp_path, images="p/**/*.jpg")[0]


def test_a_folder_that_contains_itself_is_walked_once(tmp_path: Path) -> None:
    written(tmp_path, "p/a.jpg", "x")
    (tmp_path / "p" / "again").symlink_to(".")
    assert [row.custom_id for row in read_rows(job(images="p"), tmp_path)] == ["a.jpg"]

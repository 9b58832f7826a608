"""Sources to rows: ids, variables, pictures, order."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from batchrun.errors import SpecError
from batchrun.jobfile.spec import JobSpec
from batchrun.rows.inputs import Row, media_root, read_rows
from batchrun.rows.references import MediaRef, ReferenceProblem, check_id
from batchrun.rows.rowfiles import parse_object


def job(**inputs: JsonValue) -> JobSpec:
    fixed: dict[str, JsonValue] = {"name": "j", "provider": "a/b", "model": "m", "prompt": "Describe."}
    return JobSpec.model_validate({**fixed, "inputs": inputs})


def rows(base: Path, **inputs: JsonValue) -> list[Row]:
    return list(read_rows(job(**inputs), base))


def ids(base: Path, **inputs: JsonValue) -> list[str]:
    return [row.custom_id for row in rows(base, **inputs)]


def written(base: Path, name: str, content: str | bytes) -> Path:
    path = base / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("b.jpg", "a.JPG", "sub/c.png", "sub/deep/d.jpg", "notes.txt", ".hidden.jpg", ".git/x.jpg", "[1].jpg"):
        written(tmp_path, f"photos/{name}", "12345")
    return tmp_path


def test_a_folder_is_all_its_pictures(photos: Path) -> None:
    assert ids(photos, images="photos") == ["[1].jpg", "a.JPG", "b.jpg", "sub/c.png", "sub/deep/d.jpg"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("photos/*.jpg", ["[1].jpg", "b.jpg"]),
        ("photos/**/*.jpg", ["[1].jpg", "b.jpg", "sub/deep/d.jpg"]),
        ("photos/**", ["[1].jpg", "a.JPG", "b.jpg", "notes.txt", "sub/c.png", "sub/deep/d.jpg"]),
        ("photos/**/**/sub/**/*.jpg", ["sub/deep/d.jpg"]),
        ("photos/*/*.png", ["sub/c.png"]),
        ("photos/?.jpg", ["b.jpg"]),
        ("photos/[ab].*", ["a.JPG", "b.jpg"]),
        ("photos/[1].jpg", ["[1].jpg"]),
        ("photos/.*.jpg", [".hidden.jpg"]),
        ("photos/b.jpg", ["b.jpg"]),
        ("photos/", ["[1].jpg", "a.JPG", "b.jpg", "sub/c.png", "sub/deep/d.jpg"]),
        ("./photos/../photos/*.txt", ["notes.txt"]),
    ],
)
def test_a_pattern_matches_files(photos: Path, pattern: str, expected: list[str]) -> None:
    assert ids(photos, images=pattern) == expected


def test_an_absolute_pattern(photos: Path) -> None:
    assert ids(photos / "photos", images=f"{photos}/photos/sub/*.png") == ["c.png"]


def test_a_picture_as_a_row(photos: Path) -> None:
    assert rows(photos, images="photos/**/d.jpg") == [
        Row(
            custom_id="sub/deep/d.jpg",
            variables={"path": "sub/deep/d.jpg", "filename": "d.jpg", "stem": "d", "folder": "sub/deep"},
            media=(MediaRef(path="sub/deep/d.jpg", size=5),),
            place="sub/deep/d.jpg",
        )
    ]


@pytest.mark.parametrize(
    ("inputs", "root"),
    [
        ({"images": "photos"}, "photos"),
        ({"images": "photos/sub/**/*.jpg"}, "photos/sub"),
        ({"images": "photos/b.jpg"}, "photos"),
        ({"images": "none/*.jpg"}, "none"),
        ({"rows": "data/rows.csv"}, "data"),
        ({"urls": "photos/urls.txt"}, ""),
        ({"items": [{"a": 1}]}, ""),
    ],
)
def test_the_media_root(photos: Path, inputs: dict[str, JsonValue], root: str) -> None:
    assert media_root(job(**inputs), photos) == Path(os.path.realpath(photos / root))


def test_rows_without_wildcards_in_a_linked_folder(photos: Path) -> None:
    (photos / "link").symlink_to("photos")
    assert ids(photos, images="link/sub/*.png") == ["c.png"]


def test_a_long_path_gets_a_hash_as_its_id(tmp_path: Path) -> None:
    name = "/".join(["f" * 100] * 3) + ".jpg"
    written(tmp_path, f"p/{name}", "x")
    (row,) = rows(tmp_path, images="p")
    assert (row.custom_id[:7], len(row.custom_id), row.media[0].path) == ("sha256-", 39, name)


def test_jsonl(tmp_path: Path) -> None:
    written(tmp_path, "d/a.jpg", "xyz")
    written(tmp_path, "d/rows.jsonl", '\ufeff{"id": "x", "image": "./a.jpg", "n": 1}\r\n\n  \n{"text": "\u2028"}')
    first, second = rows(tmp_path, rows="d/rows.jsonl")
    assert first == Row(
        custom_id="x",
        variables={
            "path": "a.jpg",
            "filename": "a.jpg",
            "stem": "a",
            "folder": "",
            "id": "x",
            "image": "./a.jpg",
            "n": 1,
        },
        media=(MediaRef(path="a.jpg", size=3),),
        place="d/rows.jsonl:1",
    )
    assert (second.variables, second.media, second.place) == ({"text": "\u2028"}, (), "d/rows.jsonl:4")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"custom_id": "a", "id": "b"}', "a"),
        ('{"id": 12}', "12"),
        ('{"id": "012"}', "012"),
        ('{"id": "12:30 ✓ a/b"}', "12:30 ✓ a/b"),
        ('{"image": "https://h.example/p/a.jpg"}', "https://h.example/p/a.jpg"),
        ('{"images": ["https://h.example/2.jpg", "https://h.example/1.jpg"]}', "https://h.example/2.jpg"),
        ('{"a": 1, "b": 2}', "sha256-43258cff783fe7036d8a43033f830adf"),
        ('{"b": 2, "a": 1}', "sha256-43258cff783fe7036d8a43033f830adf"),
    ],
)
def test_the_id_of_a_row(tmp_path: Path, line: str, expected: str) -> None:
    written(tmp_path, "r.jsonl", line)
    assert ids(tmp_path, rows="r.jsonl") == [expected]


def test_a_signature_does_not_get_into_the_id(tmp_path: Path) -> None:
    written(tmp_path, "u.txt", "https://h.example/a.jpg?Signature=canary\nhttps://h.example/a.jpg?Signature=other\n")
    first, second = ids(tmp_path, urls="u.txt")
    assert first.startswith("https://h.example/a.jpg?sha256-")
    assert first != second
    assert "canary" not in first


def test_a_data_url_is_media_and_not_a_variable(tmp_path: Path) -> None:
    url = "data:image/png;base64,AAAA"
    written(tmp_path, "r.jsonl", json.dumps({"id": "x", "image": url, "caption": "c"}))
    (row,) = rows(tmp_path, rows="r.jsonl")
    assert (row.variables, row.media) == ({"id": "x", "caption": "c"}, (MediaRef(url=url),))


def test_columns_win_over_the_names_of_the_picture(tmp_path: Path) -> None:
    written(tmp_path, "r.jsonl", '{"image": "https://h.example/a.jpg", "stem": "mine"}')
    (row,) = rows(tmp_path, rows="r.jsonl")
    assert (row.variables["stem"], row.variables["filename"]) == ("mine", "a.jpg")


def test_null_says_that_a_row_has_no_picture(tmp_path: Path) -> None:
    written(tmp_path, "r.ndjson", '{"id": "a", "image": null}\n{"id": "b", "images": []}')
    assert [row.media for row in rows(tmp_path, rows="r.ndjson")] == [(), ()]


def test_csv_cells_stay_as_written(tmp_path: Path) -> None:
    text = '\ufeffid,Title ,note\r\n012,"a, ""b""",no\r\n12:30,"two\r\nlines",=1+1\r\n'
    written(tmp_path, "r.csv", text)
    first, second = rows(tmp_path, rows="r.csv")
    assert first.variables == {"id": "012", "Title": 'a, "b"', "note": "no"}
    assert (second.custom_id, second.variables["Title"], second.variables["note"]) == ("12:30", "two\nlines", "=1+1")
    assert (first.place, second.place) == ("r.csv:2", "r.csv:3")


def test_tsv(tmp_path: Path) -> None:
    written(tmp_path, "r.tsv", "id\ttext\n1\ta, b\n")
    assert rows(tmp_path, rows="r.tsv")[0].variables == {"id": "1", "text": "a, b"}


def test_urls(tmp_path: Path) -> None:
    written(tmp_path, "u.txt", "# list\n\n  https://h.example/p/a.b.jpg  \nHTTP://H.example:8080/\n")
    first, second = rows(tmp_path, urls="u.txt")
    url = "https://h.example/p/a.b.jpg"
    assert first == Row(
        custom_id=url,
        variables={"url": url, "filename": "a.b.jpg", "stem": "a.b"},
        media=(MediaRef(url=url),),
        place="u.txt:3",
    )
    assert second.variables == {"url": "HTTP://H.example:8080/", "filename": "", "stem": ""}


def test_inline_items(tmp_path: Path) -> None:
    written(tmp_path, "a.jpg", "x")
    (row,) = rows(tmp_path, items=[{"id": "no", "image": "a.jpg", "n": None}])
    assert (row.custom_id, row.media[0].path, row.place) == ("no", "a.jpg", "inputs.items[0]")


def test_rows_are_read_as_a_stream(tmp_path: Path) -> None:
    written(tmp_path, "r.jsonl", '{"id": "first"}\nnot json')
    stream = read_rows(job(rows="r.jsonl"), tmp_path)
    assert next(stream).custom_id == "first"
    with pytest.raises(SpecError):
        next(stream)


printable = st.text(
    alphabet=st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="\u2028\u2029"), min_size=1, max_size=60
)


@given(printable)
def test_an_id_comes_out_as_it_went_in(text: str) -> None:
    assert check_id(parse_object(json.dumps({"id": text}))["id"]) == text


@given(st.text(max_size=300))
def test_any_id_is_kept_or_refused(text: str) -> None:
    try:
        kept = check_id(text)
    except ReferenceProblem:
        return
    assert kept == text


@given(st.dictionaries(printable, st.integers() | printable | st.none() | st.booleans(), max_size=5))
def test_a_row_comes_out_as_it_went_in(row: dict[str, JsonValue]) -> None:
    assert parse_object(json.dumps(row)) == row

"""Which parts a video is split into."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise

import pytest

from batchrun.rows.inputs import Row
from batchrun.rows.references import MediaRef, ReferenceProblem
from batchrun.segments.splitting import split_row

TEN = timedelta(minutes=10)


def video(path: str = "talks/a.mp4", *, row: dict[str, object] | None = None, **media: object) -> Row:
    reference = MediaRef(kind="video", **({"path": path} | media))  # type: ignore[arg-type]
    return Row(custom_id=path, variables={"path": path, **(row or {})}, media=(reference,), place=path)  # type: ignore[dict-item]


def parts_of(seconds: float, split: timedelta = TEN) -> list[str]:
    return [row.custom_id for row in split_row(video("a.mp4"), split, lambda _: seconds)]


def test_a_video_becomes_its_parts_and_a_row_that_merges_them() -> None:
    assert parts_of(1500) == ["a.mp4", "a.mp4#00:00:00-00:10:00", "a.mp4#00:10:00-00:20:00", "a.mp4#00:20:00-00:25:00"]


@pytest.mark.parametrize("seconds", [3.0, 599.0, 600.0])
def test_a_video_that_is_no_longer_than_a_part_stays_whole(seconds: float) -> None:
    (row,) = split_row(video(), TEN, lambda _: seconds)
    assert (row.custom_id, row.merges, row.part_of, row.media) == ("talks/a.mp4", False, None, video().media)
    assert (row.variables["part"], row.variables["parts"], row.variables["start"]) == (1, 1, "00:00:00")


@pytest.mark.parametrize(
    ("seconds", "split", "last"),
    [
        (1259.9, TEN, "a.mp4#00:10:00-00:20:59"),  # less than a tenth of a part is left
        (1260.0, TEN, "a.mp4#00:20:00-00:21:00"),
        (41.9, timedelta(seconds=10), "a.mp4#00:00:30-00:00:41"),  # less than a video may have is left
        (42.0, timedelta(seconds=10), "a.mp4#00:00:40-00:00:42"),
        (1200.0, TEN, "a.mp4#00:10:00-00:20:00"),
    ],
)
def test_a_short_rest_is_joined_to_the_part_before_it(seconds: float, split: timedelta, last: str) -> None:
    assert parts_of(seconds, split)[-1] == last


def test_a_rest_that_is_all_there_is_beside_one_part_leaves_the_video_whole() -> None:
    assert parts_of(630) == ["a.mp4"]


def test_parts_follow_each_other_without_gap_or_overlap() -> None:
    rows = split_row(video(), TEN, lambda _: 3725.5)[1:]
    spans = [(row.media[0].start, row.media[0].end) for row in rows]
    assert (spans[0][0], spans[-1][1]) == (0, 3725.5)
    assert all(end == start for (_, end), (start, _) in pairwise(spans))


def test_a_part_knows_its_times_and_its_place() -> None:
    row = split_row(video(), TEN, lambda _: 3725.5)[2]
    assert {name: row.variables[name] for name in ("start", "end", "part", "parts")} == {
        "start": "00:10:00",
        "end": "00:20:00",
        "part": 2,
        "parts": 7,
    }
    assert row.part_of == "talks/a.mp4"


def test_what_merges_has_the_whole_video() -> None:
    merging = split_row(video(size=7), TEN, lambda _: 3725.5)[0]
    assert (merging.merges, merging.media, merging.variables["end"]) == (True, video(size=7).media, "01:02:05")
    assert "part" not in merging.variables


def test_a_file_that_can_not_be_read_stays_one_row() -> None:
    (row,) = split_row(video(), TEN, lambda _: None)
    assert row.media == video().media


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf"), 400_000.0])
def test_a_length_that_can_not_be_believed_stays_one_row(seconds: float) -> None:
    assert len(split_row(video(), TEN, lambda _: seconds)) == 1


def test_a_picture_is_not_split() -> None:
    row = Row(custom_id="a", variables={}, media=(MediaRef(path="a.jpg"),), place="a")
    assert split_row(row, TEN, lambda _: 9999) == [row]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (video(path="", url="https://example.com/a.mp4"), "behind a URL"),
        (Row(custom_id="a", variables={}, media=video().media * 2, place="a"), "more than its video"),
        (Row(custom_id="a", variables={}, media=(MediaRef(kind="frames", frames=()),), place="a"), "list of frames"),
        (video(row={"parts": 3}), "sets parts itself"),
        (video("x" * 250), "longer than 256 bytes"),
    ],
)
def test_what_can_not_be_split_is_refused(row: Row, words: str) -> None:
    if row.media[0].url:
        row = Row(custom_id="u", variables={}, media=(MediaRef(kind="video", url=row.media[0].url),), place="u")
    with pytest.raises(ReferenceProblem, match=words):
        split_row(row, TEN, lambda _: 3600)


def test_too_many_parts_are_refused() -> None:
    with pytest.raises(ReferenceProblem, match="at most 1,000"):
        split_row(video(), timedelta(seconds=2), lambda _: 100_000)

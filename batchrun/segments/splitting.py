"""From a long video to its parts: a row for each of them, and one that merges what they say."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import TypeAlias

from batchrun.messages import JsonValue
from batchrun.rows.inputs import Row
from batchrun.rows.references import MAX_ID_BYTES, ReferenceProblem
from batchrun.segments.clocktime import LONGEST, clock_text
from batchrun.segments.merging import MERGED, OF_PARTS

LEFTOVER = 0.1
"""A rest shorter than this share of a part is joined to the part before it."""
LEAST_SECONDS = 2.0
"""A video must be this long (contract 8.5); a shorter rest is joined too."""
MOST_PARTS = 1_000

LengthOf: TypeAlias = Callable[[str], float | None]
"""From the path of a video below the media root to its length in seconds; None for a file that can't be read."""


def spans(seconds: float, split: timedelta) -> list[tuple[float, float]]:
    """Where each part of a video of so many seconds begins and ends; one for a video that isn't split."""
    length = split.total_seconds()
    count = max(1, math.ceil(seconds / length))
    rest = seconds - (count - 1) * length
    if count > 1 and rest < max(LEAST_SECONDS, LEFTOVER * length):
        count -= 1
    return [(number * length, seconds if number == count - 1 else (number + 1) * length) for number in range(count)]


def split_row(row: Row, split: timedelta, length_of: LengthOf) -> list[Row]:
    """The row as it is where there is no video or one part is all of it; else the row that merges, and those of its
    parts in their order.

    A file that can't be read stays one row: its item fails and says why, no other one. Raises ReferenceProblem for what
    can't be split.
    """
    taken = sorted((OF_PARTS | MERGED) & row.variables.keys())
    if taken:
        raise ReferenceProblem(f"`media.split` sets {', '.join(taken)} itself", "Give these columns other names")
    if not any(media.kind != "image" for media in row.media):
        return [row]
    seconds = length_of(path_of(row))
    if seconds is None or not 0 < seconds < LONGEST:
        return [whole(row, 0.0)]
    parts = spans(seconds, split)
    if len(parts) == 1:
        return [whole(row, seconds)]
    if len(parts) > MOST_PARTS:
        raise ReferenceProblem(
            f"the video would have {len(parts):,} parts; at most {MOST_PARTS:,} can be merged",
            "Write a longer `media.split`",
        )
    merging = replace(row, variables={**row.variables, **times((0.0, seconds), len(parts))}, merges=True)
    return [merging, *(part_row(row, number, parts) for number in range(len(parts)))]


def path_of(row: Row) -> str:
    """The path of the one video of a row. Raises ReferenceProblem."""
    if len(row.media) != 1:
        raise ReferenceProblem(
            "the row has more than its video", "Give each video a row of its own, or leave out `split`"
        )
    (media,) = row.media
    if media.path is not None:
        return media.path
    if media.url is not None:
        raise ReferenceProblem("a video behind a URL can't be split", "Download it, or leave out `media.split`")
    raise ReferenceProblem("a list of frames can't be split", "Name the video itself, or leave out `media.split`")


def whole(row: Row, seconds: float) -> Row:
    return replace(row, variables={**row.variables, **times((0.0, seconds), 1), "part": 1})


def part_row(row: Row, number: int, parts: list[tuple[float, float]]) -> Row:
    start, end = span = parts[number]
    name = f"{row.custom_id}#{clock_text(start)}-{clock_text(end)}"
    if len(name.encode()) > MAX_ID_BYTES:
        raise ReferenceProblem(
            f"the ids of its parts would be longer than {MAX_ID_BYTES} bytes", "Give the video a shorter path"
        )
    (media,) = row.media
    return replace(
        row,
        custom_id=name,
        variables={**row.variables, **times(span, len(parts)), "part": number + 1},
        media=(replace(media, start=start, end=end),),
        part_of=row.custom_id,
    )


def times(span: tuple[float, float], parts: int) -> Mapping[str, JsonValue]:
    return {"start": clock_text(span[0]), "end": clock_text(span[1]), "parts": parts}

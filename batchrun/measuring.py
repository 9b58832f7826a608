"""How long the local videos of a job are: looked at before they are split, several at once, in limited processes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from batchrun.errors import MediaError
from batchrun.jobfile.spec import JobSpec
from batchrun.media.decoder import Decoder
from batchrun.media.videos import probe_now
from batchrun.rows.inputs import Row, media_root, read_rows


def lengths_of(job: JobSpec, base: Path) -> dict[str, float]:
    """Seconds of each local video of the job that is to be split, by its path below the media root; those that can't be
    read are left out: their items fail and say why. Raises SpecError for rows that can't be read."""
    if job.media.split is None:
        return {}
    return measured(sorted(set(local_videos(read_rows(job, base)))), media_root(job, base))


def local_videos(rows: Iterable[Row]) -> Iterable[str]:
    return (media.path for row in rows for media in row.media if media.kind == "video" and media.path is not None)


def measured(paths: list[str], root: Path) -> dict[str, float]:
    if not paths:
        return {}
    at_once = os.cpu_count() or 1
    with Decoder(processes=at_once) as decoder, ThreadPoolExecutor(at_once, thread_name_prefix="measuring") as pool:
        lengths = list(pool.map(lambda path: length_of(root, path, decoder), paths))
    return {path: seconds for path, seconds in zip(paths, lengths, strict=True) if seconds is not None}


def length_of(root: Path, path: str, decoder: Decoder) -> float | None:
    """None for a file that can't be read as a video."""
    try:
        return probe_now(root, path, decoder).seconds
    except MediaError:  # told again, as the item's own error, when its call would be made
        return None

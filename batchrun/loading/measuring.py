"""What the local videos of a job are: looked at before they are split or estimated, several at once, in limited
processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import msgspec

from batchrun.counting.clips import Clip
from batchrun.errors import MediaError
from batchrun.jobfile.spec import JobSpec
from batchrun.media.content import is_as_it_was
from batchrun.media.decoder import Decoder
from batchrun.media.videos import VideoFacts, probe_now
from batchrun.messages import JsonValue
from batchrun.rows.inputs import Row, media_root, read_rows
from batchrun.tables import FACTS

Videos = Mapping[str, VideoFacts]
"""By their paths below the media root."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """The source of a job with its videos. Looking into a video takes longer than keeping its row."""

    rows: Sequence[Row] | None = None
    """All of them, as they were read; None where no video had to be looked at, and they are read as they are needed."""
    videos: Videos = field(default_factory=dict)


def watched(job: JobSpec, base: Path, known: Callable[[], Videos]) -> Watched:
    """With the local videos of a job whose items they are, or that splits them. Those that can't be read are left out:
    their items fail and say why. `known` tells what was seen of videos before: they are looked into again only if they
    have changed since. Raises SpecError for rows that can't be read."""
    if job.media.split is None and job.inputs.kind != "videos":
        return Watched()
    rows, root = list(read_rows(job, base)), media_root(job, base)
    paths, before = sorted(set(local_videos(rows))), known()
    kept = {
        path: before[path]
        for path in paths
        if path in before and is_as_it_was(root, path, size=before[path].size, mtime=before[path].mtime)
    }
    return Watched(rows=rows, videos={**kept, **measured([path for path in paths if path not in kept], root)})


def local_videos(rows: Iterable[Row]) -> Iterable[str]:
    return (media.path for row in rows for media in row.media if media.kind == "video" and media.path is not None)


def measured(paths: list[str], root: Path) -> Videos:
    if not paths:
        return {}
    at_once = os.cpu_count() or 1
    with Decoder(processes=at_once) as decoder, ThreadPoolExecutor(at_once, thread_name_prefix="measuring") as pool:
        found = list(pool.map(lambda path: looked_at(root, path, decoder), paths))
    return {path: facts for path, facts in zip(paths, found, strict=True) if facts is not None}


def looked_at(root: Path, path: str, decoder: Decoder) -> VideoFacts | None:
    """None for a file that can't be read as a video."""
    try:
        return probe_now(root, path, decoder)
    except MediaError:  # told again, as the item's own error, when its call would be made
        return None


def with_facts(media: Sequence[Mapping[str, JsonValue]], videos: Videos) -> list[Mapping[str, JsonValue]]:
    """The references, those to local videos with what was seen of them, as `kept_facts` finds it again."""
    return [
        reference if (facts := videos.get(str(reference.get("path")))) is None else {**reference, FACTS: asdict(facts)}
        for reference in media
    ]


def kept_facts(media: Iterable[Mapping[str, JsonValue]]) -> Iterator[tuple[str, VideoFacts]]:
    """Paths and facts of the local videos among these references."""
    for reference in media:
        if isinstance(facts := reference.get(FACTS), Mapping):
            yield str(reference["path"]), msgspec.convert(facts, VideoFacts)


def clip_of(videos: Videos, reference: Mapping[str, JsonValue]) -> Clip | None:
    """What a media reference names, as the formula of tokens sees it; None where that isn't known."""
    facts = videos.get(str(reference.get("path")))
    if facts is None or facts.seconds <= 0 or facts.frames < 1:
        return None
    return Clip(width=facts.width, height=facts.height, frames=facts.frames, rate=facts.frames / facts.seconds)

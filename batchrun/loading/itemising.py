"""From the rows of a source to items: what each asks for, and whether it can be asked. Nothing is written.

What a row asks for is checked here for loading and for estimates alike, so that both refuse the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from batchrun.advice import check_sizes
from batchrun.alike import request_name, row_name
from batchrun.bodies import has_bounded_videos
from batchrun.counting.clips import DEFAULT_FPS
from batchrun.dialects.writing import FILES_THEMSELVES, MEDIA_AS_FILES, NO_FILE_IDS, NO_MEDIA_URLS, is_web
from batchrun.errors import MediaError, Problem, ProviderError, SpecError, TemplateError
from batchrun.jobfile.spec import JobSpec
from batchrun.loading.measuring import Videos, Watched, clip_of
from batchrun.loading.needs import Needs
from batchrun.media.url import is_file_id
from batchrun.media.videos import linked_video
from batchrun.messages import FramesPart, ImagePart, JsonValue, MediaPart, Uploaded, VideoPart
from batchrun.plan import Plan
from batchrun.rows.inputs import Row, media_root, no_check, read_rows
from batchrun.rows.references import MediaRef, ReferenceProblem
from batchrun.segments.splitting import split_row
from batchrun.store.jobs import NewItem

BATCH = 500
HEAVY = 16 * 1024 * 1024
"""Rows, and characters of data URLs, that are in memory at once."""
NO_SOUND = "models don't hear: the sound of the videos isn't part of what they are asked about"
AT_HAND = Uploaded(url="", digest="", fresh=False)
"""Stands for a local file where nothing is sent."""
NO_OUTPUT_BOUND = "a budget needs a bound of the answer's length, and none is known for"

BYTES_PER_TOKEN = 4
TOKENS_PER_PICTURE = 1_200
TOKENS_PER_FRAME = 300
"""Two frames of a list share what a picture has."""
TOKENS_PER_VIDEO = 60_000
"""One of ten minutes and more has twice as many (contract 8.3.4)."""
TOKENS_PER_ANSWER = 300
"""Guesses that pace a job under a limit of tokens until its first answers tell their mean."""


def needs_of(job: JobSpec, plan: Plan, base: Path, now: datetime, videos: Videos) -> Needs:
    fps = DEFAULT_FPS if job.media.fps is None else job.media.fps
    return Needs(plan, media_root(job, base), now, clip_of=partial(clip_of, videos), fps=fps)


def checked_rows(job: JobSpec, plan: Plan, base: Path, source: Watched, *, capped: bool) -> Iterator[Row]:
    """The rows of the source, long videos as their parts. Raises SpecError where one of them can't be asked."""
    if source.rows is None:
        return read_rows(job, base, checking(job, plan, capped=capped) if plan.written else no_check)
    rows = iter(source.rows)
    return rows if job.media.split is None else split_rows(rows, job.media.split, source.videos)


def split_rows(rows: Iterator[Row], split: timedelta, videos: Videos) -> Iterator[Row]:
    lengths = {path: facts.seconds for path, facts in videos.items()}
    for row in rows:
        try:
            yield from split_row(row, split, lengths.get)
        except ReferenceProblem as problem:
            raise bad_row(row, problem.message, problem.remedy) from problem


def batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    batch: list[Row] = []
    weight = 0
    for row in rows:
        batch.append(row)
        weight += sum(len(file.url or "") for reference in row.media for file in reference.files)
        if len(batch) >= BATCH or weight >= HEAVY:
            yield batch
            batch, weight = [], 0
    if batch:
        yield batch


def asked(job: JobSpec, plan: Plan, row: Row, *, capped: bool) -> tuple[list[str], int | None]:
    """The texts of a row's request and its most input tokens.

    Raises SpecError where it can't become a request, or its cost has no bound under a cap.
    """
    try:
        texts = plan.texts(row.variables)
    except TemplateError as error:
        raise bad_row(row, error.message, error.remedy) from error
    if row.media:
        check_media(job, plan, row)
    bound = input_bound(plan, row, texts)
    if bound is not None and bound == plan.input_limit and not row.merges and not plan.written:
        pictures = sum(reference.kind == "image" for reference in row.media)
        least = plan.least_input(texts, pictures, lengths_of_videos(row))
        if least > bound:
            raise bad_row(
                row,
                f"its input has at least {least:,} tokens, and {job.model} takes {bound:,}",
                "shorten its text, send fewer or smaller pictures, or choose a model that takes more",
            )
    if bound is None and capped:
        raise bad_row(
            row,
            f"a budget needs a bound of the input, and how long a picture or video can be for {job.model} isn't known",
            "add max_image_tokens or max_input to a catalogue file of your own, or delete `budget`",
        )
    return texts, bound


def input_bound(plan: Plan, row: Row, texts: list[str]) -> int | None:
    if row.merges:
        return plan.merged_bound(row.variables)
    if not row.media:
        return plan.input_bound(texts, 0)
    if plan.written and has_bounded_videos(row.variables):
        return plan.input_limit
    pictures = sum(reference.kind == "image" for reference in row.media)
    return plan.input_bound(texts, pictures, lengths_of_videos(row))


def check_media(job: JobSpec, plan: Plan, row: Row) -> None:
    """Raises SpecError for media that can't be sent so."""
    check_videos(job, plan, row)
    if any(reference.kind != "video" for reference in row.media) and not plan.model.images:
        raise bad_row(row, f"{job.model} at {job.provider} takes no pictures", "choose a model that does")
    files = [file for reference in row.media for file in reference.files]
    if not plan.model.rules.media_urls and any(file.url and is_web(file.url) for file in files):
        raise bad_row(row, NO_MEDIA_URLS.format(model=job.model).removesuffix("."), MEDIA_AS_FILES)
    if not plan.model.rules.file_ids and any(is_file_id(file.url) for file in files):
        raise bad_row(row, NO_FILE_IDS.format(model=job.model).removesuffix("."), FILES_THEMSELVES)


def check_videos(job: JobSpec, plan: Plan, row: Row) -> None:
    """Raises SpecError for videos that can't be sent so."""
    videos = [reference for reference in row.media if reference.kind != "image"]
    if videos and not plan.model.videos:
        raise bad_row(row, f"{job.model} at {job.provider} takes no videos", "choose a model that does")
    for video in videos:
        if video.frames is not None:
            try:
                plan.sampling.rules.check_list("the list of frames", len(video.frames))
            except MediaError as error:
                raise bad_row(row, error.message.removesuffix("."), error.remedy) from error
        elif video.url is not None and plan.sampling.max_frames is not None and not plan.sampling.sends_max_frames:
            raise bad_row(
                row,
                f"media.max_frames can't be sent to {job.provider}, and this video is fetched by the server",
                "delete it and lower media.fps, or use DashScope's native protocol: provider: dashscope/singapore",
            )


def has_video(row: Row) -> bool:
    """Whether it has one that may have sound; a list of pictures has none."""
    return any(reference.kind == "video" for reference in row.media)


def lengths_of_videos(row: Row) -> list[int | None]:
    """Of each video how many pictures it is given as; None where it is one file."""
    videos = [reference for reference in row.media if reference.kind != "image"]
    return [None if video.frames is None else len(video.frames) for video in videos]


def media_of(row: Row) -> list[Mapping[str, JsonValue]]:
    """The references to a row's pictures and videos, as they are stored."""
    return [reference.stored() for reference in row.media]


def is_shared(job: JobSpec, row: Row) -> bool:
    """Whether a row that asks what another one asks gets its answer."""
    return job.deduplicate and not row.merges


def new_item(job: JobSpec, plan: Plan, row: Row, *, capped: bool) -> NewItem:
    """The item of a row. Raises SpecError."""
    texts, bound = asked(job, plan, row, capped=capped)
    media = media_of(row)
    row_hash = row_name(texts, media)
    return NewItem(
        custom_id=row.custom_id,
        row_hash=row_hash,
        variables=row.variables,
        media=media,
        input_bound=bound,
        request_hash=request_name(texts, media, row_hash) if is_shared(job, row) else None,
        part_of=row.part_of,
        merges=row.merges,
    )


def expected(plan: Plan, needs: Needs, rows: Sequence[Row]) -> int:
    """Tokens that a call of these rows is likely to use: a guess, or the most that they can have where that is less."""
    return sum(expected_input(plan, needs, row) for row in rows) // len(rows) + TOKENS_PER_ANSWER


def expected_input(plan: Plan, needs: Needs, row: Row) -> int:
    texts = plan.texts(row.variables)
    words = sum(len(text.encode()) for text in texts) // BYTES_PER_TOKEN
    pictures = sum(reference.kind == "image" for reference in row.media) * TOKENS_PER_PICTURE
    videos = sum(TOKENS_PER_VIDEO if n is None else n * TOKENS_PER_FRAME for n in lengths_of_videos(row))
    need = needs.of(row.variables, texts, media_of(row)) if row.media else None
    guess = words + pictures + videos
    return guess if need is None or need.input.high is None else min(guess, need.input.high)


def checking(job: JobSpec, plan: Plan, *, capped: bool) -> Callable[[Row], None]:
    """Refuses a written request that the vendor would refuse, or that a budget can't hold. Raises ReferenceProblem."""

    def check(row: Row) -> None:
        try:
            request = plan.request(row.variables, [to_be_sent(plan, reference) for reference in row.media])
            check_sizes(request, plan.model)
            plan.dialect.encode(request, plan.model.rules)
        except (ProviderError, MediaError) as error:
            raise ReferenceProblem(error.message.removesuffix("."), error.remedy) from error
        if capped and plan.output_bound(row.variables) is None:
            raise ReferenceProblem(f"{NO_OUTPUT_BOUND} {job.model}", "Write `max_tokens` into the body")

    return check


def to_be_sent(plan: Plan, reference: MediaRef) -> MediaPart:
    """A medium as far as it is known before a call. Raises MediaError."""
    fps = reference.fps
    if reference.frames is not None:
        return FramesPart(sources=tuple(frame.url or AT_HAND for frame in reference.frames), fps=fps)
    if reference.kind == "image":
        return ImagePart(source=reference.url or AT_HAND)
    if reference.url is None:
        return VideoPart(source=AT_HAND, fps=fps)
    return linked_video(reference.url, replace(plan.sampling, fps=fps))


def bad_row(row: Row, message: str, remedy: str) -> SpecError:
    problem = Problem(file=None, line=None, column=None, field=row.place, message=message, remedy=remedy)
    return SpecError([problem], code="rows")

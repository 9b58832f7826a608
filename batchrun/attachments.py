"""The media of an item as parts of its request: local files opened, pictures prepared, videos taken apart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from batchrun.alike import digest as digest_of
from batchrun.dialects.writing import is_data, is_web
from batchrun.errors import ErrorKind, MediaError, ProviderError
from batchrun.media import OpenMedia
from batchrun.media.decoder import Decoder
from batchrun.media.making import open_prepared, open_prepared_data
from batchrun.media.public import check_reachable
from batchrun.media.url import check_data_picture
from batchrun.media.videos import OpenVideo, linked_video, open_video
from batchrun.messages import ChatRequest, FramesPart, ImagePart, JsonValue, MediaPart, Source
from batchrun.plan import Plan
from batchrun.segments.merging import ANSWERS, answers_text
from batchrun.store.claim import Call
from batchrun.transport import Transport
from batchrun.uploads.linkcheck import LinkCheck
from batchrun.uploads.uploading import Uploader

STALE = timedelta(seconds=30)
"""A claim that is this much later than its slot is given back unsent: others may have taken this worker for dead."""
LOOK = 5.0
"""Seconds between looks at whether this process stood still, while a picture is made."""

Made = TypeVar("Made")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What a call uses of its process."""

    transport: Transport
    decoder: Decoder
    now: Callable[[], datetime]
    """By the clock that all processes share."""
    monotonic: Callable[[], float]
    links: LinkCheck
    uploader: Uploader
    sleep: Callable[[float], Awaitable[None]]
    random: Callable[[], float]


@asynccontextmanager
async def opened_request(call: Call, plan: Plan, tools: Tools) -> AsyncIterator[tuple[ChatRequest, list[OpenMedia]]]:
    """The request of an item, with its local files opened, on a thread: a disk may be slow. Raises MediaError,
    TemplateError, and ProviderError where the process stood still meanwhile."""
    if plan.merges(call.variables):
        said = answers_text(call.parts, plan.input_limit)
        yield plan.request({**call.variables, ANSWERS: said}, []), []
        return
    check_counts(call.media, plan)
    with ExitStack() as stack:
        opened: list[OpenMedia] = []
        parts = [await opened_part(media, plan, tools, stack, opened) for media in call.media]
        yield plan.request(call.variables, parts), opened


async def opened_part(
    media: Mapping[str, JsonValue], plan: Plan, tools: Tools, stack: ExitStack, opened: list[OpenMedia]
) -> MediaPart:
    """A picture or video of an item as a part of its request. Raises MediaError."""
    sampling = plan.sampling_of(media)
    if (frames := media.get("frames")) is not None:
        return FramesPart(sources=await opened_frames(frames, plan, tools, stack, opened), fps=sampling.fps)
    if media.get("kind") != "video":
        return ImagePart(source=await opened_picture(media, plan, tools, stack, opened))
    url, path = media.get("url"), media.get("path")
    if isinstance(url, str):
        check_web(url, plan)
        return linked_video(url, sampling)
    if not isinstance(path, str) or plan.media_root is None:
        raise MediaError("a media reference without a path or a URL", code="media-reference")
    start, end = (float(str(media[name])) if name in media else None for name in ("start", "end"))
    opening = open_video(plan.media_root, path, sampling, tools.decoder, start=start, end=end)
    video = await attentive(opening, tools, undo=OpenVideo.close)
    stack.callback(video.close)
    return video.part


async def opened_frames(
    frames: JsonValue, plan: Plan, tools: Tools, stack: ExitStack, opened: list[OpenMedia]
) -> tuple[Source, ...]:
    listed = [frame for frame in frames if isinstance(frame, Mapping)] if isinstance(frames, list) else []
    plan.sampling.rules.check_list("the list of frames", len(listed))
    return tuple([await opened_picture(frame, plan, tools, stack, opened) for frame in listed])


async def opened_picture(
    media: Mapping[str, JsonValue], plan: Plan, tools: Tools, stack: ExitStack, opened: list[OpenMedia]
) -> Source:
    if (url := sent_as_it_is(media, plan)) is not None:
        check_web(url, plan)
        if is_data(url):
            await asyncio.to_thread(check_data_picture, url, plan.preparation.rules)
        return url
    picture = await attentive(prepared(media, plan, tools), tools, undo=OpenMedia.close)
    opened.append(stack.enter_context(picture))
    return opened[-1]


def check_web(url: str, plan: Plan) -> None:
    """Raises MediaError for the address of a host that the vendor can't reach."""
    if plan.reached_hosts is not None and is_web(url):
        check_reachable(url, plan.reached_hosts)


def sent_as_it_is(media: Mapping[str, JsonValue], plan: Plan) -> str | None:
    """The URL of a picture to which nothing is done here."""
    url, preparation = media.get("url"), plan.preparation
    if not isinstance(url, str) or ((preparation.strip or preparation.shrink) and is_data(url)):
        return None
    return url


async def prepared(media: Mapping[str, JsonValue], plan: Plan, tools: Tools) -> OpenMedia:
    """Another picture, as it is to be sent. Raises MediaError."""
    url, path = media.get("url"), media.get("path")
    if isinstance(url, str):
        return await open_prepared_data(url, plan.preparation, tools.decoder)
    if isinstance(path, str) and plan.media_root is not None:
        return await open_prepared(plan.media_root, path, plan.preparation, tools.decoder)
    raise MediaError("a media reference without a path or a URL", code="media-reference")


def check_counts(media: Sequence[Mapping[str, JsonValue]], plan: Plan) -> None:
    """Raises MediaError where there are more pictures than a request may have."""
    pictures = [one for one in media if one.get("kind", "image") == "image"]
    urls = [url for one in pictures if isinstance(url := one.get("url"), str)]
    embedded = len(pictures) - len(urls) + sum(map(is_data, urls))
    plan.preparation.rules.check_count(embedded, sum(map(is_web, urls)))


async def attentive(
    source: Coroutine[None, None, Made], tools: Tools, *, undo: Callable[[Made], object] = lambda _: None
) -> Made:
    """The same, however long it takes. Raises ProviderError where this process stood still meanwhile: a picture that
    takes long to make or to upload must not hide that others may have taken this worker for dead."""
    task = asyncio.create_task(source)
    try:
        while True:
            before = tools.monotonic()
            await asyncio.wait({task}, timeout=LOOK)
            if tools.monotonic() - before > STALE.total_seconds():
                raise stood_still()  # noqa: TRY301 - the picture is given up below
            if task.done():
                return task.result()
    except BaseException:
        await give_up(task, undo)
        raise


async def give_up(task: asyncio.Task[Made], undo: Callable[[Made], object]) -> None:
    """Cancel it, and undo what it has done."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled() and task.exception() is None:
        undo(task.result())


def stood_still() -> ProviderError:
    return ProviderError(ErrorKind.LOCAL, "the claim was too old to be sent: the process stood still")


def contents_of(call: Call, opened: Sequence[OpenMedia]) -> str | None:
    """Names what was in the pictures' files, see `alike`. None where there are none, or videos among them, or one
    wasn't read to its end as it lies there: what was made of it has another name than what others read."""
    if any(media.get("kind", "image") != "image" for media in call.media):
        return None
    digests = [media.digest_of_file for media in opened]
    known = [digest for digest in digests if digest is not None]
    return digest_of(known) if known and len(known) == len(digests) else None

"""Items as the lines of an OpenAI batch file, so that what is left of a job can go to a vendor's batch service.

The requests are rendered as they would be sent, unless they are streamed; local pictures become data URLs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from batchrun.dialects.compat_request import encode
from batchrun.errors import BatchrunError, MediaError
from batchrun.media.decoder import Decoder
from batchrun.media.making import open_prepared_now
from batchrun.media.videos import linked_video
from batchrun.messages import FramesPart, ImagePart, JsonValue, MediaPart, Source
from batchrun.output.visible import safe_json
from batchrun.plan import Plan
from batchrun.reports.results import ItemResult
from batchrun.rows.requests import METHOD, URL
from batchrun.showing import clean

MAX_LINE = 6_000_000
"""Bytes; of the two readings of the vendors' 6 MB the smaller one."""
SHOWN = 20


@dataclass(slots=True, kw_only=True)
class LeftOut:
    """Items that can't stand in such a file."""

    number: int = 0
    shown: list[str] = field(default_factory=list)
    """The first of them, each with the reason."""

    def add(self, custom_id: str, reason: str) -> None:
        self.number += 1
        if len(self.shown) < SHOWN:
            self.shown.append(f"{clean(custom_id)}: {reason}")


def request_lines(stream: Iterator[ItemResult], plan: Plan, left_out: LeftOut) -> Iterator[bytes]:
    """A line for each item; those that can't have one are noted in `left_out`."""
    with Decoder() as decoder:
        for item in stream:
            try:
                yield _line(item, plan, decoder)
            except BatchrunError as error:
                left_out.add(item.custom_id, error.message)


def _line(item: ItemResult, plan: Plan, decoder: Decoder) -> bytes:
    if plan.merges(item.variables):
        raise MediaError("it merges what its parts say, which isn't known yet", code="media-reference")
    with ExitStack() as stack:
        parts = [_part(media, plan, decoder, stack) for media in item.media]
        request = replace(plan.request(item.variables, parts), stream=False)
        body = encode(request, plan.model.rules)
        head = {"custom_id": item.custom_id, "method": METHOD, "url": URL}
        before = json.dumps(head, ensure_ascii=False, separators=(",", ":")).encode()[:-1] + b',"body":'
        length = len(before) + body.length + 1
        if length > MAX_LINE:
            raise MediaError(f"its line would have {length:,} bytes; vendors take {MAX_LINE:,}", code="media-too-large")
        pieces = [
            safe_json(piece.decode()).encode() if isinstance(piece, bytes) else b"".join(piece.read_encoded())
            for piece in (before, *body.pieces)
        ]
        return b"".join((*pieces, b"}\n"))


def _part(media: Mapping[str, JsonValue], plan: Plan, decoder: Decoder, stack: ExitStack) -> MediaPart:
    """Raises MediaError; a local video has pictures taken out of it only when it is sent."""
    url, path, frames = (media.get(name) for name in ("url", "path", "frames"))
    if isinstance(frames, list):
        listed = [frame for frame in frames if isinstance(frame, Mapping)]
        sources = [_opened(frame.get("url"), frame.get("path"), plan, decoder, stack) for frame in listed]
        return FramesPart(sources=tuple(sources), fps=plan.sampling_of(media).fps)
    if media.get("kind") == "video":
        if not isinstance(url, str):
            raise MediaError("a local video can't stand in such a file", code="media-video-as")
        return linked_video(url, plan.sampling_of(media))
    return ImagePart(source=_opened(url, path, plan, decoder, stack))


def _opened(url: object, path: object, plan: Plan, decoder: Decoder, stack: ExitStack) -> Source:
    if isinstance(url, str):
        return url
    if isinstance(path, str) and plan.media_root is not None:
        return stack.enter_context(open_prepared_now(plan.media_root, path, plan.preparation, decoder))
    raise MediaError("a media reference without a path or a URL", code="media-reference")

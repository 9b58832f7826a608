"""A request's media on their way to the vendor: URLs are looked at and files uploaded, where the job asks for it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from batchrun.dialects.writing import is_web
from batchrun.media import OpenMedia
from batchrun.media.public import Wanted
from batchrun.media.url import VIDEO_ENCODED
from batchrun.media.videos import FilePart
from batchrun.messages import (
    ChatRequest,
    FramesPart,
    ImagePart,
    MediaPart,
    Message,
    Part,
    Source,
    TextPart,
    Uploaded,
    VideoPart,
    WrittenMessage,
)
from batchrun.plan import Plan
from batchrun.uploads.linkcheck import PICTURE, LinkCheck
from batchrun.uploads.uploading import Uploader


def needs_placing(plan: Plan) -> bool:
    """Whether anything is done to the media of the job's requests."""
    return plan.checked_hosts is not None or plan.uploads is not None


async def placed(
    request: ChatRequest, profile_id: int, plan: Plan, links: LinkCheck, uploader: Uploader
) -> ChatRequest:
    """The request as it will be sent. Raises MediaError where a medium is of no use, ProviderError where it may be
    later; nothing was billed then."""
    place = Place(profile_id=profile_id, plan=plan, links=links, uploader=uploader)
    return replace(request, messages=tuple([await place.message(message) for message in request.messages]))


def uploads_in(request: ChatRequest) -> list[Uploaded]:
    return [source for message in request.messages for source in message.sources if isinstance(source, Uploaded)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    profile_id: int
    plan: Plan
    links: LinkCheck
    uploader: Uploader

    async def message(self, message: Message | WrittenMessage) -> Message | WrittenMessage:
        if isinstance(message, WrittenMessage):
            return replace(message, media=tuple([await self.medium(part) for part in message.media]))
        return replace(message, parts=tuple([await self.part(part) for part in message.parts]))

    async def part(self, part: Part) -> Part:
        return part if isinstance(part, TextPart) else await self.medium(part)

    async def medium(self, part: MediaPart) -> MediaPart:
        if isinstance(part, ImagePart):
            return replace(part, source=await self.picture(part.source))
        if isinstance(part, VideoPart):
            return replace(part, source=await self.video(part.source))
        if isinstance(part, FramesPart):
            return replace(part, sources=tuple([await self.picture(source) for source in part.sources]))
        return part

    async def picture(self, source: Source) -> Source:
        """Those that were taken out of a video stay in the request: they are many and small."""
        if isinstance(source, OpenMedia):
            return await self.stored(source, self.plan.model.rules.pictures.max_encoded)
        return await self.looked_at(source, PICTURE)

    async def video(self, source: Source) -> Source:
        if isinstance(source, FilePart):
            return await self.stored(source, VIDEO_ENCODED)
        return await self.looked_at(source, Wanted(video=True, limit=self.plan.sampling.rules.url_bytes))

    async def looked_at(self, source: Source, wanted: Wanted) -> Source:
        hosts = self.plan.checked_hosts
        if hosts is not None and isinstance(source, str) and is_web(source):
            await self.links.check(source, hosts, wanted)
        return source

    async def stored(self, file: OpenMedia | FilePart, most: int) -> Source:
        """`most` characters of base64 may stand in a request."""
        rules = self.plan.uploads
        if rules is None or (rules.which == "large" and file.encoded_size <= most):
            return file
        return await self.uploader.uploaded(file, rules, self.profile_id)

"""A request's media on their way to the vendor: URLs are looked at and files uploaded, where the job asks for it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from batchrun.dialects.writing import is_web
from batchrun.linkcheck import LinkCheck
from batchrun.media import OpenMedia
from batchrun.messages import ChatRequest, FramesPart, ImagePart, Message, Part, Source, Uploaded, WrittenMessage
from batchrun.plan import Plan
from batchrun.uploading import Uploader


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
    return [image for message in request.messages for image in message.sources if isinstance(image, Uploaded)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    profile_id: int
    plan: Plan
    links: LinkCheck
    uploader: Uploader

    async def message(self, message: Message | WrittenMessage) -> Message | WrittenMessage:
        if isinstance(message, WrittenMessage):
            return replace(message, sources=tuple([await self.source(source) for source in message.sources]))
        return replace(message, parts=tuple([await self.part(part) for part in message.parts]))

    async def part(self, part: Part) -> Part:
        if isinstance(part, ImagePart):
            return replace(part, source=await self.source(part.source))
        if isinstance(part, FramesPart):
            return replace(part, sources=tuple([await self.source(source) for source in part.sources]))
        return part

    async def source(self, source: Source) -> Source:
        if isinstance(source, str):
            if self.plan.checked_hosts is not None and is_web(source):
                await self.links.check(source, self.plan.checked_hosts)
            return source
        rules = self.plan.uploads
        if rules is None or not isinstance(source, OpenMedia):
            return source
        if rules.which == "large" and source.encoded_size <= self.plan.model.rules.pictures.max_encoded:
            return source
        return await self.uploader.uploaded(source, rules, self.profile_id)

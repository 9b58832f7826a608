"""What a job's items are sent with, without sending them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from batchrun.attachments import Tools, opened_request
from batchrun.catalogue import Catalogue
from batchrun.dialects.base import Body
from batchrun.jobfile.spec import JobSpec
from batchrun.media.decoder import Decoder
from batchrun.messages import JsonValue
from batchrun.plan import Plan, prepare
from batchrun.store.claim import Call
from batchrun.store.uploads import UploadKey
from batchrun.tables import EPOCH
from batchrun.transport import Transport
from batchrun.uploads.linkcheck import LinkCheck
from batchrun.uploads.uploading import Uploader


@dataclass(kw_only=True)
class Shelf:
    """Remembers uploads without a database."""

    kept: dict[UploadKey, tuple[str, datetime]] = field(default_factory=dict)

    async def find(self, key: UploadKey, *, until: datetime) -> str | None:
        url, expires_at = self.kept.get(key, ("", EPOCH))
        return url if expires_at >= until and url else None

    async def keep(self, key: UploadKey, *, url: str, expires_at: datetime) -> None:
        self.kept[key] = url, expires_at

    async def forget(self, keys: Collection[UploadKey]) -> None:
        self.kept = {key: value for key, value in self.kept.items() if key not in keys}


def wire(body: Body) -> bytes:
    return b"".join(piece if isinstance(piece, bytes) else b"".join(piece.read_encoded()) for piece in body.pieces)


def plan_of(catalogue: Catalogue, job: Mapping[str, JsonValue], media_root: Path | None = None) -> Plan:
    fixed: dict[str, JsonValue] = {"name": "j", "inputs": {"items": [{"x": "nothing"}]}}
    return prepare(JobSpec.model_validate({**fixed, **job}), catalogue, media_root=media_root)


async def sent_by(plan: Plan, images: list[str], media: Sequence[Mapping[str, JsonValue]] = ()) -> bytes:
    """What an item of the plan is sent with; its variable `x` is the word `nothing`."""
    call = Call(
        attempt_id=1,
        item_id=1,
        job_id=1,
        profile_id=1,
        fence=1,
        custom_id="i",
        variables={"x": "nothing"},
        media=[*({"kind": "image", "url": url} for url in images), *media],
        free_tries=0,
        paid_tries=0,
        free_since=None,
        claimed_at=EPOCH,
        send_at=EPOCH,
        reserved=None,
        expected_tokens=1,
    )
    with Decoder() as decoder:
        async with opened_request(call, plan, tools_of(decoder)) as (made, _):
            return wire(plan.dialect.encode(made, plan.model.rules))


def tools_of(decoder: Decoder) -> Tools:
    """Good for making requests, not for sending them."""
    transport = Transport()
    return Tools(
        transport=transport,
        decoder=decoder,
        links=LinkCheck(monotonic=time.monotonic),
        uploader=Uploader(transport=transport, shelf=Shelf(), now=lambda: EPOCH, monotonic=time.monotonic),
        now=lambda: EPOCH,
        monotonic=time.monotonic,
        sleep=asyncio.sleep,
        random=lambda: 0.5,
    )

"""A process that stood still while a picture was made must not send it: others may have taken its worker for dead."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from batchrun.attachments import attentive
from batchrun.errors import ErrorKind, ProviderError
from batchrun.media import OpenMedia, open_media
from batchrun.media.decoder import Decoder
from tests.pictures import picture
from tests.unit.sending import tools_of


async def made(tmp_path: Path) -> OpenMedia:
    (tmp_path / "a.png").write_bytes(picture("PNG"))
    await asyncio.sleep(0)
    return open_media(tmp_path, "a.png")


def test_a_picture_that_was_made_meanwhile_is_closed_and_not_sent(tmp_path: Path) -> None:
    clock = iter((0.0, 31.0))
    opened: list[OpenMedia] = []

    async def kept() -> OpenMedia:
        opened.append(await made(tmp_path))
        return opened[0]

    with Decoder() as decoder:
        tools = replace(tools_of(decoder), monotonic=lambda: next(clock))
        with pytest.raises(ProviderError, match="stood still") as caught:
            asyncio.run(attentive(kept(), tools, undo=OpenMedia.close))
    assert caught.value.kind is ErrorKind.LOCAL
    assert opened[0].file.closed


def test_a_picture_that_takes_long_is_waited_for(tmp_path: Path) -> None:
    clock = iter((0.0, 29.0))
    with Decoder() as decoder:
        tools = replace(tools_of(decoder), monotonic=lambda: next(clock))
        with asyncio.run(attentive(made(tmp_path), tools)) as opened:
            assert opened.mime == "image/png"

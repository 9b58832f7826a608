"""The limited processes for decoding: what a file does to one of them, and what is left afterwards."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from batchrun.errors import MediaError
from batchrun.media.child import Child, Limits, Request
from batchrun.media.decoder import Decoder
from batchrun.media.path import open_inside

ROOMY = {"long_side": 7680, "short_side": 4320, "bytes": 7_864_320, "pixels": 50_000_000}


@pytest.fixture
def decoder() -> Iterator[Decoder]:
    with Decoder(processes=1) as decoder:
        yield decoder


@pytest.fixture
def noisy(tmp_path: Path) -> Path:
    """A JPEG that takes a second to shrink."""
    Image.effect_noise((4000, 3000), 60).convert("RGB").save(tmp_path / "noisy.jpg", quality=98)
    return tmp_path / "noisy.jpg"


def nameless_files() -> int:
    """Open files of this process that have no name any more."""
    links = [os.path.join("/proc/self/fd", fd) for fd in os.listdir("/proc/self/fd")]
    return sum("(deleted)" in os.readlink(link) for link in links if os.path.lexists(link))


def test_a_picture_is_measured(decoder: Decoder, noisy: Path) -> None:
    with open_inside(noisy.parent, noisy.name) as file:
        values = decoder.ask("inspect", file, {}, name="a").values
    assert values == {"width": 4000, "height": 3000, "format": "JPEG", "frames": 1, "alpha": False}


def test_what_takes_too_long_is_ended_and_the_next_request_is_served(decoder: Decoder, noisy: Path) -> None:
    with open_inside(noisy.parent, noisy.name) as file:
        with pytest.raises(MediaError, match=r"'a' couldn't be decoded: it took longer than 0\.2 s") as caught:
            decoder.ask("shrink", file, ROOMY | {"bytes": 100_000}, name="a", writes=True, seconds=0.2)
        assert caught.value.code == "media-undecodable"
        assert decoder.ask("inspect", file, {}, name="a").values["width"] == 4000


def test_memory_is_limited(noisy: Path) -> None:
    with (
        Decoder(processes=1, limits=Limits(memory=64 * 1024 * 1024)) as decoder,
        open_inside(noisy.parent, noisy.name) as file,
        pytest.raises(MediaError) as caught,
    ):
        decoder.ask("shrink", file, ROOMY, name="a", writes=True)
    assert caught.value.code == "media-undecodable"


def test_a_process_that_is_killed_costs_one_request(noisy: Path) -> None:
    child = Child(Limits())
    child.process.kill()
    child.process.wait()
    with open_inside(noisy.parent, noisy.name) as file, pytest.raises(MediaError, match="ended by SIGKILL"):
        child.ask(Request(name="a", operation="inspect", arguments={}, source=file.fileno()))
    assert not child.usable
    child.close()


def test_a_cancelled_request_leaves_neither_process_nor_file(decoder: Decoder, noisy: Path) -> None:
    before = nameless_files()

    async def cancelled() -> None:
        with open_inside(noisy.parent, noisy.name) as file:
            task = asyncio.create_task(
                decoder.answer("shrink", file, ROOMY | {"bytes": 100_000}, name="a", writes=True)
            )
            while nameless_files() == before:  # noqa: ASYNC110 - nothing tells when another process has begun
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(cancelled())
    assert nameless_files() == before


def test_the_process_knows_no_key_and_has_its_own_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASHSCOPE_API_KEY", "sk-0123456789")
    child = Child(Limits())
    try:
        environment = Path(f"/proc/{child.process.pid}/environ").read_bytes()
        assert os.getpgid(child.process.pid) == child.process.pid != os.getpgid(0)
    finally:
        child.close()
    assert b"DASHSCOPE" not in environment


def test_the_process_ends_when_nobody_is_left_who_asks() -> None:
    child = Child(Limits())
    child.channel.close()
    assert child.process.wait(timeout=30) == 0

"""Pictures that can't be sent as they are, made anew in a limited process. The files themselves are left alone."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from batchrun.media import OpenMedia, open_media
from batchrun.media.decoder import Decoded, Decoder, nameless
from batchrun.media.rules import DECODED_PIXELS, FORMAT_NAMES, LONG_SIDE, SHORT_SIDE, PictureRules, Preparation
from batchrun.media.url import data_of, shortened
from batchrun.messages import JsonValue


async def open_prepared(root: Path, relative: str, preparation: Preparation, decoder: Decoder) -> OpenMedia:
    """The picture at `relative` below `root`, as it is to be sent. Raises MediaError as `open_media` does, and as the
    operation `shrink` of `decoding.pictures`."""
    return await _prepared(await asyncio.to_thread(open_media, root, relative, preparation), preparation, decoder)


async def open_prepared_data(url: str, preparation: Preparation, decoder: Decoder) -> OpenMedia:
    """The same of the picture in a data URL."""
    return await _prepared(await asyncio.to_thread(_opened_data, url, preparation), preparation, decoder)


async def _prepared(opened: OpenMedia, preparation: Preparation, decoder: Decoder) -> OpenMedia:
    if not opened.must_be_made:
        return opened
    with opened:
        given = arguments(preparation.rules)
        decoded = await decoder.answer("shrink", opened.file, given, name=opened.name, writes=True)
        return _made(opened, decoded, preparation.rules)


def _opened_data(url: str, preparation: Preparation) -> OpenMedia:
    data = data_of(url)
    file = nameless()
    try:
        file.write(data)
        return OpenMedia(file, shortened(url).strip("'"), preparation=preparation)
    except BaseException:
        file.close()
        raise


def open_prepared_now(root: Path, relative: str, preparation: Preparation, decoder: Decoder) -> OpenMedia:
    """The same for who may wait."""
    opened = open_media(root, relative, preparation)
    if not opened.must_be_made:
        return opened
    with opened:
        decoded = decoder.ask("shrink", opened.file, arguments(preparation.rules), name=opened.name, writes=True)
        return _made(opened, decoded, preparation.rules)


def arguments(rules: PictureRules) -> Mapping[str, JsonValue]:
    return {
        "long_side": LONG_SIDE,
        "short_side": SHORT_SIDE,
        "bytes": rules.max_encoded // 4 * 3,
        "pixels": DECODED_PIXELS,
    }


def _made(opened: OpenMedia, decoded: Decoded, rules: PictureRules) -> OpenMedia:
    file = decoded.output
    assert file is not None  # noqa: S101 - it was asked for
    try:
        return OpenMedia(file, opened.name, preparation=Preparation(rules=rules), note=_note(opened, decoded))
    except BaseException:
        file.close()
        raise


def _note(opened: OpenMedia, decoded: Decoded) -> str:
    """What was done, in words."""
    width, height = decoded.values["width"], decoded.values["height"]
    quality = decoded.values["quality"]
    form = "PNG" if quality is None else f"JPEG of quality {quality}"
    before = f"{FORMAT_NAMES[opened.mime]} of {opened.width}×{opened.height} pixels, {opened.size:,} bytes"
    return f"{opened.name!r}: sent as {form}, {width}×{height} pixels, instead of {before}"

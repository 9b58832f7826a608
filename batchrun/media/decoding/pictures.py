"""Pictures in the process for decoding: what they are, and smaller ones of them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from io import BytesIO
from typing import BinaryIO

from PIL import Image, ImageOps, UnidentifiedImageError

from batchrun.errors import MediaError
from batchrun.messages import JsonValue

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
"""All that is ever parsed: Pillow's other readers (PDF, EPS, FITS, …) are never loaded (contract 5.1)."""
QUALITIES = (90, 80, 70)
STEP = 0.8
"""By which the sides shrink when no quality is small enough."""
SMALLEST = 64
"""Pixels of a side below which nothing is gained any more."""

Image.MAX_IMAGE_PIXELS = None  # our own bound holds, and it is looked at before anything is decoded
warnings.simplefilter("error", Image.DecompressionBombWarning)


def inspect(source: BinaryIO, _target: BinaryIO | None, _arguments: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """`width` and `height` as stored, `format`, `frames`, and `alpha`: whether it may have transparent parts."""
    with opened(source) as picture:
        return {
            "width": picture.width,
            "height": picture.height,
            "format": picture.format,
            "frames": getattr(picture, "n_frames", 1),
            "alpha": picture.has_transparency_data,
        }


def shrink(source: BinaryIO, target: BinaryIO | None, arguments: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Write a picture of the same look and ratio within `long_side` × `short_side` pixels and `bytes`: a PNG where it
    has transparent parts, else a JPEG, upright, without metadata. At most `pixels` are decoded.

    Says `mime`, `width`, `height` and `quality` (of JPEG). Raises MediaError.
    """
    assert target is not None  # noqa: S101 - the caller always gives one
    long_side, short_side, most, pixels = (
        int(str(arguments[name])) for name in ("long_side", "short_side", "bytes", "pixels")
    )
    with opened(source) as picture:
        box = (long_side, short_side) if picture.width >= picture.height else (short_side, long_side)
        picture.draft(None, fitted(picture.size, box))  # JPEG is decoded at a half, a quarter or an eighth
        if picture.width * picture.height > pixels:
            raise MediaError(
                f"has {picture.width * picture.height:,} pixels; at most {pixels:,} are decoded",
                code="media-too-many-pixels",
                remedy="Shrink it with another program.",
            )
        try:
            picture.load()
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            raise broken(error) from error
        plain = flat(picture)
        if (size := fitted(plain.size, box)) != plain.size:
            plain = plain.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
        ImageOps.exif_transpose(plain, in_place=True)
    return {**written(plain, target, most)}


def opened(source: BinaryIO) -> Image.Image:
    """Raises MediaError."""
    formats = list(FORMATS)
    if is_heic(source):
        try:
            import pillow_heif  # an extra, and only for these
        except ImportError:
            raise MediaError(
                "is HEIC; decoding that needs another package",
                code="media-extra",
                remedy="Install it: pip install 'batchrun[heic]'",
            ) from None
        pillow_heif.register_heif_opener(thumbnails=False)
        formats = ["HEIF"]
    try:
        return Image.open(source, formats=formats)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise broken(error) from error


def is_heic(source: BinaryIO) -> bool:
    head = source.read(12)
    source.seek(0)
    return head[4:8] == b"ftyp"


def fitted(size: tuple[int, int], box: tuple[int, int]) -> tuple[int, int]:
    factor = min(1.0, box[0] / size[0], box[1] / size[1])
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def flat(picture: Image.Image) -> Image.Image:
    """The same in RGB, or in RGBA where something shows through; grey stays grey."""
    orientation = picture.getexif().get(0x0112)
    if picture.mode.startswith(("I", "F")):  # more than 8 bits to a sample
        deep = picture.convert("F")
        scale = 1 / 257 if picture.mode.startswith("I;16") else 255 / max(255.0, float(str(deep.getextrema()[1])))
        plain = deep.point(lambda value: value * scale).convert("L")
    elif picture.has_transparency_data:
        plain = picture.convert("RGBA")
        if plain.getchannel("A").getextrema() == (255, 255):
            plain = plain.convert("RGB")
    else:
        plain = picture.convert("L" if picture.mode in ("1", "L") else "RGB")
    if (profile := picture.info.get("icc_profile")) and picture.mode in ("RGB", "RGBA"):
        plain.info["icc_profile"] = profile
    if orientation is not None:
        plain.getexif()[0x0112] = orientation
    return plain


def written(picture: Image.Image, target: BinaryIO, most: int) -> dict[str, JsonValue]:
    """The largest version that has at most `most` bytes."""
    while True:
        for quality in (None,) if picture.mode == "RGBA" else QUALITIES:
            data = encoded(picture, quality)
            if len(data) <= most:
                target.write(data)
                return {
                    "mime": "image/png" if quality is None else "image/jpeg",
                    "width": picture.width,
                    "height": picture.height,
                    "quality": quality,
                }
        if min(picture.size) * STEP < SMALLEST:
            raise MediaError(
                f"has more than {most:,} bytes even with {picture.width}×{picture.height} pixels",
                code="media-too-large",
                remedy="Shrink it with another program.",
            )
        picture = picture.resize((round(picture.width * STEP), round(picture.height * STEP)), Image.Resampling.LANCZOS)


def encoded(picture: Image.Image, quality: int | None) -> bytes:
    profile = picture.info.get("icc_profile")
    buffer = BytesIO()
    if quality is None:
        picture.save(buffer, "PNG", icc_profile=profile)
    else:
        picture.save(buffer, "JPEG", quality=quality, icc_profile=profile, exif=b"")
    return buffer.getvalue()


def broken(error: BaseException) -> MediaError:
    words = " ".join(str(error).split())[:200]
    return MediaError(f"is broken: {words}", code="media-broken", remedy="Copy or download the file again.")

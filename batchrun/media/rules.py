"""What a vendor takes of a picture, and what is done to those that don't fit. The figures are data of the catalogue.

The defaults are those of provider contract 5.1 and 8.11; a catalogue entry may say otherwise for a provider or a model.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from batchrun.errors import MediaError

FORMAT_NAMES = {
    "image/jpeg": "JPEG",
    "image/png": "PNG",
    "image/webp": "WEBP",
    "image/bmp": "BMP",
    "image/tiff": "TIFF",
    "image/heic": "HEIC",
    "image/gif": "GIF",
}
"""All that is recognised, in the order in which messages name them."""
SENT_FORMATS = frozenset(FORMAT_NAMES) - {"image/gif"}
LARGE_FORMATS = frozenset({"image/jpeg", "image/png"})
DECODED_PIXELS = 100_000_000
"""More are not decoded at once; of a JPEG that is reduced while it is decoded, only those that are left count."""
SHRINK = "Write `media: {oversize: shrink}` into the job, or shrink it yourself"
OTHER_MEDIA = {
    "PDF": "Save its pages as pictures first: models don't read PDF files (pdftoppm -png does it)",
    "text": "Put the text into a row and name its column in the prompt; as media, models take pictures and videos only",
    "a video or another ISO media file": "Name a video in a column `video` or `videos`, or under `inputs.videos`",
    "Matroska video": "Name it in a column `video` or `videos`, or under `inputs.videos`",
    "sound": "Models don't hear: have it written down first, and put the text into a row",
}
"""What to do with media that are no pictures (contract 5.2, 5.4)."""
LONG_SIDE, SHORT_SIDE = 7_680, 4_320
"""Pixels. "8K": larger pictures bring no better answers and may time out; shrunk ones lie within."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureRules:
    """Sizes are pixels as stored; None is no limit."""

    formats: frozenset[str] = SENT_FORMATS
    """MIME types."""
    large_formats: frozenset[str] = LARGE_FORMATS
    """Of those, the ones that are taken above the pixels of `large`."""
    large: tuple[int, int] | None = (3_840, 2_160)
    """"4K"."""
    min_side: int = 11
    max_ratio: int | None = 200
    """Of the long side to the short one."""
    max_pixels: int | None = 50_000_000
    """No vendor's figure: beyond it a small file is more likely a bomb than a picture."""
    max_encoded: int = 10_485_760
    """Characters of base64 of one picture."""
    max_embedded: int | None = 250
    """Pictures in a request that are sent as data."""
    max_linked: int | None = 256
    """Pictures in a request that are named by their addresses."""

    def check_format(self, name: str, mime: str | None, found: str) -> str:
        """`mime` if it is taken; `found` says what the content is. Raises MediaError `media-format`."""
        if mime in self.formats:
            return mime
        raise MediaError(
            f"{name} is no picture that can be sent; its content is {found}.",
            code="media-format",
            remedy=f"{OTHER_MEDIA.get(found) or f'Save it as {self.format_words()}'}.",
        )

    def check_amount(self, name: str, size: int, encoded_size: int) -> None:
        """Raises MediaError `media-empty` or `media-too-large`; `name` as it stands in the message."""
        if size == 0:
            raise MediaError(f"{name} is empty.", code="media-empty", remedy="Copy or download the file again.")
        if encoded_size > self.max_encoded:
            raise MediaError(
                f"{name} has {encoded_size:,} characters as base64; the limit is {self.max_encoded:,}.",
                code="media-too-large",
                remedy=f"{SHRINK}; {self.max_encoded // 4 * 3:,} bytes are taken, and more pixels bring nothing.",
            )

    def check_shape(self, name: str, width: int, height: int) -> None:
        """What no shrinking mends. Raises MediaError `media-too-small` or `media-ratio`."""
        found = f"{name} has {width:,}×{height:,} pixels"
        if min(width, height) < self.min_side:
            raise MediaError(
                f"{found}; both sides must be over {self.min_side - 1}.",
                code="media-too-small",
                remedy="Enlarge it, or leave it out.",
            )
        if self.max_ratio is not None and max(width, height) > self.max_ratio * min(width, height):
            raise MediaError(
                f"{found}; one side may be at most {self.max_ratio} times the other.",
                code="media-ratio",
                remedy="Cut it into pieces.",
            )

    def check_pixels(self, name: str, mime: str, width: int, height: int) -> None:
        """Raises MediaError `media-too-many-pixels` or `media-large-format`."""
        found = f"{name} has {width:,}×{height:,} pixels"
        if self.max_pixels is not None and width * height > self.max_pixels:
            shrinkable = mime == "image/jpeg" or width * height <= DECODED_PIXELS
            raise MediaError(
                f"{found}; the limit is {self.max_pixels:,} pixels.",
                code="media-too-many-pixels",
                remedy=f"{SHRINK if shrinkable else 'Shrink it with another program'}.",
            )
        if self.large is not None and width * height > self.large[0] * self.large[1] and mime not in self.large_formats:
            names = [name for mime, name in FORMAT_NAMES.items() if mime in self.large_formats]
            raise MediaError(
                f"{found}; above {self.large[0]}×{self.large[1]} only {' and '.join(names)} are taken.",
                code="media-large-format",
                remedy=f"{SHRINK}.",
            )

    def check_count(self, embedded: int, linked: int) -> None:
        """Of the pictures of one request. Raises MediaError `media-too-many`."""
        for number, limit, words in (
            (embedded, self.max_embedded, "sent as data"),
            (linked, self.max_linked, "named by their addresses"),
        ):
            if limit is not None and number > limit:
                raise MediaError(
                    f"The request has {number} pictures that are {words}; the limit is {limit}.",
                    code="media-too-many",
                    remedy="Spread them over several rows.",
                )

    def format_words(self) -> str:
        *most, last = [name for mime, name in FORMAT_NAMES.items() if mime in self.formats]
        return f"{', '.join(most)} or {last}" if most else last


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """What is done to a picture before it is sent."""

    rules: PictureRules = field(default_factory=PictureRules)
    strip: bool = False
    """Metadata are dropped; the orientation stays."""
    shrink: bool = False
    """What is too large is made smaller instead of being refused."""


AS_IT_IS = Preparation()

"""How many input tokens a request will have, before anybody has counted them: a low and a high. Values, no I/O.

Pictures follow the vendor's published formula (provider contract 8.3.2); videos have one of their own, see `clips`. The
bounds are data of the model, each with a low and a high value where official pages contradict each other.

Text is approximated, as the vendors' tokenizers are no part of batchrun. Every character counts a share of a token
that depends on its script alone (`SHARES`): an English word is one token or two, so a small letter is between 0.15 and
0.5; a Han character is mostly between half a token and one; a digit is a token of its own for some models and a quarter
of one for none. The low ends hold for ordinary prose, the high ends also for codes, base64 and mixed languages. On top
comes what a chat template writes around each message.
"""

from __future__ import annotations

import math
import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from batchrun.messages import JsonValue

MARKS = 2
"""One begin and one end mark around every picture."""
HIGH_RESOLUTION_TOKENS = 16_384
"""The most that a picture can become with `vl_high_resolution_images`, marks not counted."""

MESSAGE_TOKENS = (3, 8)
REQUEST_TOKENS = (0, 32)
"""What a chat template writes around a message, and once for a request: some add a system message of their own."""


@dataclass(frozen=True, slots=True)
class Between:
    """A number of tokens: not less than `low`, not more than `high`; None where that has no known bound."""

    low: int
    high: int | None

    def __add__(self, other: Between) -> Between:
        high = None if self.high is None or other.high is None else self.high + other.high
        return Between(self.low + other.low, high)

    def within(self, bound: int | None) -> Between:
        """The same, with neither end above `bound`."""
        if bound is None:
            return self
        return Between(min(self.low, bound), bound if self.high is None else min(self.high, bound))


# Pictures


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureFormula:
    """How a model scales pictures, in pixels after scaling. Bounds are the vendor's defaults: lowest, highest claim."""

    factor: int
    """A token is a square with so many pixels on a side."""
    min_pixels: tuple[int, int]
    max_pixels: tuple[int, int]

    def asked(self, params: Mapping[str, JsonValue]) -> PictureFormula:
        """The formula under the parameters of a request, which may set the bounds."""
        lowest, highest = params.get("min_pixels"), params.get("max_pixels")
        if params.get("vl_high_resolution_images") is True:
            highest = HIGH_RESOLUTION_TOKENS * self.factor**2
        return PictureFormula(
            factor=self.factor,
            min_pixels=(lowest, lowest) if isinstance(lowest, int) else self.min_pixels,
            max_pixels=(highest, highest) if isinstance(highest, int) else self.max_pixels,
        )

    def tokens(self, size: tuple[int, int] | None) -> Between:
        """Of a picture of this width and height; of any picture for None."""
        pairs = list(zip(self.min_pixels, self.max_pixels, strict=True))
        if size is None:
            area = self.factor**2
            return Between(min(pairs[0]) // area + MARKS, pairs[1][1] // area + MARKS)
        counts = [picture_tokens(*size, self.factor, min(least, most), most) for least, most in pairs]
        return Between(min(counts), max(counts))


@lru_cache(maxsize=4_096)  # pictures of one folder often have one size
def picture_tokens(width: int, height: int, factor: int, min_pixels: int, max_pixels: int) -> int:
    """Tokens of a picture with its marks (contract 8.3.2). Width and height may be exchanged."""
    rows, columns = scaled(width, height, factor, min_pixels, max_pixels)
    return rows * columns + MARKS


def scaled(
    width: int, height: int, factor: int, min_pixels: int, max_pixels: float, *, least: int = 0
) -> tuple[int, int]:
    """Rows and columns of tokens after scaling. `least` is what a side has at least before its area is looked at."""
    rows, columns = (max(least, round(side / factor)) for side in (height, width))
    if rows * columns * factor**2 > max_pixels:
        shrink = math.sqrt(width * height / max_pixels)
        rows, columns = (max(1, math.floor(side / shrink / factor)) for side in (height, width))
    elif rows * columns * factor**2 < min_pixels:
        grow = math.sqrt(min_pixels / (width * height))
        rows, columns = (math.ceil(side * grow / factor) for side in (height, width))
    return rows, columns


# Text


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """How much of a token one character of a script is."""

    script: str
    low: float
    high: float
    bytes: bytes = b""
    """The script's characters, where they are ASCII."""
    others: re.Pattern[str] | None = None
    """What isn't of the script, where it isn't ASCII."""


SHARES = (
    Share(script="small letters", bytes=string.ascii_lowercase.encode(), low=0.15, high=0.5),
    Share(script="capitals", bytes=string.ascii_uppercase.encode(), low=0.15, high=1.0),
    Share(script="digits", bytes=string.digits.encode(), low=0.25, high=1.0),
    Share(script="blanks", bytes=string.whitespace.encode(), low=0.0, high=0.25),
    Share(script="marks of ASCII", bytes=string.punctuation.encode(), low=0.1, high=1.0),
    Share(
        script="Han, kana, hangul",
        others=re.compile(
            "[^\u1100-\u11ff\u3000-\u30ff\u3130-\u318f\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef]+"
        ),
        low=0.4,
        high=1.5,
    ),
    Share(
        script="accented Latin, Greek, Cyrillic, Hebrew, Arabic",
        others=re.compile("[^\xa1-\u07ff]+"),
        low=0.2,
        high=1.2,
    ),
)
OTHERS = Share(script="everything else", low=0.3, high=3.0)


@lru_cache(maxsize=1_024)  # the same system message goes with every row
def text_tokens(text: str) -> Between:
    """The tokens of a text alone; never more than it has bytes."""
    raw = text.encode("utf-8", "surrogatepass")
    low, high, left = 0.0, 0.0, len(text)
    for share in SHARES:
        if not left:
            break
        count = (
            len(raw) - len(raw.translate(None, share.bytes))
            if share.others is None
            else len(share.others.sub("", text))
        )
        low, high, left = low + share.low * count, high + share.high * count, left - count
    low, high = low + OTHERS.low * left, high + OTHERS.high * left
    return Between(math.floor(low), min(math.ceil(high), len(raw)))


def prompt_tokens(texts: list[str]) -> Between:
    """The tokens of a request's messages, one text for each, with what a chat template adds."""
    envelope = [once + each * len(texts) for once, each in zip(REQUEST_TOKENS, MESSAGE_TOKENS, strict=True)]
    return sum(map(text_tokens, texts), Between(envelope[0], envelope[1]))

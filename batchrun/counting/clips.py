"""How many tokens a video becomes, by the vendor's published formula (provider contract 8.3.3). Values, no I/O.

Frames are sampled from the video, scaled alike, and laid two and two over one grid of tokens. The more frames there
are, the fewer pixels each may have, so that every long video comes to about the same: `total_pixels` is the real
ceiling.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from batchrun.counting.tokens import MARKS, Between, scaled
from batchrun.messages import JsonValue

FRAMES_PER_GRID = 2
MIN_FRAMES = 4
DEFAULT_FPS = 2.0
SLOWEST, FASTEST = 0.1, 10.0
"""Pictures per second that a request may name (contract 5.2)."""
MAX_RATIO = 200
"""Of the longer side to the shorter; beyond it the vendor refuses."""
MARGIN = 1.05
"""By how much the bound of a frame stays above its least pixels, however many frames there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """What the formula needs of a video, or of the part of it that is meant."""

    width: int
    height: int
    frames: int
    """All that the file holds, not those that are sampled."""
    rate: float
    """Frames per second of the file."""

    def part(self, start: float | None, end: float | None) -> Clip:
        """From `start` to `end`, in seconds; None for the beginning and the end of the video."""
        whole = self.frames / self.rate
        begins, ends = min(start or 0.0, whole), whole if end is None else min(end, whole)
        return replace(self, frames=max(1, round((ends - begins) * self.rate)))


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoFormula:
    """How a model samples and scales videos. Bounds of pixels are the vendor's defaults: lowest, highest claim."""

    factor: int
    """A token is a square with so many pixels on a side, over two frames."""
    max_frames: int
    min_pixels: tuple[int, int]
    """Of one frame, as is `frame_pixels`."""
    frame_pixels: tuple[int, int]
    total_pixels: tuple[int, int]
    """Of all frames; two frames of one grid count once."""

    def asked(self, params: Mapping[str, JsonValue]) -> VideoFormula:
        """The formula under the parameters of a request.

        The pages don't agree on whether a bound beside a video holds for it, so that it widens the range. `max_frames`
        only ever lowers the model's own.
        """
        frames = params.get("max_frames")
        return replace(
            self,
            max_frames=min(self.max_frames, frames) if isinstance(frames, int) else self.max_frames,
            min_pixels=_widened(self.min_pixels, params.get("min_pixels")),
            frame_pixels=_widened(self.frame_pixels, params.get("max_pixels")),
            total_pixels=_widened(self.total_pixels, params.get("total_pixels")),
        )

    def tokens(self, clip: Clip, fps: float) -> Between:
        """Of a video that is sampled at `fps` frames per second, by the vendor or here."""
        tokens = self.tokens_of_frames(clip.width, clip.height, sampled_frames(clip, fps, self.max_frames))
        if clip.rate >= SLOWEST:
            return tokens
        # Pictures that are taken out of it are no fewer than that: one that is shown for long is sent several times.
        number = min(self.max_frames, math.ceil(clip.frames / clip.rate * SLOWEST))
        highs = (tokens.high, self.tokens_of_frames(clip.width, clip.height, number).high)
        return Between(tokens.low, max(high for high in highs if high is not None))

    def tokens_of_frames(self, width: int, height: int, number: int) -> Between:
        """Of so many frames of this size, or of an image list of that length."""
        ends = zip(self.min_pixels, self.frame_pixels, self.total_pixels, strict=True)
        counts = [video_tokens(width, height, number, self.factor, *end) for end in ends]
        return Between(min(counts), max(counts))

    def any_frames(self, number: int) -> Between:
        """Of so many frames of unknown size."""
        return Between(
            _grids(number) * max(1, self.min_pixels[0] // self.factor**2) + MARKS,
            _grids(number) * _largest_grid(self, number) + MARKS,
        )

    def any_video(self) -> Between:
        """Of a video of which nothing is known: up to the most that any can become."""
        return Between(self.any_frames(1).low, most_tokens(self))


def sampled_frames(clip: Clip, fps: float, max_frames: int) -> int:
    """How many frames the vendor takes. A fraction of a second that isn't longer than the time between two is dropped.

    Raises ValueError for a video without frames, and for a rate that isn't above zero.
    """
    if clip.frames < 1 or not clip.rate > 0 or not fps > 0:
        raise ValueError(f"{clip.frames} frames at {clip.rate} per second, sampled at {fps}")
    duration = clip.frames / clip.rate
    whole = math.floor(duration)
    if duration - whole <= 1 / fps:
        duration = whole
    most = min(max_frames, clip.frames) // FRAMES_PER_GRID * FRAMES_PER_GRID
    return max(1, min(int(min(max(duration * fps, MIN_FRAMES), most)), clip.frames))


@lru_cache(maxsize=4_096)  # the videos of one folder often have one size and length
def video_tokens(
    width: int, height: int, number: int, factor: int, min_pixels: int, frame_pixels: int, total_pixels: int
) -> int:
    """Tokens of `number` frames with the marks of the whole."""
    bound = _frame_bound(number, factor, frame_pixels, total_pixels)
    rows, columns = scaled(width, height, factor, min(min_pixels, int(bound)), bound, least=1)
    return _grids(number) * rows * columns + MARKS


@lru_cache(maxsize=256)
def most_tokens(formula: VideoFormula) -> int:
    """The most that a video of any size and length can become."""
    return max(formula.any_frames(number).high or 0 for number in range(1, formula.max_frames + 1))


def _frame_bound(number: int, factor: int, frame_pixels: int, total_pixels: int) -> float:
    return max(min(frame_pixels, total_pixels / number * FRAMES_PER_GRID), int(MIN_FRAMES * factor**2 * MARGIN))


def _largest_grid(formula: VideoFormula, number: int) -> int:
    """Tokens of the largest frame: a square that fills the bound; or the narrowest strip, whose short side is one token
    wide though its share of the bound is less."""
    area = formula.factor**2
    bound = _frame_bound(number, formula.factor, formula.frame_pixels[1], formula.total_pixels[1]) / area
    return math.floor(max(bound, math.sqrt(MAX_RATIO * bound)))


def _grids(number: int) -> int:
    return math.ceil(number / FRAMES_PER_GRID)


def _widened(bounds: tuple[int, int], asked: JsonValue) -> tuple[int, int]:
    return (min(bounds[0], asked), max(bounds[1], asked)) if isinstance(asked, int) else bounds

"""What the call of one row needs: tokens in, tokens out, money; each between a low and a high end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from pathlib import Path

from batchrun.answer import Usage
from batchrun.bodies import has_own_bounds, written_words
from batchrun.counting.clips import DEFAULT_FPS, Clip, VideoFormula
from batchrun.counting.tokens import Between, PictureFormula, prompt_tokens
from batchrun.dialects.writing import is_data
from batchrun.errors import MediaError
from batchrun.media import open_media
from batchrun.media.header import Size
from batchrun.media.url import check_data_picture
from batchrun.messages import JsonValue
from batchrun.plan import Plan
from batchrun.pricing import Price, cost_of

LEAST_ANSWER = 1
"""Tokens of the shortest answer."""
REMEMBERED = 65_536

Money = tuple[Decimal, Decimal | None]
"""A low and a high end; None where the answer has no bound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    input: Between
    output: Between
    cost: Money | None
    """None without a price."""

    def asked_again(self, most: int) -> Need:
        """Where up to so many answers may be bought: the low end is that of one."""
        input_, output = (
            Between(of.low, None if of.high is None else most * of.high) for of in (self.input, self.output)
        )
        if self.cost is None:
            return replace(self, input=input_, output=output)
        low, high = self.cost
        return replace(self, input=input_, output=output, cost=(low, None if high is None else most * high))


ClipOf = Callable[[Mapping[str, JsonValue]], Clip | None]
"""From the reference to a video to what its file says of it, all of it and not the part that is meant; None where it
isn't known. Raises MediaError for a video that can't be sent."""


def unknown_clip(_: Mapping[str, JsonValue]) -> Clip | None:
    return None


class Needs:
    """Asks for the rows of one job, whose local pictures are below `root`; `clip_of` tells of its videos, which are
    sampled at `fps` frames a second.

    Money is that of one call at the prices of `now`, with nothing read from a cache; where answers that don't fit are
    bought again, the high ends are those of as many calls as an item may cost.
    """

    def __init__(
        self, plan: Plan, root: Path, now: datetime, *, clip_of: ClipOf = unknown_clip, fps: float = DEFAULT_FPS
    ) -> None:
        self.plan = plan
        self.clip_of = clip_of
        self.fps = fps
        self.root = root
        self.price = plan.model.price_at(now)
        self.cost: Callable[[Between, Between, bool], Money | None] = lru_cache(REMEMBERED)(self._cost)
        self.most: Callable[[int | None, int | None], Decimal | None] = lru_cache(REMEMBERED)(plan.most)

    @property
    def currency(self) -> str | None:
        return None if self.price is None else self.price.currency

    def of(
        self, variables: Mapping[str, JsonValue], texts: list[str], media: Iterable[Mapping[str, JsonValue]]
    ) -> Need | None:
        """Of a row with these texts and media; None where one of them can't be sent, so that no call will be made."""
        params, thinking = self.plan.asked(variables)
        if self.plan.merges(variables):
            return self.merged(variables, texts)
        pictures, videos = self.plan.model.picture_tokens, self.plan.model.video_tokens
        if self.is_open(variables):
            pictures = videos = None
        asked = None if pictures is None else pictures.asked(params)
        sampled = None if videos is None else videos.asked(params)
        try:
            parts = [
                self.picture(reference, asked)
                if reference.get("kind", "image") == "image"
                else self.video(reference, sampled)
                for reference in media
            ]
        except MediaError:
            return None
        tokens = sum(parts, self.words(variables, texts)).within(self.plan.input_limit)
        answer = Between(LEAST_ANSWER, self.plan.output_bound(variables))
        cost = self.cost(tokens, answer, self.plan.model.may_think(thinking))
        need = Need(input=tokens, output=answer, cost=cost)
        policy = self.plan.policy
        return need.asked_again(policy.attempts) if policy.asks_again and self.plan.shape is not None else need

    def merged(self, variables: Mapping[str, JsonValue], texts: list[str]) -> Need:
        """Of an item that merges what parts say, of which nothing is known yet but how long it can be at most."""
        tokens = Between(self.words(variables, texts).low, self.plan.merged_bound(variables))
        answer = Between(LEAST_ANSWER, self.plan.output_bound(variables))
        may_think = self.plan.model.may_think(self.plan.asked(variables)[1])
        return Need(input=tokens, output=answer, cost=self.cost(tokens, answer, may_think))

    def is_open(self, variables: Mapping[str, JsonValue]) -> bool:
        """Whether media of a written request have bounds beside them, so that they may become of any size."""
        return self.plan.written and has_own_bounds(variables)

    def words(self, variables: Mapping[str, JsonValue], texts: list[str]) -> Between:
        """The tokens of the text. Of a written request the high end counts its JSON, the low one its plain text."""
        counted = prompt_tokens(texts)
        if not self.plan.written:
            return counted
        return Between(min(counted.low, prompt_tokens(written_words(variables)).low), counted.high)

    def picture(self, reference: Mapping[str, JsonValue], formula: PictureFormula | None) -> Between:
        """The tokens of one picture. A URL isn't fetched, so its picture may have any size. Raises MediaError."""
        size = self.size(reference)
        if formula is None:
            return Between(1, self.plan.model.max_image_tokens or self.plan.input_limit)
        return formula.tokens(size).within(self.plan.model.max_image_tokens)

    def video(self, reference: Mapping[str, JsonValue], formula: VideoFormula | None) -> Between:
        """The tokens of one video or list of pictures. Of a video that nobody has looked into they are anything up to
        the most that the model makes of one. Raises MediaError."""
        frames = reference.get("frames")
        if isinstance(frames, list):
            sizes = {self.size(frame) for frame in frames if isinstance(frame, Mapping)}
            if formula is None:
                return Between(1, self.plan.input_limit)
            if None in sizes or len(sizes) != 1:  # which of several sizes all are brought to isn't published
                return formula.any_frames(len(frames))
            return formula.tokens_of_frames(*next(size for size in sizes if size is not None), len(frames))
        clip = self.clip_of(reference)
        if formula is None:
            return Between(1, self.plan.input_limit)
        if clip is None:
            return formula.any_video()
        fps = seconds(reference.get("fps")) or self.fps
        start, end = (seconds(reference.get(name)) for name in ("start", "end"))
        return formula.tokens(clip.part(start, end), fps)

    def size(self, reference: Mapping[str, JsonValue]) -> Size | None:
        """Width and height of a picture that is at hand; None where they aren't known. Raises MediaError."""
        path, url = reference.get("path"), reference.get("url")
        if isinstance(path, str):
            with open_media(self.root, path, self.plan.preparation) as opened:
                return opened.sides
        if isinstance(url, str) and is_data(url):
            return check_data_picture(url, self.plan.model.rules.pictures)
        return None

    def _cost(self, tokens: Between, answer: Between, may_think: bool) -> Money | None:
        if self.price is None:
            return None
        thoughts = (False, True) if may_think else (False,)
        lowest = min(costs(self.price, edges(self.price, tokens.low, tokens.high), answer.low, thoughts))
        if tokens.high is None or answer.high is None:
            return lowest, None
        lengths = edges(self.price, tokens.low, tokens.high)
        return lowest, max(costs(self.price, lengths, answer.high, thoughts))


def seconds(value: JsonValue) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def costs(price: Price, lengths: Sequence[int], output: int, thoughts: Sequence[bool]) -> list[Decimal]:
    """What calls of these lengths cost, both ends of each."""
    found = [
        cost_of(Usage(input_tokens=length, output_tokens=output), price, thought=thought)
        for length in lengths
        for thought in thoughts
    ]
    return [end for cost in found if cost is not None for end in (cost.low, cost.high)]


def edges(price: Price, low: int, high: int | None) -> list[int]:
    """Inputs from `low` to `high` at which the cost of a call may be lowest or highest: the ends of the tiers between
    them too, as a longer request may be cheaper."""
    ends = [tier.up_to for tier in price.tiers if tier.up_to is not None]
    between = [edge for end in ends for edge in (end, end + 1) if low < edge and (high is None or edge < high)]
    return [low, *between, *([] if high is None else [high])]

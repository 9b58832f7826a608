"""Tokens of videos against the vectors of provider contract 8.3.4, and what they cost by those of 8.4."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from batchrun.answer import Usage
from batchrun.catalogue import load_catalogue
from batchrun.counting.clips import Clip, VideoFormula, most_tokens, sampled_frames
from batchrun.counting.tokens import Between
from batchrun.pricing import cost_of

PLUS = VideoFormula(
    factor=32,
    max_frames=2_000,
    min_pixels=(4_096, 4_096),
    frame_pixels=(640 * 1_024, 640 * 1_024),
    total_pixels=(131_072 * 1_024, 131_072 * 1_024),
)
MAX = replace(
    PLUS, max_frames=512, frame_pixels=(768 * 1_024, 768 * 1_024), total_pixels=(65_536 * 1_024, 65_536 * 1_024)
)
NOW = datetime(2026, 11, 22, tzinfo=UTC)
SINGAPORE = "model-studio/singapore"


def clip(width: int, height: int, seconds: int, rate: int) -> Clip:
    return Clip(width=width, height=height, frames=seconds * rate, rate=rate)


# Contract 8.3.4: formula, video, fps, frames, tokens.
VECTORS = [
    (PLUS, clip(1280, 720, 10, 25), 2, 20, 5_942),
    (PLUS, clip(1280, 720, 60, 30), 2, 120, 35_642),
    (PLUS, clip(1920, 1080, 600, 30), 2, 1_200, 125_402),
    (PLUS, clip(1920, 1080, 3_600, 25), 2, 2_000, 120_002),
    (PLUS, clip(1920, 1080, 3_600, 25), 0.5, 1_800, 129_602),
    (MAX, clip(1920, 1080, 600, 30), 2, 512, 64_514),
]


@pytest.mark.parametrize(("formula", "video", "fps", "frames", "tokens"), VECTORS)
def test_vector_of_the_contract(formula: VideoFormula, video: Clip, fps: float, frames: int, tokens: int) -> None:
    assert sampled_frames(video, fps, formula.max_frames) == frames
    assert formula.tokens(video, fps) == Between(tokens, tokens)


def test_an_image_list_has_a_grid_for_each_two_pictures() -> None:
    assert PLUS.tokens_of_frames(1280, 720, 5) == Between(1_784, 1_784)


@pytest.mark.parametrize(
    ("frames", "fps", "sampled"),
    [
        (103, 2, 20),  # 10.3 s: the rest is shorter than half a second
        (107, 2, 21),  # 10.7 s: it isn't, 21.4 frames
        (10, 2, 4),  # never less than four
        (5, 10, 4),  # an even number of those that there are
        (1, 2, 1),
        (3, 2, 2),
    ],
)
def test_frames_that_are_sampled(frames: int, fps: float, sampled: int) -> None:
    assert sampled_frames(Clip(width=640, height=480, frames=frames, rate=10), fps, 2_000) == sampled


def test_a_video_without_frames_has_no_tokens_to_tell() -> None:
    with pytest.raises(ValueError, match="0 frames"):
        sampled_frames(Clip(width=640, height=480, frames=0, rate=10), 2, 2_000)


def test_a_strip_keeps_a_row_of_tokens() -> None:
    assert PLUS.tokens_of_frames(2_000, 11, 2).low == 1 * 62 + 2


@pytest.mark.parametrize("formula", [PLUS, MAX])
@pytest.mark.parametrize(("width", "height"), [(640, 480), (4_000, 3_000), (4_000, 20), (20, 4_000), (16, 16)])
def test_no_video_becomes_more_than_the_most(formula: VideoFormula, width: int, height: int) -> None:
    counts = [formula.tokens_of_frames(width, height, number).high or 0 for number in range(1, formula.max_frames + 1)]
    assert max(counts) <= most_tokens(formula)


def test_a_bound_beside_the_video_widens_the_range() -> None:
    small = PLUS.asked({"max_pixels": 102_400})
    assert small.tokens_of_frames(1280, 720, 2) == Between(7 * 13 + 2, 18 * 33 + 2)


def test_max_frames_lowers_the_number_of_frames_and_never_raises_it() -> None:
    assert (PLUS.asked({"max_frames": 80}).max_frames, PLUS.asked({"max_frames": 9_000}).max_frames) == (80, 2_000)


@pytest.mark.parametrize(
    ("model", "input_tokens", "output_tokens", "thought", "cost"),
    [
        ("qwen3-vl-plus", 120_202, 800, False, "0.03798"),
        ("qwen3-vl-flash", 2_100, 150, False, "0.000165"),
    ],
)
def test_worked_example_of_the_contract(
    model: str, input_tokens: int, output_tokens: int, thought: bool, cost: str
) -> None:
    price = load_catalogue().model(SINGAPORE, model).price_at(NOW)
    assert price is not None
    found = cost_of(Usage(input_tokens=input_tokens, output_tokens=output_tokens), price, thought=thought)
    assert found is not None
    # The first example of the contract is rounded to five decimals.
    assert found.low.quantize(Decimal(cost)) == found.high.quantize(Decimal(cost)) == Decimal(cost)


@pytest.mark.parametrize(
    ("model", "factor", "max_frames"),
    [("qwen3-vl-flash", 32, 2_000), ("qwen-vl-max", 32, 512), ("qwen-vl-max-2025-04-08", 28, 512)],
)
def test_formula_of_the_bundled_catalogue(model: str, factor: int, max_frames: int) -> None:
    found = load_catalogue().model(SINGAPORE, model).video_tokens
    assert found is not None
    assert (found.factor, found.max_frames) == (factor, max_frames)


def test_no_formula_of_videos_is_known_for_kimi() -> None:
    assert load_catalogue().model("model-studio/beijing", "kimi-k2.5").video_tokens is None

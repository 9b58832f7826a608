"""The numbers of the provider contract, worked by hand there: tokens 8.3.4, money 8.4."""

from decimal import Decimal

import pytest

from batchrun.simulator.models import MODELS, find_model
from batchrun.simulator.prices import Usage, amount
from batchrun.simulator.tokens import picture_tokens, pieces, sampled_frames, text_tokens, video_tokens

STANDARD = {"factor": 32, "min_pixels": 4 * 32 * 32, "max_pixels": 2_621_440}
HIGH = {"factor": 32, "min_pixels": 4 * 32 * 32, "max_pixels": 16_384 * 32 * 32}
SMALL_GRID = {"factor": 28, "min_pixels": 4 * 28 * 28, "max_pixels": 1_003_520}


@pytest.mark.parametrize(
    ("width", "height", "standard", "high", "small_grid"),
    [
        (1024, 406, 418, 418, 520),
        (450, 450, 198, 198, 258),
        (640, 480, 302, 302, 393),
        (1920, 1080, 2_042, 2_042, 1_224),
        (3840, 2160, 2_481, 8_162, 1_224),
        (4000, 3000, 2_496, 11_752, 1_232),
        (100, 80, 8, 8, 14),
    ],
)
def test_picture_tokens(width: int, height: int, standard: int, high: int, small_grid: int) -> None:
    counted = [picture_tokens(width, height, **bounds) for bounds in (STANDARD, HIGH, SMALL_GRID)]
    assert counted == [standard, high, small_grid]


def test_a_turned_picture_costs_the_same() -> None:
    assert picture_tokens(406, 1024, **STANDARD) == 418


def test_a_small_picture_is_enlarged_to_the_least_pixels() -> None:
    assert picture_tokens(100, 80, factor=32, min_pixels=65_536, max_pixels=2_621_440) == 74


def test_a_strip_of_few_pixels_still_has_one_row() -> None:
    assert picture_tokens(2200, 11, factor=32, min_pixels=4_096, max_pixels=4_096) == 29 + 2


@pytest.mark.parametrize(
    ("model", "size", "frames", "rate", "fps", "taken", "tokens"),
    [
        ("qwen3-vl-plus", (1280, 720), 250, 25, 2, 20, 5_942),
        ("qwen3-vl-plus", (1280, 720), 1_800, 30, 2, 120, 35_642),
        ("qwen3-vl-plus", (1920, 1080), 18_000, 30, 2, 1_200, 125_402),
        ("qwen3-vl-plus", (1920, 1080), 90_000, 25, 2, 2_000, 120_002),
        ("qwen3-vl-plus", (1920, 1080), 90_000, 25, 0.5, 1_800, 129_602),
        ("qwen-vl-max", (1920, 1080), 18_000, 30, 2, 512, 64_514),
    ],
)
def test_video_tokens(
    model: str, size: tuple[int, int], frames: int, rate: float, fps: float, taken: int, tokens: int
) -> None:
    known = MODELS[model]
    sampled = sampled_frames(frames=frames, rate=rate, fps=fps, max_frames=known.max_frames)
    assert (sampled, video_tokens(*size, sampled, known)) == (taken, tokens)


def test_five_pictures_as_a_video() -> None:
    assert video_tokens(1280, 720, 5, MODELS["qwen3-vl-plus"]) == 1_784


def test_old_snapshots_count_on_the_smaller_grid() -> None:
    factors = [
        model.factor
        for name in ("qwen-vl-max-2025-04-08", "qwen-vl-max-2025-08-13", "qwen3-vl-plus-2025-09-23")
        if (model := find_model(name))
    ]
    assert factors == [28, 32, 32]


def test_text_is_counted_by_bytes() -> None:
    assert text_tokens(["abcde", "é"]) == 3 + (4 + 2) + (4 + 1)


def test_output_tokens_join_to_the_text_again() -> None:
    text = "  A longish sentence,\u2028with 描述 and blanks.  \n"
    assert "".join(pieces(text)) == text


def test_an_hour_of_video_lies_in_the_second_tier() -> None:
    usage = Usage(input=120_202, output=800)
    assert amount("singapore", "qwen3-vl-plus", usage) == Decimal("0.0379806")


def test_one_caption() -> None:
    usage = Usage(input=2_100, output=150)
    assert amount("singapore", "qwen3-vl-flash", usage) == Decimal("0.000165")


def test_kimi_with_thinking() -> None:
    usage = Usage(input=10_000, output=2_000, reasoning=1_500)
    assert amount("beijing", "kimi-k2.5", usage) == Decimal("0.011762")


@pytest.mark.parametrize(
    ("tokens", "price"),
    [(32_768, "0.2"), (32_769, "0.3"), (131_072, "0.3"), (131_073, "0.6"), (262_144, "0.6")],
)
def test_the_tier_holds_for_the_whole_request(tokens: int, price: str) -> None:
    assert amount("singapore", "qwen3-vl-plus", Usage(input=tokens)) == tokens * Decimal(price) / 1_000_000


def test_cached_input_costs_a_fifth() -> None:
    usage = Usage(input=1_000_000 // 100, cached=5_000)
    assert amount("singapore", "qwen3-vl-plus", usage) == Decimal("0.0012")


@pytest.mark.parametrize("region", ["singapore", "virginia", "beijing"])
def test_the_model_without_a_price_has_none_anywhere(region: str) -> None:
    assert amount(region, "sim-unpriced", Usage(input=1, output=1)) is None

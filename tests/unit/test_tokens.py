"""Tokens of pictures against vectors computed by hand from the vendor's formula, and the approximation for text."""

from __future__ import annotations

import pytest

from batchrun.counting.tokens import Between, PictureFormula, picture_tokens, prompt_tokens, text_tokens

GUIDE = PictureFormula(factor=32, min_pixels=(4_096, 4_096), max_pixels=(2_621_440, 2_621_440))
SMALL = PictureFormula(factor=28, min_pixels=(3_136, 3_136), max_pixels=(1_003_520, 1_003_520))

# Contract 8.3.4: width, height, tokens with a factor of 32, with high resolution, with a factor of 28.
VECTORS = [
    (1024, 406, 418, 418, 520),
    (450, 450, 198, 198, 258),
    (640, 480, 302, 302, 393),
    (1920, 1080, 2_042, 2_042, 1_224),
    (3840, 2160, 2_481, 8_162, 1_224),
    (4000, 3000, 2_496, 11_752, 1_232),
    (100, 80, 8, 8, 14),
]


@pytest.mark.parametrize(("width", "height", "default", "high", "small"), VECTORS)
def test_vector_of_the_contract(width: int, height: int, default: int, high: int, small: int) -> None:
    sharp = GUIDE.asked({"vl_high_resolution_images": True})
    assert [formula.tokens((width, height)) for formula in (GUIDE, sharp, SMALL)] == [
        Between(default, default),
        Between(high, high),
        Between(small, small),
    ]


@pytest.mark.parametrize(("width", "height"), [vector[:2] for vector in VECTORS])
def test_a_rotated_picture_has_as_many_tokens(width: int, height: int) -> None:
    assert GUIDE.tokens((width, height)) == GUIDE.tokens((height, width))


def test_a_tiny_picture_is_enlarged_to_the_least_pixels() -> None:
    assert picture_tokens(100, 80, 32, 65_536, 2_621_440) == 74
    assert picture_tokens(11, 11, 32, 4_096, 2_621_440) == 6


def test_a_side_never_becomes_nothing() -> None:
    assert picture_tokens(20_000, 100, 32, 4_096, 65_536) == 1 * 113 + 2


def test_claims_that_contradict_each_other_give_a_low_and_a_high() -> None:
    unsure = PictureFormula(factor=32, min_pixels=(4_096, 65_536), max_pixels=(1_310_720, 2_621_440))
    assert unsure.tokens((100, 80)) == Between(8, 74)
    assert unsure.tokens((640, 480)) == Between(302, 302)
    assert unsure.tokens((4000, 3000)) == Between(1_232, 2_496)


def test_bounds_that_the_request_sets_replace_the_defaults() -> None:
    assert GUIDE.asked({"max_pixels": 1_310_720}).tokens((4000, 3000)) == Between(1_232, 1_232)
    assert GUIDE.asked({"min_pixels": 65_536}).tokens((100, 80)) == Between(74, 74)
    assert GUIDE.asked({"vl_high_resolution_images": False}) == GUIDE


def test_a_picture_of_unknown_size_has_any_number_that_the_formula_can_give() -> None:
    assert GUIDE.tokens(None) == Between(6, 2_562)
    assert GUIDE.asked({"vl_high_resolution_images": True}).tokens(None) == Between(6, 16_386)


# Tokens as tokenizers of Qwen and of OpenAI count them, and as the simulator does: a quarter of the bytes.
TEXTS = [
    ("Describe this picture in one sentence.", 7, 10),
    ("Explain the difference between supervised and unsupervised learning to a child.", 12, 20),
    ("请用一句话描述这张图片。", 7, 9),
    ("Опишите это изображение одним предложением.", 8, 21),
    ("1234567890" * 10, 25, 100),
    ('{"id": 17, "tags": ["a", "b"]}', 7, 14),
]


@pytest.mark.parametrize(("text", "fewest", "most"), TEXTS, ids=range(len(TEXTS)))
def test_a_text_lies_between_the_ends_of_its_approximation(text: str, fewest: int, most: int) -> None:
    found = text_tokens(text)
    assert found.high is not None
    assert found.low <= fewest <= most <= found.high


def test_a_han_character_counts_more_than_a_latin_letter() -> None:
    assert text_tokens("图" * 100) == Between(40, 150)
    assert text_tokens("a" * 100) == Between(15, 50)


def test_a_text_has_no_more_tokens_than_bytes() -> None:
    assert text_tokens("\N{GRINNING FACE}") == Between(0, 3)
    assert text_tokens("\u0e2a") == Between(0, 3)
    assert text_tokens("") == Between(0, 0)


def test_messages_cost_what_the_chat_template_writes_around_them() -> None:
    assert prompt_tokens(["", ""]) == Between(6, 48)


def test_a_bound_holds_for_both_ends() -> None:
    assert Between(5, 50).within(20) == Between(5, 20)
    assert Between(30, None).within(20) == Between(20, 20)
    assert Between(5, 50).within(None) == Between(5, 50)

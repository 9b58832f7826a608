"""What a call costs, to the last digit, and what it can cost at most."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal, getcontext, localcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.answer import Usage
from batchrun.pricing import MAX_TOKENS, MONEY_UNIT, Cost, Price, Tier, cost_of, upper_bound

D = Decimal


def price(*tiers: Tier) -> Price:
    return Price(
        provider="model-studio",
        region="singapore",
        model="m",
        currency="USD",
        valid_from=datetime(2026, 1, 1, tzinfo=UTC),
        source="a page",
        tiers=tiers,
    )


PLUS = price(
    Tier(up_to=32_768, input=D("0.2"), output=D("1.6"), cached_input=D("0.04")),
    Tier(up_to=131_072, input=D("0.3"), output=D("2.4"), cached_input=D("0.06")),
    Tier(up_to=262_144, input=D("0.6"), output=D("4.8"), cached_input=D("0.12")),
)
FLASH = price(Tier(up_to=32_768, input=D("0.05"), output=D("0.40")))
KIMI = price(Tier(up_to=None, input=D("0.574"), output=D("3.011")))
THINKER = price(Tier(up_to=None, input=D(1), output=D(2), thinking_output=D(5)))
ONE = price(Tier(up_to=None, input=D(1), output=D(1)))


def used(input_tokens: int | None, output_tokens: int | None, **parts: int | None) -> Usage:
    return Usage(input_tokens=input_tokens, output_tokens=output_tokens, **parts)  # type: ignore[arg-type]  # counts


def cost(usage: Usage, of: Price, *, thought: bool = False) -> Cost:
    found = cost_of(usage, of, thought=thought)
    assert found is not None
    return found


def exact(usage: Usage, of: Price, *, thought: bool = False) -> Decimal:
    found = cost(usage, of, thought=thought)
    assert found.exact
    return found.low


@pytest.mark.parametrize(
    ("usage", "of", "expected"),
    [
        (used(120_202, 800), PLUS, "0.0379806"),
        (used(2_100, 150), FLASH, "0.000165"),
        (used(10_000, 2_000, reasoning_tokens=1_500), KIMI, "0.011762"),
    ],
)
def test_worked_example_of_the_contract(usage: Usage, of: Price, expected: str) -> None:
    """Contract 8.4; it prints the first one rounded, as 0.03798."""
    assert exact(usage, of) == D(expected)


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (0, "0"),
        (32_768, "0.0065536"),
        (32_769, "0.0098307"),
        (131_072, "0.0393216"),
        (131_073, "0.0786438"),
        (262_144, "0.1572864"),
    ],
)
def test_tier_holds_up_to_its_end_and_prices_the_whole_input(tokens: int, expected: str) -> None:
    assert exact(used(tokens, 0), PLUS) == D(expected)


def test_tier_of_the_input_prices_the_output() -> None:
    assert exact(used(32_769, 1_000_000), PLUS) - exact(used(32_769, 0), PLUS) == D("2.4")


def test_cost_names_its_tier() -> None:
    assert cost(used(32_769, 1), PLUS).tier == PLUS.tiers[1]


def test_cost_has_the_currency_of_the_price() -> None:
    assert cost(used(1, 1), replace(PLUS, currency="CNY")).currency == "CNY"


def test_cached_tokens_have_their_own_rate() -> None:
    assert exact(used(1_000, 0, cached_tokens=400), PLUS) == D("0.000136")


def test_cached_tokens_count_for_the_tier() -> None:
    assert cost(used(32_769, 0, cached_tokens=32_000), PLUS).tier.up_to == 131_072


def test_cache_write_has_its_own_rate() -> None:
    of = price(Tier(up_to=None, input=D(4), output=D(0), cached_input=D(1), cache_write=D(5)))
    assert exact(used(10, 0, cached_tokens=2, cache_write_tokens=3), of) == D("0.000037")


def test_cached_tokens_of_unknown_price_are_between_free_and_full_price() -> None:
    found = cost(used(1_000, 0, cached_tokens=400), KIMI)
    assert (found.low, found.high) == (D("0.0003444"), D("0.000574"))


def test_written_tokens_of_unknown_price_cost_at_most_the_dearest_known_rate() -> None:
    of = price(Tier(up_to=None, input=D(2), output=D(0), cached_input=D(3)))
    found = cost(used(10, 0, cache_write_tokens=10), of)
    assert (found.low, found.high) == (D(0), D("0.00003"))


@pytest.mark.parametrize("cached", [None, 0])
def test_no_cached_tokens_leave_an_unknown_cache_price_without_effect(cached: int | None) -> None:
    assert exact(used(1_000, 0, cached_tokens=cached), KIMI) == D("0.000574")


def test_free_rate_is_not_an_unknown_one() -> None:
    of = price(Tier(up_to=None, input=D(1), output=D(1), cached_input=D(0)))
    assert exact(used(100, 0, cached_tokens=100), of) == 0


def test_answer_that_thought_has_the_thinking_price() -> None:
    assert exact(used(0, 10), THINKER, thought=True) == D("0.00005")


def test_answer_without_thinking_has_the_ordinary_price() -> None:
    assert exact(used(0, 10), THINKER, thought=False) == D("0.00002")


def test_no_reasoning_tokens_is_no_thinking_even_if_it_was_switched_on() -> None:
    assert exact(used(0, 10, reasoning_tokens=0), THINKER, thought=True) == D("0.00002")


def test_counted_reasoning_is_thinking_even_if_no_text_of_it_came() -> None:
    assert exact(used(0, 10, reasoning_tokens=4), THINKER, thought=False) == D("0.00005")


def test_thinking_costs_as_other_output_where_no_price_says_otherwise() -> None:
    assert exact(used(0, 1_000), KIMI, thought=True) == D("0.003011")


@pytest.mark.parametrize("usage", [used(None, 5), used(5, None), used(None, None)])
def test_unknown_count_has_no_cost(usage: Usage) -> None:
    assert cost_of(usage, PLUS, thought=False) is None


@pytest.mark.parametrize(
    "usage",
    [
        used(-1, 5),
        used(5, -1),
        used(MAX_TOKENS + 1, 0),
        used(0, MAX_TOKENS + 1),
        used(5, 5, cached_tokens=10**40),
        used(5, 5, reasoning_tokens=10**40),
    ],
)
def test_count_that_cannot_be_believed_has_no_cost(usage: Usage) -> None:
    assert cost_of(usage, PLUS, thought=False) is None


def test_zero_tokens_cost_zero() -> None:
    assert exact(used(0, 0), PLUS) == 0


def test_more_cached_than_input_may_have_been_counted_beside_it() -> None:
    of = price(Tier(up_to=None, input=D(1), output=D(1), cached_input=D("0.2"), cache_write=D("1.25")))
    found = cost(used(100, 0, cached_tokens=150), of)
    assert (found.low, found.high) == (D("0.00002"), D("0.0003125"))


def test_contradiction_reaches_into_the_next_tier() -> None:
    found = cost(used(32_000, 0, cached_tokens=40_000), PLUS)
    assert found.high == D("0.0216")


def test_more_reasoning_than_output_may_have_been_counted_beside_it() -> None:
    found = cost(used(0, 100, reasoning_tokens=300), ONE)
    assert (found.low, found.high) == (D("0.0001"), D("0.0004"))


def test_more_image_tokens_than_input_may_have_been_counted_beside_them() -> None:
    found = cost(used(1_277, 0, image_tokens=2_497), ONE)
    assert found.high == D("0.003774")


@pytest.mark.parametrize("part", ["cached_tokens", "cache_write_tokens"])
def test_negative_part_makes_the_split_unknown(part: str) -> None:
    found = cost(used(100, 0, **{part: -50}), ONE)
    assert (found.low, found.high) == (D(0), D("0.0001"))


def test_input_beyond_the_last_tier_costs_between_the_cheapest_and_the_dearest_tier() -> None:
    found = cost(used(300_000, 0), PLUS)
    assert (found.low, found.high, found.outside_tiers) == (D("0.06"), D("0.18"), True)


def test_input_at_the_end_of_the_last_tier_is_inside() -> None:
    assert not cost(used(262_144, 0), PLUS).outside_tiers


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        ("0.0000005", "0"),
        ("0.0000015", "2e-12"),
        ("0.0000025", "2e-12"),
        ("0.0000025000000001", "3e-12"),
    ],
)
def test_money_is_rounded_half_to_even(rate: str, expected: str) -> None:
    assert exact(used(1, 0), price(Tier(up_to=None, input=D(rate), output=D(0)))) == D(expected)


def test_money_is_rounded_once_and_not_per_part() -> None:
    of = price(Tier(up_to=None, input=D("0.0000005"), output=D("0.0000005")))
    assert exact(used(1, 1), of) == D("1e-12")


def test_cost_is_written_in_money_units() -> None:
    assert exact(used(1, 0), ONE).as_tuple().exponent == MONEY_UNIT.as_tuple().exponent


def test_context_of_the_caller_rounds_nothing() -> None:
    with localcontext() as context:
        context.prec = 3
        assert exact(used(123_457, 7_654_321), ONE) == D("7.777778")


def test_context_of_the_caller_is_left_as_it_was() -> None:
    before = getcontext().copy()
    cost_of(used(7, 7), PLUS, thought=False)
    assert repr(getcontext()) == repr(before)


def test_largest_counts_and_longest_rates_are_exact() -> None:
    of = price(Tier(up_to=None, input=D("8999999.999999999999"), output=D("8999999.999999999999")))
    assert exact(used(10**9, 10**9), of) == D("17999999999.999999998")


def test_upper_bound_is_that_of_the_longest_request() -> None:
    assert upper_bound(PLUS, input_tokens=120_202, output_tokens=800) == D("0.0379806")


def test_upper_bound_looks_into_dearer_tiers_of_shorter_requests() -> None:
    of = price(Tier(up_to=10, input=D(9), output=D(9)), Tier(up_to=None, input=D(1), output=D(1)))
    assert upper_bound(of, input_tokens=20, output_tokens=10) == D("0.00018")


def test_upper_bound_takes_the_dearest_rates() -> None:
    of = price(Tier(up_to=None, input=D(1), output=D(2), cache_write=D(3), thinking_output=D(4)))
    assert upper_bound(of, input_tokens=1, output_tokens=1) == D("0.000007")


def test_upper_bound_rounds_up() -> None:
    of = price(Tier(up_to=None, input=D("0.0000001"), output=D(0)))
    assert upper_bound(of, input_tokens=1, output_tokens=0) == D("1e-12")


def test_upper_bound_beyond_the_last_tier_is_the_dearest_tier() -> None:
    of = price(Tier(up_to=10, input=D(9), output=D(0)), Tier(up_to=20, input=D(1), output=D(0)))
    assert upper_bound(of, input_tokens=30, output_tokens=0) == D("0.00027")


@pytest.mark.parametrize("counts", [(-1, 0), (0, -1)])
def test_upper_bound_refuses_negative_counts(counts: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        upper_bound(PLUS, input_tokens=counts[0], output_tokens=counts[1])


def test_tier_of_refuses_a_negative_count() -> None:
    with pytest.raises(ValueError, match="must not be negative: -1"):
        PLUS.tier_of(-1)


rates = st.decimals(min_value=0, max_value=50, places=6)
ends = st.lists(st.integers(1, 400), unique=True, min_size=1, max_size=3).map(sorted)
counts = st.integers(0, 500)
any_count = st.none() | st.integers(-50, 600)


@st.composite
def prices(draw: st.DrawFn) -> Price:
    last_is_open = draw(st.booleans())
    found = draw(ends)
    return price(
        *(
            Tier(
                up_to=None if last_is_open and end == found[-1] else end,
                input=draw(rates),
                output=draw(rates),
                cached_input=draw(st.none() | rates),
                cache_write=draw(st.none() | rates),
                thinking_output=draw(st.none() | rates),
            )
            for end in found
        )
    )


@given(prices(), counts, counts, st.data(), st.booleans())
def test_upper_bound_holds_for_every_call_within_it(
    of: Price, most_in: int, most_out: int, data: st.DataObject, thought: bool
) -> None:
    total = data.draw(st.integers(0, most_in))
    cached = data.draw(st.integers(0, total))
    usage = used(
        total,
        data.draw(st.integers(0, most_out)),
        cached_tokens=cached,
        cache_write_tokens=data.draw(st.integers(0, total - cached)),
    )
    bound = upper_bound(of, input_tokens=most_in, output_tokens=most_out)
    assert cost(usage, of, thought=thought).high <= bound


@given(prices(), st.builds(used, any_count, any_count), st.tuples(*[any_count] * 5), st.booleans())
def test_low_end_is_never_negative_nor_above_the_high_end(
    of: Price, usage: Usage, parts: tuple[int | None, ...], thought: bool
) -> None:
    names = ("cached_tokens", "cache_write_tokens", "reasoning_tokens", "image_tokens", "video_tokens")
    found = cost_of(
        used(usage.input_tokens, usage.output_tokens, **dict(zip(names, parts, strict=True))), of, thought=thought
    )
    assert found is None or 0 <= found.low <= found.high


@given(prices(), counts, counts, counts, st.booleans())
def test_contradictory_usage_holds_both_ways_of_counting(
    of: Price, total: int, output: int, surplus: int, thought: bool
) -> None:
    """Cached tokens above the total were either inside a total that is really larger, or counted beside it."""
    cached = total + 1 + surplus
    found = cost(used(total, output, cached_tokens=cached), of, thought=thought)
    for real in (cached, total + cached):
        truth = cost(used(real, output, cached_tokens=cached), of, thought=thought)
        assert found.low <= truth.low
        assert truth.high <= found.high


def test_price_has_one_row_per_tier() -> None:
    assert [(row.from_tokens, row.up_to, row.input) for row in PLUS.rows()] == [
        (0, 32_768, D("0.2")),
        (32_769, 131_072, D("0.3")),
        (131_073, 262_144, D("0.6")),
    ]


def test_row_of_a_cost_is_the_row_of_its_tier() -> None:
    assert PLUS.row_of(cost(used(32_769, 1), PLUS).tier) == PLUS.rows()[1]


def test_rows_carry_whose_price_it_is() -> None:
    row = PLUS.rows()[0]
    assert (row.provider, row.region, row.model, row.currency, row.source) == (
        "model-studio",
        "singapore",
        "m",
        "USD",
        "a page",
    )


def test_digest_stays_the_same_between_versions() -> None:
    assert ONE.rows()[0].digest == "931c684cc2caa72d8c6b1115f8bc4742eda87c86cbad14b0b06a704c739f7806"


def test_digest_does_not_depend_on_how_a_number_or_a_time_is_written() -> None:
    row = PLUS.rows()[0]
    east = timezone(timedelta(hours=8))
    other = replace(row, input=D("0.200"), valid_from=datetime(2026, 1, 1, 8, tzinfo=east))
    assert other.digest == row.digest


@pytest.mark.parametrize(
    "change",
    [
        {"provider": "x"},
        {"region": ""},
        {"model": "x"},
        {"currency": "CNY"},
        {"valid_from": datetime(2026, 1, 2, tzinfo=UTC)},
        {"source": "x"},
        {"from_tokens": 1},
        {"up_to": None},
        {"input": D(1)},
        {"output": D(1)},
        {"cached_input": None},
        {"cache_write": D(0)},
        {"thinking_output": D(0)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_digest_changes_with_every_field(change: dict[str, object]) -> None:
    row = PLUS.rows()[0]
    assert replace(row, **change).digest != row.digest  # type: ignore[arg-type]  # one field each, of its own type

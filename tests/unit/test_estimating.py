"""The arithmetic of an estimate: what a row needs, what a few say about the others, and how long calls take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from random import Random

import pytest

from batchrun.catalogue import load_catalogue
from batchrun.cli.estimate import time_phrase
from batchrun.counting.clips import Clip, VideoFormula, most_tokens, video_tokens
from batchrun.counting.tokens import Between
from batchrun.estimating import covered
from batchrun.estimating.duration import Duration, Hours, Load, duration
from batchrun.estimating.spread import Outlook, Quantity, Spread, quantile
from batchrun.jobfile.spec import JobSpec
from batchrun.loading.needs import Need, Needs, edges
from batchrun.messages import JsonValue
from batchrun.pacing.limits import Limits
from batchrun.pacing.windows import window_of
from batchrun.plan import prepare
from batchrun.pricing import Price, Tier

D = Decimal
NOW = datetime(2026, 11, 22, tzinfo=UTC)
PICTURES = Path(__file__).parents[2] / "batchrun" / "demo" / "pictures"
SINGAPORE, BEIJING = "model-studio/singapore", "model-studio/beijing"


def needs(model: str = "qwen3-vl-plus", provider: str = SINGAPORE, price: Price | None = None, **job: object) -> Needs:
    spec = JobSpec.model_validate(
        {
            "name": "job",
            "provider": provider,
            "model": model,
            "inputs": {"images": "photos"},
            "prompt": "x",
            "params": {"max_tokens": 100},
            **job,
        }
    )
    plan = prepare(spec, load_catalogue())
    if price is not None:
        plan = replace(plan, model=replace(plan.model, prices=(price,)))
    return Needs(plan, PICTURES, NOW)


def need(asked: Needs, text: str = "", *media: Mapping[str, JsonValue]) -> Need:
    found = asked.of({}, [text], media)
    assert found is not None
    return found


def priced(*tiers: tuple[int | None, str, str]) -> Price:
    rates = tuple(Tier(up_to=end, input=D(low), output=D(high)) for end, low, high in tiers)
    return Price(provider="p", region="", model="m", currency="USD", valid_from=NOW, source="", tiers=rates)


def formula_of(model: str) -> VideoFormula:
    found = load_catalogue().model(SINGAPORE, model).video_tokens
    assert found is not None
    return found


# Needs


def test_a_local_picture_is_measured_by_its_header() -> None:
    # 1350 by 900 pixels: 42 by 28 squares of 32 pixels, two marks; beside it the envelope of one message.
    assert need(needs(), "", {"path": "receipt.jpg"}).input == Between(3 + 1178, 40 + 1178)


def test_an_unfetched_picture_has_any_size_that_the_formula_allows() -> None:
    assert need(needs(), "", {"url": "https://h/a.jpg"}).input == Between(3 + 6, 40 + 2_562)


def test_a_picture_in_a_data_url_is_measured() -> None:
    tiny = (
        "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAoAAAAHgCAIAAAC6s0uzAAAAEElEQVR4nGP8z8DAwMDEAAUADigBA//q"
        "fJ8AAAAASUVORK5CYII="
    )
    assert need(needs(), "", {"url": tiny}).input == Between(3 + 302, 40 + 302)


def test_a_picture_that_cannot_be_sent_makes_no_call() -> None:
    assert needs().of({}, [""], [{"path": "nothing-here.jpg"}]) is None


def test_a_model_without_a_formula_may_make_of_a_picture_all_that_it_takes() -> None:
    found = need(needs("kimi-k2.5", BEIJING), "", {"path": "receipt.jpg"})
    assert found.input == Between(4, 260_096)


def test_a_video_that_nobody_has_looked_into_may_become_all_that_the_model_makes_of_one() -> None:
    found = need(needs(), "", {"kind": "video", "url": "https://h/a.mp4"})
    assert found.input == Between(3 + 4 + 2, 40 + most_tokens(formula_of("qwen3-vl-plus")))


def test_a_video_of_a_model_without_a_formula_is_anything_up_to_the_longest_input() -> None:
    found = need(needs("kimi-k2.5", BEIJING), "", {"kind": "video", "path": "a.mp4"})
    assert found.input == Between(4, 260_096)


def test_a_video_whose_frames_are_known_is_counted() -> None:
    asked = needs()
    asked.clip_of = lambda _: Clip(width=1280, height=720, frames=1_800, rate=30)
    assert need(asked, "", {"kind": "video", "path": "a.mp4"}).input == Between(3 + 35_642, 40 + 35_642)


def test_a_part_of_a_video_is_counted_alone() -> None:
    asked = needs()
    asked.clip_of = lambda _: Clip(width=1280, height=720, frames=18_000, rate=30)
    part: dict[str, JsonValue] = {"kind": "video", "path": "a.mp4", "start": 60.0, "end": 120.0}
    assert need(asked, "", part).input == Between(3 + 35_642, 40 + 35_642)


def test_pictures_of_a_list_share_their_grids_two_and_two() -> None:
    # 1350 by 900 pixels: 21 rows and 30 columns within 655,360 pixels would be 630; the third picture has a grid alone.
    frames: list[JsonValue] = [{"kind": "image", "path": "receipt.jpg"} for _ in range(3)]
    grid = video_tokens(1350, 900, 2, 32, 4_096, 655_360, 134_217_728) - 2
    assert need(needs(), "", {"kind": "frames", "frames": frames}).input == Between(3 + 2 * grid + 2, 40 + 2 * grid + 2)


def test_the_reservation_of_a_video_is_the_most_that_the_model_makes_of_one() -> None:
    plan = needs().plan
    assert plan.input_bound([], 0, [None]) == 64 + most_tokens(formula_of("qwen3-vl-plus"))
    assert plan.input_bound([], 0, [None, None]) == plan.input_limit


def test_the_reservation_of_a_list_of_pictures_knows_its_length() -> None:
    most = formula_of("qwen3-vl-plus").any_frames(4).high
    assert most is not None
    assert needs().plan.input_bound([], 0, [4]) == 64 + most


def test_the_reservation_of_a_video_of_a_model_without_a_formula_is_its_longest_input() -> None:
    plan = needs("kimi-k2.5", BEIJING).plan
    assert plan.input_bound(["text"], 0, [None]) == plan.input_limit


def test_high_resolution_raises_what_a_picture_can_become() -> None:
    sharp = needs(params={"max_tokens": 100, "vl_high_resolution_images": True})
    assert need(sharp, "", {"url": "https://h/a.jpg"}).input.high == 40 + 16_386


def test_an_answer_has_one_token_at_least_and_thinking_at_most() -> None:
    thinking = needs(thinking={"enabled": True, "budget": 1_000})
    assert (need(needs()).output, need(thinking).output) == (Between(1, 100), Between(1, 1_100))


def test_an_answer_without_a_bound_has_a_cost_without_a_high_end() -> None:
    endless = needs("qwen3-vl-235b-a22b-instruct", params={}, price=priced((None, "1", "10")))
    assert need(endless).cost == (D("0.000013"), None)


def test_a_written_request_is_counted_by_its_own_texts_and_bounds() -> None:
    asked = needs(inputs={"requests": "batch.jsonl"}, prompt=None, params={})
    text = "a" * 1_000
    variables: dict[str, JsonValue] = {"messages": [{"role": "user", "content": text}], "max_tokens": 7}
    found = asked.of(variables, asked.plan.texts(variables), [])
    assert found is not None
    assert (found.input.low, found.output) == (150 + 3, Between(1, 7))
    assert found.input.high is not None
    assert found.input.high > 500 + 40


def test_without_a_price_the_cost_is_not_known() -> None:
    assert need(needs("qwen3-vl-235b-a22b-instruct")).cost is None


def test_answers_that_may_be_bought_again_raise_the_high_ends_alone() -> None:
    form: dict[str, JsonValue] = {"type": "object", "properties": {"a": {"type": "string"}}}
    once, thrice = (
        need(needs(price=priced((None, "1", "10")), response_schema=form, retry={"attempts": 3}, on_invalid=word))
        for word in ("keep", "ask_again")
    )
    assert (thrice.input.low, thrice.output.low) == (once.input.low, once.output.low)
    assert once.cost is not None
    assert once.cost[1] is not None
    assert thrice.output.high == 300
    assert thrice.cost == (once.cost[0], 3 * once.cost[1])


def test_the_tier_is_chosen_for_each_request() -> None:
    steps = needs(price=priced((1_000, "1", "0"), (None, "10", "0")))
    assert need(steps, "", {"path": "receipt.jpg"}).cost == (D("0.01181"), D("0.01218"))
    assert need(steps, "", {"url": "https://h/a.jpg"}).cost == (D("0.000009"), D("0.02602"))


def test_a_longer_request_that_is_cheaper_is_thought_of() -> None:
    falling = needs(price=priced((1_000, "10", "0"), (None, "1", "0")))
    assert need(falling, "", {"url": "https://h/a.jpg"}).cost == (D("0.00009"), D("0.01"))
    assert edges(priced((1_000, "1", "1"), (None, "1", "1")), 500, 2_000) == [500, 1_000, 1_001, 2_000]


def test_the_price_of_thinking_counts_only_where_the_model_may_think() -> None:
    tier = Tier(up_to=None, input=D(0), output=D(1), thinking_output=D(5))
    dear = replace(priced((None, "0", "1")), tiers=(tier,))
    silent, loud = needs(price=dear), needs(price=dear, thinking={"enabled": True, "budget": 100})
    assert (need(silent).cost, need(loud).cost) == ((D("0.000001"), D("0.0001")), (D("0.000001"), D("0.001")))


# What a few items say about the others


def measured(amounts: list[int], *, least: int = 1, most: int = 1_000, left: int = 100) -> Outlook:
    quantity = Quantity()
    for _ in range(left):
        quantity.expect(least, most)
    for amount in amounts:
        quantity.observe(amount, amount, least=least)
    return quantity.left(left, D(1))


def test_before_anything_is_measured_the_bounds_are_all_there_is() -> None:
    assert measured([]) == Outlook(low=D(100), high=D(100_000))


def test_a_few_items_tell_what_to_expect_and_leave_the_bounds() -> None:
    assert measured([90, 110]) == Outlook(low=D(100), high=D(100_000), expected=D(10_000))


def test_measured_items_narrow_the_range_to_three_standard_errors() -> None:
    found = measured([80, 120] * 10)
    # Standard deviation 20.52; 3.447 of them times √(100²/20 + 100) is 1,732.6.
    assert found.expected == 10_000
    assert (round(found.low), round(found.high or 0)) == (8_267, 11_733)


def test_more_items_narrow_it_further() -> None:
    few, many = measured([80, 120] * 5), measured([80, 120] * 50)
    assert few.low < many.low < 10_000 < (many.high or 0) < (few.high or 0)


def test_equal_amounts_do_not_prove_that_all_are_equal() -> None:
    found = measured([100] * 20)
    assert found.low < 9_700
    assert found.high is not None
    assert found.high > 10_300


def test_a_range_never_leaves_the_bounds() -> None:
    assert measured([1] * 10 + [1_000] * 10, left=10).high == 10_000
    assert measured([1] * 10 + [1_000] * 10, left=10).low == 10


def test_what_was_measured_outside_of_the_bounds_counts_more_than_they() -> None:
    found = measured([2_000] * 20)
    assert found.low > 100_000
    assert found.expected == 200_000


def test_items_that_failed_for_nothing_lower_the_low_end_alone() -> None:
    quantity = Quantity()
    for _ in range(100):
        quantity.expect(50, 1_000)
    for number in range(40):
        amount = 100 if number % 2 else 0
        quantity.observe(amount, amount, least=50, charged=amount > 0)
    found = quantity.left(100, D(1))
    assert 1_900 < found.low < 2_100  # three standard errors below half of what the others cost
    assert found.expected == 7_500
    assert found.high is not None
    assert 10_000 < found.high < 11_000


def test_nothing_left_adds_nothing() -> None:
    assert measured([100] * 20, left=0) == Outlook(low=D(0), high=D(0), expected=D(0))


def test_calls_that_were_made_again_raise_the_high_bound() -> None:
    quantity = Quantity()
    quantity.expect(1, 10)
    quantity.observe(12, 12, least=1)
    assert quantity.left(1, D("1.5")).high == 15


def test_differences_from_known_sizes_foresee_items_of_other_sizes() -> None:
    """The items that are left are ten times as large as those that were measured."""
    quantity = Quantity()
    for size in range(10, 30):
        quantity.observe(size + 5, size + 5, least=size)
    for size in range(100, 300):
        quantity.expect(size, size + 1_000)
    found = quantity.left(200, D(1))
    assert found.expected == sum(range(100, 300)) + 200 * 5


@pytest.mark.parametrize(("count", "student"), [(5, "6.62"), (10, "4.09"), (20, "3.45"), (100, "3.08")])
def test_few_observations_widen_the_range_as_students_t_does(count: int, student: str) -> None:
    assert abs(quantile(count) - D(student)) < D(student) / 30


@pytest.mark.parametrize(("shape", "allowed"), [("even", 2), ("skewed", 6)])
def test_the_sum_of_the_others_lies_in_its_range(shape: str, allowed: int) -> None:
    """Two hundred draws of 20 items out of 1,000; few miss, more of them where a few amounts are very large."""
    random = Random(7)
    missed = 0
    for _ in range(200):
        amounts = [
            D(random.randint(50, 150) if shape == "even" else int(random.expovariate(0.01)) + 1) for _ in range(1_000)
        ]
        spread = Spread()
        for amount in amounts[:20]:
            spread.add(amount, amount)
        missed += abs(sum(amounts[20:]) - 980 * spread.mean) > spread.reach(980)
    assert missed <= allowed


# Time

BUSY = Outlook(low=D(1_800), high=D(2_200), expected=D(2_000))


def load_of(calls: int = 1_000, *, tokens: tuple[int, int] = (950_000, 1_900_000), busy: Outlook | None = BUSY) -> Load:
    return Load(calls=D(calls), tokens=Outlook(low=D(tokens[0]), high=D(tokens[1])), busy=busy)


def test_the_limit_of_requests_is_used_to_95_percent() -> None:
    found = duration(load_of(busy=None), [Limits(requests_per_minute=100)], 64)
    assert (round(found.low), found.high, found.brake) == (632, None, "100 requests/min")


def test_answers_of_known_length_give_the_time_a_high_end() -> None:
    found = duration(load_of(), [Limits(requests_per_minute=100)], 64)
    assert (round(found.low), round(found.high or 0)) == (634, 634)  # the last answer takes its two seconds


def test_calls_at_once_are_the_brake_where_answers_take_long() -> None:
    found = duration(load_of(), [Limits(requests_per_minute=6_000)], 10)
    assert found == Duration(low=D(182), high=D(222), brake="10 calls at once")


def test_tokens_are_the_brake_where_requests_are_long() -> None:
    found = duration(load_of(busy=None), [Limits(requests_per_minute=1_000, tokens_per_minute=100_000)], 64)
    assert (round(found.low), found.brake) == (600, "100,000 tokens/min")


def test_the_narrowest_of_several_limits_counts() -> None:
    found = duration(load_of(), [Limits(requests_per_minute=600), Limits(requests_per_minute=60)], 64)
    assert found.brake == "60 requests/min"


def test_tokens_of_a_day_let_nights_pass() -> None:
    found = duration(load_of(), [Limits(tokens_per_day=900_000)], 64)
    assert (found.low, found.high) == (D(86_400 + 2), D(2 * 86_400 + 2))


def test_without_a_timed_answer_it_says_how_long_one_may_take() -> None:
    found = duration(load_of(busy=None), [Limits(requests_per_minute=600)], 64)
    assert round(found.answer or 0, 2) == D("6.74")


def test_without_limits_and_measurements_nothing_is_known() -> None:
    assert duration(load_of(busy=None), [Limits()], 64) == Duration(low=D(0), high=None, brake=None)


TOKYO = window_of("22:00", "06:00", "Asia/Tokyo")
HOUR = 3_600


def at_noon(load: Load, limits: Limits, *, hour: int = 12) -> Duration:
    """In Tokyo, where the window is open from 13:00 to 21:00 UTC."""
    now = datetime(2026, 11, 25, hour, tzinfo=UTC)
    return duration(load, [limits], 64, Hours(window=TOKYO, now=now))


def test_a_closed_window_is_waited_for_and_named() -> None:
    found = at_noon(load_of(busy=None), Limits(requests_per_minute=100))
    assert (round(found.low), found.high, found.brake) == (HOUR + 632, None, "window of 22:00 to 06:00 Asia/Tokyo")
    assert time_phrase(found) == "at least 71 min in the window of 22:00 to 06:00 Asia/Tokyo"
    assert at_noon(load_of(busy=None), Limits()).low == HOUR


def test_what_fits_into_the_open_window_is_not_held_back_by_it() -> None:
    found = at_noon(load_of(), Limits(requests_per_minute=100), hour=14)
    assert found == duration(load_of(), [Limits(requests_per_minute=100)], 64)


def test_longer_work_takes_several_nights() -> None:
    found = at_noon(load_of(100_000), Limits(requests_per_minute=100), hour=14)
    assert round(found.low / HOUR, 1) == D("49.5")  # 17.5 hours of work in seven, eight and two and a half of them


def test_tokens_of_a_day_do_not_wait_for_the_window() -> None:
    found = at_noon(load_of(), Limits(tokens_per_day=900_000), hour=14)
    assert (found.low, found.brake) == (D(86_400 + 2), "900,000 tokens/day")


def test_no_calls_take_no_time() -> None:
    assert duration(load_of(0), [Limits(requests_per_minute=1)], 64) == Duration(low=D(0), high=D(0), brake=None)


# Budget


@pytest.mark.parametrize(
    ("left", "reserved", "cost", "items"),
    [
        ("1", "0.1", "1", 10),  # the last call is made with 0.1 free
        ("0.95", "0.1", "1", 9),
        ("1", "0.5", "1", 6),
        ("0.4", "0.5", "1", 0),
        ("5", "0.5", "1", 10),
        ("1", "0.5", "0", 10),
    ],
)
def test_a_budget_covers_what_fits_before_a_reservation_does_not(
    left: str, reserved: str, cost: str, items: int
) -> None:
    assert covered(D(left), D(reserved), D(cost), 10) == items

"""What a request asks, against the figures of its model: what is refused before a call, and what is only said."""

from __future__ import annotations

import pytest

from batchrun.advice import advice, check_sizes
from batchrun.catalogue import Model, load_catalogue
from batchrun.dialects.compat import Compat
from batchrun.errors import ProviderError
from batchrun.messages import ChatRequest, JsonValue, Message, TextPart, Thinking

SIN, BEI = "model-studio/singapore", "model-studio/beijing"
ON, OFF = Thinking(enabled=True, budget=None), Thinking(enabled=False, budget=None)


def model(endpoint: str, name: str) -> Model:
    return load_catalogue().model(endpoint, name)


def request(thinking: Thinking | None = None, **params: JsonValue) -> ChatRequest:
    message = Message(role="user", parts=(TextPart(text="x"),))
    return ChatRequest(model="m", messages=(message,), params=params, thinking=thinking, stream=True)


# Contract 2.1 and 8.4: the longest answers, the longest thinking.
TOO_MUCH = [
    (SIN, "qwen3-vl-plus", request(max_tokens=32_769), "at most 32,768 tokens of answer, and `max_tokens` is 32,769"),
    (SIN, "qwen-vl-max", request(max_completion_tokens=8_193), "`max_completion_tokens` is 8,193"),
    (BEI, "kimi-k2-thinking", request(max_tokens=16_385), "at most 16,384 tokens of answer"),
    (SIN, "qwen3-vl-plus", request(max_tokens=0), "`max_tokens` is 0"),
    (
        SIN,
        "qwen3-vl-plus",
        request(Thinking(enabled=True, budget=81_921)),
        "at most 81,920 tokens of thinking, and the thinking budget is 81,921",
    ),
]


@pytest.mark.parametrize(("endpoint", "name", "asked", "words"), TOO_MUCH, ids=range(len(TOO_MUCH)))
def test_more_than_a_model_gives_is_refused(endpoint: str, name: str, asked: ChatRequest, words: str) -> None:
    with pytest.raises(ProviderError, match=words) as caught:
        check_sizes(asked, model(endpoint, name))
    assert caught.value.remedy.startswith("Write a number from 1 to ")


# Contract 8.3.2 and C10.
@pytest.mark.parametrize(
    ("name", "asked", "words"),
    [
        ("qwen3-vl-plus", request(max_pixels=16_777_217), "takes 65,536 to 16,777,216 pixels as a bound"),
        ("qwen3-vl-plus", request(min_pixels=65_535), "`min_pixels` is 65,535"),
        ("qwen-vl-max", request(min_pixels=4_096, max_pixels=4_095), "`max_pixels` is 4,095"),
        ("qwen3-vl-plus", request(min_pixels=70_000, max_pixels=66_000), "70,000 and `max_pixels` only 66,000"),
    ],
    ids=range(4),
)
def test_bounds_of_pixels_that_the_vendor_refuses(name: str, asked: ChatRequest, words: str) -> None:
    with pytest.raises(ProviderError, match=words):
        check_sizes(asked, model(SIN, name))


def test_a_bound_of_pixels_that_has_no_effect_is_told() -> None:
    params: dict[str, JsonValue] = {"vl_high_resolution_images": True, "max_pixels": 2_621_440}
    notes = list(advice(model(SIN, "qwen3-vl-plus"), system=False, params=params, thinking=None))
    assert notes == ["`max_pixels` has no effect while `vl_high_resolution_images` is true"]


@pytest.mark.parametrize(
    ("endpoint", "name", "asked"),
    [
        (SIN, "qwen3-vl-plus", request(min_pixels=65_536, max_pixels=16_777_216)),
        (SIN, "qwen3-vl-plus", request(Thinking(enabled=True, budget=81_920), max_tokens=32_768)),
        (SIN, "qwen3-vl-235b-a22b-thinking", request(Thinking(enabled=True, budget=10**6), max_tokens=10**6)),
        ("acedata", "kimi-k2.5", request(max_tokens=10**6)),
    ],
    ids=["all pixels", "the most", "not known", "proxy"],
)
def test_what_fits_or_isn_t_known_is_not_refused(endpoint: str, name: str, asked: ChatRequest) -> None:
    check_sizes(asked, model(endpoint, name))


# Contract 2.2: a parameter of a feature that the model lacks.
@pytest.mark.parametrize(
    ("name", "asked", "words"),
    [
        ("kimi-k2.5", request(enable_search=True), "doesn't take the parameter `enable_search`"),
        ("kimi-k2-thinking", request(enable_search=True), "doesn't take the parameter `enable_search`"),
        ("kimi-k2.5", request(Thinking(enabled=True, budget=5)), "takes no thinking budget"),
        ("kimi-k2-thinking", request(Thinking(enabled=True, budget=5)), "takes no thinking budget"),
    ],
    ids=range(4),
)
def test_what_a_model_lacks_is_refused(name: str, asked: ChatRequest, words: str) -> None:
    with pytest.raises(ProviderError, match=words):
        Compat("model-studio").encode(asked, model(BEI, name).rules)


def test_why_a_price_could_not_be_collected_is_said() -> None:
    unpriced = Model(id="m", unpriced="the price depends on the time of day")
    notes = list(advice(unpriced, system=False, params={}, thinking=None))
    assert notes == ["the cost won't be known: the price depends on the time of day"]


# Contract O9.
@pytest.mark.parametrize(
    ("endpoint", "name", "thinking", "said"),
    [
        (SIN, "qwen3-vl-plus", ON, True),
        (SIN, "qwen3-vl-plus", None, False),
        (SIN, "qwen3-vl-plus", OFF, False),
        (SIN, "qwen3-vl-235b-a22b-thinking", None, True),
        (SIN, "qwen3-vl-235b-a22b-instruct", None, False),
        (BEI, "kimi-k2.5", ON, False),
    ],
)
def test_system_message_to_a_model_that_thinks(endpoint: str, name: str, thinking: Thinking | None, said: bool) -> None:
    notes = list(advice(model(endpoint, name), system=True, params={}, thinking=thinking))
    sentence = f"the vendor advises against `system` while {name} thinks; say it in the prompt"
    assert notes == ([sentence] if said else [])


def test_without_a_system_message_nothing_is_said_of_it() -> None:
    assert list(advice(model(SIN, "qwen3-vl-plus"), system=False, params={}, thinking=ON)) == []


@pytest.mark.parametrize(
    ("endpoint", "name", "said"),
    [(SIN, "qwen3-vl-plus", True), ("acedata", "kimi-k2.5", True), (BEI, "Moonshot-Kimi-K2-Instruct", False)],
)
def test_search_where_it_is_not_known(endpoint: str, name: str, said: bool) -> None:
    notes = list(advice(model(endpoint, name), system=False, params={"enable_search": True}, thinking=None))
    unknown = f"whether {name} knows `enable_search` isn't known; the vendor may ignore it"
    costs = "a web search may cost something beside its tokens, which isn't known and not counted here"
    assert notes == [unknown if said else costs]

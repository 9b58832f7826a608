"""The bundled figures against a table typed by hand from the provider contract, look-up, and the user's own file."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path

import pytest

from batchrun.answer import Usage
from batchrun.catalogue import KEPT, Catalogue, Endpoint, Model, load_catalogue, read_bundled
from batchrun.catalogue.file import ALWAYS, CatalogueFile
from batchrun.counting.tokens import PictureFormula
from batchrun.dialects.base import ModelRules
from batchrun.errors import EXIT_USAGE, CatalogueError
from batchrun.jobfile.sections import Mode
from batchrun.media.videos import VideoRules
from batchrun.messages import Thinking
from batchrun.pacing.limits import Limits
from batchrun.pricing import Price, Tier, cost_of
from tests.unit.kept_catalogue import kept_catalogue

D = Decimal
NOW = datetime(2026, 11, 22, tzinfo=UTC)
SIN, VIR, BEI = "model-studio/singapore", "model-studio/virginia", "model-studio/beijing"
BATCH = "model-studio/beijing-batch"
REGIONS = ("singapore", "virginia", "beijing")
K32, K128, K256 = 32_768, 131_072, 262_144


@pytest.fixture(scope="module")
def bundled() -> Catalogue:
    return load_catalogue()


Load = Callable[[str], Catalogue]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Loads the catalogue with a user's own file of this text."""

    def load_text(text: str) -> Catalogue:
        file = tmp_path / "own.yaml"
        file.write_text(text, encoding="utf-8")
        return load_catalogue(file)

    return load_text


@pytest.fixture
def refused(load: Load, tmp_path: Path) -> Callable[[str], str]:
    """The message with which a user's own file of this text is refused, without the folder of the file."""

    def message(text: str) -> str:
        with pytest.raises(CatalogueError) as caught:
            load(text)
        return caught.value.message.replace(f"{tmp_path}{os.sep}", "")

    return message


def price_of(catalogue: Catalogue, endpoint: str, model: str) -> Price:
    price = catalogue.model(endpoint, model).price_at(NOW)
    assert price is not None
    return price


# Contract 2.1 and 8.4: input and output, US dollars per 1,000,000 tokens, by the end of the tier.
PRICES = [
    (BEI, "kimi-k2.5", [(None, "0.574", "3.011")]),
    (BEI, "kimi-k2-thinking", [(None, "0.574", "2.294")]),
    (BEI, "Moonshot-Kimi-K2-Instruct", [(None, "0.574", "2.294")]),
    (SIN, "qwen3-vl-plus", [(K32, "0.2", "1.6"), (K128, "0.3", "2.4"), (K256, "0.6", "4.8")]),
    (VIR, "qwen3-vl-plus", [(K32, "0.143", "1.434"), (K128, "0.215", "2.15"), (K256, "0.43", "4.301")]),
    (BEI, "qwen3-vl-plus", [(K32, "0.143", "1.434"), (K128, "0.215", "2.15"), (K256, "0.43", "4.301")]),
    # Contract 8.6.2: half.
    (BATCH, "qwen3-vl-plus", [(K32, "0.0715", "0.717"), (K128, "0.1075", "1.075"), (K256, "0.215", "2.1505")]),
    (SIN, "qwen3-vl-flash", [(K32, "0.05", "0.40"), (K128, "0.075", "0.60"), (K256, "0.12", "0.96")]),
    (VIR, "qwen3-vl-flash", [(K32, "0.022", "0.215"), (K128, "0.043", "0.43"), (K256, "0.086", "0.859")]),
    (BEI, "qwen3-vl-flash", [(K32, "0.022", "0.215"), (K128, "0.043", "0.43"), (K256, "0.086", "0.859")]),
    (VIR, "qwen3-vl-flash-us", [(K32, "0.05", "0.40"), (K128, "0.075", "0.60"), (K256, "0.12", "0.96")]),
    (SIN, "qwen-vl-max", [(None, "0.8", "3.2")]),
    (BEI, "qwen-vl-max", [(None, "0.23", "0.574")]),
    (SIN, "qwen-vl-plus", [(None, "0.21", "0.63")]),
    (BEI, "qwen-vl-plus", [(None, "0.115", "0.287")]),
    # Contract 8.5.
    ("moonshot", "kimi-k2.5", [(None, "0.60", "3.00")]),
    ("moonshot", "kimi-k2-thinking", [(None, "0.60", "2.50")]),
    ("moonshot", "kimi-k2-thinking-turbo", [(None, "1.15", "8.00")]),
]


@pytest.mark.parametrize(("endpoint", "model", "tiers"), PRICES, ids=lambda value: str(value)[:30])
def test_price(bundled: Catalogue, endpoint: str, model: str, tiers: list[tuple[int | None, str, str]]) -> None:
    price = price_of(bundled, endpoint, model)
    assert price.currency == "USD"
    assert [(tier.up_to, tier.input, tier.output) for tier in price.tiers] == [
        (end, D(input_rate), D(output_rate)) for end, input_rate, output_rate in tiers
    ]


def test_what_is_read_at_each_start_is_what_stands_in_the_catalogue() -> None:
    assert KEPT.read_text(encoding="utf-8") == kept_catalogue(), "run: python -m tests.unit.kept_catalogue"
    assert CatalogueFile.model_validate(read_bundled()[1]) == read_bundled()[0]


def test_no_other_model_has_a_price(bundled: Catalogue) -> None:
    priced = {
        (endpoint.name, model.id)
        for endpoint in bundled.endpoints.values()
        if not endpoint.simulated
        for model in endpoint.models.values()
        if model.prices
    }
    listed = {(endpoint, model) for endpoint, model, _ in PRICES}
    native = {(endpoint.replace("model-studio", "dashscope"), model) for endpoint, model in listed if endpoint != BATCH}
    assert priced == listed | native


QWEN = [row[:2] for row in PRICES if "qwen" in row[1] and row[0] != BATCH]
KIMI = [row[:2] for row in PRICES if "imi" in row[1] and row[0] == BEI]


@pytest.mark.parametrize(("endpoint", "model"), QWEN)
def test_implicit_cache_hit_of_qwen_costs_a_fifth_of_the_input(bundled: Catalogue, endpoint: str, model: str) -> None:
    for tier in price_of(bundled, endpoint, model).tiers:
        assert tier.cached_input == tier.input * D("0.2")


@pytest.mark.parametrize(("endpoint", "model"), QWEN)
def test_cache_creation_of_qwen_costs_a_quarter_more_than_input(bundled: Catalogue, endpoint: str, model: str) -> None:
    for tier in price_of(bundled, endpoint, model).tiers:
        assert tier.cache_write == tier.input * D("1.25")


@pytest.mark.parametrize(("endpoint", "model"), KIMI)
def test_cache_prices_of_kimi_are_not_known(bundled: Catalogue, endpoint: str, model: str) -> None:
    [tier] = price_of(bundled, endpoint, model).tiers
    assert (tier.cached_input, tier.cache_write) == (None, None)


@pytest.mark.parametrize(
    ("endpoint", "model", "tokens", "expected"),
    [
        (SIN, "qwen3-vl-plus", (120_202, 800), "0.0379806"),
        (SIN, "qwen3-vl-flash", (2_100, 150), "0.000165"),
        (BEI, "kimi-k2.5", (10_000, 2_000), "0.011762"),
    ],
)
def test_worked_example_of_the_contract(
    bundled: Catalogue, endpoint: str, model: str, tokens: tuple[int, int], expected: str
) -> None:
    usage = Usage(input_tokens=tokens[0], output_tokens=tokens[1])
    cost = cost_of(usage, price_of(bundled, endpoint, model), thought=True)
    assert cost is not None
    assert (cost.low, cost.high) == (D(expected), D(expected))


# Contract 2.1 and 8.4: context, max input thinking, max input, max CoT, max output.
QWEN3_SIZES = (262_144, 258_048, 260_096, 81_920, 32_768)
QWEN25_SIZES = (131_072, None, 129_024, None, 8_192)
SIZES = [
    (BEI, "kimi-k2.5", (262_144, 258_048, 260_096, 32_768, 32_768)),
    (BEI, "kimi-k2-thinking", (262_144, 229_376, None, 32_768, 16_384)),
    (BEI, "Moonshot-Kimi-K2-Instruct", (131_072, None, 131_072, None, 8_192)),
    *((region, model, QWEN3_SIZES) for region in (SIN, VIR, BEI) for model in ("qwen3-vl-plus", "qwen3-vl-flash")),
    (VIR, "qwen3-vl-flash-us", QWEN3_SIZES),
    *((region, model, QWEN25_SIZES) for region in (SIN, BEI) for model in ("qwen-vl-max", "qwen-vl-plus")),
    ("acedata", "kimi-k2.5", (None, None, None, None, None)),
]


@pytest.mark.parametrize(("endpoint", "model", "sizes"), SIZES)
def test_sizes(bundled: Catalogue, endpoint: str, model: str, sizes: tuple[int | None, ...]) -> None:
    found = bundled.model(endpoint, model)
    assert (
        found.context,
        found.max_input_thinking,
        found.max_input,
        found.max_cot,
        found.max_output,
    ) == sizes


# Contract 8.2: requests and tokens per minute.
LIMITS = [
    *((SIN, model, 1_200, 1_000_000) for model in ("qwen3-vl-plus", "qwen3-vl-flash", "qwen-vl-max", "qwen-vl-plus")),
    (VIR, "qwen3-vl-plus", 60, 1_000_000),
    (VIR, "qwen3-vl-flash", 1_200, 1_000_000),
    (VIR, "qwen3-vl-flash-us", 1_200, 1_000_000),
    (BEI, "qwen3-vl-plus", 3_000, 5_000_000),
    (BEI, "qwen3-vl-flash", 3_000, 5_000_000),
    (BEI, "qwen-vl-max", 1_200, 1_000_000),
    (BEI, "qwen-vl-plus", 1_200, 1_000_000),
    (BEI, "kimi-k2.5", 500, 1_000_000),
    (BEI, "kimi-k2-thinking", 500, 1_000_000),
    (BEI, "Moonshot-Kimi-K2-Instruct", 500, 1_000_000),
]


@pytest.mark.parametrize(("endpoint", "model", "requests", "tokens"), LIMITS)
def test_rate_limits(bundled: Catalogue, endpoint: str, model: str, requests: int, tokens: int) -> None:
    expected = Limits(requests_per_minute=requests, tokens_per_minute=tokens)
    assert bundled.model(endpoint, model).limits == expected


QVQ = {f"qvq-{size}{ending}" for size in ("max", "plus") for ending in ("", "-latest")}
OPEN_QWEN25 = {f"qwen2.5-vl-{size}-instruct" for size in ("72b", "32b", "7b", "3b")}
OLD = QVQ | OPEN_QWEN25
OPEN_QWEN3 = ("qwen3-vl-235b-a22b-thinking", "qwen3-vl-235b-a22b-instruct")


@pytest.mark.parametrize("endpoint", [SIN, BEI])
@pytest.mark.parametrize("model", [*OPEN_QWEN3, "qwen3-vl-8b-instruct", "qwen-vl-max-2025-08-13", *sorted(OLD)])
def test_open_models_and_snapshots_have_no_known_figures(bundled: Catalogue, endpoint: str, model: str) -> None:
    found = bundled.model(endpoint, model)
    assert (found.prices, found.limits, found.context, found.max_output) == ((), Limits(), None, None)


# Contract 1.4, and ids that 8.3.1, 8.7 and 8.13 name.
MORE_OPEN = {f"qwen3-vl-{size}-{kind}" for size in ("32b", "30b-a3b", "8b") for kind in ("thinking", "instruct")}
MAX_SNAPSHOTS = {f"qwen-vl-max-{version}" for version in ("latest", "2025-08-13", "2025-04-08", "2025-01-25")}
PLUS_SNAPSHOTS = {f"qwen-vl-plus-{version}" for version in ("latest", "2025-08-15", "2025-07-10", "2025-01-02")}
EVERYWHERE = {"qwen3-vl-plus", "qwen3-vl-flash", "qwen-vl-max", "qwen-vl-plus"}
PLACES = [
    (SIN, {*EVERYWHERE, *OPEN_QWEN3, *MORE_OPEN, *MAX_SNAPSHOTS, *PLUS_SNAPSHOTS, *OLD}),
    (VIR, {*EVERYWHERE, "qwen3-vl-flash-us"}),
    (
        BEI,
        {
            "kimi-k2.5",
            "kimi-k2-thinking",
            "Moonshot-Kimi-K2-Instruct",
            *EVERYWHERE,
            *OPEN_QWEN3,
            *MORE_OPEN,
            *MAX_SNAPSHOTS,
            *PLUS_SNAPSHOTS,
            *OLD,
        },
    ),
    (BATCH, {"qwen3-vl-plus"}),
    ("acedata", {"kimi-k2.5"}),
    ("moonshot", {"kimi-k2.5", "kimi-k2-thinking", "kimi-k2-thinking-turbo"}),
    ("moonshot/china", {"kimi-k2.5"}),
]


@pytest.mark.parametrize(("endpoint", "models"), PLACES)
def test_models_of_an_endpoint(bundled: Catalogue, endpoint: str, models: set[str]) -> None:
    assert set(bundled.endpoint(endpoint).models) == models


def test_catalogue_has_these_endpoints(bundled: Catalogue) -> None:
    native = {f"dashscope/{region}" for region in REGIONS}
    simulators = {f"simulator/{service}-{region}" for service in ("model-studio", "dashscope") for region in REGIONS}
    others = {"acedata", "moonshot"}
    simulators |= {f"simulator/{other}" for other in (*others, "model-studio-beijing-batch")}
    assert set(bundled.endpoints) == {SIN, VIR, BEI, BATCH, *others, "moonshot/china", *OPEN, *native, *simulators}


OPEN = {
    "openai": ("https://api.openai.com/v1", ("OPENAI_API_KEY",)),
    "openrouter": ("https://openrouter.ai/api/v1", ("OPENROUTER_API_KEY",)),
    "vllm": ("http://127.0.0.1:8000/v1", ()),
    "ollama": ("http://127.0.0.1:11434/v1", ()),
    "litellm": ("http://127.0.0.1:4000/v1", ()),
}
"""Servers of which only the address is known."""


@pytest.mark.parametrize("name", OPEN)
def test_servers_that_take_any_model(bundled: Catalogue, name: str) -> None:
    endpoint = bundled.endpoint(name)
    assert (endpoint.base_url, endpoint.key_env) == OPEN[name]
    assert (endpoint.open_models, endpoint.error_table, dict(endpoint.models)) == (True, "openai", {})


@pytest.mark.parametrize(
    ("endpoint", "model", "rules"),
    [
        (SIN, "qwen3-vl-plus", (True, "max_tokens")),
        ("acedata", "kimi-k2.5", (True, "max_tokens")),
        ("moonshot", "kimi-k2.5", (False, "max_completion_tokens")),
        ("moonshot/china", "kimi-k2.5", (False, "max_completion_tokens")),
        ("simulator/moonshot", "kimi-k2.5", (False, "max_completion_tokens")),
        ("openai", "any", (True, "max_completion_tokens")),
        ("ollama", "any", (False, "max_tokens")),
    ],
)
def test_addresses_of_pictures_and_the_name_of_max_tokens(
    bundled: Catalogue, endpoint: str, model: str, rules: tuple[bool, str]
) -> None:
    found = bundled.model(endpoint, model).rules
    assert (found.media_urls, found.max_tokens_as) == rules


@pytest.mark.parametrize(
    ("model", "cached"), [("kimi-k2.5", "0.10"), ("kimi-k2-thinking", "0.15"), ("kimi-k2-thinking-turbo", "0.15")]
)
def test_cached_input_at_moonshot(bundled: Catalogue, model: str, cached: str) -> None:
    assert [tier.cached_input for tier in price_of(bundled, "moonshot", model).tiers] == [D(cached)]


def test_the_sampling_of_kimi_is_fixed_at_moonshot(bundled: Catalogue) -> None:
    fixed = {"temperature", "top_p", "presence_penalty", "frequency_penalty"}
    assert bundled.model("moonshot", "kimi-k2.5").rules.forbidden == fixed


# Contract 1.1, 1.2, 1.3 and 8.5.
ADDRESSES = [
    (SIN, "https://dashscope-intl.aliyuncs.com/compatible-mode/v1"),
    (VIR, "https://dashscope-us.aliyuncs.com/compatible-mode/v1"),
    (BEI, "https://dashscope.aliyuncs.com/compatible-mode/v1"),
    ("acedata", "https://api.acedata.cloud/kimi"),
    ("moonshot", "https://api.moonshot.ai/v1"),
    ("moonshot/china", "https://api.moonshot.cn/v1"),
    ("dashscope/singapore", "https://dashscope-intl.aliyuncs.com/api/v1"),
    ("dashscope/virginia", "https://dashscope-us.aliyuncs.com/api/v1"),
    ("dashscope/beijing", "https://dashscope.aliyuncs.com/api/v1"),
]


@pytest.mark.parametrize(("endpoint", "url"), ADDRESSES)
def test_address(bundled: Catalogue, endpoint: str, url: str) -> None:
    assert bundled.endpoint(endpoint).base_url == url


@pytest.mark.parametrize(
    ("endpoint", "variables"),
    [
        (SIN, ("DASHSCOPE_API_KEY_SINGAPORE", "DASHSCOPE_API_KEY")),
        (VIR, ("DASHSCOPE_API_KEY_VIRGINIA", "DASHSCOPE_API_KEY")),
        (BEI, ("DASHSCOPE_API_KEY_BEIJING", "DASHSCOPE_API_KEY")),
        ("acedata", ("ACEDATACLOUD_API_TOKEN", "ACEDATACLOUD_API_KEY")),
        ("moonshot", ("MOONSHOT_API_KEY",)),
        ("moonshot/china", ("MOONSHOT_API_KEY_CHINA", "MOONSHOT_API_KEY")),
        ("dashscope/singapore", ("DASHSCOPE_API_KEY_SINGAPORE", "DASHSCOPE_API_KEY")),
        ("dashscope/virginia", ("DASHSCOPE_API_KEY_VIRGINIA", "DASHSCOPE_API_KEY")),
        ("dashscope/beijing", ("DASHSCOPE_API_KEY_BEIJING", "DASHSCOPE_API_KEY")),
        ("simulator/model-studio-singapore", ("BATCHRUN_SIMULATOR_KEY",)),
        ("simulator/dashscope-singapore", ("BATCHRUN_SIMULATOR_KEY",)),
    ],
)
def test_variables_of_the_key(bundled: Catalogue, endpoint: str, variables: tuple[str, ...]) -> None:
    assert bundled.endpoint(endpoint).key_env == variables


def test_endpoint_knows_its_provider_and_region(bundled: Catalogue) -> None:
    endpoint = bundled.endpoint(SIN)
    assert (endpoint.provider, endpoint.region) == ("model-studio", "singapore")


def test_provider_without_regions_has_an_empty_region(bundled: Catalogue) -> None:
    endpoint = bundled.endpoint("acedata")
    assert (endpoint.provider, endpoint.region, endpoint.error_table) == ("acedata", "", "acedata")


def test_model_studio_errors_are_read_with_its_table(bundled: Catalogue) -> None:
    assert bundled.endpoint(SIN).error_table == "model-studio"


# Contract 2.3, 2.5 and T14 to T16: thinking, the switch, whether a budget may be sent, thinks unasked.
THINKING = [
    (BEI, "kimi-k2.5", ("switchable", "enable_thinking", False, False)),
    (BEI, "kimi-k2-thinking", ("always", None, False, True)),
    (BEI, "Moonshot-Kimi-K2-Instruct", ("never", None, False, False)),
    (SIN, "qwen3-vl-plus", ("switchable", "enable_thinking", True, False)),
    (SIN, "qwen3-vl-flash", ("switchable", "enable_thinking", True, False)),
    (SIN, "qwen-vl-max", ("never", None, False, False)),
    (SIN, "qwen-vl-plus", ("never", None, False, False)),
    (SIN, "qwen3-vl-235b-a22b-thinking", ("always", "enable_thinking", True, True)),
    (SIN, "qvq-max", ("always", None, False, True)),
    (BEI, "qvq-plus-latest", ("always", None, False, True)),
    (BEI, "qwen2.5-vl-7b-instruct", ("never", None, False, False)),
    (SIN, "qwen3-vl-235b-a22b-instruct", ("never", None, False, False)),
    (SIN, "qwen3-vl-30b-a3b-thinking", ("always", "enable_thinking", True, True)),
    (BEI, "qwen3-vl-8b-instruct", ("never", None, False, False)),
    (VIR, "qwen3-vl-flash-us", ("switchable", "enable_thinking", True, False)),
    ("acedata", "kimi-k2.5", ("always", None, False, True)),
    ("moonshot", "kimi-k2.5", ("switchable", "thinking", False, True)),
    ("moonshot", "kimi-k2-thinking", ("always", None, False, True)),
]


@pytest.mark.parametrize(("endpoint", "model", "expected"), THINKING)
def test_thinking_rules(
    bundled: Catalogue, endpoint: str, model: str, expected: tuple[str, str | None, bool, bool]
) -> None:
    found = bundled.model(endpoint, model)
    rules = found.rules
    assert (
        rules.thinking,
        rules.thinking_switch,
        rules.thinking_budget,
        found.thinks_by_default,
    ) == expected


@pytest.mark.parametrize("model", sorted(OLD))
def test_videos_of_qvq_and_the_open_qwen25(bundled: Catalogue, model: str) -> None:
    """Contract 5.2."""
    rules = bundled.model(BEI, model).video_rules
    assert rules == VideoRules(frames=(4, 512), seconds=(2, 600), url_bytes=2**30)


@pytest.mark.parametrize("endpoint", [SIN, "dashscope/beijing"])
def test_only_qvq_streams_alone(bundled: Catalogue, endpoint: str) -> None:
    models = bundled.endpoint(endpoint).models
    assert {name for name, model in models.items() if model.rules.stream_only} == QVQ


@pytest.mark.parametrize(
    ("model", "forbidden"),
    [
        # Contract 2.2 (structured output, web search) and 2.3 (cells with a dash).
        ("kimi-k2.5", {"thinking_budget", "response_format", "enable_search"}),
        (
            "kimi-k2-thinking",
            {"enable_thinking", "thinking_budget", "top_p", "presence_penalty", "fps", "max_frames", "enable_search"},
        ),
        (
            "Moonshot-Kimi-K2-Instruct",
            {"enable_thinking", "thinking_budget", "fps", "max_frames", "response_format"},
        ),
        ("qwen3-vl-plus", set()),
        ("qwen-vl-max", {"enable_thinking", "thinking_budget"}),
    ],
)
@pytest.mark.parametrize("endpoint", [BEI, "dashscope/beijing", "simulator/dashscope-beijing"])
def test_forbidden_parameters(bundled: Catalogue, endpoint: str, model: str, forbidden: set[str]) -> None:
    assert bundled.model(endpoint, model).rules.forbidden == forbidden


# Contract 2.2 (Kimi), 8.4 (cache of Qwen-VL) and 8.7 (partial mode): what it does, what it doesn't.
FEATURES = [
    (BEI, "kimi-k2.5", "", "cache partial web_search"),
    (BEI, "kimi-k2-thinking", "", "cache partial web_search"),
    (BEI, "Moonshot-Kimi-K2-Instruct", "web_search", "cache partial"),
    (SIN, "qwen3-vl-plus", "cache partial", ""),
    (VIR, "qwen3-vl-flash", "cache partial", ""),
    (SIN, "qwen-vl-max", "cache partial", ""),
    (BEI, "qwen3-vl-235b-a22b-thinking", "", "partial"),
    (BEI, "qwen3-vl-8b-instruct", "partial", ""),
    (BEI, "qwen-vl-max-2025-04-08", "", ""),
    ("acedata", "kimi-k2.5", "", ""),
    ("moonshot", "kimi-k2.5", "cache partial", ""),
    ("moonshot", "kimi-k2-thinking-turbo", "cache", ""),
    ("moonshot/china", "kimi-k2.5", "partial", ""),
]


@pytest.mark.parametrize(("endpoint", "model", "has", "lacks"), FEATURES)
def test_features(bundled: Catalogue, endpoint: str, model: str, has: str, lacks: str) -> None:
    found = bundled.model(endpoint, model)
    assert (" ".join(sorted(found.features)), " ".join(sorted(found.lacks))) == (has, lacks)


# Contract O9: said of Qwen-VL alone.
@pytest.mark.parametrize(
    ("endpoint", "model", "fine"),
    [
        (SIN, "qwen3-vl-plus", False),
        (VIR, "qwen3-vl-flash-us", False),
        (BEI, "qwen3-vl-235b-a22b-thinking", False),
        (BEI, "kimi-k2.5", True),
    ],
)
def test_system_message_while_thinking(bundled: Catalogue, endpoint: str, model: str, fine: bool) -> None:
    assert bundled.model(endpoint, model).system_while_thinking is fine


# Contract 1.2 and 1.4.
@pytest.mark.parametrize(
    ("model", "task"),
    [
        ("kimi-k2.5", "multimodal-generation"),
        ("kimi-k2-thinking", "text-generation"),
        ("Moonshot-Kimi-K2-Instruct", "text-generation"),
        ("qwen3-vl-plus", "multimodal-generation"),
        ("qwen-vl-max", "multimodal-generation"),
        ("qwen3-vl-235b-a22b-thinking", "multimodal-generation"),
    ],
)
def test_task_of_a_model_in_the_native_form(bundled: Catalogue, model: str, task: str) -> None:
    assert bundled.model("dashscope/beijing", model).rules.native_task == task


@pytest.mark.parametrize("region", REGIONS)
def test_native_endpoint_has_the_models_of_the_compatible_one(bundled: Catalogue, region: str) -> None:
    native, compat = bundled.endpoint(f"dashscope/{region}"), bundled.endpoint(f"model-studio/{region}")
    assert (native.dialect, native.error_table, native.models) == ("native", "model-studio", compat.models)


def test_batch_chat_is_where_jobs_of_beijing_go_in_that_mode(bundled: Catalogue) -> None:
    ordinary, batch = bundled.endpoint_for(BEI, "online"), bundled.endpoint_for(BEI, "batch-chat")
    assert (ordinary.name, batch.name) == (BEI, BATCH)
    assert batch.base_url == "https://batch.dashscope.aliyuncs.com/compatible-mode/v1"
    assert (batch.key_env, batch.error_table, batch.dialect) == (ordinary.key_env, "model-studio", "compat")
    assert batch.limited_as == ("model-studio", "beijing-batch")
    assert bundled.endpoint_for("simulator/model-studio-beijing", "batch-chat").simulates == BATCH


def test_a_model_in_batch_chat_differs_in_price_limits_and_cache_alone(bundled: Catalogue) -> None:
    ordinary, batch = (bundled.model(name, "qwen3-vl-plus") for name in (BEI, BATCH))
    names = ("prices", "limits", "features", "lacks", "source")
    assert replace(batch, **{name: getattr(ordinary, name) for name in names}) == ordinary
    assert (batch.limits, set(batch.features), set(batch.lacks)) == (Limits(), {"partial"}, {"cache"})


@pytest.mark.parametrize("tiers", range(3))
def test_batch_chat_costs_half(bundled: Catalogue, tiers: int) -> None:
    ordinary, batch = (price_of(bundled, name, "qwen3-vl-plus").tiers[tiers] for name in (BEI, BATCH))
    assert (batch.up_to, 2 * batch.input, 2 * batch.output) == (ordinary.up_to, ordinary.input, ordinary.output)
    assert (batch.cached_input, batch.cache_write) == (None, None)


@pytest.mark.parametrize(
    ("provider", "mode", "message", "remedy"),
    [
        (SIN, "batch-chat", f"{SIN} has no batch chat; known is that of {BEI}", "delete `mode: batch-chat`"),
        ("dashscope/beijing", "batch-chat", "dashscope/beijing has no batch chat; known is that of", "delete"),
        (
            "simulator/moonshot",
            "batch-chat",
            "simulator/moonshot has no batch chat; known is that of simulator/model-studio-beijing",
            "delete",
        ),
        (
            BATCH,
            "online",
            f"jobs don't name {BATCH}: it is the batch chat of {BEI}",
            f"write `provider: {BEI}` and `mode",
        ),
    ],
)
def test_where_there_is_no_batch_chat(bundled: Catalogue, provider: str, mode: Mode, message: str, remedy: str) -> None:
    with pytest.raises(CatalogueError) as raised:
        bundled.endpoint_for(provider, mode)
    assert raised.value.code == "batch-chat"
    assert raised.value.message.startswith(message)
    assert raised.value.remedy.startswith(remedy)


@pytest.mark.parametrize("model", ["qwen3-vl-flash", "kimi-k2.5"])
def test_a_model_that_batch_chat_is_not_known_to_take(bundled: Catalogue, model: str) -> None:
    with pytest.raises(CatalogueError, match=f"the batch chat of {BEI} isn't known to take `{model}`") as raised:
        bundled.model(BATCH, model)
    assert raised.value.remedy == (
        "delete `mode: batch-chat` for the ordinary price, choose qwen3-vl-plus, or add the model and its price to "
        f"{BATCH} in a catalogue file of your own"
    )


def test_a_model_that_is_added_to_batch_chat_has_no_price_before_one_is_written(load: Load) -> None:
    added = load(f"endpoints: {{{BATCH}: {{models: {{qwen3-vl-flash: {{}}}}}}}}")
    model = added.model(BATCH, "qwen3-vl-flash")
    assert (model.context, model.prices, model.limits) == (262_144, (), Limits())
    assert model.replaced_by == "qwen3.6-flash"
    assert "qwen3-vl-flash" in added.endpoint("simulator/model-studio-beijing-batch").models


@pytest.mark.parametrize("region", REGIONS)
def test_both_forms_count_together_under_the_limits(bundled: Catalogue, region: str) -> None:
    native, compat = bundled.endpoint(f"dashscope/{region}"), bundled.endpoint(f"model-studio/{region}")
    assert native.limited_as == compat.limited_as == ("model-studio", region)


@pytest.mark.parametrize("region", REGIONS)
def test_both_simulators_count_together_under_the_limits(bundled: Catalogue, region: str) -> None:
    native = bundled.endpoint(f"simulator/dashscope-{region}")
    compat = bundled.endpoint(f"simulator/model-studio-{region}")
    assert native.limited_as == compat.limited_as == ("simulator", f"model-studio-{region}")
    assert native.key_env == compat.key_env


def test_simulator_of_the_native_form_speaks_it(bundled: Catalogue) -> None:
    endpoint = bundled.endpoint("simulator/dashscope-virginia")
    assert (endpoint.dialect, endpoint.simulates, endpoint.error_table) == (
        "native",
        "dashscope/virginia",
        "model-studio",
    )
    assert endpoint.models.keys() - bundled.endpoint(VIR).models.keys() == {"sim-unpriced"}


@pytest.mark.parametrize(
    ("endpoint", "model", "media"),
    [
        (BEI, "kimi-k2.5", (True, True)),
        (BEI, "kimi-k2-thinking", (False, False)),
        (BEI, "Moonshot-Kimi-K2-Instruct", (False, False)),
        (SIN, "qwen-vl-plus", (True, True)),
        ("acedata", "kimi-k2.5", (False, False)),
    ],
)
def test_media_of_a_model(bundled: Catalogue, endpoint: str, model: str, media: tuple[bool, bool]) -> None:
    found = bundled.model(endpoint, model)
    assert (found.images, found.videos) == media


def test_picture_has_at_most_16384_tokens_and_two_marks(bundled: Catalogue) -> None:
    assert bundled.model(SIN, "qwen3-vl-flash").max_image_tokens == 16_386


# Contract 8.3.1 and 8.3.2: pixels of a token's side, default bounds of a picture as the official pages claim them.
FORMULAS = [
    ("qwen3-vl-plus", 32, (4_096, 65_536), (2_621_440, 2_621_440)),
    ("qwen3-vl-flash", 32, (4_096, 65_536), (2_621_440, 2_621_440)),
    ("qwen3-vl-235b-a22b-instruct", 32, (4_096, 65_536), (2_621_440, 2_621_440)),
    ("qwen-vl-max", 32, (4_096, 4_096), (1_310_720, 2_621_440)),
    ("qwen-vl-plus", 32, (4_096, 4_096), (1_310_720, 2_621_440)),
    ("qwen-vl-max-2025-08-13", 32, (4_096, 4_096), (1_310_720, 2_621_440)),
    ("qwen-vl-max-2025-04-08", 28, (3_136, 3_136), (1_003_520, 1_003_520)),
    ("qwen-vl-plus-2025-01-02", 28, (3_136, 3_136), (1_003_520, 1_003_520)),
    ("qvq-plus", 28, (3_136, 3_136), (1_003_520, 1_003_520)),
    ("qwen2.5-vl-3b-instruct", 28, (3_136, 3_136), (1_003_520, 1_003_520)),
]


@pytest.mark.parametrize(("model", "factor", "min_pixels", "max_pixels"), FORMULAS)
def test_formula_of_picture_tokens(
    bundled: Catalogue, model: str, factor: int, min_pixels: tuple[int, int], max_pixels: tuple[int, int]
) -> None:
    found = {bundled.model(endpoint, model).picture_tokens for endpoint in (SIN, BEI)}
    assert found == {PictureFormula(factor=factor, min_pixels=min_pixels, max_pixels=max_pixels)}


def test_no_formula_is_known_for_kimi(bundled: Catalogue) -> None:
    assert bundled.model(BEI, "kimi-k2.5").picture_tokens is None


def test_size_of_a_picture_for_kimi_is_not_known(bundled: Catalogue) -> None:
    assert bundled.model(BEI, "kimi-k2.5").max_image_tokens is None


# Contract 8.13.
@pytest.mark.parametrize(
    ("endpoint", "model", "successor"),
    [
        (SIN, "qwen3-vl-flash", "qwen3.6-flash"),
        (VIR, "qwen3-vl-flash-us", "qwen3.6-flash"),
        (SIN, "qwen-vl-max", "qwen3.7-plus"),
        (SIN, "qwen-vl-plus", "qwen3.7-plus"),
        (BEI, "qwen3-vl-235b-a22b-thinking", "qwen3.7-plus"),
        (BEI, "kimi-k2-thinking", "qwen3.7-plus"),
        (SIN, "qvq-max", "qwen3.7-plus"),
        (BEI, "Moonshot-Kimi-K2-Instruct", "qwen3.7-plus"),
    ],
)
def test_retired_model_names_its_successor(bundled: Catalogue, endpoint: str, model: str, successor: str) -> None:
    found = bundled.model(endpoint, model)
    assert (found.retired_on, found.replaced_by) == (date(2026, 10, 10), successor)


@pytest.mark.parametrize(
    "model",
    ["qwen-vl-max-latest", "qwen-vl-max-2025-08-13", "qwen-vl-plus-2025-01-02", "qvq-max-latest", *sorted(OPEN_QWEN25)],
)
def test_snapshots_and_the_open_qwen25_ended_earlier(bundled: Catalogue, model: str) -> None:
    assert bundled.model(SIN, model).retired_on == date(2026, 5, 13)


@pytest.mark.parametrize("model", ["kimi-k2.5", "qwen3-vl-plus"])
def test_two_models_have_no_date_of_retirement(bundled: Catalogue, model: str) -> None:
    assert bundled.model(BEI, model).retired_on is None


def test_retirement_is_said_from_its_day_on(bundled: Catalogue) -> None:
    notice = bundled.model(SIN, "qwen3-vl-flash").retirement_notice(date(2026, 10, 10))
    assert notice == "qwen3-vl-flash: announced end 2026-10-10, successor qwen3.6-flash"


@pytest.mark.parametrize(("model", "day"), [("qwen3-vl-flash", date(2026, 10, 9)), ("qwen3-vl-plus", date(2030, 1, 1))])
def test_retirement_is_not_said_before_its_day_or_without_one(bundled: Catalogue, model: str, day: date) -> None:
    assert bundled.model(SIN, model).retirement_notice(day) is None


def test_every_listed_figure_has_a_source_and_the_day_it_was_checked(bundled: Catalogue) -> None:
    without = [
        (endpoint.name, model.id)
        for endpoint in bundled.endpoints.values()
        for model in endpoint.models.values()
        if model.id != "sim-unpriced"
        for source, day in [
            (model.source, model.checked_on),
            *((price.source, price.checked_on) for price in model.prices),
        ]
        if not source or day is None or day < date(2026, 11, 22)
    ]
    assert without == []


@pytest.mark.parametrize("region", REGIONS)
def test_simulator_has_the_models_of_the_real_endpoint(bundled: Catalogue, region: str) -> None:
    simulator = dict(bundled.endpoint(f"simulator/model-studio-{region}").models)
    del simulator["sim-unpriced"]
    assert simulator == bundled.endpoint(f"model-studio/{region}").models


def test_simulator_says_what_it_simulates(bundled: Catalogue) -> None:
    endpoint = bundled.endpoint("simulator/model-studio-virginia")
    assert (endpoint.simulated, endpoint.simulates) == (True, VIR)
    assert (endpoint.provider, endpoint.region) == ("simulator", "model-studio-virginia")
    assert (endpoint.base_url, endpoint.dialect, endpoint.error_table) == ("", "compat", "model-studio")


def test_simulator_has_a_model_without_a_price(bundled: Catalogue) -> None:
    model = bundled.model("simulator/model-studio-beijing", "sim-unpriced")
    assert (model.images, model.videos, model.price_at(NOW)) == (True, False, None)


def test_unpriced_model_exists_in_simulators_only(bundled: Catalogue) -> None:
    with pytest.raises(CatalogueError):
        bundled.model(SIN, "sim-unpriced")


def test_started_simulator_is_the_same_endpoint_at_its_address(bundled: Catalogue) -> None:
    endpoint = bundled.endpoint("simulator/model-studio-singapore")
    at = endpoint.at("http://127.0.0.1:4711/singapore/")
    assert (at.base_url, at.models) == ("http://127.0.0.1:4711/singapore", endpoint.models)


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", "", "http://user:word@127.0.0.1/", "http://10.1.2.3/"])
def test_endpoint_is_not_moved_to_an_address_that_cannot_be_used(bundled: Catalogue, url: str) -> None:
    with pytest.raises(CatalogueError) as caught:
        bundled.endpoint("simulator/model-studio-singapore").at(url)
    assert caught.value.code == "base-url"
    assert caught.value.remedy


def thinker(thinking: str, *, budget: bool = True, by_default: bool = False, cot: int | None = 500) -> Model:
    return Model(
        id="m",
        rules=ModelRules(thinking=thinking, thinking_budget=budget),
        thinks_by_default=by_default,
        max_input_thinking=80,
        max_input=90,
        context=100,
        max_cot=cot,
        max_output=30,
    )


@pytest.mark.parametrize(
    ("model", "max_tokens", "thinking", "bound"),
    [
        (thinker("never"), None, None, 30),
        (thinker("never"), 7, None, 7),
        (thinker("never"), 7, Thinking(enabled=True), 7),
        (thinker("switchable"), 7, None, 7),
        (thinker("switchable"), 7, Thinking(enabled=False), 7),
        (thinker("switchable"), 7, Thinking(enabled=True), 507),
        (thinker("switchable"), None, Thinking(enabled=True), 530),
        (thinker("switchable"), None, Thinking(enabled=True, budget=20), 50),
        (thinker("switchable"), None, Thinking(enabled=False, budget=20), 30),
        (thinker("switchable", budget=False), None, Thinking(enabled=True, budget=20), 530),
        (thinker("switchable", by_default=True), None, None, 530),
        (thinker("switchable", by_default=True), None, Thinking(enabled=False), 30),
        (thinker("always"), None, None, 530),
        (thinker("always"), 7, Thinking(enabled=False), 507),
        (thinker("always", cot=None), 7, None, 100),
        (replace(thinker("always", cot=None), context=None), 7, None, None),
        (thinker("always", cot=None), 7, Thinking(enabled=True, budget=9), 16),
        (Model(id="m"), None, None, None),
        (Model(id="m"), 7, None, 7),
    ],
)
def test_output_bound(model: Model, max_tokens: int | None, thinking: Thinking | None, bound: int | None) -> None:
    assert model.output_bound(max_tokens=max_tokens, thinking=thinking) == bound


@pytest.mark.parametrize(
    ("model", "thinking", "limit"),
    [
        (thinker("switchable"), True, 80),
        (thinker("switchable"), False, 90),
        (thinker("always"), False, 80),
        (thinker("never"), True, 90),
        (Model(id="m", max_input_thinking=80, context=100), False, 100),
        (Model(id="m"), True, None),
    ],
)
def test_input_limit(model: Model, thinking: bool, limit: int | None) -> None:
    assert model.input_limit(thinking) == limit


def test_unknown_endpoint_is_answered_with_the_nearest_and_all_names(bundled: Catalogue) -> None:
    with pytest.raises(CatalogueError) as caught:
        bundled.endpoint("model-studio/singapur")
    assert caught.value.message == (
        "no provider `model-studio/singapur` in the catalogue; did you mean model-studio/singapore?"
    )
    assert "dashscope/virginia, litellm, model-studio/beijing, model-studio/singapore" in caught.value.remedy
    assert caught.value.exit_code == EXIT_USAGE


def test_provider_without_its_region_is_answered_with_the_regions(bundled: Catalogue) -> None:
    with pytest.raises(CatalogueError, match="did you mean model-studio/singapore or model-studio/virginia or"):
        bundled.endpoint("model-studio")


def test_model_of_another_region_is_answered_with_where_it_exists(bundled: Catalogue) -> None:
    with pytest.raises(CatalogueError) as caught:
        bundled.model(SIN, "kimi-k2.5")
    assert caught.value.message == (
        "no model `kimi-k2.5` at model-studio/singapore; it exists at model-studio/beijing, dashscope/beijing, "
        "acedata, moonshot, moonshot/china, simulator/model-studio-beijing, simulator/dashscope-beijing, "
        "simulator/acedata, simulator/moonshot"
    )


@pytest.mark.parametrize("name", ["Qwen3-VL-Plus", "qwen3-vl-pluss", "qwen3-vl_plus"])
def test_misspelled_model_is_answered_with_the_nearest(bundled: Catalogue, name: str) -> None:
    with pytest.raises(CatalogueError, match="did you mean qwen3-vl-plus"):
        bundled.model(SIN, name)


def test_name_in_a_message_cannot_write_to_the_terminal(bundled: Catalogue) -> None:
    with pytest.raises(CatalogueError) as caught:
        bundled.endpoint("a\x1b[2Jb")
    assert "\x1b" not in caught.value.message


OWN_SERVER = """\
endpoints:
  my-vllm:
    dialect: compat
    base_url: http://127.0.0.1:8000/v1/
    key_env: []
    open_models: true
"""


def test_own_server_is_added(load: Load) -> None:
    assert load(OWN_SERVER).endpoint("my-vllm") == Endpoint(
        name="my-vllm",
        provider="my-vllm",
        region="",
        dialect="compat",
        base_url="http://127.0.0.1:8000/v1",
        key_env=(),
        allow_http=False,
        simulated=False,
        simulates=None,
        models_of=None,
        error_table="openai",
        models={},
        open_models=True,
    )


def test_open_server_takes_any_model(load: Load) -> None:
    assert load(OWN_SERVER).model("my-vllm", "org/any:7b") == Model(id="org/any:7b")


def test_own_price_holds_in_every_form_and_its_simulators(load: Load) -> None:
    own = load(
        "endpoints: {model-studio/beijing: {models: {kimi-k2.5: "
        "{prices: [{currency: CNY, tiers: [{input: 4, output: 21}]}]}}}}"
    )
    names = (BEI, "dashscope/beijing", "simulator/model-studio-beijing", "simulator/dashscope-beijing")
    assert {price_of(own, name, "kimi-k2.5").currency for name in names} == {"CNY"}


def test_own_model_of_one_form_alone(load: Load) -> None:
    own = load("endpoints: {dashscope/beijing: {models: {kimi-k2.5: {max_output: 7}, qwen-plus: {images: false}}}}")
    after = own.model("dashscope/beijing", "kimi-k2.5")
    assert (after.max_output, after.max_cot, own.model(BEI, "kimi-k2.5").max_output) == (7, 32_768, 32_768)
    assert not own.model("simulator/dashscope-beijing", "qwen-plus").images


def test_own_address_of_the_native_form(load: Load) -> None:
    own = load(
        "endpoints: {mine/beijing: {dialect: native, models_of: model-studio/beijing, "
        "base_url: https://w1.cn-beijing.maas.aliyuncs.com/api/v1}}"
    )
    assert own.model("mine/beijing", "kimi-k2.5") == own.model(BEI, "kimi-k2.5")


@pytest.mark.parametrize(
    ("fields", "table"),
    [
        ("dialect: native", "model-studio"),
        ("dialect: native, error_table: openai", "openai"),
        ("models_of: model-studio/beijing", "model-studio"),
        ("models_of: model-studio/beijing, error_table: acedata", "acedata"),
        ("dialect: compat", "openai"),
    ],
)
def test_error_table_where_none_is_named(load: Load, fields: str, table: str) -> None:
    assert load(f"endpoints: {{a: {{base_url: https://h, {fields}}}}}").endpoint("a").error_table == table


def test_own_file_leaves_everything_else(load: Load, bundled: Catalogue) -> None:
    catalogue = load(OWN_SERVER)
    assert {name: catalogue.endpoints[name] for name in bundled.endpoints} == bundled.endpoints


def test_endpoint_is_overridden_field_by_field(load: Load, bundled: Catalogue) -> None:
    own = load("endpoints: {model-studio/beijing: {base_url: https://w1.cn-beijing.maas.aliyuncs.com/v1}}")
    before, after = bundled.endpoint(BEI), own.endpoint(BEI)
    assert after.base_url == "https://w1.cn-beijing.maas.aliyuncs.com/v1"
    assert (after.key_env, after.models) == (before.key_env, before.models)


def own_model(text: str) -> str:
    return f"endpoints: {{model-studio/singapore: {{models: {{qwen3-vl-plus: {{{text}}}}}}}}}"


def test_model_is_overridden_field_by_field(load: Load, bundled: Catalogue) -> None:
    model = load(own_model("max_output: 65536")).model(SIN, "qwen3-vl-plus")
    before = bundled.model(SIN, "qwen3-vl-plus")
    assert (model.max_output, model.max_cot, model.prices) == (65_536, before.max_cot, before.prices)


SNAPSHOT = """
endpoints:
  model-studio/beijing:
    models:
      qwen3-vl-plus-2025-09-23:
        same_as: qwen3-vl-plus
        max_output: 1000
        limits: {requests_per_minute: 60}
"""


@pytest.mark.parametrize("endpoint", [BEI, "dashscope/beijing", "simulator/model-studio-beijing"])
def test_model_that_is_the_same_as_another_has_its_fields_below_its_own(load: Load, endpoint: str) -> None:
    catalogue = load(SNAPSHOT)
    found, other = catalogue.model(endpoint, "qwen3-vl-plus-2025-09-23"), catalogue.model(BEI, "qwen3-vl-plus")
    assert (found.rules, found.max_input, found.features) == (other.rules, other.max_input, other.features)
    assert found.max_output == 1000


def test_what_a_vendor_says_of_each_id_is_not_taken_from_another(load: Load) -> None:
    found = load(SNAPSHOT).model(BEI, "qwen3-vl-plus-2025-09-23")
    assert (found.prices, found.limits, found.retired_on) == ((), Limits(requests_per_minute=60), None)


def test_change_of_a_model_reaches_those_that_are_the_same(load: Load) -> None:
    own = "endpoints: {model-studio/beijing: {models: {qwen-vl-max: {videos: false}}}}"
    assert load(own).model("dashscope/beijing", "qwen-vl-max-latest").videos is False


def test_parameters_of_a_feature_that_is_lacking_are_forbidden(load: Load) -> None:
    own = "endpoints: {model-studio/beijing: {models: {qwen-vl-max: {lacks: [web_search]}}}}"
    forbidden = load(own).model(BEI, "qwen-vl-max").rules.forbidden
    assert "enable_search" in forbidden


def test_limits_are_overridden_one_by_one(load: Load) -> None:
    model = load(own_model("limits: {requests_per_minute: 6000}")).model(SIN, "qwen3-vl-plus")
    assert model.limits == Limits(requests_per_minute=6_000, tokens_per_minute=1_000_000)


def test_null_makes_a_figure_unknown_again(load: Load) -> None:
    model = load(own_model("max_cot: null, limits: {tokens_per_minute: null}")).model(SIN, "qwen3-vl-plus")
    assert (model.max_cot, model.limits.tokens_per_minute) == (None, None)


def test_own_prices_replace_those_of_the_model(load: Load) -> None:
    text = own_model("prices: [{currency: CNY, tiers: [{input: 1, output: 10}]}]")
    [price] = load(text).model(SIN, "qwen3-vl-plus").prices
    assert (price.currency, price.tiers[0].input, price.tiers[0].output) == ("CNY", D(1), D(10))


def test_own_price_without_a_date_holds_always(load: Load) -> None:
    text = own_model("prices: [{currency: USD, tiers: [{input: 1, output: 10}]}]")
    assert load(text).model(SIN, "qwen3-vl-plus").price_at(datetime(1970, 1, 1, tzinfo=UTC)) is not None


def test_empty_list_takes_the_prices_away(load: Load) -> None:
    assert load(own_model("prices: []")).model(SIN, "qwen3-vl-plus").price_at(NOW) is None


# Prices that the package genai-prices has collected

COLLECTED = """
endpoints:
  openai: {prices_from: genai-prices/openai, models: {gpt-5.4: {}}}
  openrouter: {prices_from: genai-prices/openrouter}
  deepseek: {base_url: https://api.deepseek.com, open_models: true, prices_from: genai-prices/deepseek}
  moonshot: {prices_from: genai-prices/moonshotai}
  my-openai: {simulates: openai}
  other-form: {models_of: openai, base_url: https://api.openai.com/v2, models: {gpt-5.4: {max_output: 9}}}
  simulated-with-words: {simulates: openai, models: {gpt-5.4: {max_output: 9}}}
"""


def test_collected_tiers_and_cached_rates_are_carried_over_exactly(load: Load) -> None:
    catalogue = load(COLLECTED)
    for endpoint in ("openai", "my-openai", "other-form", "simulated-with-words"):
        [price] = catalogue.model(endpoint, "gpt-5.4").prices
        assert (price.provider, price.region, price.model, price.currency) == ("openai", "", "gpt-5.4", "USD")
        assert price.source == f"genai-prices {version('genai-prices')}, openai/gpt-5.4"
        assert price.tiers == (
            Tier(up_to=272_000, input=D("2.5"), output=D("15"), cached_input=D("0.25")),
            Tier(up_to=None, input=D("5"), output=D("22.5"), cached_input=D("0.5")),
        )


def test_each_day_on_which_a_collected_price_changed_begins_another(load: Load) -> None:
    model = load(COLLECTED).model("openrouter", "moonshotai/kimi-k2.5")
    days = [ALWAYS, datetime(2026, 10, 19, tzinfo=UTC), datetime(2026, 11, 3, tzinfo=UTC)]
    assert [price.valid_from for price in model.prices[:3]] == days
    assert [price.tiers[0].output for price in model.prices[:3]] == [D("1.9"), D("2.5"), D("3.325")]


def test_a_collected_price_never_replaces_a_written_one(load: Load) -> None:
    written = "{gpt-4o: {prices: [{currency: EUR, tiers: [{input: 7, output: 9}]}]}}"
    collected = "prices_from: genai-prices"
    catalogue = load(
        f"endpoints: {{openai: {{{collected}/openai, models: {written}}}, moonshot: {{{collected}/moonshotai}}}}"
    )
    [own] = catalogue.model("openai", "gpt-4o").prices
    [bundled] = catalogue.model("moonshot", "kimi-k2.5").prices
    assert (own.currency, own.source) == ("EUR", "own catalogue file")
    assert bundled.source.startswith("Moonshot's prices")


@pytest.mark.parametrize(
    ("endpoint", "model", "reason"),
    [
        ("openai", "gpt-image-1", "depends on more than tokens in and out (cache_image_read_mtok, input_image_mtok)"),
        ("openai", "gpt-4o-of-my-own", "has no price of `gpt-4o-of-my-own` at openai"),
        ("openai", "text-embedding-3-small", "there is no price of tokens in, or none of tokens out"),
        ("deepseek", "deepseek-chat", "depends on the time of day"),
        ("openrouter", "moonshotai/kimi-k2.5", ""),
    ],
)
def test_what_a_price_here_cant_say_is_refused_with_the_reason(
    load: Load, endpoint: str, model: str, reason: str
) -> None:
    found = load(COLLECTED).model(endpoint, model)
    assert reason in found.unpriced
    assert bool(found.prices) is not bool(reason)


def test_without_an_entry_that_asks_for_it_nothing_is_collected(bundled: Catalogue) -> None:
    found = bundled.model("openai", "gpt-5.4")
    assert (found.prices, found.unpriced) == ((), "")


SEALED = """
import sys
def refuse(event, _):
    if event.startswith("socket."):
        raise SystemExit(event)
sys.addaudithook(refuse)
if "missing" in sys.argv:
    sys.modules["genai_prices"] = sys.modules["genai_prices.data"] = None
from pathlib import Path
from batchrun.catalogue import CatalogueError, load_catalogue
try:
    print(len(load_catalogue(Path("own.yaml")).model("openai", "gpt-5.4").prices))
except CatalogueError as error:
    print(error.message)
"""


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        ((), "1"),
        (
            ("missing",),
            'own.yaml:1:35: endpoints["openai"].prices_from: needs another package. '
            "Install it: pip install 'batchrun[genai-prices]'",
        ),
    ],
)
def test_collecting_uses_no_network_and_names_what_to_install(
    tmp_path: Path, words: tuple[str, ...], printed: str
) -> None:
    (tmp_path / "own.yaml").write_text("endpoints: {openai: {prices_from: genai-prices/openai}}", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", SEALED, *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.stderr) == (printed, "")


def test_override_of_a_real_endpoint_reaches_its_simulator(load: Load) -> None:
    model = load(own_model("max_output: 65536")).model("simulator/model-studio-singapore", "qwen3-vl-plus")
    assert model.max_output == 65_536


def test_simulator_may_differ_from_what_it_simulates(load: Load) -> None:
    text = "endpoints: {simulator/model-studio-singapore: {models: {qwen3-vl-plus: {max_output: 5}}}}"
    catalogue = load(text)
    assert catalogue.model("simulator/model-studio-singapore", "qwen3-vl-plus").max_output == 5
    assert catalogue.model(SIN, "qwen3-vl-plus").max_output == 32_768


def test_price_that_holds_is_the_latest_that_has_begun(load: Load) -> None:
    text = own_model(
        "prices: ["
        "{currency: USD, valid_from: 2026-12-01T00:00:00+08:00, tiers: [{input: 2, output: 2}]}, "
        "{currency: USD, valid_from: 2026-06-01T00:00:00Z, tiers: [{input: 1, output: 1}]}]"
    )
    model = load(text).model(SIN, "qwen3-vl-plus")
    moments = [(5, 31, 23, 59), (6, 1, 0, 0), (11, 30, 15, 59), (11, 30, 16, 0)]
    found = [model.price_at(datetime(2026, *moment, tzinfo=UTC)) for moment in moments]
    assert [price and price.tiers[0].input for price in found] == [None, 1, 1, 2]


@pytest.mark.parametrize("written", ["0.05", "'0.05'", '"0.05"'])
def test_rate_is_read_exactly(load: Load, written: str) -> None:
    text = own_model(f"prices: [{{currency: USD, tiers: [{{input: {written}, output: 0.1}}]}}]")
    [price] = load(text).model(SIN, "qwen3-vl-plus").prices
    assert str(price.tiers[0].input) == "0.05"


def test_rate_with_many_digits_is_not_rounded(load: Load) -> None:
    text = own_model("prices: [{currency: USD, tiers: [{input: 1234567.123456789012, output: 0.1}]}]")
    [price] = load(text).model(SIN, "qwen3-vl-plus").prices
    assert price.tiers[0].input == D("1234567.123456789012")


@pytest.mark.parametrize(
    "written",
    [
        "-1",
        "-0.5",
        ".nan",
        ".inf",
        "NaN",
        "5e-2",
        "1e3",
        "0.0000000000001",
        "9000001",
        ".5",
        "5.",
        "'1,5'",
        "0x10",
        "012",
        "true",
        "''",
        "[1]",
    ],
)
def test_rate_that_is_not_a_plain_number_is_refused(refused: Callable[[str], str], written: str) -> None:
    message = refused(own_model(f"prices: [{{currency: USD, tiers: [{{input: {written}, output: 0.1}}]}}]"))
    assert "own.yaml:1:" in message
    assert "price per 1,000,000 tokens" in message or "not a number that can be used" in message


WRONG = [
    ("nonsense: 1", "own.yaml:1:1: nonsense: is not a key that is known here. Known are: endpoints"),
    (
        "endpoints:\n  a:\n    base_ulr: https://h/v1\n    base_url: https://h/v1\n",
        'own.yaml:3:5: endpoints["a"].base_ulr: is not a key that is known here. Write `base_url`',
    ),
    (
        "endpoints:\n  a:\n    base_url: https://h\n    api_key: sk-12345678\n",
        'own.yaml:4:5: endpoints["a"].api_key: is not a key that is known here. '
        "Put the key into the environment, and the name of its variable into `key_env`",
    ),
    (
        "endpoints:\n  a: {base_url: https://h}\n  a: {base_url: https://i}\n",
        "own.yaml:3:3: the key `a` stands here a second time; the first is at 2:3. Delete one of the two",
    ),
    (own_model("images: yes"), 'models["qwen3-vl-plus"].images: must be true or false'),
    (own_model("context: '262144'"), ".context: must be a whole number. Write it in digits alone, such as 32768"),
    (own_model("context: 2.5"), ".context: must be a whole number"),
    (own_model("context: 0"), ".context: must be at least 1"),
    (own_model("context: 9000000000"), ".context: must be at most 1,000,000,000"),
    (own_model("limits: {requests_per_minute: -5}"), ".limits.requests_per_minute: must be at least 1"),
    (own_model("limits: {requests: 5}"), ".limits.requests: is not a key that is known here"),
    (
        own_model("picture_tokens: {factor: 32, min_pixels: [4096], max_pixels: [1, 2]}"),
        ".picture_tokens.min_pixels: must be two numbers, the lower one first. Write for example [4096, 65536]",
    ),
    (
        own_model("picture_tokens: {factor: 32, min_pixels: [4, 4], max_pixels: [9, 8]}"),
        ".picture_tokens.max_pixels: must be two numbers, the lower one first",
    ),
    (
        own_model("picture_tokens: {factors: 32}"),
        ".picture_tokens.factors: is not a key that is known here. Write `factor`",
    ),
    (own_model("retirement: {on: 10.10.2026}"), ".retirement.on: must be a date. Write for example 2026-10-10"),
    (own_model("retirement: {when: 2026-10-10}"), ".retirement.when: is not a key that is known here"),
    (
        own_model("thinking: sometimes"),
        ".thinking: is none of the words that are known here. Write 'never', 'always' or 'switchable'",
    ),
    (own_model("prices: {}"), ".prices: must be a list"),
    (own_model("prices: [{currency: USD, tiers: []}]"), ".prices[0].tiers: must not be empty"),
    (own_model("prices: [{tiers: [{input: 1, output: 1}]}]"), ".prices[0].currency: is missing"),
    ("endpoints: {mine: {prices_from: litellm}}", "is no source of prices. Write for example genai-prices/openai"),
    (
        "endpoints: {mine: {base_url: http://127.0.0.1, prices_from: genai-prices/opnai}}",
        "is no vendor that genai-prices has. Known are: anthropic, ",
    ),
    (own_model("prices: [{currency: usd, tiers: [{input: 1, output: 1}]}]"), "must be the three letters of a currency"),
    (own_model("prices: [{currency: USD, tiers: [{input: 1}]}]"), ".tiers[0].output: is missing"),
    (own_model("prices: [{currency: USD, tiers: [{input: 1, output: 1, cached: 1}]}]"), "Write `cached_input`"),
    (
        own_model("prices: [{currency: USD, tiers: [{input: 1, output: 1}, {input: 1, output: 1}]}]"),
        "has a tier without `up_to` that is not the last",
    ),
    (
        own_model(
            "prices: [{currency: USD, tiers: [{up_to: 9, input: 1, output: 1}, {up_to: 9, input: 1, output: 1}]}]"
        ),
        "must rise in `up_to` from tier to tier",
    ),
    (
        own_model("prices: [{currency: USD, valid_from: 2026-01-01, tiers: [{input: 1, output: 1}]}]"),
        ".valid_from: must be a time with its zone. Write for example 2026-01-01T00:00:00Z",
    ),
    (
        own_model(
            "prices: [{currency: USD, tiers: [{input: 1, output: 1}]}, {currency: CNY, tiers: [{input: 1, output: 1}]}]"
        ),
        ".prices: has two prices from the same moment on",
    ),
    (
        "endpoints:\n  a: {dialect: grpc, base_url: https://h}",
        "endpoints[\"a\"].dialect: is none of the words that are known here. Write 'compat' or 'native'",
    ),
    (
        own_model("native_task: image-synthesis"),
        "is none of the words that are known here. Write 'multimodal-generation' or 'text-generation'",
    ),
    (
        "endpoints:\n  a: {base_url: https://h, models_of: nobody}",
        'own.yaml:2:39: endpoints["a"].models_of: is not the name of a real endpoint with models of its own. '
        "Known are: model-studio/singapore",
    ),
    ("endpoints: {a: {base_url: https://h, models_of: dashscope/beijing}}", "with models of its own"),
    ("endpoints: {a: {base_url: https://h, models_of: a}}", "with models of its own"),
    ("endpoints: {a: {base_url: https://h, models_of: simulator/model-studio-beijing}}", "with models of its own"),
    ("endpoints: {a: {simulates: acedata, models_of: acedata}}", ".models_of: is not needed beside `simulates`"),
    ("endpoints: {a: {base_url: https://h, batch_chat_of: dashscope/beijing}}", "with models of its own"),
    (
        "endpoints: {a: {base_url: https://h, models_of: acedata, batch_chat_of: acedata}}",
        ".batch_chat_of: can't stand beside `models_of`",
    ),
    ("endpoints: {a: {base_url: https://h, answers_within: 0}}", ".answers_within"),
    ("endpoints:\n  a: {open_models: true}", 'own.yaml:2:6: endpoints["a"]: has no `base_url`'),
    ("endpoints:\n  a: null", 'own.yaml:2:6: endpoints["a"]: must be a mapping'),
    (
        "endpoints:\n  A B: {base_url: https://h}",
        'own.yaml:2:3: endpoints["A B"]: is not a name that a job file can use',
    ),
    ("endpoints:\n  a/b/c: {base_url: https://h}", "is not a name that a job file can use"),
    ("endpoints: {a: {base_url: https://h, models: {' m': {}}}}", "is not a model id"),
    (
        "endpoints:\n  a: {simulates: nobody}",
        'own.yaml:2:18: endpoints["a"].simulates: is not the name of a real endpoint',
    ),
    ("endpoints: {a: {simulates: simulator/model-studio-beijing}}", "is not the name of a real endpoint"),
    ("endpoints: {a: {simulates: a}}", "is not the name of a real endpoint"),
    (own_model("same_as: nothing"), ".same_as: is not the id of a model of this endpoint with facts of its own"),
    (own_model("features: [partial], lacks: [partial]"), ".lacks: names partial, as `features` does"),
    (own_model("features: [flying]"), ".features[0]: is none of the words that are known here"),
    (own_model("thinking: never, thinks_by_default: true"), ".thinks_by_default: contradicts `thinking: never`"),
    ("- 1", "own.yaml:1:1: must be a mapping"),
    ("endpoints: &x {}", "anchors such as `&x` are not allowed"),
    ("endpoints: [", "own.yaml:1:13: not valid YAML"),
    ("", "own.yaml:1:1: the file is empty. Write `endpoints:`"),
    ("endpoints: {}\n---\nendpoints: {}", "own.yaml:2:1: a second YAML document starts here. Write `endpoints:`"),
]


@pytest.mark.parametrize(("text", "expected"), WRONG, ids=range(len(WRONG)))
def test_wrong_own_file_is_refused_with_place_and_remedy(
    refused: Callable[[str], str], text: str, expected: str
) -> None:
    assert expected in refused(text)


def test_all_problems_are_reported_at_once_in_their_order(refused: Callable[[str], str]) -> None:
    lines = refused("endpoints:\n  a:\n    images: 1\n    base_url: ftp://h\n    key_env: [a b]\n").splitlines()
    assert [line.split(": ")[0] for line in lines] == ["own.yaml:3:5", "own.yaml:4:15", "own.yaml:5:15"]


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/v1",
        "host/v1",
        "https://",
        "https:///v1",
        "https://host:port/v1",
        "https://host:99999/v1",
        "https://ho st/v1",
        "https://[::1/v1",
        "https://hööst/v1",
        r"https://good.example\@evil.example/v1",
    ],
)
def test_base_url_that_is_no_web_address_is_refused(refused: Callable[[str], str], url: str) -> None:
    assert '"a"].base_url: must be an http or https address' in refused(f"endpoints: {{a: {{base_url: '{url}'}}}}")


@pytest.mark.parametrize("url", ["https://h/v1?x=1", "https://h/v1?", "https://h/v1#x"])
def test_base_url_with_a_query_or_fragment_is_refused(refused: Callable[[str], str], url: str) -> None:
    assert "must not contain `?` or `#`" in refused(f"endpoints: {{a: {{base_url: '{url}'}}}}")


@pytest.mark.parametrize("url", ["https://name:verysecret@h/v1", "https://verysecret@h/v1", "https://@h/v1"])
def test_base_url_with_a_user_is_refused_and_not_repeated(refused: Callable[[str], str], url: str) -> None:
    message = refused(f"endpoints: {{a: {{base_url: '{url}'}}}}")
    assert "must not contain a user name or a key" in message
    assert "verysecret" not in message


@pytest.mark.parametrize("value", ["sk-1234567890abcdef", "lower_case", "1ABC", "A-B", "''"])
def test_key_env_takes_names_of_variables_and_repeats_nothing_else(refused: Callable[[str], str], value: str) -> None:
    message = refused(f"endpoints: {{a: {{base_url: https://h, key_env: [{value}]}}}}")
    assert '"a"].key_env[0]: must be the name of an environment variable' in message
    assert value not in message


EXPOSED = "endpoints: {{a: {{base_url: 'http://{host}/v1', key_env: [A_KEY]{more}}}}}"
OTHER_MACHINES = ["10.0.0.5:8000", "example.com", "127.0.0.1.example.com", "localhost.example.com", "0.0.0.0"]


@pytest.mark.parametrize("host", OTHER_MACHINES)
def test_key_over_plain_http_to_another_machine_is_refused(refused: Callable[[str], str], host: str) -> None:
    message = refused(EXPOSED.format(host=host, more=""))
    assert '"a"].base_url: would send a key over plain http to another machine' in message
    assert "allow_http: true" in message


def test_key_over_plain_http_can_be_allowed(load: Load) -> None:
    assert load(EXPOSED.format(host="10.0.0.5", more=", allow_http: true")).endpoint("a").allow_http


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "127.9.9.9", "localhost:8000", "[::1]:8000"])
def test_key_over_plain_http_to_this_machine_is_fine(load: Load, host: str) -> None:
    assert load(EXPOSED.format(host=host, more="")).endpoint("a").base_url == f"http://{host}/v1"


def test_plain_http_without_a_key_is_fine(load: Load) -> None:
    assert load("endpoints: {a: {base_url: 'http://10.0.0.5/v1'}}").endpoint("a").key_env == ()


def test_bundled_endpoint_moved_to_plain_http_is_refused_at_the_users_line(
    refused: Callable[[str], str],
) -> None:
    message = refused("endpoints:\n  acedata:\n    base_url: http://10.0.0.5/kimi\n")
    assert message.startswith('own.yaml:3:15: endpoints["acedata"].base_url: would send a key')


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match="No such file"):
        load_catalogue(tmp_path / "none.yaml")


def test_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match="is a folder, not a regular file"):
        load_catalogue(tmp_path)


def test_pipe_is_refused_and_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CatalogueError, match="is a pipe, not a regular file"):
        load_catalogue(tmp_path / "pipe")


def test_large_file_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "own.yaml").open("wb") as file:
        file.truncate(5_000_001)
    with pytest.raises(CatalogueError, match=r"is 5,000,001 bytes long; at most 5,000,000 are read"):
        load_catalogue(tmp_path / "own.yaml")


def test_other_encoding_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_bytes("# ok\n# Größe\n".encode("latin-1"))
    with pytest.raises(CatalogueError, match=r"own\.yaml:2: is not UTF-8 at byte 9"):
        load_catalogue(tmp_path / "own.yaml")


def test_byte_order_mark_and_windows_line_ends_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_bytes(b"\xef\xbb\xbf" + OWN_SERVER.replace("\n", "\r\n").encode())
    assert load_catalogue(tmp_path / "own.yaml").endpoint("my-vllm").open_models


def test_an_own_file_may_let_larger_videos_be_uploaded(load: Load) -> None:
    text = (
        "endpoints: {dashscope/singapore: {models: {mine: {video_rules: {url_bytes: 5, upload_bytes: 7}}, other: {}}}}"
    )
    models = load(text).endpoints["dashscope/singapore"].models
    assert (models["mine"].video_rules.upload_bytes, models["mine"].video_rules.url_bytes) == (7, 5)
    assert models["other"].video_rules.upload_bytes == 104_857_600

"""Prices, typed by hand from the provider contract (2.1 Kimi, 8.4 Qwen, 8.5 Moonshot), never read from elsewhere.

US dollars per 1,000,000 tokens. The tier is chosen by the input tokens of the one request and holds for
the whole request. "32K" is read as 32 x 1,024.
"""

from dataclasses import dataclass
from decimal import Decimal
from typing import Final

CURRENCY: Final = "USD"
CACHE_HIT_SHARE: Final = Decimal("0.2")
"""An implicit cache hit costs this share of the input price (8.4)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """Tokens of one request; cached, image and video lie within input, reasoning within output."""

    input: int = 0
    output: int = 0
    cached: int = 0
    reasoning: int = 0
    image: int = 0
    video: int = 0


@dataclass(frozen=True, slots=True)
class Tier:
    up_to: int | None
    input: Decimal
    output: Decimal
    cached: Decimal | None = None
    """Of cached input; None for the usual share of the input price."""

    @property
    def cache_hit(self) -> Decimal:
        return self.input * CACHE_HIT_SHARE if self.cached is None else self.cached


def flat(input_price: str, output_price: str, *, cached: str | None = None) -> tuple[Tier, ...]:
    return (Tier(None, Decimal(input_price), Decimal(output_price), None if cached is None else Decimal(cached)),)


def tiers(*prices: tuple[str, str]) -> tuple[Tier, ...]:
    bounds = (32_768, 131_072, 262_144)
    return tuple(
        Tier(bound, Decimal(input_price), Decimal(output_price))
        for bound, (input_price, output_price) in zip(bounds, prices, strict=True)
    )


PLUS_INTERNATIONAL: Final = tiers(("0.2", "1.6"), ("0.3", "2.4"), ("0.6", "4.8"))
PLUS_GLOBAL: Final = tiers(("0.143", "1.434"), ("0.215", "2.15"), ("0.43", "4.301"))
PLUS_BATCH_CHAT: Final = tiers(("0.0715", "0.717"), ("0.1075", "1.075"), ("0.215", "2.1505"))
"""Half (8.6.2)."""
FLASH_INTERNATIONAL: Final = tiers(("0.05", "0.40"), ("0.075", "0.60"), ("0.12", "0.96"))
FLASH_GLOBAL: Final = tiers(("0.022", "0.215"), ("0.043", "0.43"), ("0.086", "0.859"))

PRICES: Final = {
    ("singapore", "qwen3-vl-plus"): PLUS_INTERNATIONAL,
    ("virginia", "qwen3-vl-plus"): PLUS_GLOBAL,
    ("beijing", "qwen3-vl-plus"): PLUS_GLOBAL,
    ("beijing-batch", "qwen3-vl-plus"): PLUS_BATCH_CHAT,
    ("singapore", "qwen3-vl-flash"): FLASH_INTERNATIONAL,
    ("virginia", "qwen3-vl-flash"): FLASH_GLOBAL,
    ("beijing", "qwen3-vl-flash"): FLASH_GLOBAL,
    ("virginia", "qwen3-vl-flash-us"): FLASH_INTERNATIONAL,
    ("singapore", "qwen-vl-max"): flat("0.8", "3.2"),
    ("beijing", "qwen-vl-max"): flat("0.23", "0.574"),
    ("singapore", "qwen-vl-plus"): flat("0.21", "0.63"),
    ("beijing", "qwen-vl-plus"): flat("0.115", "0.287"),
    ("moonshot", "kimi-k2.5"): flat("0.60", "3.00", cached="0.10"),
    ("moonshot", "kimi-k2-thinking"): flat("0.60", "2.50", cached="0.15"),
    ("moonshot", "kimi-k2-thinking-turbo"): flat("1.15", "8.00", cached="0.15"),
    ("beijing", "kimi-k2.5"): flat("0.574", "3.011"),
    ("beijing", "kimi-k2-thinking"): flat("0.574", "2.294"),
    ("beijing", "Moonshot-Kimi-K2-Instruct"): flat("0.574", "2.294"),
}


def tier_of(region: str, model: str, input_tokens: int) -> Tier | None:
    """The price of a request with so many input tokens; None for a model without a price there."""
    for tier in PRICES.get((region, model), ()):
        if tier.up_to is None or input_tokens <= tier.up_to:
            return tier
    return None


def amount(region: str, model: str, usage: Usage) -> Decimal | None:
    """What the usage costs in US dollars, exact; None for a model without a price there."""
    tier = tier_of(region, model, usage.input)
    if tier is None:
        return None
    fresh = (usage.input - usage.cached) * tier.input
    cached = usage.cached * tier.cache_hit
    return (fresh + cached + usage.output * tier.output).scaleb(-6)

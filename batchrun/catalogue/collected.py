"""Prices that the package genai-prices has collected, for entries that ask for them.

The package is an extra, and only its data are read: nothing is fetched. A price is taken where a `Price` can say all of
it: tokens in and out, read from and written into a cache, in tiers, from a day on. What depends on more (the time of
day, a rate of pictures, a fee for each request) is not taken, and the reason told; nor are ids that the package finds
by a pattern, as another model may hide behind one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, time
from decimal import Decimal
from importlib.metadata import version
from typing import TYPE_CHECKING

from pydantic import ValidationError

from batchrun.catalogue.file import ALWAYS, PriceEntry
from batchrun.showing import clean

if TYPE_CHECKING:
    from genai_prices.types import MatchLogic, ModelInfo, ModelPrice, Provider, Tier, TieredPrices

PACKAGE = "genai-prices"
INSTALL = f"pip install 'batchrun[{PACKAGE}]'"

_RATES = {
    "input_mtok": "input",
    "output_mtok": "output",
    "cache_read_mtok": "cached_input",
    "cache_write_mtok": "cache_write",
}
"""Theirs and ours; all in dollars per 1,000,000 tokens."""
_NEVER_USED = frozenset(
    {
        *("input_audio_mtok", "output_audio_mtok", "cache_audio_read_mtok", "audio_hours", "input_audio_hours"),
        *("cache_write_1h_mtok", "web_searches_kcount", "storage_searches_kcount"),
    }
)
"""Sound, caches that are asked to last, and the vendor's own tools: nothing that a job here asks for by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What the package has of one vendor."""

    endpoint: str
    """The one whose prices these are."""
    vendor: Provider

    def prices_of(self, model_id: str) -> list[PriceEntry]:
        """By rising `valid_from`. Raises LookupError with the reason where there is none that can be taken."""
        model = self._named(model_id)
        source = f"{PACKAGE} {version(PACKAGE)}, {self.vendor.id}/{model.id}"
        try:
            return [_entry(model.get_prices(start), start, source) for start in _starts(model)]
        except LookupError as error:
            raise LookupError(f"{source}: {error.args[0]}") from None

    def _named(self, model_id: str) -> ModelInfo:
        name = model_id.lower()
        for model in self.vendor.models:
            if model.is_match(name) and name in (model.id.lower(), *_names(model.match)):
                return model
        raise LookupError(f"{PACKAGE} {version(PACKAGE)} has no price of `{clean(model_id)}` at {self.vendor.id}")


def collected(prices_from: str, endpoint: str) -> Collected:
    """By the words of an entry, such as `genai-prices/openai`. Raises ImportError without the package, and LookupError,
    with the vendors that it has, for another one."""
    from genai_prices.data import providers  # an extra of 1.5 MB, which most catalogues do without

    vendor = prices_from.partition("/")[2]
    found = next((provider for provider in providers if provider.id == vendor), None)
    if found is None:
        raise LookupError(", ".join(provider.id for provider in providers))
    return Collected(endpoint=endpoint, vendor=found)


def _names(match: MatchLogic) -> Iterator[str]:
    """The ids that the package names in full, in small letters."""
    from genai_prices.types import ClauseEquals, ClauseOr

    if isinstance(match, ClauseEquals):
        yield match.equals.lower()
    if isinstance(match, ClauseOr):
        for clause in match.or_:
            yield from _names(clause)


def _starts(model: ModelInfo) -> list[datetime]:
    """The moments at which a price of the model begins to hold."""
    from genai_prices.types import StartDateConstraint

    if not isinstance(model.prices, list):
        return [ALWAYS]
    days = set()
    for price in model.prices:
        if isinstance(price.constraint, StartDateConstraint):
            days.add(datetime.combine(price.constraint.start_date, time(), UTC))
        elif price.constraint is not None:
            raise LookupError("the price depends on the time of day")
    return [ALWAYS, *sorted(days)]


def _entry(price: ModelPrice, start: datetime, source: str) -> PriceEntry:
    """Through the same door as a price in a file. Raises LookupError."""
    rates = {name: rate for name, rate in vars(price).items() if rate is not None}
    others = rates.keys() - _RATES.keys() - _NEVER_USED
    if others:
        raise LookupError(f"the price depends on more than tokens in and out ({', '.join(sorted(others))})")
    if not {"input_mtok", "output_mtok"} <= rates.keys():
        raise LookupError("there is no price of tokens in, or none of tokens out")
    named = {ours: rates[theirs] for theirs, ours in _RATES.items() if theirs in rates}
    ends = sorted({tier.start for rate in named.values() for tier in _tiers(rate)})
    tiers = [
        {"up_to": up_to, **{name: f"{_rate_above(rate, below):f}" for name, rate in named.items()}}
        for below, up_to in zip([-1, *ends], [*ends, None], strict=True)
    ]
    try:
        return PriceEntry.model_validate(
            {"currency": "USD", "valid_from": start.isoformat(), "source": source, "tiers": tiers}
        )
    except ValidationError:
        raise LookupError("the figures of the price can't be kept exactly") from None


def _tiers(rate: Decimal | TieredPrices) -> list[Tier]:
    return [] if isinstance(rate, Decimal) else rate.tiers


def _rate_above(rate: Decimal | TieredPrices, tokens: int) -> Decimal:
    """The rate of requests of more input tokens than these, up to the next tier."""
    if isinstance(rate, Decimal):
        return rate
    return next((tier.price for tier in reversed(rate.tiers) if tier.start <= tokens), rate.base)

"""The models of a catalogue as flat lines, for tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

from batchrun.catalogue import FEATURES, Catalogue, Endpoint, Model


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLine:
    """A model that a job can name. What isn't known is None."""

    provider: str
    """With its region, as a job names it."""
    dialect: str
    simulates: str | None
    """The provider that this one stands in for."""
    models_of: str | None
    """The provider whose models these are, in another dialect."""
    batch_chat_of: str | None
    """The provider whose jobs with `mode: batch-chat` have these models; no job names this one itself."""
    key_env: tuple[str, ...]
    """Environment variables that may hold the key, best first."""
    model: str | None
    """None stands for any other id, which this provider takes too."""
    thinking: str | None = None
    images: bool | None = None
    videos: bool | None = None
    features: tuple[str, ...] = ()
    """What it is known to do, such as `partial`."""
    lacks: tuple[str, ...] = ()
    """What it is known not to do."""
    structured: str | None = None
    """How answers are held to a form: json_schema, json_object or none."""
    tools: bool | None = None
    """Whether it can call functions."""
    context: int | None = None
    max_input: int | None = None
    max_output: int | None = None
    max_thinking: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    currency: str | None = None
    input_price: Decimal | None = None
    """Per 1,000,000 tokens, of the first tier."""
    output_price: Decimal | None = None
    price_tiers: int = 0
    """How many there are; more than one means that longer requests cost more."""
    ends_on: date | None = None
    replaced_by: str | None = None
    notice: str | None = None
    """A sentence about its announced end, once that day has come."""
    source: str | None = None
    checked_on: date | None = None
    own: bool = True
    """Whether this is more than the same model at `models_of` or `simulates`."""


def model_lines(catalogue: Catalogue, provider: str | None, now: datetime) -> list[ModelLine]:
    """The models of a provider, of all its regions or of one, or of all providers. Raises CatalogueError."""
    return [line for endpoint in matching(catalogue, provider) for line in lines_of(catalogue, endpoint, now)]


def matching(catalogue: Catalogue, provider: str | None) -> list[Endpoint]:
    """Raises CatalogueError, with the nearest names."""
    if provider is None:
        return list(catalogue.endpoints.values())
    regions = [endpoint for endpoint in catalogue.endpoints.values() if endpoint.provider == provider]
    return regions or [catalogue.endpoint(provider)]


def lines_of(catalogue: Catalogue, endpoint: Endpoint, now: datetime) -> Iterator[ModelLine]:
    other = catalogue.endpoints.get(endpoint.models_of or endpoint.simulates or "")
    taken = {} if other is None else other.models
    for model in endpoint.models.values():
        yield line_of(endpoint, model, now, own=taken.get(model.id) != model)
    if endpoint.open_models:
        yield ModelLine(
            provider=endpoint.name,
            dialect=endpoint.dialect,
            simulates=endpoint.simulates,
            models_of=endpoint.models_of,
            batch_chat_of=endpoint.batch_chat_of,
            key_env=endpoint.key_env,
            model=None,
        )


def in_order(features: Iterable[str]) -> tuple[str, ...]:
    return tuple(feature for feature in FEATURES if feature in features)


def line_of(endpoint: Endpoint, model: Model, now: datetime, *, own: bool) -> ModelLine:
    price = model.price_at(now)
    return ModelLine(
        provider=endpoint.name,
        dialect=endpoint.dialect,
        simulates=endpoint.simulates,
        models_of=endpoint.models_of,
        batch_chat_of=endpoint.batch_chat_of,
        key_env=endpoint.key_env,
        model=model.id,
        thinking=model.rules.thinking,
        images=model.images,
        videos=model.videos,
        features=in_order(model.features),
        lacks=in_order(model.lacks),
        structured=None if model.structured is None else model.structured.form,
        tools=model.tools,
        context=model.context,
        max_input=model.max_input,
        max_output=model.max_output,
        max_thinking=model.max_cot,
        requests_per_minute=model.limits.requests_per_minute,
        tokens_per_minute=model.limits.tokens_per_minute,
        currency=None if price is None else price.currency,
        input_price=None if price is None else price.tiers[0].input,
        output_price=None if price is None else price.tiers[0].output,
        price_tiers=0 if price is None else len(price.tiers),
        ends_on=model.retired_on,
        replaced_by=model.replaced_by,
        notice=model.retirement_notice(now.date()),
        source=model.source or None,
        checked_on=model.checked_on,
        own=own,
    )

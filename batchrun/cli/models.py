"""`batchrun models`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer

from batchrun.catalogue import Catalogue, Endpoint, Model
from batchrun.cli.known import CatalogueFile, catalogue_for
from batchrun.cli.options import AsJson
from batchrun.cli.render import Column, count_text, screen
from batchrun.pricing import Price


def command(
    context: typer.Context,
    provider: Annotated[
        str | None, typer.Argument(metavar="[PROVIDER]", help="Such as model-studio/singapore, or model-studio.")
    ] = None,
    catalogue: CatalogueFile = None,
    as_json: AsJson = False,
) -> None:
    """Models that a job can name: what they take, how much fits, what they cost.

    Example: batchrun models model-studio/singapore
    """
    shell = screen(context)
    now = datetime.now(UTC)
    known = catalogue_for(catalogue)
    endpoints = matching(known, provider)
    if as_json:
        shell.json({"providers": [endpoint_record(endpoint, now) for endpoint in endpoints]})
        return
    for number, endpoint in enumerate(endpoints):
        if number:
            shell.line()
        shell.line(heading(endpoint), style="bold")
        models = own_models(endpoint, known) if provider is None else list(endpoint.models.values())
        if models:
            shell.table(COLUMNS, [row(model, now) for model in models])
        notices = [model.retirement_notice(now.date()) for model in models]
        for notice in filter(None, notices):
            shell.line(f"  {notice}")


def matching(catalogue: Catalogue, provider: str | None) -> list[Endpoint]:
    """Raises CatalogueError, with the nearest names."""
    if provider is None:
        return list(catalogue.endpoints.values())
    regions = [endpoint for endpoint in catalogue.endpoints.values() if endpoint.provider == provider]
    return regions or [catalogue.endpoint(provider)]


def own_models(endpoint: Endpoint, catalogue: Catalogue) -> list[Model]:
    """Those that the endpoint doesn't take over from another one, in whose table they stand."""
    other = catalogue.endpoints.get(endpoint.models_of or endpoint.simulates or "")
    taken = {} if other is None else other.models
    return [model for model in endpoint.models.values() if taken.get(model.id) != model]


def heading(endpoint: Endpoint) -> str:
    what = ""
    if endpoint.simulates:
        what = f", simulates {endpoint.simulates}"
    elif endpoint.models_of:
        what = f", the models of {endpoint.models_of} in dialect {endpoint.dialect}"
    return f"{endpoint.name}{what}{', takes any model id' if endpoint.open_models else ''}"


COLUMNS = (
    Column(title="MODEL"),
    Column(title="THINKING"),
    Column(title="IMAGES"),
    Column(title="CONTEXT", justify="right"),
    Column(title="OUTPUT", justify="right"),
    Column(title="IN / OUT", justify="right"),
)


def row(model: Model, now: datetime) -> Sequence[str]:
    return (
        model.id,
        model.rules.thinking,
        "yes" if model.images else "no",
        count_text(model.context),
        count_text(model.max_output),
        price_text(model.price_at(now)),
    )


def price_text(price: Price | None) -> str:
    """Of the first tier, per 1,000,000 tokens; `+` where longer requests cost more."""
    if price is None:
        return "unknown"
    tier = price.tiers[0]
    return f"{tier.input:f} / {tier.output:f} {price.currency}{'+' if len(price.tiers) > 1 else ' '}"


def endpoint_record(endpoint: Endpoint, now: datetime) -> dict[str, object]:
    return {
        "name": endpoint.name,
        "dialect": endpoint.dialect,
        "simulates": endpoint.simulates,
        "models_of": endpoint.models_of,
        "open_models": endpoint.open_models,
        "key_env": list(endpoint.key_env),
        "models": [model_record(model, now) for model in endpoint.models.values()],
    }


def model_record(model: Model, now: datetime) -> dict[str, object]:
    price = model.price_at(now)
    return {
        "id": model.id,
        "thinking": model.rules.thinking,
        "images": model.images,
        "videos": model.videos,
        "context": model.context,
        "max_input": model.max_input,
        "max_output": model.max_output,
        "max_thinking": model.max_cot,
        "ends_on": model.retired_on,
        "replaced_by": model.replaced_by,
        "requests_per_minute": model.limits.requests_per_minute,
        "tokens_per_minute": model.limits.tokens_per_minute,
        "currency": None if price is None else price.currency,
        "input_price": None if price is None else price.tiers[0].input,
        "output_price": None if price is None else price.tiers[0].output,
        "price_tiers": 0 if price is None else len(price.tiers),
        "source": model.source,
        "checked_on": model.checked_on,
    }

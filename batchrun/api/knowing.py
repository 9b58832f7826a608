"""Functions that look at the catalogue and the schemas."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from batchrun.api.inputs import catalogue_for
from batchrun.api.opening import Place, opened, settings_for
from batchrun.catalogue.lines import ModelLine, model_lines
from batchrun.database import parse_url, reading, sqlite_path
from batchrun.errors import UsageError
from batchrun.jobfile.schema import job_schema
from batchrun.reports.prices import PriceLine, booked_prices, price_lines
from batchrun.showing import clean


def models(provider: str | None = None, *, catalogue: str | Path | None = None) -> list[ModelLine]:
    """Models that a job can name at a provider, such as `model-studio/singapore` or `model-studio`, or at all.

    Raises CatalogueError for a provider that isn't there.
    """
    return model_lines(catalogue_for(catalogue, settings_for()), provider, datetime.now(UTC))


def prices(model: str | None = None, *, catalogue: str | Path | None = None, database: Place = None) -> list[PriceLine]:
    """Prices of the catalogue, and those that the database has booked with, of one model or of all.

    Without a database there, and none named, those of the catalogue alone. Raises UsageError for an unknown model.
    """
    known = catalogue_for(catalogue, settings_for())
    path = sqlite_path(parse_url(settings_for(database).database_url))
    stored = {}
    if database is not None or path is None or path.exists():
        with opened(database) as engine, reading(engine) as connection:
            stored = booked_prices(connection)
    found = price_lines(known, stored, datetime.now(UTC), model)
    if model is not None and not found:
        reasons = "; ".join(one.unpriced for _, one in known.named(model) if one.unpriced)
        raise UsageError(
            f"no price of a model `{clean(model)}`{f': {reasons}' if reasons else ''}",
            code="unknown-model",
            remedy="`batchrun models` lists the models",
        )
    return found


def schema() -> dict[str, object]:
    """The JSON Schema of a job file, for editors and checkers."""
    return job_schema()

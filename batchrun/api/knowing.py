"""Functions that look at the catalogue, the schemas, the database and this machine."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from batchrun import __version__
from batchrun.api.opening import (
    Place,
    catalogue_for,
    opened,
    settings_for,
    unchecked,
)
from batchrun.catalogue.lines import ModelLine, model_lines
from batchrun.database import (
    parse_url,
    read_revision,
    reading,
    require_upgradable,
    shown_url,
    sqlite_path,
    upgrade,
)
from batchrun.errors import UsageError
from batchrun.examining import Examination, examine
from batchrun.jobfile.schema import job_schema
from batchrun.probing import Offer, ask
from batchrun.reports.prices import PriceLine, booked_prices, price_lines
from batchrun.reports.sizes import DatabaseStatus, row_counts
from batchrun.showing import clean
from batchrun.tables import SCHEMA


def models(provider: str | None = None, *, catalogue: str | Path | None = None) -> list[ModelLine]:
    """Models that a job can name at a provider, such as `model-studio/singapore` or `model-studio`, or at all.

    Raises CatalogueError for a provider that isn't there.
    """
    return model_lines(catalogue_for(catalogue, settings_for()), provider, datetime.now(UTC))


def probe(provider: str, *, catalogue: str | Path | None = None) -> Offer:
    """Ask the server of a provider which models it has, with its key; no model is called.

    Raises CatalogueError for a provider that isn't there, UsageError without a key, and ProviderError, with its kind,
    where the server can't be reached, refuses the key, or has no such list.
    """
    settings = settings_for()
    return ask(catalogue_for(catalogue, settings), provider, settings)


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


def doctor(
    *, mend: bool = False, offline: bool = False, database: Place = None, catalogue: str | Path | None = None
) -> Examination:
    """What stands in the way of a run on this machine, and whether the database agrees with itself.

    `mend` mends what is wrong with rows first, in one transaction. `offline` leaves the providers' hosts alone. A
    database that doesn't exist is no fault, and is never made. Raises DatabaseError where nothing can be mended.
    """
    settings = settings_for(database)
    if catalogue is not None:
        settings = replace(settings, catalogue=Path(catalogue))
    return examine(settings, version=__version__, mend=mend, offline=offline)


def db_status(*, database: Place = None) -> DatabaseStatus:
    """Where the database is, its schema, and how much there is in it."""
    url = parse_url(settings_for(database).database_url)
    with unchecked(url, create=False) as engine:
        revision, rows = read_revision(engine), {}
        if revision == SCHEMA:
            with reading(engine) as connection:
                rows = row_counts(connection)
    return DatabaseStatus(address=shown_url(url), schema=revision, needed=SCHEMA, rows=rows)


def db_upgrade(*, database: Place = None) -> tuple[str | None, str]:
    """Bring the schema to what this version needs, and make an SQLite file that doesn't exist; safe to repeat.

    Returns the revision before (None for no tables) and after.
    """
    address = settings_for(database).database_url
    with unchecked(parse_url(address), create=True) as engine:
        before = read_revision(engine)
    if before != SCHEMA:
        require_upgradable(before, automatic=True)
        upgrade(address)
    return before, SCHEMA

"""Functions that look at this machine, its database and the servers that it would talk to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from batchrun import __version__
from batchrun.api.inputs import catalogue_for
from batchrun.api.opening import Place, settings_for, unchecked
from batchrun.database import parse_url, read_revision, reading, require_upgradable, shown_url, upgrade
from batchrun.examining import Examination, examine
from batchrun.probing import Offer, ask
from batchrun.reports.sizes import DatabaseStatus, row_counts
from batchrun.tables import SCHEMA


def probe(provider: str, *, catalogue: str | Path | None = None) -> Offer:
    """Ask the server of a provider which models it has, with its key; no model is called.

    Raises CatalogueError for a provider that isn't there, UsageError without a key, and ProviderError, with its kind,
    where the server can't be reached, refuses the key, or has no such list.
    """
    settings = settings_for()
    return ask(catalogue_for(catalogue, settings), provider, settings)


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

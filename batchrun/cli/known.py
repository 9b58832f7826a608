"""The catalogue for a command. Apart from the other options, as it takes longer to import than most commands to run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from batchrun.api import settings_for
from batchrun.catalogue import Catalogue, load_catalogue

CatalogueFile = Annotated[
    Path | None,
    typer.Option("--catalogue", help="Your own providers, models and prices. Default: BATCHRUN_CATALOGUE."),
]


def catalogue_for(file: Path | None) -> Catalogue:
    return load_catalogue(file or settings_for(None).catalogue)

"""The option that names a catalogue, for commands that look things up."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

CatalogueFile = Annotated[
    Path | None,
    typer.Option("--catalogue", help="Your own providers, models and prices. Default: BATCHRUN_CATALOGUE."),
]

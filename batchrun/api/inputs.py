"""Job files and catalogues as the functions of this package take them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from batchrun.catalogue import Catalogue, load_catalogue
from batchrun.jobfile.reader import read_job_file, read_job_mapping
from batchrun.jobfile.spec import JobFile
from batchrun.settings import Settings, current_folder

Jobs = str | Path | Mapping[str, object]
"""A job file: its path, or what would stand in it; its paths are then relative to the current folder."""


def read_jobs(job_file: Jobs) -> tuple[JobFile, Path]:
    """The checked job file, and the folder that its paths are relative to. Raises SpecError."""
    if isinstance(job_file, Mapping):
        return read_job_mapping(job_file), current_folder()
    path = Path(job_file)
    return read_job_file(path), path.resolve().parent


def catalogue_for(file: str | Path | None, settings: Settings) -> Catalogue:
    return load_catalogue(settings.catalogue if file is None else Path(file))

"""What a shell offers behind a command when Tab is pressed: names of jobs, and job files. Quick, or silent."""

from __future__ import annotations

import threading
from pathlib import Path

import typer

SECONDS = 1.0
"""A database that takes longer offers nothing."""


def job_names(context: typer.Context, incomplete: str) -> list[str]:
    """Names of jobs in the database that the command line or the environment names."""
    found: list[str] = []

    def look() -> None:
        from batchrun import api
        from batchrun.database import reading
        from batchrun.reports.jobs import find_jobs

        try:
            with api.opened(context.params.get("database")) as engine, reading(engine) as connection:
                found.extend(dict.fromkeys(row.name for row in find_jobs(connection)))
        except Exception:  # noqa: BLE001 - nobody who presses Tab wants to read why
            return

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(SECONDS)
    return [name for name in found if name.startswith(incomplete) and name.isprintable()]


def job_files(incomplete: str) -> list[str]:
    """YAML files; where none begins so, the shell offers files and folders itself."""
    folder, _, beginning = incomplete.rpartition("/")
    try:
        names = sorted(path.name for path in Path(folder or ("/" if incomplete.startswith("/") else ".")).iterdir())
    except OSError:
        return []
    prefix = f"{folder}/" if "/" in incomplete else ""
    return [prefix + name for name in names if name.startswith(beginning) and name.endswith((".yaml", ".yml"))]

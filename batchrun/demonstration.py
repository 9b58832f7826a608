"""The folder of the demonstration: a job file and a dozen pictures, to be played with."""

from __future__ import annotations

import shutil
from pathlib import Path

from batchrun.errors import UsageError

FOLDER = "batchrun-demo"
BOOK = Path(".batchrun") / "simulator-book.jsonl"


def lay_out(folder: Path) -> None:
    """Put the job file and the pictures into `folder`, unless they are there already. Raises UsageError."""
    source = Path(__file__).parent / "demo"
    try:
        (folder / BOOK).parent.mkdir(parents=True, exist_ok=True)
        if not (folder / "pictures").exists():
            shutil.copytree(source / "pictures", folder / "pictures")
        if not (folder / "jobs.yaml").exists():
            shutil.copyfile(source / "jobs.yaml", folder / "jobs.yaml")
    except OSError as error:
        raise UsageError(
            f"can't write the demo to {folder}: {error.strerror or 'some of its files could not be copied'}",
            code="not-writable",
            remedy="name a folder that you may write to with --folder",
        ) from error

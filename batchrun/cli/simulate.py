"""`batchrun simulate`."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import typer


def command(context: typer.Context) -> NoReturn:
    """Serve the simulated provider until it is stopped, with the options of `python -m batchrun.simulator`.

    Example: batchrun simulate --port 8080 --book bills.jsonl
    """
    sys.stdout.flush()
    # Signals and the exit code are the simulator's own if it takes the place of this process.
    os.execv(sys.executable, [sys.executable, "-m", "batchrun.simulator", *context.args])  # noqa: S606 - no shell

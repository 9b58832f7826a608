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
    from batchrun.api import catalogue_for, settings_for
    from batchrun.simulated import without_secrets

    environment = without_secrets(os.environ, catalogue_for(None, settings_for()))
    sys.stdout.flush()
    # Signals and the exit code are the simulator's own if it takes the place of this process.
    arguments = [sys.executable, "-m", "batchrun.simulator", *context.args]
    os.execve(sys.executable, arguments, environment)  # noqa: S606 - no shell

"""What the commands do, as functions: `import batchrun` offers them under the same names.

Each takes `database`: an address, or the path of an SQLite file as a `Path` (None: `DATABASE_URL`, else
`.batchrun/batchrun.db` in the current folder), and where models are named `catalogue`, a catalogue file of your own
(None: `BATCHRUN_CATALOGUE`). What goes wrong is raised as a BatchrunError with a code, a message and a remedy. Nothing
is printed, except for the progress that `run` is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from batchrun.api.calling import demo, estimate, load, run, simulate
    from batchrun.api.knowing import db_status, db_upgrade, doctor, models, prices, probe, schema
    from batchrun.api.opening import catalogue_for, opened, settings_for
    from batchrun.api.reading import export, report, results, status, watch
    from batchrun.api.steering import cancel, pause, resume, retry, set_, settable, settle
    from batchrun.api.working import submit

__all__ = [
    "cancel",
    "catalogue_for",
    "db_status",
    "db_upgrade",
    "demo",
    "doctor",
    "estimate",
    "export",
    "load",
    "models",
    "opened",
    "pause",
    "prices",
    "probe",
    "report",
    "results",
    "resume",
    "retry",
    "run",
    "schema",
    "set_",
    "settable",
    "settings_for",
    "settle",
    "simulate",
    "status",
    "submit",
    "watch",
]

_WHERE = {
    **dict.fromkeys(
        (
            "demo",
            "estimate",
            "load",
            "run",
            "simulate",
        ),
        "calling",
    ),
    **dict.fromkeys(
        (
            "db_status",
            "db_upgrade",
            "doctor",
            "models",
            "prices",
            "probe",
            "schema",
        ),
        "knowing",
    ),
    **dict.fromkeys(
        (
            "catalogue_for",
            "opened",
            "settings_for",
        ),
        "opening",
    ),
    **dict.fromkeys(
        (
            "export",
            "report",
            "results",
            "status",
            "watch",
        ),
        "reading",
    ),
    **dict.fromkeys(
        (
            "cancel",
            "pause",
            "resume",
            "retry",
            "set_",
            "settable",
            "settle",
        ),
        "steering",
    ),
    **dict.fromkeys(("submit",), "working"),
}
"""The module of each."""


if not TYPE_CHECKING:  # a checker would believe that there is every name

    def __getattr__(name: str) -> object:
        """Looked up when they are asked for: who reads a report need not wait for what makes calls."""
        if name in __all__:
            return getattr(import_module(f"batchrun.api.{_WHERE[name]}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

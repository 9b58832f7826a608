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
    from batchrun.api.calling import demo, estimate, run, simulate
    from batchrun.api.examining import db_status, db_upgrade, doctor, probe
    from batchrun.api.exporting import export
    from batchrun.api.inputs import catalogue_for
    from batchrun.api.knowing import models, prices, schema
    from batchrun.api.loading import load
    from batchrun.api.opening import opened, settings_for
    from batchrun.api.reading import report, results, status, watch
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

_BY_MODULE = {
    "calling": ["demo", "estimate", "run", "simulate"],
    "examining": ["db_status", "db_upgrade", "doctor", "probe"],
    "exporting": ["export"],
    "inputs": ["catalogue_for"],
    "knowing": ["models", "prices", "schema"],
    "loading": ["load"],
    "opening": ["opened", "settings_for"],
    "reading": ["report", "results", "status", "watch"],
    "steering": ["cancel", "pause", "resume", "retry", "set_", "settable", "settle"],
    "working": ["submit"],
}
_MODULES = {name: module for module, names in _BY_MODULE.items() for name in names}


if not TYPE_CHECKING:  # a checker would believe that there is every name

    def __getattr__(name: str) -> object:
        """Looked up when they are asked for: who reads a report need not wait for what makes calls."""
        if name in _MODULES:
            return getattr(import_module(f"batchrun.api.{_MODULES[name]}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""What the commands do, as functions: `import batchrun` offers them under the same names.

Each takes `database`: an address, or the path of an SQLite file as a `Path` (None: `DATABASE_URL`, else
`.batchrun/batchrun.db` in the current folder), and where models are named `catalogue`, a catalogue file of your own
(None: `BATCHRUN_CATALOGUE`). What goes wrong is raised as a BatchrunError with a code, a message and a remedy. Nothing
is printed, except for the progress that `run` is asked for.
"""

from __future__ import annotations

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

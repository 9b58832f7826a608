"""batchrun: run a large batch of multimodal model calls, lose none of them, and know what it cost.

The functions of this package do what the commands of the same names do; see `batchrun.api`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from batchrun.api import (
        cancel,
        db_status,
        db_upgrade,
        demo,
        doctor,
        estimate,
        export,
        load,
        models,
        pause,
        prices,
        probe,
        report,
        results,
        resume,
        retry,
        run,
        schema,
        settle,
        simulate,
        status,
        submit,
        watch,
    )
    from batchrun.api import set_ as set  # noqa: A004 - the name of the command
    from batchrun.errors import BatchrunError

    __version__: str

__all__ = [
    "BatchrunError",
    "__version__",
    "cancel",
    "db_status",
    "db_upgrade",
    "demo",
    "doctor",
    "estimate",
    "export",
    "load",
    "models",
    "pause",
    "prices",
    "probe",
    "report",
    "results",
    "resume",
    "retry",
    "run",
    "schema",
    "set",
    "settle",
    "simulate",
    "status",
    "submit",
    "watch",
]

_OTHERWISE = {"set": "set_"}
"""What has another name in its module, where it would hide one of Python's own."""


if not TYPE_CHECKING:  # a checker would believe that there is every name

    def __getattr__(name: str) -> object:
        """Looked up when they are asked for: what they import would cost `--help` and every start half a second."""
        if name == "__version__":
            from importlib.metadata import version

            return version("batchrun")
        if name in __all__:
            module = import_module("batchrun.errors" if name == "BatchrunError" else "batchrun.api")
            return getattr(module, _OTHERWISE.get(name, name))
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

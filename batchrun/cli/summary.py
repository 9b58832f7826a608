"""What `run`, `load` and `demo` print: what was loaded, and what came of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence

from sqlalchemy import Engine

from batchrun.cli.progress import amount_of, span_of
from batchrun.load import Loaded
from batchrun.run import JobEnd, RunEnd
from batchrun.states import State

SHOWN = (State.DONE, State.TRUNCATED, State.FAILED, State.CANCELLED, State.WAITING, State.PENDING, State.CLAIMED)


def print_loaded(loaded: Sequence[Loaded]) -> None:
    """On standard error, a line for each job, and notes below it."""
    for job in loaded:
        parts = [f"{job.added:,} new" if job.added or job.created else "nothing new"]
        if job.unchanged:
            parts.append(f"{job.unchanged:,} known")
        if job.updated:
            parts.append(f"{job.updated:,} changed before they were called")
        if job.changed:
            parts.append("now in effect: " + ", ".join(job.changed))
        sys.stderr.write(f"{title(job.name, job.simulated)}: {', '.join(parts)}\n")
        for note in job.notes:
            sys.stderr.write(f"  note: {note}\n")
    sys.stderr.flush()


def title(name: str, simulated: bool) -> str:
    return f"{name} (simulated)" if simulated else name

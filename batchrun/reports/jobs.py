"""Which jobs are meant. A name may belong to two of them: one that was simulated, and one that costs money."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

import sqlalchemy as sa
from sqlalchemy import Connection

from batchrun.errors import UsageError
from batchrun.showing import clean, listing
from batchrun.tables import Record, jobs


def find_jobs(connection: Connection, names: Iterable[str] | None = None) -> list[Record]:
    """The rows of these jobs, real and simulated ones; of all jobs for None.

    Raises UsageError, with the nearest names, for a name that no job has.
    """
    found = list(connection.execute(sa.select(jobs).order_by(jobs.c.id)))
    if names is None:
        return found
    wanted = list(dict.fromkeys(names))
    known = sorted({row.name for row in found})
    for name in wanted:
        if name not in known:
            raise _unknown_job(name, known)
    return [row for row in found if row.name in wanted]


def one_job(connection: Connection, name: str, *, simulated: bool = False) -> Record:
    """The row of the job. Where it exists both ways, the real one unless `simulated`. Raises UsageError."""
    found = find_jobs(connection, [name])
    if simulated and not any(row.simulated for row in found):
        raise UsageError(
            f"the job {clean(name)} was never simulated", code="unknown-job", remedy="leave --simulated out"
        )
    return next((row for row in found if row.simulated is simulated), found[0])


def _unknown_job(name: str, known: Sequence[str]) -> UsageError:
    if not known:
        return UsageError(
            f"no job `{clean(name)}`: this database has no jobs yet",
            code="unknown-job",
            remedy="load some with `batchrun run jobs.yaml`",
        )
    by_lower = {other.lower(): other for other in known}
    near = [other for lower, other in by_lower.items() if name and lower.startswith(name.lower())][:3]
    near = near or [by_lower[match] for match in get_close_matches(name.lower(), by_lower, n=3)]
    hint = f"; did you mean {' or '.join(clean(other) for other in near)}?" if near else ""
    return UsageError(f"no job `{clean(name)}`{hint}", code="unknown-job", remedy=f"there are: {listing(list(known))}")

"""The jobs that a process may work on, with their plans: a fixed set, or whatever the database has for it to do."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import partial
from pathlib import Path

from sqlalchemy import Connection

from batchrun.catalogue import Catalogue
from batchrun.database import clock, lock_loading, on_rollback
from batchrun.errors import BatchrunError, UsageError
from batchrun.jobfile.spec import stored_spec
from batchrun.plan import Plan, prepare
from batchrun.settings import Settings
from batchrun.showing import clean
from batchrun.store import jobs as store
from batchrun.store.workers import note_unable
from batchrun.tables import Record

LOOK_EVERY = 2.0
"""Seconds between two looks at which jobs there are."""
TRY_EVERY = 30.0
"""Seconds after which a job that can't be worked on here is tried again: a folder may have been mounted since."""
REASON = 300
"""Characters of a reason that are kept."""


@dataclass(slots=True, kw_only=True)
class Known:
    """A job as it was when its plan was made, or could not be."""

    job: Record
    plan: Plan | None
    reason: str
    """Why there is no plan; empty where there is one."""
    at: float


@dataclass(slots=True, kw_only=True)
class Roster:
    """Every job with work that this machine can do; looked up again every other second. Used by one writer thread at
    a time."""

    catalogue: Catalogue
    settings: Settings
    only: frozenset[int] | None = None
    """The ids of the only jobs; None for all."""
    known: dict[int, Known] = field(default_factory=dict)
    chosen: frozenset[int] = frozenset()
    told: Mapping[str, str] = field(default_factory=dict)
    looked_at: float | None = None

    def choose(self, connection: Connection, worker: str) -> frozenset[int]:
        """The jobs to claim from. What this machine can't do is noted at the worker, for `status` to tell."""
        now = time.monotonic()
        if self.looked_at is not None and now - self.looked_at < LOOK_EVERY:
            return self.chosen
        self.looked_at = now
        found = {job.id: job for job in store.jobs_with_work(connection) if self.only is None or job.id in self.only}
        new = {key: job for key, job in found.items() if self.is_news(job, now)}
        if new:
            lock_loading(connection)  # two workers at once must not both append a price
            on_rollback(connection, partial(self.forget, [*new]))
            self.known |= {key: self.planned(connection, job, now) for key, job in new.items()}
        unable = {str(key): self.known[key].reason for key in found if self.known[key].reason}
        if unable != self.told:
            note_unable(connection, worker, unable)
            self.told = unable
        self.chosen = frozenset(key for key in found if self.known[key].plan is not None)
        return self.chosen

    def forget(self, job_ids: Iterable[int]) -> None:
        """Their plans name rows of prices that were never stored."""
        self.looked_at, self.told = None, {}
        for job_id in job_ids:
            self.known.pop(job_id, None)

    def plan(self, job_id: int) -> Plan:
        plan = self.known[job_id].plan
        if plan is None:
            raise LookupError(f"the job {job_id} was not chosen: {self.known[job_id].reason}")
        return plan

    def most(self, job_id: int, input_bound: int | None, output_bound: int | None) -> Decimal | None:
        return self.plan(job_id).most(input_bound, output_bound)

    def is_news(self, job: Record, now: float) -> bool:
        known = self.known.get(job.id)
        return known is None or known.job != job or (known.plan is None and now - known.at > TRY_EVERY)

    def planned(self, connection: Connection, job: Record, now: float) -> Known:
        try:
            plan = plan_for_calls(connection, job, self.catalogue, self.settings, now=clock(connection))
            require_media(connection, job, plan)
        except BatchrunError as error:
            return Known(job=job, plan=None, reason=clean(error.message, REASON), at=now)
        return Known(job=job, plan=plan, reason="", at=now)


def plan_for_calls(
    connection: Connection, job: Record, catalogue: Catalogue, settings: Settings, *, now: datetime
) -> Plan:
    """The plan of a job's row, with its key and the ids of its prices; prices that are new are appended.

    Expects the lock of loading. Raises CatalogueError, UsageError.
    """
    spec = stored_spec(job.spec)
    endpoint = catalogue.endpoint_for(spec.provider, spec.mode)
    if endpoint.simulated and not endpoint.base_url:
        raise UsageError(
            f"{spec.provider} has no address here",
            code="no-simulator",
            remedy="start one with `batchrun simulate`, and set BATCHRUN_SIMULATOR_URL to its address",
        )
    rows = [row for price in catalogue.model(endpoint.name, spec.model).prices for row in price.rows()]
    ids = store.price_ids(connection, rows, now)
    return prepare(
        spec,
        catalogue,
        settings=settings,
        media_root=None if job.media_root is None else settings.media_root(Path(job.media_root)),
        price_ids={(row.valid_from, row.up_to): ids[row.digest] for row in rows},
    )


def require_media(connection: Connection, job: Record, plan: Plan) -> None:
    """Raises UsageError where the job has files, and the folder that they are in isn't here."""
    root = plan.media_root
    if root is not None and not root.is_dir() and store.has_files(connection, job.id):
        raise UsageError(
            f"its folder {str(root)!r} isn't here",
            code="no-media-root",
            remedy="mount it, or say in BATCHRUN_MEDIA_ROOT where it is on this machine",
        )

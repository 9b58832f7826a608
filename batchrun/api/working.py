"""Functions for work on many processes and machines: telling workers, being one, and bringing some along."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from batchrun.api.inputs import Jobs
from batchrun.api.loading import load
from batchrun.api.opening import Place, settings_for
from batchrun.database import connect
from batchrun.errors import UsageError
from batchrun.loading.loader import Loaded
from batchrun.settings import Settings

BROKER_SCHEMES = frozenset({"redis", "rediss", "redis+socket", "amqp", "amqps", "pyamqp"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    jobs: Sequence[Loaded]
    trouble: str
    """Why the workers could not be told; empty where they were. They look by themselves too."""


def submit(
    job_file: Jobs,
    *,
    database: Place = None,
    catalogue: str | Path | None = None,
    on_rows: Callable[[int], None] = lambda _: None,
) -> Submitted:
    """Load a job file, and tell the workers on the broker of the environment to look.

    Raises what `load` raises, and UsageError where no broker is named; then nothing was written.
    """
    require_broker(settings_for(database))
    loaded = load(job_file, database=database, catalogue=catalogue, on_rows=on_rows)
    from batchrun.worker import app
    from batchrun.worker.app import hint

    try:
        hint(app)
    except ConnectionError as error:
        return Submitted(jobs=loaded, trouble=str(error))
    return Submitted(jobs=loaded, trouble="")


def serve(
    *,
    processes: int = 1,
    only: frozenset[int] | None = None,
    hostname: str | None = None,
    grace: float = 120.0,
    level: str = "info",
    database: Place = None,
) -> int:
    """Be a worker with so many processes until told to stop; returns the exit code. `only` has the ids of the only
    jobs that it works on.

    Raises UsageError where no broker is named, DatabaseError.
    """
    settings = settings_for(database)
    require_broker(settings)
    connect(settings.database_url).dispose()
    from batchrun.worker import app
    from batchrun.worker.app import Own, SecurityWarning

    app.conf.batchrun = Own(settings=settings, only=only, grace=grace)
    # Root is usual in containers, and hints carry nothing that could be run.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    named = [] if hostname is None else ["--hostname", hostname]
    options = ["--concurrency", str(processes), "--pool", "prefork", "--loglevel", level, *named]
    try:
        app.worker_main(["--quiet", "worker", "--without-gossip", "--without-mingle", *options])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def require_broker(settings: Settings) -> None:
    if settings.broker_url is None:
        raise UsageError(
            "no broker is named, so workers can't be told",
            code="no-broker",
            remedy="set CELERY_BROKER_URL, such as redis://host:6379/0; on one machine `batchrun run JOBS.yaml "
            "--workers 4` needs none",
        )
    if not all(is_broker(address) for address in settings.broker_url.split(";")):
        raise UsageError(
            "CELERY_BROKER_URL or REDIS_URL is no address of a broker",  # not repeated here: it may hold a password
            code="broker-url",
            remedy="write redis://host:6379/0, rediss://… with TLS, redis+socket:///path, "
            "amqp://user:password@host// or amqps://…; with ; between several",
        )


def is_broker(address: str) -> bool:
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError:  # a port that is none
        return False
    return parts.scheme in BROKER_SCHEMES

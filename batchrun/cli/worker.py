"""`batchrun worker`: join the others that work on a database, until told to stop."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from batchrun.cli.options import Database


def command(
    processes: Annotated[
        int, typer.Option("-c", "--concurrency", metavar="N", min=1, max=256, help="Processes: one for each core.")
    ] = 1,
    only: Annotated[
        str, typer.Option("--only", hidden=True, help="Ids of the only jobs, for a run that brings us.")
    ] = "",
    name: Annotated[
        str | None, typer.Option("-n", "--hostname", metavar="NAME", help="As Celery writes it, such as w1@%h.")
    ] = None,
    grace: Annotated[
        float, typer.Option(metavar="SECONDS", help="What calls in flight get after SIGTERM or Ctrl-C.", min=0.0)
    ] = 120.0,
    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        typer.Option("-l", "--loglevel", metavar="LEVEL", help="debug, info, warning or error.", case_sensitive=False),
    ] = "info",
    database: Database = None,
) -> None:
    """Work on whatever is due in the database, together with all other workers, until stopped.

    It needs a database and a broker that all machines reach: DATABASE_URL (PostgreSQL) and CELERY_BROKER_URL (Redis,
    Valkey or RabbitMQ), and the keys of the providers. Each process holds hundreds of calls at once, so that one for
    each core is plenty. Limits and budgets hold for all workers together. Jobs that this machine can't do, for want of
    a key or a folder, are left to others, and `batchrun status` says so.

    SIGTERM or Ctrl-C once: no new calls, those in flight finish, exit code 0. Twice: stop now, hand back the rest.

    Example: batchrun worker -c 4
    """
    from batchrun.api.working import serve

    raise typer.Exit(
        serve(
            processes=processes,
            only=frozenset(map(int, only.split(","))) if only else None,
            hostname=name,
            grace=grace,
            level=level,
            database=database,
        )
    )

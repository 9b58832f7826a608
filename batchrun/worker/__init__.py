"""The Celery app: `batchrun worker`, or `celery -A batchrun.worker worker` as Celery's users know it.

A message is a hint, "look", and nothing else: it may be lost, doubled, late or forged without changing any outcome.
What there is to do stands in the database; the one task drains it, and ends at once where nothing is due.
"""

from __future__ import annotations

import logging
import os

from billiard import current_process
from celery import Celery
from celery.signals import after_setup_logger, after_setup_task_logger, worker_process_init, worker_shutting_down

from batchrun.settings import current_folder, read_settings
from batchrun.worker.app import TASK, configured
from batchrun.worker.draining import Flag, drained
from batchrun.worker.lastresort import LastResort
from batchrun.worker.logs import in_json
from batchrun.worker.parent import Parent

app: Celery = configured(read_settings(os.environ, current_folder()))
flag = Flag()
"""Shared with the processes of the pool, and therefore made before they are."""
app.conf.batchrun_flag = flag
app.steps["worker"].update({Parent, LastResort})


@app.task(name=TASK)  # type: ignore[untyped-decorator]
def drain() -> None:
    """Work on whatever is due until nothing is. Its messages have no arguments: there is nothing to believe in them."""
    with flag.working():
        drained(app.conf.batchrun, flag)


@after_setup_logger.connect  # type: ignore[untyped-decorator]
@after_setup_task_logger.connect  # type: ignore[untyped-decorator]
def log(logger: logging.Logger, **_: object) -> None:
    in_json(logger)


@worker_shutting_down.connect  # type: ignore[untyped-decorator]
def stop(**_: object) -> None:
    """In the parent, for each signal; the pool's processes don't hear of it."""
    flag.ask()


@worker_process_init.connect  # type: ignore[untyped-decorator]
def adopt(**_: object) -> None:
    """In each process of the pool, after the fork."""
    flag.belongs_to(os.getppid(), getattr(current_process(), "index", 0))

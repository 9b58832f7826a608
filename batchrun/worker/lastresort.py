"""Ends a worker that was told to stop and can't: Celery waits for ever for a broker that is frozen, or behind a network
that swallows everything."""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import Any

from celery import bootsteps

from batchrun.worker.app import SHUTDOWN
from batchrun.worker.draining import Flag

LOOK = 0.25
ORDERLY = 5.0
"""Seconds for Celery to end by itself, once nothing is in flight any more."""
log = logging.getLogger("batchrun.worker")


class LastResort(bootsteps.StartStopStep):  # type: ignore[misc]
    """A step of Celery's worker, on a thread of its own in the parent. Celery's types aren't public, hence Any."""

    def __init__(self, worker: Any, **_: object) -> None:
        conf = worker.app.conf
        self.flag: Flag = conf.batchrun_flag
        self.grace: float = conf.batchrun.grace
        self.thread = threading.Thread(target=self.run, name="batchrun-last-resort", daemon=True)

    def start(self, worker: Any) -> None:
        self.thread.start()

    def run(self) -> None:
        while not self.flag.level:
            time.sleep(LOOK)
        asked = seen = time.monotonic()
        level = self.flag.level
        while (now := time.monotonic()) - seen < ORDERLY:
            if self.flag.level > level:
                level, asked = self.flag.level, now
            if now - asked > SHUTDOWN * 2 + (self.grace if level == 1 else 0.0):
                log.error("calls are still in flight; they may have been billed, and their items are asked again")
                os._exit(1)
            if self.flag.busy:
                seen = now
            time.sleep(LOOK)
        log.warning("ends although the broker doesn't answer; nothing is in flight")
        os._exit(0)

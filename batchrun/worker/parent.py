"""What a worker's parent does beside Celery's own work: it looks at the database every other second.

It wakes its idle processes where something is due, so that a hint that was lost, or a broker that was away, costs
seconds and nothing else; and it settles the calls of workers that died, when nobody else is left to do so.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import Any

from celery import bootsteps
from celery.worker import state

from batchrun.database import connect, reading, writing
from batchrun.errors import BatchrunError
from batchrun.store import workers
from batchrun.store.jobs import has_due_items
from batchrun.worker.app import Own, hint

LOOK_EVERY = 2.0
SELDOM = 30.0
"""Seconds between hints at most where they lead to nothing: what is due can't be done on this machine."""
REST = 5.0
"""Seconds without a look after one that failed."""
FORK_WAITS = 30.0
"""Seconds that the fork of a process waits for a look to end, at most: a database that hangs must not stop Celery."""
log = logging.getLogger("batchrun.worker")


class Parent(bootsteps.StartStopStep):  # type: ignore[misc]
    """A step of Celery's worker, on a thread of its own. Celery's types aren't public, hence Any."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **_: object) -> None:
        self.worker = worker
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.run, name="batchrun-parent", daemon=True)
        self.trouble = ""
        self.pause = LOOK_EVERY
        self.hint_at = 0.0
        self.looking = threading.Lock()
        self.fork_waited = False

    def start(self, worker: Any) -> None:
        os.register_at_fork(before=self.before_fork, after_in_parent=self.after_fork, after_in_child=self.after_fork)
        self.thread.start()

    def before_fork(self) -> None:
        """A process that is forked inherits each lock as it stands: one that a library holds for a look, on this
        thread, would never come free in it. So a fork waits for the end of the look."""
        self.fork_waited = self.looking.acquire(timeout=FORK_WAITS)

    def after_fork(self) -> None:
        if self.fork_waited:
            self.looking.release()

    def stop(self, worker: Any) -> None:
        self.stopped.set()

    terminate = stop

    def run(self) -> None:
        own: Own = self.worker.app.conf.batchrun
        pulse = workers.Pulse(own.settings.lease)
        while not self.stopped.wait(LOOK_EVERY):
            try:
                with self.looking:
                    self.look(own, pulse)
            except (BatchrunError, OSError) as error:
                self.tell(str(error))
                self.stopped.wait(REST)
            else:
                self.tell("")

    def tell(self, trouble: str) -> None:
        """Once for each trouble, and once when it is over."""
        if trouble != self.trouble:
            log.warning("%s", trouble) if trouble else log.info("goes on after: %s", self.trouble)
        self.trouble = trouble

    def look(self, own: Own, pulse: workers.Pulse) -> None:
        # The connection must not be there when a process of the pool is forked anew: it would be closed twice.
        engine = connect(own.settings.database_url)
        try:
            with reading(engine) as connection:
                silent = pulse.silent(workers.beats(connection), time.monotonic(), blind=own.settings.lease / 2)
                dead = [*workers.dead_here(connection), *silent]
                due = has_due_items(connection, own.only)
            if dead:
                with writing(engine) as connection:
                    reaped = workers.reap(connection, dead)
                log.warning("%d dead workers held %d calls; they may have been billed", reaped.workers, reaped.calls)
        finally:
            engine.dispose()
        self.wake(due)

    def wake(self, due: bool) -> None:
        """Hint to idle processes where something is due; less and less often where they come back at once."""
        idle, now = self.idle(), time.monotonic()
        if not due or idle < int(self.worker.concurrency or 0):
            self.pause = LOOK_EVERY
        if due and idle and now >= self.hint_at:
            hint(self.worker.app, idle)
            self.hint_at = now + self.pause - LOOK_EVERY / 2
            self.pause = min(2 * self.pause, SELDOM)

    def idle(self) -> int:
        """Processes of this worker that have no hint."""
        return max(0, int(self.worker.concurrency or 0) - len(state.reserved_requests))

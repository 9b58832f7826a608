"""A worker's heartbeat, on a thread of its own: a busy event loop must not look dead.

The same thread watches the others. No two clocks are compared: a worker is dead when its counter hasn't moved for a
lease by the observer's own clock: the observer's or the worker's, whichever is longer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from sqlalchemy import Engine

from batchrun.database import writing
from batchrun.errors import DatabaseError
from batchrun.store import workers
from batchrun.store.workers import Reaped

BEATS = 6
"""In a lease."""


class Beat:
    """Registers this process as a worker. Use it as a context manager; leaving it settles what is still open."""

    def __init__(self, engine: Engine, on_reaped: Callable[[Reaped], None], *, lease: float) -> None:
        self.engine = engine
        self.on_reaped = on_reaped
        self.lease = lease
        self.every = lease / BEATS
        self.stopped = threading.Event()
        self.pulse = workers.Pulse(lease)
        self.thread = threading.Thread(target=self.run, name="batchrun-beat", daemon=True)
        self.worker = ""
        self.last = time.monotonic()

    @property
    def late(self) -> bool:
        """Whether others may soon take this process for dead: then it must start no new calls."""
        return time.monotonic() - self.last > 3 * self.every

    def __enter__(self) -> Beat:
        with writing(self.engine) as connection:
            reaped = workers.reap(connection, workers.dead_here(connection))
            self.worker = workers.register(connection, lease=self.lease)
        self.last = time.monotonic()
        self.on_reaped(reaped)
        self.thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.stopped.set()
        self.thread.join()
        try:
            with writing(self.engine) as connection:
                workers.end(connection, self.worker)
        except DatabaseError:
            if kind is None:
                raise
            # What ended the drain tells of the same trouble, and of the answers; the next run settles this worker.

    def run(self) -> None:
        while not self.stopped.wait(self.every):
            try:
                reaped = self.turn()
            except Exception:  # noqa: BLE001, S112 - the writer meets the same trouble and tells it; `late` stops claims
                continue
            self.last = time.monotonic()
            self.on_reaped(reaped)

    def turn(self) -> Reaped:
        """One more beat, and what was found of workers that have gone silent."""
        with writing(self.engine) as connection:
            if time.monotonic() - self.last > 2 * self.every:
                self.pulse.forget()  # whatever kept this process from beating may have kept the others too
            workers.beat(connection, self.worker)
            silent = self.silent(workers.beats(connection))
        return self.reaped(silent)

    def reaped(self, dead: Sequence[str]) -> Reaped:
        """In a transaction of its own: who holds its own row while it waits for jobs may wait in a circle."""
        if not dead:
            return Reaped()
        with writing(self.engine) as connection:
            return workers.reap(connection, dead)

    def silent(self, heard: dict[str, workers.Heard]) -> list[str]:
        return [worker for worker in self.pulse.silent(heard, time.monotonic()) if worker != self.worker]

"""What a process of the pool does with a hint."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.sharedctypes import RawArray, RawValue

from batchrun.catalogue import load_catalogue
from batchrun.database import connect
from batchrun.drain import Stop
from batchrun.errors import BatchrunError
from batchrun.running import work
from batchrun.simulated import with_address
from batchrun.worker.app import Own

PLACES = 1_024
"""More than a pool has processes."""
log = logging.getLogger("batchrun.worker")


class Flag(Stop):
    """The request to stop, in memory that a pool's processes share with their parent: its signals don't reach their
    tasks. A process whose parent is gone stops too, where the system doesn't end it: nobody would tell it any more.
    The other way round, each process shows its parent whether it drains."""

    def __init__(self) -> None:
        self._signals = RawValue("i", 0)
        self._busy = RawArray("b", PLACES)  # a place for each process: no locks, which one that is killed would keep
        self._place = 0
        self._parent: int | None = None
        self._asked_at: float | None = None

    def belongs_to(self, parent: int, place: int) -> None:
        """In a process of the pool; `place` is its number among those that live."""
        self._parent, self._place = parent, place % PLACES
        self._busy[self._place] = 0  # whatever became of the process that had it before

    @contextmanager
    def working(self) -> Iterator[None]:
        self._busy[self._place] = 1
        try:
            yield
        finally:
            self._busy[self._place] = 0

    @property
    def busy(self) -> bool:
        """Whether any process drains."""
        return any(self._busy)

    def ask(self) -> None:
        self._signals.value += 1

    @property
    def level(self) -> int:  # type: ignore[override]
        """How often it was asked for."""
        orphaned = self._parent is not None and os.getppid() != self._parent
        level = max(int(self._signals.value), int(orphaned))
        if level and self._asked_at is None:
            self._asked_at = time.monotonic()
        return level

    @property
    def asked_at(self) -> float:  # type: ignore[override]
        return time.monotonic() if self._asked_at is None else self._asked_at


def drained(own: Own, stop: Stop) -> None:
    """Drain until nothing is due, or the worker stops. An error of the database or the set-up is logged: the parent
    hints again as long as something is due, and `batchrun doctor` tells the same."""
    try:
        catalogue = with_address(load_catalogue(own.settings.catalogue), own.settings.simulator_url)
        engine = connect(own.settings.database_url)
        try:
            tally = work(engine, catalogue, own.settings, only=own.only, stop=stop, grace=own.grace)
        finally:
            engine.dispose()
    except BatchrunError as error:
        log.error("%s", error.message)  # noqa: TRY400 - its message says all; a traceback would be noise
        return
    if tally.calls:
        states = ", ".join(f"{number} {state}" for state, number in sorted(tally.states.items()) if number)
        log.info("%d calls, %s", tally.calls, states or "none of which ended an item")

"""The database side of a drain: one thread, one connection, group commit.

Everything that a drain writes goes through here in the order in which it was handed over. What arrives while a
transaction is being committed goes into the next one together; a commit to disk costs as much for one result as for
fifty.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import TypeVar, cast

from sqlalchemy import Connection, Engine

from batchrun.database import writing
from batchrun.errors import DatabaseError
from batchrun.store.finish import Result, finish

GROUP = 200
"""Results in one transaction at most."""
PATIENCE = 600.0
"""Seconds for which a database that doesn't answer is tried again before the drain gives up."""
PAUSE = 1.0

Returned = TypeVar("Returned")
Work = Callable[[Connection], object]


class Writer:
    """Use it as a context manager around the life of a drain; leaving it stores what was handed over."""

    def __init__(self, engine: Engine, on_stored: Callable[[list[Result]], None]) -> None:
        """`on_stored` is called on the writer's thread with results whose transaction is committed."""
        self.engine = engine
        self.on_stored = on_stored
        self.condition = threading.Condition()
        self.results: list[Result] = []
        self.work: list[tuple[Work, Future[object]]] = []
        self.closing = False
        self.failure: BaseException | None = None
        self.thread = threading.Thread(target=self.run, name="batchrun-writer", daemon=True)

    def __enter__(self) -> Writer:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self.condition:
            self.closing = True
            self.condition.notify()
        self.thread.join()
        if self.failure is not None:
            raise self.failure

    def put(self, result: Result) -> None:
        """Hand over a result. It is stored before any work that is asked for later."""
        with self.condition:
            self.results.append(result)
            self.condition.notify()

    async def do(self, work: Callable[[Connection], Returned]) -> Returned:
        """Run `work` in a transaction of its own thread and give back what it returns, once committed."""
        future: Future[object] = Future()
        with self.condition:
            if self.failure is not None:
                raise self.failure
            self.work.append((work, future))
            self.condition.notify()
        return cast(Returned, await asyncio.wrap_future(future))  # the list holds work of any type

    def run(self) -> None:
        while True:
            with self.condition:
                self.condition.wait_for(lambda: self.results or self.work or self.closing)
                results, self.results = self.results[:GROUP], self.results[GROUP:]
                work, self.work = (self.work, []) if not self.results else ([], self.work)
                if not results and not work:
                    return
            try:
                self.commit(results, work)
            except BaseException as error:  # noqa: BLE001 - handed to the loop, which ends the drain with it
                self.give_up(error, work)
                return

    def commit(self, results: list[Result], work: list[tuple[Work, Future[object]]]) -> None:
        """One transaction; tried again for as long as the database doesn't answer, which changes nothing twice."""
        last = time.monotonic() + PATIENCE
        while True:
            try:
                with writing(self.engine) as connection:
                    if results:
                        finish(connection, results)
                    returned = [act(connection) for act, _ in work]
                break
            except DatabaseError:
                if time.monotonic() > last:
                    raise
                time.sleep(PAUSE)
        if results:
            self.on_stored(results)
        for (_, future), value in zip(work, returned, strict=True):
            future.set_result(value)

    def give_up(self, error: BaseException, work: Iterable[tuple[Work, Future[object]]]) -> None:
        with self.condition:
            self.failure = error
            waiting = [*work, *self.work]
        for _, future in waiting:
            future.set_exception(error)

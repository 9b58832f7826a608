"""The database side of a drain: one thread, one connection, group commit.

Everything that a drain writes goes through here in the order in which it was handed over. What arrives while a
transaction is being committed, or shortly before a claim, goes into one together; a transaction for one result costs
nearly as much as one for fifty.
"""

from __future__ import annotations

import asyncio
import secrets
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import TypeVar, cast

from sqlalchemy import Connection, Engine

from batchrun.database import UNREACHABLE, sqlite_path, writing
from batchrun.errors import DatabaseError, ErrorKind
from batchrun.spill import spill, spill_folder
from batchrun.states import State
from batchrun.store.finish import Result, finish

GROUP = 1_000
"""Results in one transaction at most."""
PATIENCE = 600.0
"""Seconds for which a database that doesn't answer is tried again before the drain gives up."""
PAUSE = 1.0

Returned = TypeVar("Returned")
Work = Callable[[Connection], object]


class Writer:
    """Use it as a context manager around the life of a drain; leaving it stores what was handed over, or keeps it in a
    file where the database has gone."""

    def __init__(self, engine: Engine, *, hurry: Callable[[], bool] = lambda: False) -> None:
        """`hurry` says that the process has to end now, so that a database that stays away isn't waited for."""
        self.engine = engine
        self.folder = spill_folder(engine)
        self.hurry = hurry
        self.trouble = ""
        """Why nothing is stored at the moment."""
        self.hold = 0.0
        """Seconds for which results wait for a claim to be stored with."""
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
            raise self.failure if not self.results else self.kept(self.failure)

    def kept(self, failure: BaseException) -> BaseException:
        """Puts what isn't stored into a file, and says so in the error that ends the drain. Where the disk of the
        database is full, the folder for temporary files may be on another one."""
        told, moved = "", ""
        started = "" if sqlite_path(self.engine.url) else f" that is started in {self.folder.parent}"
        for folder in (self.folder, Path(tempfile.gettempdir())):
            try:
                path = spill(self.engine, folder, secrets.token_hex(8), self.results)
                told = f"are kept in {path}; {moved}the next run on this database{started} stores them"
                break
            except OSError as error:
                told, moved = f"are lost, as no file could take them: {error}", f"move it into {self.folder}, and "
        told = f"{len(self.results):,} results that it didn't take {told}"
        if not isinstance(failure, DatabaseError):
            failure.add_note(told)
            return failure
        return DatabaseError(f"{failure.message}; {told}", code=failure.code, remedy=failure.remedy)

    def put(self, result: Result) -> None:
        """Hand over a result. It is stored before any work that is asked for later."""
        with self.condition:
            self.results.append(result)
            if len(self.results) == 1:
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
                self.condition.wait_for(lambda: self.work or self.closing, self.hold)
                results, self.results = self.results[:GROUP], self.results[GROUP:]
                work, self.work = (self.work, []) if not self.results else ([], self.work)
                work = [(act, future) for act, future in work if future.set_running_or_notify_cancel()]
                if not results and not work:
                    if self.closing and not self.results:
                        return
                    continue
            try:
                self.commit(results, work)
            except BaseException as error:  # noqa: BLE001 - handed to the loop, which ends the drain with it
                self.give_up(error, results, work)
                return

    def commit(self, results: list[Result], work: list[tuple[Work, Future[object]]]) -> None:
        """Results first. If one of them can't be stored the others are, each by itself."""
        try:
            returned = self.transact(results, [act for act, _ in work])
        except DatabaseError:
            raise
        except Exception:
            if not results:
                raise
            for result in results:
                self.store_alone(result)
            returned = self.transact([], [act for act, _ in work])
        for (_, future), value in zip(work, returned, strict=True):
            future.set_result(value)

    def store_alone(self, result: Result) -> None:
        """A result that can't be stored as it is loses its texts, not its place in the ledger."""
        try:
            self.transact([result], [])
        except DatabaseError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever the database has against it, the others must go on
            self.transact([without_texts(result, error)], [])

    def transact(self, results: list[Result], work: list[Work]) -> list[object]:
        """One transaction; two where rows have locks: storing results and claiming lock jobs in the order of their ids,
        each by itself, and one after the other in one transaction they would wait in a circle with other processes."""
        if results and work and self.engine.dialect.name == "postgresql":
            self.transact(results, [])
            results = []

        def act_all(connection: Connection) -> list[object]:
            if results:
                finish(connection, results)
            return [act(connection) for act in work]

        return self.patiently(act_all)

    def patiently(self, act: Callable[[Connection], list[object]]) -> list[object]:
        """Try it again for as long as the database doesn't answer, which changes nothing twice."""
        last = time.monotonic() + PATIENCE
        while True:
            try:
                with writing(self.engine) as connection:
                    returned = act(connection)
            except DatabaseError as error:
                if error.code != UNREACHABLE or time.monotonic() > last or self.hurry():
                    raise
                self.trouble = error.message
                time.sleep(PAUSE)
            else:
                self.trouble = ""
                return returned

    def give_up(self, error: BaseException, results: list[Result], work: Iterable[tuple[Work, Future[object]]]) -> None:
        with self.condition:
            self.failure = error
            self.results = results + self.results
            waiting = [*work, *self.work]
        for _, future in waiting:
            future.set_exception(error)


def without_texts(result: Result, error: Exception) -> Result:
    """The same end of a call, without what may have made it impossible to store."""
    charge = result.charge
    return replace(
        result,
        outcome="failed",
        state=State.FAILED,
        answer=None,
        charge=None if charge is None else replace(charge, usage=None),
        error_kind=ErrorKind.INTERNAL,
        error=f"the answer could not be stored: {type(error).__name__}",
        vendor_code=None,
        request_id=None,
        contents=None,
        tokens=None,
    )

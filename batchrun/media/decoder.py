"""Decodes media in limited processes, a few at once, without ever holding up an event loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import FileIO
from queue import Empty, SimpleQueue
from tempfile import TemporaryFile
from threading import Lock
from types import TracebackType

from batchrun.errors import MediaError
from batchrun.media.child import Child, Limits, Request
from batchrun.messages import JsonValue


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    values: Mapping[str, JsonValue]
    """What the operation says, see its function in `decoding`."""
    output: FileIO | None
    """What it has written: a file without a name, which is gone when it is closed. Whoever asked closes it."""


class _Order:
    """A request on its way: it can be taken back from another thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._child: Child | None = None
        self._cancelled = False

    def give_to(self, child: Child) -> None:
        """Raises MediaError where it was taken back before."""
        with self._lock:
            if self._cancelled:
                raise MediaError("Decoding was cancelled.", code="media-undecodable")
            self._child = child

    def take_from(self) -> None:
        """From now on the process may be another request's."""
        with self._lock:
            self._child = None

    def cancel(self) -> None:
        with self._lock:
            self._cancelled = True
            if self._child is not None:
                self._child.end()


class Decoder:
    """Some processes for decoding, started when they are needed. Use it as a context manager; it belongs to the
    process that made it, so it is made after a fork."""

    def __init__(self, *, processes: int | None = None, limits: Limits | None = None) -> None:
        """`processes` at once at most; without it, one for each CPU."""
        self._limits = limits or Limits()
        self._threads = ThreadPoolExecutor(processes or os.cpu_count() or 1, thread_name_prefix="decoder")
        self._idle: SimpleQueue[Child] = SimpleQueue()

    def __enter__(self) -> Decoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Waits for what is under way."""
        self._threads.shutdown(cancel_futures=True)
        while (child := self._take_idle()) is not None:
            child.close()

    def ask(
        self,
        operation: str,
        source: FileIO,
        arguments: Mapping[str, JsonValue],
        *,
        name: str,
        writes: bool = False,
        seconds: float = 60.0,
    ) -> Decoded:
        """Have `operation` done on `source`, and wait. Not for an event loop, see `answer`.

        `name` is that of the file, for messages. With `writes` it may write to a file. `seconds` bound its wall and CPU
        time. Raises MediaError: what is wrong with the file, or `media-undecodable` where the process crashed, or
        needed more time or memory than it may have.
        """
        return self._threads.submit(self._serve, _Order(), operation, source, arguments, name, writes, seconds).result()

    async def answer(
        self,
        operation: str,
        source: FileIO,
        arguments: Mapping[str, JsonValue],
        *,
        name: str,
        writes: bool = False,
        seconds: float = 60.0,
    ) -> Decoded:
        """The same for an event loop. When the task is cancelled, the process is ended before this returns."""
        order = _Order()
        future = self._threads.submit(self._serve, order, operation, source, arguments, name, writes, seconds)
        waiting = asyncio.wrap_future(future)
        try:
            return await asyncio.shield(waiting)
        except asyncio.CancelledError:
            if not future.cancel():
                order.cancel()
                await asyncio.wait([waiting])
                _drop(waiting)
            raise

    def _serve(
        self,
        order: _Order,
        operation: str,
        source: FileIO,
        arguments: Mapping[str, JsonValue],
        name: str,
        writes: bool,
        seconds: float,
    ) -> Decoded:
        child = self._take_idle() or Child(self._limits)
        output: FileIO | None = None
        try:
            order.give_to(child)
            output = nameless() if writes else None
            request = Request(
                name=name,
                operation=operation,
                arguments=arguments,
                source=source.fileno(),
                target=None if output is None else output.fileno(),
                seconds=seconds,
            )
            values = child.ask(request)
        except BaseException:
            if output is not None:
                output.close()
            raise
        finally:
            order.take_from()
            if child.usable:
                self._idle.put(child)
            else:
                child.close()
        return Decoded(values=values, output=output)

    def _take_idle(self) -> Child | None:
        try:
            return self._idle.get_nowait()
        except Empty:
            return None


def nameless() -> FileIO:
    """A file that is gone when it is closed, also when this process is killed."""
    try:
        file = TemporaryFile(buffering=0)  # noqa: SIM115 - whoever asked closes it
    except OSError as error:
        raise MediaError(
            f"No temporary file can be made ({error.strerror}).",
            code="media-undecodable",
            remedy="See whether the disk of TMPDIR is full; retry the item.",
        ) from error
    assert isinstance(file, FileIO)  # noqa: S101 - what `buffering=0` means
    return file


def _drop(waiting: asyncio.Future[Decoded]) -> None:
    """Close what came of a request that nobody waits for any more."""
    if not waiting.cancelled() and waiting.exception() is None and (output := waiting.result().output) is not None:
        output.close()

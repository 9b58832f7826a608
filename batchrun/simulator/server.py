"""Accepts connections, reads requests, and hands them to what answers them."""

import asyncio
import contextlib
import json
import time
from collections.abc import Mapping
from typing import Final

from batchrun.simulator.book import Book
from batchrun.simulator.exchange import Exchange, Simulation
from batchrun.simulator.files import Files
from batchrun.simulator.http import MAX_LINE, HttpRequest, MalformedRequest, Reply, encode_reply, read_request
from batchrun.simulator.keys import accepted_keys
from batchrun.simulator.limits import Limits
from batchrun.simulator.line import Line
from batchrun.simulator.options import Options
from batchrun.simulator.targets import chat_target, files_place, path_of, uploads_place
from batchrun.simulator.uploads import STORAGE, Uploads

BACKLOG: Final = 4_096
LINGER: Final = 2.0
"""Seconds for which the rest of a refused request is read, so that its sender gets to see the answer."""


def make_simulation(options: Options, book: Book, environment: Mapping[str, str]) -> Simulation:
    keys = accepted_keys(environment)
    return Simulation(
        options=options,
        keys=keys,
        book=book,
        files=Files(keys),
        uploads=Uploads(keys=keys, lifetime=options.upload_lifetime, limits=options.limits, clock=time.monotonic),
        limits=Limits(enforced=options.limits, rpm=options.rpm, tpm=options.tpm, clock=time.monotonic),
    )


class Server:
    """Listens from `start` to `stop`."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.tasks: set[asyncio.Task[None]] = set()
        self.server: asyncio.Server | None = None

    async def start(self) -> str:
        """Listen; return the address. Raise `OSError` when the port is taken."""
        options = self.simulation.options
        self.server = await asyncio.start_server(
            self.connection, options.host, options.port, limit=MAX_LINE, backlog=BACKLOG
        )
        host, port = self.server.sockets[0].getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def stop(self) -> None:
        """Break off what is running; every open request gets its row in the book."""
        if self.server is not None:
            self.server.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
        self.simulation.counts.connections += 1
        line = Line(reader, writer, self.simulation.pacer)
        try:
            while await self.one_request(line):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client or the simulator has stopped; the book has its row already
        finally:
            writer.close()

    async def one_request(self, line: Line) -> bool:
        """Return whether another request may follow."""
        try:
            request = await read_request(line.reader, line.writer)
        except MalformedRequest as error:
            await line.send(encode_reply(problem(error.status, error.message), keep_alive=False))
            await linger(line)
            return False
        if request is None:
            return False
        path = path_of(request.target)
        target = chat_target(path)
        if target is not None and request.method == "POST":
            return await Exchange(self.simulation, request, target, line).run()
        reply = self.page(request, path) if target is None else not_allowed("POST")
        if request.method == "HEAD":
            reply = Reply(status=reply.status, headers=reply.headers)
        await line.send(encode_reply(reply, keep_alive=request.keep_alive))
        return request.keep_alive

    def page(self, request: HttpRequest, path: str) -> Reply:
        if path == STORAGE or path.startswith(f"{STORAGE}/"):
            return (
                self.simulation.uploads.storage_reply(request, path)
                if request.method == "POST"
                else not_allowed("POST")
            )
        if files_place(path) and request.method == "POST":
            return self.simulation.files.reply(request)
        match path:
            case "/uploads":
                body = self.simulation.uploads.to_json()
            case "/book":
                body = self.simulation.book.to_json()
            case "/stats":
                body = json.dumps(self.simulation.counts.stats().to_dict())
            case "/healthz":
                body = '{"status": "ok"}'
            case _ if (place := uploads_place(path)) is not None and request.method == "GET":
                return self.simulation.uploads.policy_reply(request, *place)
            case _:
                return problem(404, "There is nothing at this address; see batchrun simulate --help")
        if request.method not in ("GET", "HEAD"):
            return not_allowed("GET, HEAD")
        return Reply(status=200, body=body.encode())


def not_allowed(methods: str) -> Reply:
    reply = problem(405, f"This address takes only {methods}.")
    return Reply(status=405, body=reply.body, headers=(*reply.headers, ("allow", methods)))


def problem(status: int, message: str) -> Reply:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    return Reply(status=status, body=json.dumps({"error": error}).encode())


async def linger(line: Line) -> None:
    if line.writer.can_write_eof():
        line.writer.write_eof()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER):
            await line.stall()

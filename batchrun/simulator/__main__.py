"""`python -m batchrun.simulator`: listens, prints its addresses as one line of JSON, serves until it is stopped."""

import asyncio
import gc
import json
import os
import resource
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Final

from batchrun.simulator.book import Book
from batchrun.simulator.options import Options, fault_list, parse_options
from batchrun.simulator.server import Server, make_simulation
from batchrun.simulator.targets import base_paths

MANY: Final = 65_536


async def serve(options: Options, book: Book) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = Server(make_simulation(options, book, os.environ))
    url = await server.start()
    bases = {api: {place: url + path for place, path in paths.items()} for api, paths in base_paths().items()}
    sys.stdout.write(json.dumps({"url": url, "base_urls": bases}) + "\n")
    sys.stdout.flush()
    if options.exit_on_stdin_eof:
        threading.Thread(target=watch_stdin, args=(loop, stop), daemon=True).start()
    await stop.wait()
    await server.stop()


def watch_stdin(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    # A thread, because an event loop cannot watch every kind of file that standard input may be.
    while os.read(0, 4_096):
        pass
    loop.call_soon_threadsafe(stop.set)


def allow_many_connections() -> None:
    """Each stream takes a file descriptor, and the usual soft limit is about a thousand."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MANY if hard == resource.RLIM_INFINITY else min(hard, MANY)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def main(arguments: Sequence[str]) -> int:
    options = parse_options(arguments)
    if options is None:
        sys.stdout.write(fault_list() + "\n")
        return 0
    allow_many_connections()
    gc.set_threshold(100_000, 50, 100)  # a thousand open streams are many objects and few cycles
    try:
        with Book(options.book) as book:
            asyncio.run(serve(options, book))
    except OSError as error:
        sys.stderr.write(f"simulator: {error}\n")
        return 4
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

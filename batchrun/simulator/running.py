"""Runs a simulator as a process of its own, from Python."""

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Final, Self
from urllib.parse import urlsplit

from batchrun.simulator.book import BookRow, read_row
from batchrun.simulator.keys import accepted_keys
from batchrun.simulator.models import ACEDATA, MOONSHOT, REGIONS
from batchrun.simulator.options import Options
from batchrun.simulator.stats import Stats
from batchrun.simulator.targets import ACEDATA_BASE, COMPAT_BASE, MOONSHOT_BASE, NATIVE_BASE, base_path

PATIENCE: Final = 10.0
"""Seconds to wait for the process to end, and for a page of it."""
LOOK: Final = 0.01


class SimulatorFailed(RuntimeError):
    """The process did not start, or does not answer."""


class Running:
    """A simulator that is running. Its process ends with `stop`, and with this process in any case."""

    def __init__(self, process: subprocess.Popen[str], url: str, keys: Mapping[str, str]) -> None:
        self.process = process
        self.url = url
        self.keys = keys
        """The accepted key of each region, and of `acedata` and `moonshot`."""

    @classmethod
    def launch(cls, options: Options, environment: Mapping[str, str]) -> Self:
        arguments = replace(options, exit_on_stdin_eof=True).arguments()
        process = subprocess.Popen(  # noqa: S603 - our own module, and arguments made from typed options
            [sys.executable, "-m", "batchrun.simulator", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=dict(environment),
            start_new_session=True,  # Ctrl-C is for the parent, which may still want to finish its calls
        )
        first_line = process.stdout.readline() if process.stdout is not None else ""
        if not first_line:
            code = process.wait(PATIENCE)
            close_pipes(process)
            raise SimulatorFailed(f"the simulator did not start (exit code {code}); its message stands above")
        return cls(process, json.loads(first_line)["url"], accepted_keys(environment))

    def base_url(self, region: str = REGIONS[0], fault: str = "") -> str:
        """What a client of compat takes as its base URL, with the fault spec in it."""
        return self.url + base_path(region, COMPAT_BASE, fault)

    def native_url(self, region: str = REGIONS[0], fault: str = "") -> str:
        """The same for the native protocol: what the `dashscope` SDK takes as `base_http_api_url`."""
        return self.url + base_path(region, NATIVE_BASE, fault)

    def acedata_url(self, fault: str = "") -> str:
        return self.url + base_path(ACEDATA, ACEDATA_BASE, fault)

    def moonshot_url(self, fault: str = "") -> str:
        return self.url + base_path(MOONSHOT, MOONSHOT_BASE, fault)

    def book(self, *, settle: float = PATIENCE) -> list[BookRow]:
        """The rows of the bill book, after waiting up to `settle` seconds for requests still running."""
        deadline = time.monotonic() + settle
        while self.stats().open and time.monotonic() < deadline:
            time.sleep(LOOK)
        rows = self.page("/book")
        if not isinstance(rows, list):
            raise SimulatorFailed("the simulator's book is no list")
        return [read_row(row) for row in rows]

    def stats(self) -> Stats:
        values = self.page("/stats")
        if not isinstance(values, dict):
            raise SimulatorFailed("the simulator's counts are no object")
        return Stats(**values)

    def page(self, path: str) -> object:
        address = urlsplit(self.url)
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=PATIENCE)
        try:
            connection.request("GET", path)
            document: object = json.loads(connection.getresponse().read())
        except OSError as error:
            raise SimulatorFailed(f"the simulator at {self.url} does not answer: {error}") from error
        finally:
            connection.close()
        return document

    def stop(self) -> None:
        """End the process; does nothing when it has ended already."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        close_pipes(self.process)


def close_pipes(process: subprocess.Popen[str]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


@contextmanager
def start(options: Options | None = None, *, environment: Mapping[str, str] | None = None) -> Iterator[Running]:
    """Run a simulator while the block lasts. Raise `SimulatorFailed` when it does not start.

    `environment` replaces the variables of this process, the one with the accepted key included.
    """
    running = Running.launch(options or Options(), os.environ if environment is None else environment)
    try:
        yield running
    finally:
        running.stop()

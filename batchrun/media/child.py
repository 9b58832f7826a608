"""A process that decodes for us, with limits: what a hostile file does to it, it does to nobody else.

The process is `python -m batchrun.media.decoding`, with an empty environment, a session of its own, and a socket as its
standard input. A request is one line of JSON; the file to read and the file to write come with it as open descriptors,
so that the process opens no path. The answer is one line of JSON. It serves one request at a time, one after another:
a start costs more than a picture does.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import batchrun
from batchrun.errors import MediaError
from batchrun.media.decoding import SAVE_AGAIN
from batchrun.messages import JsonValue
from batchrun.showing import clean

LONGEST_ANSWER = 4 * 1024 * 1024
"""Bytes of a line of JSON."""
LONGEST_MESSAGE = 300
"""Characters of what a library said about a file."""
SLACK = 2.0
"""Seconds after which the process is ended from here, when it hasn't ended itself by its own clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a process may use."""

    memory: int = 1536 * 1024 * 1024
    """Bytes of address space, with the libraries."""
    written: int = 1024 * 1024 * 1024
    """Bytes of a file that it writes."""
    files: int = 64
    requests: int = 500
    """After these it is replaced: libraries lose memory over time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    name: str
    """Of the file, for messages."""
    operation: str
    """A name of `decoding.OPERATIONS`."""
    arguments: Mapping[str, JsonValue]
    source: int
    """Descriptor of the file to read. It stays the caller's, and open until the answer is there."""
    target: int | None = None
    """Descriptor of the file to write, likewise."""
    seconds: float = 60.0
    """Of wall time, and of CPU time. What takes longer is ended."""


class Child:
    """One process. It ends by itself when the other end of the socket is closed, whatever becomes of this process."""

    def __init__(self, limits: Limits) -> None:
        """Raises MediaError where no process can be started; its cause is the OSError."""
        self.limits = limits
        self.served = 0
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self.process = subprocess.Popen(  # noqa: S603 - our own program; nothing in it comes from a job
                    [sys.executable, "-P", "-s", "-m", "batchrun.media.decoding", json.dumps(asdict(limits))],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env={"PYTHONPATH": str(Path(batchrun.__file__).resolve().parent.parent)},
                    cwd="/",
                    start_new_session=True,
                )
            except OSError as error:
                ours.close()
                raise MediaError(
                    f"No process for decoding can be started ({error.strerror}).",
                    code="media-undecodable",
                    remedy="See whether the machine has memory and processes left; retry the item.",
                ) from error
        self.channel = ours

    @property
    def usable(self) -> bool:
        return self.served < self.limits.requests and self.process.poll() is None

    def ask(self, request: Request) -> dict[str, JsonValue]:
        """The answer. Blocks; raises MediaError. After an error of the process itself it is ended."""
        self.served += 1
        deadline = time.monotonic() + request.seconds + SLACK
        try:
            self._send(request, deadline)
            answer = json.loads(self._receive(deadline))
        except TimeoutError as error:
            self.end()
            raise _given_up(request, f"it took longer than {request.seconds:g} s") from error
        except (OSError, ValueError) as error:
            self.end()
            raise _given_up(request, self._last_words(request)) from error
        if not isinstance(answer, dict):
            self.end()
            raise _given_up(request, "the decoder answered nonsense")
        if "code" in answer:
            if answer["code"] == "media-undecodable":  # after a lack of memory nothing is certain
                self.end()
            raise MediaError(
                f"{request.name!r} {clean(str(answer['message']), LONGEST_MESSAGE)}.",
                code=str(answer["code"]),
                remedy=str(answer["remedy"]),
            )
        return answer

    def end(self) -> None:
        """With all that it has started. Safe to call from another thread while `ask` waits, which then raises."""
        with suppress(ProcessLookupError):
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
        with suppress(OSError):  # wakes whoever reads; the socket isn't connected any more after a crash
            self.channel.shutdown(socket.SHUT_RDWR)
        self.process.wait()

    def close(self) -> None:
        self.end()
        self.channel.close()

    def _send(self, request: Request, deadline: float) -> None:
        line = json.dumps(
            {"operation": request.operation, "arguments": dict(request.arguments), "seconds": request.seconds}
        )
        files = [request.source, *([] if request.target is None else [request.target])]
        data = line.encode() + b"\n"
        self.channel.settimeout(max(deadline - time.monotonic(), 0.001))
        sent = socket.send_fds(self.channel, [data], files)
        self.channel.sendall(data[sent:])

    def _receive(self, deadline: float) -> bytes:
        parts: list[bytes] = []
        size = 0
        while not (parts and parts[-1].endswith(b"\n")):
            if (left := deadline - time.monotonic()) <= 0:
                raise TimeoutError
            self.channel.settimeout(left)
            part = self.channel.recv(65_536)
            size += len(part)
            if not part or size > LONGEST_ANSWER:
                raise ConnectionError
            parts.append(part)
        return b"".join(parts)

    def _last_words(self, request: Request) -> str:
        """How the process ended, after it was waited for."""
        status = self.process.returncode
        if status in (-signal.SIGALRM, -signal.SIGXCPU):
            return f"it took longer than {request.seconds:g} s"
        if status < 0:
            return f"the decoder was ended by {signal.Signals(-status).name}"
        return "the decoder broke off"


def _given_up(request: Request, reason: str) -> MediaError:
    return MediaError(f"{request.name!r} couldn't be decoded: {reason}.", code="media-undecodable", remedy=SAVE_AGAIN)

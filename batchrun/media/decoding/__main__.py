"""The process: takes its limits, leaves the network, and serves requests from its standard input until that ends."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from importlib import import_module

from batchrun.errors import MediaError
from batchrun.media.decoding import OPERATIONS, SAVE_AGAIN, Operation
from batchrun.messages import JsonValue

LONGEST_REQUEST = 65_536
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000


def main(limits: Mapping[str, int]) -> None:
    confine(limits)
    with socket.socket(fileno=0) as channel:
        while serve(channel):
            pass


def confine(limits: Mapping[str, int]) -> None:
    for kind, limit in (
        (resource.RLIMIT_AS, limits["memory"]),
        (resource.RLIMIT_FSIZE, limits["written"]),
        (resource.RLIMIT_NOFILE, limits["files"]),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        allowed = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (allowed, allowed))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    leave_network()


def leave_network() -> None:
    """Into a network of its own, without any interface. A second wall: the operations read nothing but the descriptors
    that they are given. Where the system doesn't allow it (some containers, macOS), there is only the first one."""
    unshare = getattr(ctypes.CDLL(None), "unshare", None)
    if unshare is not None and unshare(CLONE_NEWNET) != 0:
        unshare(CLONE_NEWUSER | CLONE_NEWNET)


def serve(channel: socket.socket) -> bool:
    """One request. False at the end of them."""
    line, files = receive(channel)
    with ExitStack() as stack:
        opened = [stack.enter_context(os.fdopen(file, "r+b" if number else "rb")) for number, file in enumerate(files)]
        if not line:
            return False
        request = json.loads(line)
        allow(request["seconds"])
        source, target = opened[0], opened[1] if len(opened) > 1 else None
        source.seek(0)
        try:
            answer = operation(request["operation"])(source, target, request["arguments"])
            if target is not None:
                target.flush()
        except MediaError as error:
            answer = {"code": error.code, "message": error.message, "remedy": error.remedy}
        except MemoryError:
            answer = undecodable("it needs more memory than it may have")
        except Exception as error:  # noqa: BLE001 - the end of a request: libraries raise anything on broken files
            answer = undecodable(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
        signal.setitimer(signal.ITIMER_REAL, 0)
    channel.sendall(json.dumps(answer).encode() + b"\n")
    return True


def receive(channel: socket.socket) -> tuple[bytes, list[int]]:
    """A line and the descriptors that came with it; an empty line at the end."""
    line, files, _, _ = socket.recv_fds(channel, LONGEST_REQUEST, 2)
    while line and not line.endswith(b"\n"):
        part = channel.recv(LONGEST_REQUEST)
        line = line + part if part else b""
    return line, files


def allow(seconds: float) -> None:
    """End this process when the request takes longer, even if nobody is left who waits for the answer."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    until = int(usage.ru_utime + usage.ru_stime + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (until, resource.getrlimit(resource.RLIMIT_CPU)[1]))
    signal.setitimer(signal.ITIMER_REAL, seconds)


def operation(name: str) -> Operation:
    found: Operation = getattr(import_module(OPERATIONS[name]), name)
    return found


def undecodable(reason: str) -> Mapping[str, JsonValue]:
    return {
        "code": "media-undecodable",
        "message": f"couldn't be decoded: {reason}",
        "remedy": SAVE_AGAIN,
    }


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))

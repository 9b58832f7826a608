"""RabbitMQ out of the machine's packages, with everything that it writes in a folder of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.workers.fleet import free_port

PACKAGED = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
"""Where Debian puts the script itself; what it has on the PATH changes to another user first."""
PATIENCE = 60.0


def rabbitmq_executable() -> str:
    found = str(PACKAGED) if PACKAGED.exists() else shutil.which("rabbitmq-server")
    if found is None:
        pytest.skip("no RabbitMQ: install it (on Debian: apt-get install rabbitmq-server) to test with it")
    return found


class RabbitMQ:
    """A broker that can be stopped and started again on its port, with what it held."""

    def __init__(self, folder: Path) -> None:
        self.executable = rabbitmq_executable()
        self.folder = folder
        self.port, among, names = free_port(), free_port(), free_port()
        self.environment = {
            **os.environ,
            "HOME": str(folder),  # its cookie
            "ERL_EPMD_PORT": str(names),
            "RABBITMQ_NODENAME": f"batchrun{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(among),
            "RABBITMQ_MNESIA_BASE": str(folder),
            "RABBITMQ_LOG_BASE": str(folder),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(folder / "no-settings"),
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
        }
        # Erlang would start one by itself, and leave it behind.
        self.names = subprocess.Popen(["epmd", "-port", str(names), "-address", "127.0.0.1"])
        self.server: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def start(self) -> None:
        with (self.folder / "out").open("wb") as out:
            self.server = subprocess.Popen(
                [self.executable], env=self.environment, stdout=out, stderr=out, start_new_session=True
            )
        last = time.monotonic() + PATIENCE
        while not self.answers():
            assert time.monotonic() < last, (self.folder / "out").read_text(encoding="utf-8")
            time.sleep(0.2)

    def answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False

    def signal(self, number: signal.Signals) -> None:
        """To all processes of the server: the first of them is a shell script."""
        assert self.server is not None
        os.killpg(self.server.pid, number)

    def stop(self) -> None:
        if self.server is not None:
            self.signal(signal.SIGKILL)
            self.server.wait()
            self.server = None

    def end(self) -> None:
        self.stop()
        self.names.terminate()
        self.names.wait()

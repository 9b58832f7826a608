"""One worker process and two, on PostgreSQL and a broker: what does the second one bring?

    python -m benchmarks.workers [ROUNDS]                   2 rounds unless said otherwise, a minute each

Answers of 2 s, and room for 100 streams in each process: it is given so few open files. So a process is limited by its
streams, 50 calls a second at best, and neither by the CPU, of which that takes a tenth of a core, nor by the server,
which has a process of its own and writes ten times for each answer. A second process must then bring as much as the
first. What is missing is lost where processes wait for one another: in claims, and in storing what came of them. Where
the CPU is the limit instead, as with 1,000 streams in each process, two bring no more than the machine has.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import sqlalchemy as sa
from psycopg import sql
from sqlalchemy import Engine

from batchrun.database import connect, reading, upgrade
from batchrun.running import FILES_OF_A_CALL
from batchrun.tables import attempts, items, workers
from benchmarks.__main__ import serving, spread
from benchmarks.contenders import CATALOGUE, JOB
from benchmarks.scenarios import Scenario
from tests.servers import Postgres, running_postgres
from tests.workers.fleet import BATCHRUN, Broker

STREAMS = 100
"""Of one process."""
LOAD = Scenario(
    title="answers of 100 chunks over 2 s, 100 streams in each process",
    chunks=100,
    seconds=2,
    streams=STREAMS,
    calls=800,
    sdk_calls=0,
)
"""`calls` are those of one process: two make twice as many."""
PATIENCE = 120.0
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    per_second: float
    """From the first request to the last answer."""
    cpu_ms: float
    """Of all processes of the worker, for each call."""
    shares: list[int]
    """Calls of each process."""


def limit_files() -> None:
    files = STREAMS * FILES_OF_A_CALL
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))


@contextmanager
def worker(processes: int, folder: Path, environment: dict[str, str]) -> Iterator[int]:
    """The id of the parent of a worker whose processes wait for work."""
    with (folder / "worker.log").open("w") as log:
        command = [*BATCHRUN, "worker", "-c", str(processes)]
        parent = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True, preexec_fn=limit_files
        )
    try:
        wait_for(lambda: len(family(parent.pid)) > processes)
        yield parent.pid
    finally:
        parent.send_signal(signal.SIGTERM)
        parent.wait()


def wait_for(what: Callable[[], bool]) -> None:
    last = time.monotonic() + PATIENCE
    while not what():
        if time.monotonic() > last:
            raise TimeoutError
        time.sleep(0.1)


def family(pid: int) -> list[int]:
    """A process and its children."""
    return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


def cpu_seconds(pids: list[int]) -> float:
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(ticks) for each in fields for ticks in each[11:13]) / TICKS


def measured(processes: int, url: str, postgres: Postgres, broker: Broker) -> Figure:
    calls = LOAD.calls * processes
    database = postgres.create()
    upgrade(database)
    engine = connect(database)
    try:
        with tempfile.TemporaryDirectory(prefix="batchrun-benchmark-") as name:
            folder = Path(name)
            rows = (json.dumps({"id": f"item-{number}", "text": f"Item {number}"}) + "\n" for number in range(calls))
            (folder / "rows.jsonl").write_text("".join(rows), encoding="utf-8")
            (folder / "catalogue.yaml").write_text(CATALOGUE.format(url=url), encoding="utf-8")
            (folder / "jobs.yaml").write_text(JOB.format(stream="true", streams=10 * STREAMS), encoding="utf-8")
            environment = {
                **os.environ,
                "DATABASE_URL": database,
                "CELERY_BROKER_URL": broker.url,
                "BATCHRUN_CATALOGUE": str(folder / "catalogue.yaml"),
                "PYTHONPATH": os.pathsep.join(filter(None, [str(Path.cwd()), os.environ.get("PYTHONPATH")])),
            }
            with worker(processes, folder, environment) as parent:
                before = cpu_seconds(family(parent))
                subprocess.run([*BATCHRUN, "-q", "submit", "jobs.yaml"], cwd=folder, env=environment, check=True)
                wait_for(lambda: done(engine) == calls)
                cpu = cpu_seconds(family(parent)) - before
        return figure(engine, cpu)
    finally:
        engine.dispose()
        postgres.drop(database)


def done(engine: Engine) -> int:
    with reading(engine) as connection:
        ended = sa.select(sa.func.count()).where(items.c.state == "done")
        return int(connection.execute(ended).scalar_one())


def figure(engine: Engine, cpu: float) -> Figure:
    with reading(engine) as connection:
        first, last, calls = connection.execute(
            sa.select(sa.func.min(attempts.c.sent_at), sa.func.max(attempts.c.ended_at), sa.func.count())
        ).one()
        # a process is another worker in each of its drains
        shares = sa.select(sa.func.count()).select_from(attempts.join(workers)).group_by(workers.c.pid)
        return Figure(
            per_second=calls / (last - first).total_seconds(),
            cpu_ms=1000 * cpu / calls,
            shares=sorted(connection.execute(shares).scalars()),
        )


def main(rounds: int) -> None:
    print(f"{os.cpu_count()} cores, median of {rounds} round(s)\n\n{LOAD.title}")
    figures: dict[int, list[Figure]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory(prefix="batchrun-benchmark-") as folder, running_postgres() as postgres:
        postgres.execute(sql.SQL("ALTER SYSTEM RESET ALL"))  # commits reach the disk, as they do for users
        postgres.execute(sql.SQL("SELECT pg_reload_conf()"))
        broker = Broker(folder=Path(folder))
        broker.start()
        try:
            with serving(LOAD) as url:
                for _ in range(rounds):
                    for processes, found in figures.items():
                        found.append(measured(processes, url, postgres, broker))
        finally:
            broker.stop()
    print(f"{'':14}{'calls/s':>8}{'CPU ms':>8}  calls of each process")
    for processes, found in figures.items():
        name = f"{processes} process{'es' if processes > 1 else ''}"
        per_second, cpu = median(one.per_second for one in found), median(one.cpu_ms for one in found)
        print(f"{name:14}{per_second:8.1f}{cpu:8.2f}  {found[-1].shares}")
    pairs = list(zip(figures[2], figures[1], strict=True))
    print(f"{'2 / 1':14}calls/s {spread([two.per_second / one.per_second for two, one in pairs])}, "
          f"CPU {spread([two.cpu_ms / one.cpu_ms for two, one in pairs])}")  # fmt: skip


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2)

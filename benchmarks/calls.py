"""CPU and speed of a call: a bare aiohttp loop that stores nothing, and the drain that stores everything.

    python benchmarks/calls.py [--calls 2000] [--streams 64] [--chunks 100] [--seconds 0] [--rounds 3]

Both run in this one process against the same local server, in turns; the ratio is what counts, as machines are noisy.
Each figure is the best of the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from batchrun.catalogue import load_catalogue
from batchrun.database import connect
from batchrun.jobfile.reader import read_job_file
from batchrun.loading import load
from batchrun.running import run
from batchrun.settings import read_settings


@dataclass(frozen=True)
class Figure:
    cpu_ms: float
    """Of this process, for each call."""
    per_second: float
    peak_mb: float


def measured(calls: int, work: Callable[[], None]) -> Figure:
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    work()
    after, seconds = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter() - began
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Figure(cpu_ms=1000 * cpu / calls, per_second=calls / seconds, peak_mb=after.ru_maxrss / 1024)


def bare(url: str, calls: int, streams: int) -> None:
    """The floor: send the same body, read every chunk, keep nothing."""
    body = json.dumps({"model": "bench", "messages": [{"role": "user", "content": "Item 1"}], "stream": True})

    async def main() -> None:
        left = iter(range(calls))
        headers = {"content-type": "application/json"}

        async def stream(session: aiohttp.ClientSession) -> None:
            for _ in left:
                async with session.post(url + "/v1/chat/completions", data=body, headers=headers) as response:
                    async for _chunk in response.content.iter_any():
                        pass

        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            await asyncio.gather(*(stream(session) for _ in range(streams)))

    asyncio.run(main())


def prepared(folder: Path, url: str, calls: int, streams: int) -> Callable[[], None]:
    """A job loaded into an SQLite database; what is returned drains it."""
    rows = "".join(json.dumps({"id": f"item-{number}", "text": f"Item {number}"}) + "\n" for number in range(calls))
    (folder / "rows.jsonl").write_text(rows, encoding="utf-8")
    (folder / "catalogue.yaml").write_text(
        f"""
endpoints:
  bench:
    dialect: compat
    base_url: {url}/v1
    key_env: []
    models:
      bench:
        max_output: 1000
        context: 10000
        prices: [{{currency: USD, source: benchmark, tiers: [{{input: "0.2", output: "1.6"}}]}}]
""",
        encoding="utf-8",
    )
    (folder / "jobs.yaml").write_text(
        f"""
version: 1
jobs:
  - name: bench
    provider: bench
    model: bench
    inputs: {{rows: rows.jsonl}}
    prompt: "{{{{ text }}}}"
    limits: {{concurrency: {streams}}}
""",
        encoding="utf-8",
    )
    catalogue = load_catalogue(folder / "catalogue.yaml")
    settings = read_settings({}, folder)
    engine = connect(settings.database_url, create=True)
    loaded = load(engine, read_job_file(folder / "jobs.yaml"), catalogue, base=folder)

    def drain() -> None:
        end = run(engine, [job.job_id for job in loaded], catalogue, settings)
        assert end.jobs[0].states == {"done": calls}, end.jobs
        engine.dispose()

    return drain


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--chunks", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=0.0, help="over which an answer is spread")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    server = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("server.py")), str(options.chunks), str(options.seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert server.stdout is not None
    assert server.stdin is not None
    url = json.loads(server.stdout.readline())["url"]
    floors: list[Figure] = []
    drains: list[Figure] = []
    try:
        for _ in range(options.rounds):
            floors.append(measured(options.calls, lambda: bare(url, options.calls, options.streams)))
            folder = Path(tempfile.mkdtemp(prefix="batchrun-bench-"))
            try:
                drains.append(measured(options.calls, prepared(folder, url, options.calls, options.streams)))
            finally:
                shutil.rmtree(folder)
    finally:
        server.stdin.close()
        server.wait()
    print(f"{options.calls} calls of {options.chunks} chunks over {options.seconds:g} s, {options.streams} streams")
    print(f"{'':24}{'CPU ms/call':>12}{'calls/s':>10}{'peak MB':>10}")
    for name, figures in (("bare aiohttp, no storage", floors), ("batchrun, SQLite", drains)):
        print(
            f"{name:24}{min(figure.cpu_ms for figure in figures):12.2f}"
            f"{max(figure.per_second for figure in figures):10.0f}{figures[0].peak_mb:10.0f}"
        )
    print(
        f"ratio: CPU {min(f.cpu_ms for f in drains) / min(f.cpu_ms for f in floors):.2f}, "
        f"speed {max(f.per_second for f in drains) / max(f.per_second for f in floors):.2f}"
    )


if __name__ == "__main__":
    main()

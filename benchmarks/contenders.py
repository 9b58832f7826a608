"""Those who make the calls, each in a process of its own.

    python -m benchmarks.contenders NAME SCENARIO URL CALLS

Prints what the calls took, as JSON. Preparation (imports, loading the job into the database) isn't counted.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

from benchmarks.scenarios import SCENARIOS, Scenario

Work = Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    cpu_ms: float
    """Of the contender's process, for each call."""
    per_second: float
    peak_mb: float
    idle_mb: float
    """Before the first call."""


def measured(calls: int, work: Work) -> Figure:
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    work()
    after, seconds = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter() - began
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Figure(
        cpu_ms=1000 * cpu / calls,
        per_second=calls / seconds,
        peak_mb=after.ru_maxrss / 1024,
        idle_mb=before.ru_maxrss / 1024,
    )


def messages(number: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"Item {number}"}]


async def at_once(calls: int, streams: int, call: Callable[[int], Coroutine[object, object, None]]) -> None:
    left = iter(range(calls))

    async def stream() -> None:
        for number in left:
            await call(number)

    await asyncio.gather(*(stream() for _ in range(streams)))


def bare(scenario: Scenario, url: str, calls: int, folder: Path) -> Work:
    """The floor: send a body, read every chunk, keep nothing."""
    import aiohttp

    headers = {"content-type": "application/json"}
    end = f"{url}/chat/completions"

    async def main() -> None:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def call(number: int) -> None:
                body = json.dumps({"model": "bench", "messages": messages(number), "stream": scenario.stream})
                async with session.post(end, data=body, headers=headers) as response:
                    async for _chunk in response.content.iter_any():
                        pass

            await at_once(calls, scenario.streams, call)

    return lambda: asyncio.run(main())


def transport(scenario: Scenario, url: str, calls: int, folder: Path) -> Work:
    """The floor of batchrun itself: its transport, without claim, fold and store."""
    from batchrun.dialects.base import Body
    from batchrun.transport import Transport

    headers = {"content-type": "application/json", "accept-encoding": "identity", "user-agent": "benchmark"}
    end = f"{url}/chat/completions"

    async def main() -> None:
        async with Transport() as transport:

            async def call(number: int) -> None:
                body = json.dumps({"model": "bench", "messages": messages(number), "stream": scenario.stream})
                async with transport.post(end, headers, Body(pieces=(body.encode(),))) as response:
                    async for _chunk in response.chunks():
                        pass

            await at_once(calls, scenario.streams, call)

    return lambda: asyncio.run(main())


def openai_sdk(scenario: Scenario, url: str, calls: int, folder: Path) -> Work:
    """The SDK as its README shows it, with its own client; keeps nothing."""
    from openai import AsyncOpenAI

    async def main() -> None:
        async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:

            async def call(number: int) -> None:
                made = client.chat.completions
                if not scenario.stream:
                    await made.create(model="bench", messages=[{"role": "user", "content": f"Item {number}"}])
                    return
                answer = await made.create(
                    model="bench",
                    messages=[{"role": "user", "content": f"Item {number}"}],
                    stream=True,
                    stream_options={"include_usage": True},
                )
                async for _chunk in answer:
                    pass

            await at_once(calls, scenario.streams, call)

    return lambda: asyncio.run(main())


def flexllm(scenario: Scenario, url: str, calls: int, folder: Path) -> Work:
    """A peer, where it is installed: its bulk call of plain answers, kept in memory."""
    from flexllm import LLMClient

    client = LLMClient(base_url=url, model="bench", api_key="none", concurrency_limit=scenario.streams, retry_times=0)
    asked = [messages(number) for number in range(calls)]

    def work() -> None:
        answers = asyncio.run(client.chat_completions_batch(asked, show_progress=False))
        assert len(answers) == calls
        assert all(answers)

    return work


CATALOGUE = """
endpoints:
  bench:
    dialect: compat
    base_url: {url}
    key_env: []
    models:
      bench:
        max_output: 1000
        context: 10000
        prices: [{{currency: USD, source: benchmark, tiers: [{{input: "0.2", output: "1.6"}}]}}]
"""
JOB = """
version: 1
jobs:
  - name: bench
    provider: bench
    model: bench
    inputs: {{rows: rows.jsonl}}
    prompt: "{{{{ text }}}}"
    stream: {stream}
    limits: {{concurrency: {streams}}}
"""


def batchrun(scenario: Scenario, url: str, calls: int, folder: Path) -> Work:
    """The whole product on SQLite: every attempt, answer, usage and cost is on the disk at the end."""
    from batchrun.catalogue import load_catalogue
    from batchrun.database import connect
    from batchrun.jobfile.reader import read_job_file
    from batchrun.loading.loader import load
    from batchrun.running import run
    from batchrun.settings import read_settings

    rows = "".join(json.dumps({"id": f"item-{number}", "text": f"Item {number}"}) + "\n" for number in range(calls))
    (folder / "rows.jsonl").write_text(rows, encoding="utf-8")
    (folder / "catalogue.yaml").write_text(CATALOGUE.format(url=url), encoding="utf-8")
    job = JOB.format(stream=str(scenario.stream).lower(), streams=scenario.streams)
    (folder / "jobs.yaml").write_text(job, encoding="utf-8")
    catalogue = load_catalogue(folder / "catalogue.yaml")
    settings = read_settings({}, folder)
    engine = connect(settings.database_url, create=True)
    loaded = load(engine, read_job_file(folder / "jobs.yaml"), catalogue, base=folder)

    def work() -> None:
        end = run(engine, [job.job_id for job in loaded], catalogue, settings)
        assert end.jobs[0].states == {"done": calls}, end.jobs

    return work


CONTENDERS: dict[str, tuple[str, Callable[[Scenario, str, int, Path], Work]]] = {
    "bare": ("aiohttp loop, stores nothing", bare),
    "transport": ("batchrun's transport alone", transport),
    "batchrun": ("batchrun, all in SQLite", batchrun),
    "openai": ("openai SDK, stores nothing", openai_sdk),
    "flexllm": ("flexllm, stores nothing", flexllm),
}


def available(name: str, scenario: Scenario) -> bool:
    return name != "flexllm" or (find_spec(name) is not None and not scenario.stream)


def main(name: str, scenario: str, url: str, calls: int) -> None:
    with tempfile.TemporaryDirectory(prefix="batchrun-benchmark-") as folder:
        work = CONTENDERS[name][1](SCENARIOS[scenario], url, calls, Path(folder))
        print(json.dumps(asdict(measured(calls, work))))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))

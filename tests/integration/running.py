"""Runs jobs against the simulator, in this process or in one that can be killed, and checks what must hold after it.

A job gets its faults by its provider: `faulty("429-once")` is an endpoint of the catalogue whose address carries that
fault, so that many faults run side by side without sharing a profile. What the simulator would have answered without
faults is asked from it in another region, so that those calls stand apart in its bill book.
"""

from __future__ import annotations

import gc
import hashlib
import http.client
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

import sqlalchemy as sa
from sqlalchemy import Engine

from batchrun import simulator
from batchrun.catalogue import Catalogue, load_catalogue
from batchrun.database import connect, parse_url, reading, sqlite_path
from batchrun.drain import GRACE, Stop
from batchrun.jobfile.spec import JobFile, JobSpec
from batchrun.loading.loader import Loaded, load
from batchrun.messages import JsonValue
from batchrun.pacing.limits import Limits
from batchrun.running import RunEnd, run, signals
from batchrun.settings import Settings
from batchrun.simulator import BookRow, Options, Running
from batchrun.states import TERMINAL, State
from batchrun.tables import Record, answers, attempts, items, jobs, usage

KEY_VARIABLE = "BATCHRUN_SIMULATOR_KEY"
KEY = "canary-7d1f0c9ab2e64835"
"""Doesn't look like a key, so that nothing but its own value can give it away."""
MODEL = "qwen3-vl-plus"
REAL = "simulator/model-studio-singapore"
NATIVE = "simulator/dashscope-singapore"
ACEDATA, MOONSHOT = "simulator/acedata", "simulator/moonshot"
REGION, ORACLE_REGION = "singapore", "virginia"
PATIENCE = 30.0
ROOT = Path(__file__).parents[2]
SERIAL = count()
UNREADABLE = {"bad-json", "big-header", "done-first", "huge-line"}
"""Faults after which the simulator has sent a proper end, and yet no client can know what the answer is."""


@contextmanager
def running_simulator(**options: object) -> Iterator[Running]:
    """A fast simulator without limits, unless `options` say otherwise."""
    chosen = replace(Options(ttft=0, tokens_per_second=0, limits=False), **options)  # type: ignore[arg-type]
    with simulator.start(chosen, environment={**os.environ, KEY_VARIABLE: KEY}) as started:
        yield started


def faulty(fault: str) -> str:
    """The provider whose calls meet this fault; the faultless one for an empty text."""
    name = re.sub(r"[^A-Za-z0-9._-]", "_", fault) or "none"
    return f"sim/{name if len(name) <= 80 else name[:70] + hashlib.sha256(fault.encode()).hexdigest()[:8]}"


def fresh(fault: str) -> str:
    """The fault with a count of its own: the simulator counts requests for each spec, and tests share it."""
    first, plus, rest = fault.partition("+")
    return f"{first}-seed={next(SERIAL)}{plus}{rest}"


def catalogue_at(address: Callable[[str], str], faults: Iterable[str], like: str = REAL) -> Catalogue:
    """The bundled catalogue with one more endpoint for each fault, at `address(fault)`, without the vendor's limits."""
    catalogue = load_catalogue()
    endpoint = catalogue.endpoints[like]
    models = {name: replace(model, limits=Limits()) for name, model in endpoint.models.items()}
    added = {}
    for fault in ("", *faults):
        provider, _, region = faulty(fault).partition("/")
        placed = replace(endpoint, name=faulty(fault), provider=provider, region=region, models_of=None, models=models)
        added[placed.name] = placed.at(address(fault))
    return replace(catalogue, endpoints={**catalogue.endpoints, **added})


def job(name: str, prompts: Sequence[str] | int, **settings: object) -> JobSpec:
    """A job with one item for each prompt, or for each of so many different ones. Items are called `0`, `1`, …"""
    serial = next(SERIAL)  # no two tests send the same request to the simulator that they share
    texts = [f"{name} {serial}, item number {n}" for n in range(prompts)] if isinstance(prompts, int) else prompts
    rows = [{"id": str(number), "text": text} for number, text in enumerate(texts)]
    fault = settings.pop("fault", "")
    document = {"provider": faulty(str(fault)), "model": MODEL, "prompt": "{{ text }}", "params": {"max_tokens": 300}}
    return JobSpec.model_validate({"name": name, "inputs": {"items": rows}, **document, **settings})


@dataclass(kw_only=True)
class Bench:
    """One database, one simulator, and the catalogue that leads from one to the other."""

    url: str
    engine: Engine
    folder: Path
    simulator: Running
    catalogue: Catalogue
    first_row: int
    """Rows that the book had before."""
    like: str = REAL
    """The endpoint that those with faults are made after: it says which dialect is spoken."""
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def settings(self) -> Settings:
        return Settings(database_url=self.url, catalogue=None, environment={KEY_VARIABLE: KEY})

    def at(self, *faults: str) -> None:
        """Add endpoints for these faults."""
        added = catalogue_at(self.address, faults, self.like).endpoints
        self.catalogue = replace(self.catalogue, endpoints={**self.catalogue.endpoints, **added})

    def address(self, fault: str) -> str:
        if self.like == ACEDATA:
            return self.simulator.acedata_url(fault)
        if self.like == MOONSHOT:
            return self.simulator.moonshot_url(fault)
        url = self.simulator.native_url if self.like == NATIVE else self.simulator.base_url
        return url(REGION, fault)

    def load(self, *specs: JobSpec) -> list[int]:
        return [loaded.job_id for loaded in self.loaded(*specs)]

    def loaded(self, *specs: JobSpec) -> list[Loaded]:
        file = JobFile(version=1, jobs=specs, path=None)
        return load(self.engine, file, self.catalogue, base=self.folder)

    def run(self, ids: Iterable[int], *, stop: Stop | None = None, grace: float = GRACE) -> RunEnd:
        return run(self.engine, list(ids), self.catalogue, self.settings, stop=stop, grace=grace)

    def go(self, *specs: JobSpec) -> RunEnd:
        """Load and run; the faults of the jobs must be known to the catalogue."""
        return self.run(self.load(*specs))

    @contextmanager
    def running(self, ids: Iterable[int], stop: Stop, grace: float = GRACE) -> Iterator[Future[RunEnd]]:
        """A run on a thread, for tests that look at it from outside. Stopped at the end in any case."""
        with ThreadPoolExecutor(1) as pool:
            try:
                yield pool.submit(self.run, list(ids), stop=stop, grace=grace)
            finally:
                stop.level = max(stop.level, 2)

    def book(self) -> list[BookRow]:
        """The simulator's rows since this bench was made, without those of the oracle."""
        place = self.like.rpartition("/")[2] if self.like in (ACEDATA, MOONSHOT) else REGION
        return [row for row in self.simulator.book()[self.first_row :] if row.region == place]

    def rows(self, table: sa.Table, *where: sa.ColumnElement[bool]) -> list[Record]:
        with reading(self.engine) as connection:
            return list(connection.execute(sa.select(table).where(*where).order_by(*table.primary_key)))

    def job_row(self, job_id: int) -> Record:
        return self.rows(jobs, jobs.c.id == job_id)[0]

    def items_of(self, job_id: int) -> list[Record]:
        return self.rows(items, items.c.job_id == job_id)

    def attempts_of(self, job_id: int) -> list[Record]:
        return self.rows(attempts, attempts.c.job_id == job_id)

    def answers_of(self, job_id: int) -> dict[str, str]:
        """The text of each item's answer."""
        wanted = (
            sa.select(items.c.custom_id, answers.c.text)
            .join(answers, answers.c.attempt_id == items.c.answer_id)
            .where(items.c.job_id == job_id)
        )
        with reading(self.engine) as connection:
            return {row.custom_id: row.text for row in connection.execute(wanted)}

    def states(self, job_id: int) -> Counter[str]:
        return Counter(row.state for row in self.items_of(job_id))

    def drainer(self, ids: Iterable[int]) -> subprocess.Popen[str]:
        """The same run in a process of its own, which can be killed. It writes its counts as a line of JSON."""
        order = {
            "url": self.url,
            "simulator": self.simulator.url,
            "like": self.like,
            "faults": list(self.faults()),
            "jobs": list(ids),
        }
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", __name__, json.dumps(order)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process

    def faults(self) -> Iterator[str]:
        """The fault specs of the catalogue's endpoints."""
        for endpoint in self.catalogue.endpoints.values():
            found = re.search(r"/fault/([^/]+)/", endpoint.base_url)
            if found:
                yield found[1]


@contextmanager
def opened_bench(url: str, folder: Path, simulator: Running, *faults: str, like: str = REAL) -> Iterator[Bench]:
    made = Bench(
        url=url,
        engine=connect(url),
        folder=folder,
        simulator=simulator,
        catalogue=load_catalogue(),
        first_row=len(simulator.book()),
        like=like,
    )
    made.at(*faults)
    try:
        yield made
    finally:
        for process in made.processes:
            process.kill()
            process.communicate()
        made.engine.dispose()


def wait_until(holds: Callable[[], bool], what: str) -> None:
    """Poll the outside world; fail after half a minute."""
    until = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < until, f"waited in vain until {what}"
        time.sleep(0.01)


def ended(process: subprocess.Popen[str]) -> dict[str, int]:
    """What a drainer did, after it came to its end by itself."""
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert err == ""
    counts: dict[str, int] = json.loads(out)
    return counts


# What must hold after every run.


def check(bench: Bench, *job_ids: int, after_kills: int = 0) -> None:
    """The invariants of a run that came to its end. `after_kills`: calls that were in flight when a process died."""
    check_items(bench, job_ids)
    check_texts(bench, job_ids)
    check_attempts(bench, job_ids, after_kills)
    check_money(bench, job_ids)
    check_reservations(bench)
    check_file(bench)


def check_items(bench: Bench, job_ids: Iterable[int]) -> None:
    """Every item has come to its end, and has one complete answer exactly if it is done or truncated: its own, or that
    of the item that it waited for."""
    owner = {row.id: row for row in bench.rows(attempts)}
    complete = {row.attempt_id for row in bench.rows(answers, answers.c.complete)}
    for job_id in job_ids:
        held = bench.job_row(job_id).paused is not None
        for item in bench.items_of(job_id):
            assert item.state in TERMINAL or held, (item.custom_id, item.state)
            assert item.state != State.CLAIMED
            answered = item.state in (State.DONE, State.TRUNCATED)
            assert (item.answer_id is not None) is answered, (item.custom_id, item.state, item.answer_id)
            if answered:
                assert item.answer_id in complete
                assert owner[item.answer_id].item_id in (item.id, item.waits_for)
                assert owner[item.answer_id].outcome == "complete"


def check_texts(bench: Bench, job_ids: Iterable[int]) -> None:
    """The text of every done item is what the simulator says to its prompt when nothing goes wrong."""
    with oracle(bench.simulator) as ask:
        for job_id in job_ids:
            spec = bench.job_row(job_id).spec
            texts = bench.answers_of(job_id)
            for item in bench.items_of(job_id):
                if item.state == State.DONE:
                    assert texts[item.custom_id] == ask(spec, item.variables["text"]), (item, spec["provider"])


def check_attempts(bench: Bench, job_ids: Iterable[int], after_kills: int) -> None:
    """Each request that the simulator saw has its attempt row, and no answer was bought twice without a kill."""
    book = bench.book()
    made = [row for job_id in job_ids for row in bench.attempts_of(job_id)]
    sent = [row for row in made if row.outcome != "unsent" and row.error_kind not in ("not_sent", "media", "template")]
    assert all(row.ended_at is not None and row.outcome != "open" for row in made)
    assert len(book) <= len(sent)
    lost = sum(row.outcome == "lost" for row in made)
    assert len(sent) - len(book) <= lost
    assert lost <= after_kills
    named = [row.request_id for row in sent if row.request_id is not None]
    known = {name for row in book for name in (row.request_id, row.chat_id)}
    assert len(named) == len(set(named))
    assert set(named) <= known
    bought = Counter(row.body_sha256 for row in book if row.complete and not UNREADABLE & set(row.hit))
    assert sum(count - 1 for count in bought.values()) <= lost, [
        row.fault for row in book if bought[row.body_sha256] > 1
    ]


def check_money(bench: Bench, job_ids: Iterable[int]) -> None:
    """The ledger encloses the bill, in all and for each request that can be told by its id."""
    ids = list(job_ids)
    rows = bench.rows(usage, usage.c.job_id.in_(ids))
    made = {row.id: row for job_id in ids for row in bench.attempts_of(job_id)}
    book = {name: row for row in bench.book() for name in (row.request_id, row.chat_id)}
    for row in rows:
        attempt = made[row.attempt_id]
        billed = book.get(attempt.request_id or "")
        if billed is None or billed.amount is None or row.cost_low is None:
            continue
        assert row.cost_low <= billed.amount <= row.cost_high, (billed, row)
        if attempt.outcome == "complete" and row.input_tokens is not None:
            assert row.cost_low == billed.amount == row.cost_high, (billed, row)
    priced = [row for row in rows if row.cost_low is not None]
    bill = sum((row.amount for row in bench.book() if row.amount is not None), Decimal(0))
    assert sum((row.cost_low for row in priced), Decimal(0)) <= bill
    assert bill <= sum((row.cost_high for row in priced), Decimal(0))


def check_reservations(bench: Bench) -> None:
    """What the jobs count as reserved and spent is what their attempts and their ledger say."""
    open_attempts = bench.rows(attempts, attempts.c.outcome == "open")
    for row in bench.rows(jobs):
        held = [attempt.reserved for attempt in open_attempts if attempt.job_id == row.id and attempt.reserved]
        assert row.reserved == sum(held, Decimal(0))
        costs = [line.cost_high for line in bench.rows(usage, usage.c.job_id == row.id) if line.cost_high]
        assert row.spent == sum(costs, Decimal(0))


def check_file(bench: Bench) -> None:
    if bench.engine.dialect.name != "sqlite":
        return
    with reading(bench.engine) as connection:
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
        assert connection.exec_driver_sql("PRAGMA foreign_key_check").all() == []


@contextmanager
def oracle(simulator: Running) -> Iterator[Callable[[Mapping[str, JsonValue], JsonValue], str]]:
    """Asks what the answer to a prompt is when nothing goes wrong."""
    address = urlsplit(simulator.base_url(ORACLE_REGION, "ttft=0+tps=0"))
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=PATIENCE)

    def ask(spec: Mapping[str, JsonValue], text: JsonValue) -> str:
        thinking, params = spec.get("thinking"), spec["params"]
        assert isinstance(params, dict)
        body: dict[str, JsonValue] = {"model": spec["model"], "messages": [{"role": "user", "content": text}], **params}
        if isinstance(thinking, dict):
            body["enable_thinking"] = thinking["enabled"]
        headers = {"authorization": f"Bearer {KEY}"}
        connection.request("POST", f"{address.path}/chat/completions", json.dumps(body), headers)
        document = json.loads(connection.getresponse().read())
        content: str = document["choices"][0]["message"]["content"]
        return content

    try:
        yield ask
    finally:
        connection.close()


def database_bytes(bench: Bench) -> bytes:
    """All bytes of an SQLite database, its log included."""
    path = sqlite_path(parse_url(bench.url))
    assert path is not None
    return b"".join(file.read_bytes() for file in sorted(path.parent.glob(path.name + "*")))


def open_files() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def main(order: str, out: IO[str] = sys.stdout) -> None:
    """The process of `Bench.drainer`."""
    asked = json.loads(order)
    simulator_url = asked["simulator"]

    def address(fault: str) -> str:
        base = "api/v1" if asked["like"] == NATIVE else "compatible-mode/v1"
        return f"{simulator_url}/{REGION}{f'/fault/{fault}' if fault else ''}/{base}"

    engine = connect(asked["url"])
    settings = Settings(database_url=asked["url"], catalogue=None, environment={KEY_VARIABLE: KEY})
    stop = Stop()
    with signals(stop.ask):
        end = run(engine, asked["jobs"], catalogue_at(address, asked["faults"], asked["like"]), settings, stop=stop)
    engine.dispose()
    json.dump({"calls": end.tally.calls, "reaped": end.tally.reaped, "exit": end.exit_code}, out)


if __name__ == "__main__":
    main(sys.argv[1])

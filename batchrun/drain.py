"""What a worker process does: claim items, keep its streams full, store what comes of them.

One event loop, one HTTP pool, one writer thread. A claim brings items with moments before which they must not be
sent; each becomes a task; a result goes to the writer and frees its place for the next claim.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import TypeAlias, TypeVar

from sqlalchemy import Connection, Engine

from batchrun.attachments import Tools
from batchrun.beat import Beat
from batchrun.call import Live, broken, given_back, run_item
from batchrun.errors import DatabaseError
from batchrun.loading.duplicates import as_it_was
from batchrun.media.decoder import Decoder
from batchrun.plan import Plan
from batchrun.states import State
from batchrun.store.claim import Call, Claimed, Reserve, claim
from batchrun.store.finish import Result
from batchrun.store.jobs import has_due_items, has_open_items
from batchrun.store.release import release
from batchrun.store.sample import Sample, is_open
from batchrun.store.sharing import share
from batchrun.store.uploads import UploadKey, find_upload, forget_uploads, keep_upload
from batchrun.store.workers import Reaped, give_back, is_alone
from batchrun.stream.continuing import Continuing, Prefix
from batchrun.tables import Record
from batchrun.transport import Transport
from batchrun.uploads.linkcheck import LinkCheck
from batchrun.uploads.uploading import Uploader
from batchrun.writer import Writer

Found = TypeVar("Found")

STREAMS = 1_000
"""Calls in flight in one process at most; limits of profiles and jobs are usually below."""
TICK = 0.25
"""Seconds between looks at the clocks of the calls, the stop flag, for work that has become due and other workers."""
GATHER = 0.02
"""Seconds for which places that became free are gathered before the next claim."""
HOLD = 0.05
"""Seconds for which results wait for the claim of the places that they left: one transaction instead of two. Not where
other workers are, which would find no free place, nor at a limit per minute, where a late claim loses slots."""
LOOK = 1.0
"""Seconds between looks for items that waited for others."""
LOOKING = 0.1
"""The share of the database's time that such looks may take."""
GRACE = 120.0
"""Seconds that calls in flight get after the first stop."""

Choose: TypeAlias = Callable[[Connection, str], frozenset[int]]
"""The jobs to claim from, asked for at the beginning of each claim by a worker of this id."""


class Stop:
    """Asked for once: no new calls. Asked for twice: stop now. Set by signal handlers, which may do nothing else."""

    def __init__(self) -> None:
        self.level = 0
        self.asked_at = 0.0

    def ask(self) -> None:
        self.level += 1
        self.asked_at = time.monotonic()

    def urgent(self, grace: float) -> bool:
        """Asked for twice, or once and longer ago than `grace` seconds."""
        return self.level > 1 or (self.level == 1 and time.monotonic() - self.asked_at > grace)


@dataclass(slots=True, kw_only=True)
class Tally:
    """What this process has done so far, for a progress display. Kept by the loop, read by anyone."""

    states: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    """Failed attempts by kind."""
    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: dict[str, tuple[Decimal, Decimal]] = field(default_factory=dict)
    """Low and high bounds by currency."""
    unpriced: int = 0
    in_flight: int = 0
    maybe_billed: int = 0
    """Calls that were stopped in flight."""
    made_anew: int = 0
    """Calls whose pictures were shrunk or written anew."""
    brakes: dict[int, str] = field(default_factory=dict)
    reaped: int = 0
    last_error: str = ""
    trouble: str = ""
    """Why nothing is stored at the moment."""
    silent: int = 0
    """Calls that were sent and have had no first token yet."""
    answering: int = 0
    longest_silence: float = 0.0
    """Seconds for which the oldest of the silent ones waits."""

    def add(self, result: Result) -> None:
        self.calls += result.sent_at is not None
        if result.state in (State.DONE, State.TRUNCATED, State.FAILED):
            self.states[result.state.value] += 1
        if result.error_kind is not None:
            self.errors[result.error_kind.value] += 1
            self.last_error = result.error or ""
        self.maybe_billed += result.outcome == "lost"
        self.made_anew += result.note is not None and result.sent_at is not None
        if result.charge is None:
            return
        if result.charge.usage is not None:
            self.input_tokens += result.charge.usage.input_tokens or 0
            self.output_tokens += result.charge.usage.output_tokens or 0
        if result.charge.cost_low is None or result.charge.cost_high is None or result.charge.currency is None:
            self.unpriced += 1
            return
        low, high = self.cost.get(result.charge.currency, (Decimal(0), Decimal(0)))
        self.cost[result.charge.currency] = low + result.charge.cost_low, high + result.charge.cost_high


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadShelf:
    """The uploads that the database remembers, through the writer."""

    writer: Writer

    async def find(self, key: UploadKey, *, until: datetime) -> str | None:
        return await self.writer.do(lambda connection: find_upload(connection, key, until=until))

    async def keep(self, key: UploadKey, *, url: str, expires_at: datetime) -> None:
        await self.writer.do(lambda connection: keep_upload(connection, key, url=url, expires_at=expires_at))

    async def forget(self, keys: Collection[UploadKey]) -> None:
        await self.writer.do(lambda connection: forget_uploads(connection, keys))


class Clock:
    """Now, by the database's clock: read at each claim, carried on by this machine's monotonic clock."""

    def __init__(self) -> None:
        self.base, self.since = datetime.now(UTC), time.monotonic()

    def set(self, now: datetime, at: float) -> None:
        """`now` was read at `at` of the monotonic clock."""
        self.base, self.since = now, at

    def now(self) -> datetime:
        return self.base + timedelta(seconds=time.monotonic() - self.since)


async def drain(
    engine: Engine,
    plans: Callable[[int], Plan],
    *,
    reserve: Callable[[int, int | None, int | None], Decimal | None],
    only: Choose,
    lease: float,
    sample: Sample | None = None,
    stop: Stop | None = None,
    tally: Tally | None = None,
    streams: int = STREAMS,
    grace: float = GRACE,
    lingers: bool = True,
    at_any_time: bool = False,
    on_result: Callable[[Plan, Result], None] = lambda _plan, _result: None,
) -> Tally:
    """Work until nothing is left to do in the jobs that `only` names, or `stop` is asked for.

    One that doesn't linger ends as soon as nothing is due, and leaves retries and windows to a later one. A worker that
    is silent for `lease` seconds is taken for dead. With a `sample` of the jobs nothing but its items is called.
    `at_any_time` passes over the windows of the jobs; else one whose window is closed is waited for.
    `on_result` hears of each call that has ended, and must not take long.
    `plans(job_id)` prepares a job's calls; `reserve(job_id, input_bound, output_bound)` gives the most that one can
    cost. Raises DatabaseError when the database stays away or was replaced; results that it didn't take are kept in a
    file then.
    """
    stop, tally = stop or Stop(), tally or Tally()

    bounded = each_minute(reserve)

    def most(job_id: int, item: Record, prefix: Prefix | None) -> Decimal | None:
        plan = plans(job_id)
        bound = plan.continued_bound(item.input_bound, prefix)
        return bounded(job_id, bound, plan.output_bound(item.variables), plan.region)

    def note_reaped(reaped: Reaped) -> None:
        tally.reaped += reaped.calls

    with (
        Beat(engine, note_reaped, lease=lease) as beat,
        Writer(engine, hurry=lambda: stop.urgent(grace)) as writer,
        Decoder() as decoder,
    ):
        async with Transport() as transport:
            worker = Worker(
                beat=beat,
                writer=writer,
                transport=transport,
                decoder=decoder,
                plans=plans,
                reserve=most,
                only=only,
                sample=sample,
                links=LinkCheck(monotonic=time.monotonic),
                stop=stop,
                tally=tally,
                streams=streams,
                grace=grace,
                lingers=lingers,
                at_any_time=at_any_time,
                on_result=on_result,
            )
            await worker.run()
    return tally


def each_minute(
    reserve: Callable[[int, int | None, int | None], Decimal | None],
) -> Callable[[int, int | None, int | None, str], Decimal | None]:
    """The same, remembered for a minute: a price that begins while the job runs counts from then on. That of another
    region, the last argument, counts at once."""

    @lru_cache(maxsize=65_536)
    def remembered(
        job_id: int, input_bound: int | None, output_bound: int | None, _region: str, _minute: int
    ) -> Decimal | None:
        return reserve(job_id, input_bound, output_bound)

    return lambda *bounds: remembered(*bounds, int(time.monotonic() // 60))


@dataclass(slots=True, kw_only=True)
class Worker:
    """The loop of one drain."""

    beat: Beat
    writer: Writer
    transport: Transport
    decoder: Decoder
    plans: Callable[[int], Plan]
    reserve: Reserve
    only: Choose
    sample: Sample | None
    links: LinkCheck
    stop: Stop
    tally: Tally
    streams: int
    grace: float
    lingers: bool
    at_any_time: bool
    on_result: Callable[[Plan, Result], None]
    clock: Clock = field(default_factory=Clock)
    uploader: Uploader = field(init=False)
    live: dict[int, Live] = field(default_factory=dict)
    """Calls in flight by attempt."""
    freed: int = 0
    """Places that became free since the last claim."""
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    look_at: float = 0.0
    """When to look next for items that waited for others, by the monotonic clock."""
    alone: bool = False
    """Whether no other worker was there when this one looked last."""
    look_around_at: float = 0.0
    """When to look next for other workers."""

    def __post_init__(self) -> None:
        self.uploader = Uploader(
            transport=self.transport,
            shelf=UploadShelf(writer=self.writer),
            now=self.clock.now,
            monotonic=time.monotonic,
        )

    @property
    def tools(self) -> Tools:
        return Tools(
            transport=self.transport,
            decoder=self.decoder,
            now=self.clock.now,
            monotonic=time.monotonic,
            links=self.links,
            uploader=self.uploader,
            sleep=asyncio.sleep,
            random=random.random,
        )

    async def run(self) -> None:
        watchdog = asyncio.create_task(self.watch())
        try:
            while not self.stop.level:
                if time.monotonic() >= self.look_at:
                    await self.release()
                claimed = Claimed(now=self.clock.now()) if self.beat.late else await self.claim()
                if not claimed.calls and not self.live and await self.finished():
                    break
                await self.rest(claimed)
            await self.wind_down()
        except DatabaseError:
            await self.wind_down()  # what is in flight is paid for, and its answers can be kept in a file
            raise
        finally:
            watchdog.cancel()
            await self.cancel([live for live in self.live.values() if live.task is not None])

    async def claim(self) -> Claimed:
        self.freed = 0
        room = self.streams - len(self.live)

        def work(connection: Connection) -> tuple[float, Claimed]:
            began = time.monotonic()  # beside the database's clock: the commit that follows may take its time
            if began >= self.look_around_at:
                self.alone = is_alone(connection, self.beat.worker)
                self.look_around_at = began + TICK
            return began, claim(
                connection,
                worker=self.beat.worker,
                room=room,
                only=self.chosen(connection),
                reserve=self.reserve,
                sample=self.sample,
                continuing=self.continuing,
                merges=self.merges,
                is_served=self.is_served,
                at_any_time=self.at_any_time,
            )

        began, claimed = await self.writer.do(work)
        self.clock.set(claimed.now, began)
        self.tally.brakes = claimed.brakes
        for call in claimed.calls:
            plan = self.plans(call.job_id)
            if self.stop.level:
                self.writer.put(given_back(call, plan, self.tools))
                continue
            live = Live(timeouts=plan.timeouts, stream=plan.stream)
            self.live[call.attempt_id] = live
            live.task = asyncio.create_task(self.carry(call, plan, live))
        self.tally.in_flight = len(self.live)
        return claimed

    def chosen(self, connection: Connection) -> frozenset[int]:
        return self.only(connection, self.beat.worker)

    def is_served(self, job: Record) -> bool:
        """Whether the plan at hand is for where the job stands: its mode may have changed a moment ago."""
        return bool(self.plans(job.id).region == job.region)

    def merges(self, job_id: int, item: Record) -> bool:
        return self.plans(job_id).merges(item.variables)

    def continuing(self, job_id: int, item: Record) -> Continuing | None:
        return self.plans(job_id).continuing_of(item.variables)

    async def carry(self, call: Call, plan: Plan, live: Live) -> None:
        """One call from its claim to the writer. The end of an item's life: nothing may be lost here."""
        try:
            result = await run_item(call, plan, live, self.tools)
        except Exception as error:  # noqa: BLE001 - a fault of ours must not take the other calls with it
            result = broken(call, plan, self.tools, error)
        self.writer.put(result)
        self.tally.add(result)
        self.on_result(plan, result)
        del self.live[call.attempt_id]
        self.tally.in_flight = len(self.live)
        self.freed += 1
        self.woken.set()

    async def release(self) -> bool:
        """Look for items that waited for others: in a transaction for each reason, as each locks its jobs. Whether that
        changed anything."""
        same = as_it_was(lambda job_id: self.plans(job_id).media_root)
        released, parts_took = await self.look(lambda connection: release(connection, only=self.chosen(connection)))
        shared, sharing_took = await self.look(
            lambda connection: share(connection, only=self.chosen(connection), as_it_was=same)
        )
        now, took = time.monotonic(), parts_took + sharing_took
        self.look_at = now if released.more or shared.more else now + max(LOOK, took / LOOKING)
        if self.sample is None:
            self.tally.states.update(shared.states)
            self.tally.states[State.FAILED.value] += released.failed
        return released.changed or shared.changed

    async def look(self, act: Callable[[Connection], Found]) -> tuple[Found, float]:
        """What was found, and the seconds that it took."""

        def work(connection: Connection) -> tuple[Found, float]:
            began = time.monotonic()
            return act(connection), time.monotonic() - began

        return await self.writer.do(work)

    async def finished(self) -> bool:
        """Whether nothing can become due any more, here or on another machine."""
        if await self.release():
            return False

        def work(connection: Connection) -> bool:
            give_back(connection, self.beat.worker)
            if self.sample is not None:
                return is_open(connection, self.sample)
            chosen = self.chosen(connection)
            return has_open_items(connection, chosen) if self.lingers else has_due_items(connection, chosen)

        return not await self.writer.do(work)

    async def rest(self, claimed: Claimed) -> None:
        """Until another claim is worth its transaction: enough places are free, or something may have become due."""
        paced = bool(claimed.brakes) and all(brake == "rate" for brake in claimed.brakes.values())
        self.writer.hold = HOLD if self.alone and not paced else 0.0
        enough = max(1, len(self.live) // 4)
        until = time.monotonic() + 2 * TICK
        if claimed.next_at is not None:
            until = min(until, time.monotonic() + max(0.0, (claimed.next_at - self.clock.now()).total_seconds()))
        first_freed: float | None = None
        while not self.stop.level and (now := time.monotonic()) < until:
            if self.freed and not paced:
                first_freed = first_freed or now
                if self.freed >= enough or now - first_freed >= GATHER:
                    return
            self.woken.clear()
            wait = until - now if first_freed is None else GATHER
            try:
                async with asyncio.timeout(wait):
                    await self.woken.wait()
            except TimeoutError:
                continue

    async def watch(self) -> None:
        """Cancel calls whose clock has run out, and notice a stop."""
        while True:
            await asyncio.sleep(TICK)
            now = time.monotonic()
            for live in self.live.values():
                if not live.expired and live.task is not None and (reason := live.overdue(now)):
                    live.expired = reason
                    live.task.cancel()
            self.look_at_calls(now)
            if self.stop.level:
                self.woken.set()  # a signal handler can't

    def look_at_calls(self, now: float) -> None:
        """What the progress display tells of the calls in flight."""
        # Of an answer that comes as a whole nothing is seen before its end.
        sent = [live for live in self.live.values() if live.started is not None and live.stream]
        silent = [live.started for live in sent if live.content_at is None and live.started is not None]
        self.tally.silent, self.tally.answering = len(silent), len(sent) - len(silent)
        self.tally.longest_silence = now - min(silent, default=now)
        self.tally.trouble = self.writer.trouble

    async def wind_down(self) -> None:
        """Give back what was not sent, let the rest finish within the grace period, then stop it."""
        await asyncio.sleep(0)  # a task that was never started would be cancelled without giving its item back
        await self.cancel([live for live in self.live.values() if live.started is None])
        until = time.monotonic() + self.grace
        while self.live and self.stop.level < 2 and time.monotonic() < until:
            self.woken.clear()
            try:
                async with asyncio.timeout(TICK):
                    await self.woken.wait()
            except TimeoutError:
                continue
        await self.cancel(list(self.live.values()))

    async def cancel(self, calls: list[Live]) -> None:
        tasks = [live.task for live in calls if live.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.gather(*tasks, return_exceptions=True)

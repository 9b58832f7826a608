"""What is wrong when nothing ends for long although there is work, and when to say so. No I/O: facts in, words out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum

from batchrun.pacing.brakes import STANDSTILL, Brake, BrakeKind, Calls, JobFacts, brake_of, clock_text, span_of
from batchrun.pacing.pace import HOLE
from batchrun.showing import clean, counted

SHOWN = 2
"""Jobs whose reasons are told."""


HELD = timedelta(minutes=65)
"""How long calls of batch chat may take before somebody should look: what they may take, and a little more."""


class Sign(Enum):
    NOTHING = 0
    ALARM = 1
    """Nothing has ended for too long; given again after as long."""
    GOES_ON = 2
    """Something ended after an alarm."""


@dataclass(slots=True, kw_only=True)
class Standstill:
    """Notices that nothing ends any more, and that it goes on. Times are seconds of one monotonic clock."""

    after: float
    """Seconds without an end that are an alarm; 0 for never."""
    since: float
    """When something ended last, or the watching began."""
    hole: float = HOLE
    """Seconds between two looks above which this process itself stood still."""
    ended: int | None = None
    looked_at: float | None = None
    said_at: float | None = None
    stood: float = 0.0
    """For how long nothing had ended when it last went on."""

    def look(self, at: float, ended: int, *, is_open: bool) -> Sign:
        """`ended` counts what has ended so far; `is_open` says whether there is work left."""
        if self.looked_at is not None and at - self.looked_at > self.hole:
            self.since += at - self.looked_at  # this process stood still itself, and saw nothing
        self.looked_at = at
        if ended != self.ended or not is_open:
            self.stood, self.ended, self.since = at - self.since, ended, at
            warned, self.said_at = self.said_at is not None, None
            return Sign.GOES_ON if warned and is_open else Sign.NOTHING
        if not self.after or at - max(self.since, self.said_at or self.since) < self.after:
            return Sign.NOTHING
        self.said_at = at
        return Sign.ALARM

    def quiet(self, at: float) -> float:
        return at - self.since


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """Why nothing ends, as far as it can be told, and what to do."""

    reason: str
    remedy: str


def is_patient(job: JobFacts) -> bool:
    """Whether it is in order that nothing of `job` ends: its calls are held by a service that takes its time."""
    held = job.batch_chat and job.oldest_call is not None and job.now - job.oldest_call < HELD
    return held and not job.held_by_dead


def alarm_of(job: JobFacts, *, claimed: str | None = None, calls: Calls | None = None) -> Alarm | None:
    """The likely reason why nothing of `job` ends; None where nothing is left to do, or that is in order."""
    brake = brake_of(job, claimed=claimed, calls=calls)
    if brake is None or is_patient(job):
        return None
    if brake.kind in STANDSTILL or brake.kind is BrakeKind.WAITING:
        return held(job, brake)
    if job.held_by_dead and job.held_by_dead >= job.in_flight:
        return Alarm(
            reason=f"{counted(job.held_by_dead, 'item is', 'items are')} held by a process that died",
            remedy="run the job file again, or: batchrun doctor --mend",
        )
    if calls is not None and calls.silent and not calls.answering:
        since = job.now - timedelta(seconds=calls.longest_silence)
        return Alarm(
            reason=silent_text(calls.silent, clock_text(since)),
            remedy="each ends by itself at timeouts.first_token and is tried again; look at the provider's status page",
        )
    if job.in_flight:
        since_text = "" if job.oldest_call is None else f", the oldest since {clock_text(job.oldest_call)}"
        return Alarm(
            reason=f"{counted(job.in_flight, 'call is', 'calls are')} in flight and none has ended{since_text}",
            remedy="long answers take long; timeouts.total ends what hangs",
        )
    return held(job, brake)


def silent_text(calls: int, since: str) -> str:
    if calls == 1:
        return f"the only call waits for its first token since {since}"
    return f"all {calls:,} calls wait for their first token, the oldest since {since}"


def standstill_text(alarms: Mapping[str, Alarm], quiet: float) -> str:
    """One line about the alarms of jobs by name; `quiet` is for how many seconds nothing has ended."""
    distinct = list(dict.fromkeys(alarms.values()))
    if not distinct:
        return f"nothing has finished for {span_of(quiet)}"
    named = {alarm: next(name for name, other in alarms.items() if other == alarm) for alarm in distinct}
    parts = [
        f"{clean(named[alarm])}: {alarm.reason} → {alarm.remedy}"
        if len(alarms) > 1
        else f"{alarm.reason} → {alarm.remedy}"
        for alarm in distinct[:SHOWN]
    ]
    more = f"; and {len(distinct) - SHOWN} more" if len(distinct) > SHOWN else ""
    return f"nothing has finished for {span_of(quiet)}: {'; '.join(parts)}{more}"


def held(job: JobFacts, brake: Brake) -> Alarm:
    return Alarm(reason=f"held back by {brake.text}", remedy=remedy_for(job, brake.kind))


def remedy_for(job: JobFacts, kind: BrakeKind) -> str:
    kinds = ", ".join(f"{count:,} {name}" for name, count in job.waiting_kinds.items())
    return {
        BrakeKind.PAUSE: f"mend the cause, then: batchrun resume {clean(job.name)}",
        BrakeKind.DATABASE: "check that its server runs and its disk isn't full; answers are kept meanwhile",
        BrakeKind.BREAKER: "nothing is lost and no try counts; look at the provider's status page",
        BrakeKind.NO_WORKER: "run the job file again: batchrun run JOBS.yaml",
        BrakeKind.WAITING: f"their last errors: {kinds}" if kinds else "they go on by themselves",
        BrakeKind.WINDOW: "it goes on by itself then; `batchrun run --now` doesn't wait",
        BrakeKind.CAP: "raise budget.max_cost in the job file and run it again",
    }.get(kind, "raise the limit if the provider grants more: batchrun set")

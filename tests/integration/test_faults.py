"""What each fault of the simulator leads to: the state of the item, what is stored, and which counter grew.

All jobs of a table run side by side in one drain, each against its own fault, so that the whole takes little longer
than its slowest fault.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

import pytest

from batchrun.simulator import Running
from batchrun.spec import JobSpec
from batchrun.tables import Record, answers, usage
from tests.integration.running import Bench, check, check_file, check_money, check_reservations, job, open_bench, oracle

SHORT = {"first_token": "1s", "silence": "1s", "total": "3s"}
THINKING = {"thinking": {"enabled": True}}
PLAIN = {"stream": False}
LONG = "+chunks=40"
"""An answer of forty chunks, so that a break after the third is one in the middle."""


@dataclass(frozen=True, kw_only=True)
class Broken:
    """A fault that hits the first call of each item; the second one succeeds."""

    fault: str
    kind: str
    paid: bool
    status: int | None = 200
    text: bool = False
    """Whether a part of the answer was kept."""
    usage: bool = False
    """Whether the failed attempt knows its exact cost."""
    settings: tuple[tuple[str, object], ...] = ()

    @property
    def once(self) -> str:
        """The spec, in which each fault that breaks the call hits it once."""
        first, plus, rest = self.fault.partition("+")
        return f"{first}-once{plus}{rest}"

    @property
    def name(self) -> str:
        return job_name(self.fault)


def job_name(fault: str) -> str:
    return fault.replace("=", "-").replace("+", "_")


FREE = [
    Broken(fault="429", kind="rate_limited", paid=False, status=429),
    Broken(fault="429-burst", kind="rate_limited", paid=False, status=429),
    Broken(fault="429-quota", kind="rate_limited", paid=False, status=429),
    Broken(fault="503", kind="unavailable", paid=False, status=503),
    Broken(fault="529", kind="unavailable", paid=False, status=529),
]
SERVER = [
    Broken(fault="500", kind="server", paid=True, status=500),
    Broken(fault="500-timeout", kind="timeout", paid=True, status=500),
    Broken(fault="502", kind="server", paid=True, status=502),
    Broken(fault="502=300", kind="server", paid=True, status=502),
    Broken(fault="504", kind="server", paid=True, status=504),
    Broken(fault="200-html", kind="incomplete", paid=True),
    Broken(fault="200-error", kind="server", paid=True),
    Broken(fault="200-code", kind="server", paid=True),
    Broken(fault="200-empty", kind="incomplete", paid=True),
    Broken(fault="204", kind="server", paid=True, status=204),
]
CONNECTION = [
    Broken(fault="reset", kind="network", paid=True, status=None),
    Broken(fault="close", kind="network", paid=True, status=None),
    Broken(fault="bad-http", kind="network", paid=True, status=None),
    Broken(fault="big-header", kind="network", paid=True, status=None),
    Broken(fault="stall", kind="timeout", paid=True, status=None),
    Broken(fault="stall-headers", kind="timeout", paid=True),
    Broken(fault="keepalive", kind="timeout", paid=True),
    Broken(fault="reset-after=3" + LONG, kind="network", paid=True, text=True),
    Broken(fault="cut-after=3" + LONG, kind="network", paid=True, text=True),
    Broken(fault="cut-after=3" + LONG + "+framing=length", kind="network", paid=True, text=True),
    Broken(fault="cut-after=3" + LONG + "+framing=close", kind="incomplete", paid=True, text=True),
    Broken(fault="cut-after=3" + LONG + "+gzip", kind="network", paid=True, text=True),
    Broken(fault="stall-after=3" + LONG, kind="timeout", paid=True, text=True),
    Broken(fault="stall-before=finish" + LONG, kind="timeout", paid=True, text=True),
    Broken(fault="stall-before=usage" + LONG, kind="timeout", paid=True, text=True),
    Broken(fault="reset-after=0" + LONG + "+framing=length", kind="network", paid=True),
    Broken(fault="reset-after=3" + LONG, kind="network", paid=True, settings=(("stream", False),)),
]
STREAM = [
    Broken(fault="truncate=3" + LONG, kind="incomplete", paid=True, text=True),
    Broken(fault="truncate=3" + LONG + "+framing=close", kind="incomplete", paid=True, text=True),
    Broken(fault="truncate=3" + LONG + "+framing=length", kind="incomplete", paid=True, text=True),
    Broken(fault="truncate=3" + LONG + "+gzip", kind="incomplete", paid=True, text=True),
    Broken(fault="finish=null" + LONG, kind="incomplete", paid=True, text=True, usage=True),
    Broken(fault="finish=abort" + LONG, kind="incomplete", paid=True, text=True, usage=True),
    Broken(fault="finish=error" + LONG, kind="incomplete", paid=True, text=True, usage=True),
    Broken(fault="finish=missing" + LONG, kind="incomplete", paid=True, text=True, usage=True),
    Broken(fault="error-event=0" + LONG, kind="server", paid=True),
    Broken(fault="error-event=3" + LONG, kind="server", paid=True, text=True),
    Broken(fault="error-done=3" + LONG, kind="server", paid=True, text=True),
    Broken(fault="bad-json" + LONG, kind="incomplete", paid=True, text=True),
    Broken(fault="huge-line=10" + LONG, kind="incomplete", paid=True, text=True),
    Broken(fault="done-first" + LONG, kind="incomplete", paid=True, text=True, usage=True),
    Broken(fault="partial", kind="incomplete", paid=True, text=True, usage=True, settings=(("stream", False),)),
    Broken(fault="finish=null", kind="incomplete", paid=True, text=True, usage=True, settings=(("stream", False),)),
    Broken(fault="bad-json", kind="incomplete", paid=True, settings=(("stream", False),)),
]
BROKEN = FREE + SERVER + CONNECTION + STREAM

TOLERATED = [
    "close-idle",
    "connection-close",
    "framing=chunked",
    "framing=length",
    "framing=close",
    "gzip",
    "wrong-type",
    "crlf",
    "crlf+split=3",
    "cr",
    "cr+split=2",
    "no-space",
    "bom",
    "bom+split=1",
    "split",
    "comments",
    "events",
    "multi-data",
    "garbage",
    "no-done",
    "done-twice",
    "stall-before=done",
    "usage=twice",
    "usage=early",
    "usage=late",
    "usage=late+split=60",
    "usage=every",
    "usage=text-chunk",
    "usage=choice",
    "usage=unasked",
    "text-in-finish",
    "cumulative+chunks=20",
    "full-final",
    "cached=30",
]
"""Nothing is wrong with these answers: the first call brings the right text at the exact price."""
THOUGHTFUL = ["mixed", "both-reasoning", "cumulative+chunks=20+think-chunks=20", "split=5+crlf"]
ODD_TEXTS = ["unicode", "unicode+split=1", "nul", "surrogate", "invalid-utf8", "duplicate"]
UNKNOWN_USAGE = ["usage=missing", "usage=null"]
REFUSED = [
    ("400", "invalid", 400),
    ("moderation", "moderated", 400),
    ("500-algo", "invalid", 500),
    ("302", "invalid", 302),
    ("307", "invalid", 307),
    ("308", "invalid", 308),
]
TRUNCATED = ["finish=length", "finish=content_filter"]


def broken_job(row: Broken) -> JobSpec:
    suffix = "_plain" if row.settings else ""
    spec = job(row.name + suffix, 2, fault=row.once, timeouts=SHORT, **dict(row.settings))
    # Repeats of one prompt in another job would count as the same request, and meet the fault only once.
    return spec.model_copy(update={"prompt": f"{row.name}{suffix}: {{{{ text }}}}"})


def simple_job(fault: str, **settings: object) -> JobSpec:
    return job(job_name(fault), 2, fault=fault, timeouts=SHORT, **settings)


@dataclass(kw_only=True)
class Ran:
    """What is in the database after the run, by the name of the job."""

    bench: Bench
    ids: dict[str, int]

    def id(self, spec: JobSpec) -> int:
        return self.ids[spec.name]

"""Faults are chosen by the address, in every protocol alike: `/<region>/fault/<spec>/compatible-mode/v1/...`.

A spec is one or more clauses joined by `+`. A clause is a fault of the table `FAULTS`, its value if it takes
one, and modifiers that say which requests it hits (all of them when there is none):

    name[=value][-every=N][-first=N][-pct=P[-seed=S]][-once][-retry-after=V][-retry-after-ms=V][-should-retry=V]

    429-every=20                    every 20th request
    503-first=3                     the first 3 requests
    reset-after=5-pct=10-seed=7     10 percent of the requests, chosen by a hash of their bodies
    429-once-retry-after=1          each distinct body once; sent again, it gets its normal answer
    ttft=0+tps=0+chunks=100         no waiting, an answer of exactly 100 chunks
    crlf+split+unicode+usage=late   several at once

Requests are counted, and bodies remembered, for each region and spec, whatever the protocol. Values may be
percent-encoded. Modifiers of one clause must all hold. Where several clauses refuse or break the call, the first
one wins.
"""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote


class FaultSpecError(ValueError):
    """The spec in the address (or of `--fault`) names no fault, or gives a value that it cannot have."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """A fault. `values` is a tuple of the words allowed, or the type of the value; None means no value."""

    help: str
    values: tuple[str, ...] | type[int] | type[float] | type[str] | None = None
    default: str | None = None
    """Value when the spec gives none; None for a kind with values means that one must be given."""


FINISHES: Final = ("null", "abort", "error", "length", "content_filter", "tool_calls", "missing")
USAGES: Final = (
    "missing",
    "zero",
    "null",
    "twice",
    "early",
    "late",
    "every",
    "text-chunk",
    "choice",
    "unasked",
)

FAULTS: Final[Mapping[str, Kind]] = {
    # Refusals: an answer without any generation.
    "400": Kind(help="400 invalid_parameter_error"),
    "400-download": Kind(help="400 invalid_parameter_error: the media could not be downloaded"),
    "moderation": Kind(help="400 data_inspection_failed"),
    "arrearage": Kind(help="400 Arrearage: the account is overdue"),
    "401": Kind(help="401 invalid_api_key"),
    "key-echo": Kind(help="401 whose message repeats the key that was sent"),
    "403": Kind(help="403 access_denied"),
    "403-unpurchased": Kind(help="403 AccessDenied.Unpurchased: the service was never activated"),
    "403-free-tier": Kind(help="403 AllocationQuota.FreeTierOnly: the free quota is used up"),
    "404": Kind(help="404 model_not_found"),
    "404-region": Kind(help="404 model_not_supported: not in this region"),
    "429": Kind(help="429 limit_requests"),
    "429-burst": Kind(help="429 limit_burst_rate"),
    "429-quota": Kind(help="429 insufficient_quota, which passes like any rate limit"),
    "429-billing": Kind(help="429 PostpaidBillOverdue, which does not pass"),
    "500": Kind(help="500 internal_error"),
    "500-system": Kind(help="500 SystemError"),
    "500-algo": Kind(help="500 internal_error that never heals: the media server sends no Content-Length"),
    "500-timeout": Kind(help="500 RequestTimeOut"),
    "502": Kind(help="502 with an HTML page; value: kilobytes of the page", values=int, default="1"),
    "503": Kind(help="503 ModelUnavailable"),
    "503-serving": Kind(help="503 ModelServingError"),
    "504": Kind(help="504 with a plain text body"),
    "529": Kind(help="529 overloaded"),
    "200-html": Kind(help="200 with an HTML page"),
    "200-error": Kind(help="200 with an error object"),
    "200-code": Kind(help="200 with a code at the top level, as the native protocol may"),
    "200-empty": Kind(help="200 without a body"),
    "204": Kind(help="204"),
    "302": Kind(help="302 to another host; value: a port on localhost", values=int, default="9"),
    "307": Kind(help="307 to another host; value: a port on localhost", values=int, default="9"),
    "308": Kind(help="308 to another host; value: a port on localhost", values=int, default="9"),
    "in-stream": Kind(help="a refused stream gets 200 and the refusal as its only frame (with another fault)"),
    # The connection.
    "reset": Kind(help="reset the connection before the headers"),
    "close": Kind(help="close the connection before the headers"),
    "stall": Kind(help="never answer"),
    "stall-headers": Kind(help="send the headers and nothing more"),
    "bad-http": Kind(help="answer something that is not HTTP"),
    "big-header": Kind(help="a response header of so many kilobytes", values=int, default="200"),
    "reset-after": Kind(help="reset after so many chunks", values=int, default="3"),
    "cut-after": Kind(help="close after so many chunks in the middle of the body", values=int, default="3"),
    "stall-after": Kind(help="fall silent after so many chunks", values=int, default="3"),
    "stall-before": Kind(help="fall silent before this frame", values=("finish", "usage", "done")),
    "keepalive": Kind(help="comments for ever, one each so many seconds", values=float, default="0.2"),
    "close-idle": Kind(help="close after the answer without having said so"),
    "connection-close": Kind(help="answer with Connection: close"),
    # How the body is delivered.
    "framing": Kind(help="how the length of the body is told", values=("chunked", "length", "close")),
    "gzip": Kind(help="Content-Encoding: gzip"),
    "wrong-type": Kind(help="a correct stream with the content type text/plain"),
    "crlf": Kind(help="lines end in CR LF"),
    "cr": Kind(help="lines end in CR"),
    "no-space": Kind(help="no blank after data:"),
    "bom": Kind(help="the stream begins with a byte order mark"),
    "split": Kind(help="socket writes of 1 to so many bytes, inside characters too", values=int, default="7"),
    "comments": Kind(help="a comment line before each frame"),
    "events": Kind(help="id, event and retry lines, and frames of an unknown event"),
    "multi-data": Kind(help="each frame spread over two data lines"),
    "garbage": Kind(help="a line of garbage in the middle"),
    "bad-json": Kind(help="a frame (or plain body) that is not JSON in the middle"),
    "huge-line": Kind(help="a line of so many megabytes in the middle", values=int, default="10"),
    "invalid-utf8": Kind(help="bytes that are not UTF-8 in the text"),
    # The sequence of frames.
    "truncate": Kind(help="a clean end after so many chunks, nothing after them", values=int, default="3"),
    "no-done": Kind(help="no [DONE] (native never has one)"),
    "done-first": Kind(help="[DONE] (native: the finish) comes before the last text"),
    "done-twice": Kind(help="[DONE] (native: the finish) twice"),
    "finish": Kind(help="another finish reason; length and content_filter halve the text", values=FINISHES),
    "error-event": Kind(help="an error frame after so many chunks, then the end", values=int, default="3"),
    "moderation-event": Kind(
        help="a moderation error frame after so many chunks, then the end", values=int, default="3"
    ),
    "error-done": Kind(
        help="an error frame after so many chunks, then [DONE] (native: the finish)", values=int, default="3"
    ),
    "usage": Kind(help="where and what the usage is (compat: only if it was asked for)", values=USAGES),
    "mixed": Kind(help="the end of the reasoning and the first text in one chunk"),
    "both-reasoning": Kind(help="reasoning and reasoning_content with the same text"),
    "no-reasoning": Kind(help="the reasoning is counted and not shown"),
    "text-in-finish": Kind(help="the last text stands in the finishing chunk"),
    "duplicate": Kind(help="one chunk in the middle comes twice"),
    "cumulative": Kind(help="each chunk repeats the text so far"),
    "full-final": Kind(help="the finishing chunk repeats the whole text"),
    "partial": Kind(help="plain answers: half the text, a null finish reason, x-dashscope-partialresponse"),
    # The answer itself; features rather than faults.
    "unicode": Kind(help="line separators, next line, Chinese and emoji in the text"),
    "nul": Kind(help="a NUL character in the text"),
    "surrogate": Kind(help="half of a surrogate pair, escaped, in the text"),
    "chunks": Kind(help="an answer of exactly so many chunks", values=int),
    "think-chunks": Kind(help="reasoning of exactly so many chunks, when thinking", values=int),
    "overrun": Kind(help="ignore max_tokens: answer with so many times as many tokens", values=int),
    "cached": Kind(help="so many percent of the input came from the cache", values=int),
    "ttft": Kind(help="seconds to the first token", values=float),
    "tps": Kind(help="tokens per second; 0 is as fast as possible", values=float),
    # Temporary uploads.
    "policy-429": Kind(help="uploads: the policy is refused with 429"),
    "policy-500": Kind(help="uploads: the policy is refused with 500"),
    "policy-host": Kind(help="uploads: the policy names another host; value: a port on localhost", values=int),
    "policy-mb": Kind(help="uploads: the policy takes files of so many megabytes", values=int, default="1"),
    "upload-503": Kind(help="uploads: the storage answers 503"),
    "upload-403": Kind(help="uploads: the storage says that the policy has expired"),
}

HINTS: Final = {"retry-after": "retry-after", "retry-after-ms": "retry-after-ms", "should-retry": "x-should-retry"}
"""Modifiers that are response headers of a refusal."""
MODIFIER: Final = re.compile(r"-(?=(?:every|first|pct|seed|retry-after|retry-after-ms|should-retry)=|once(?:-|$))")


@dataclass(frozen=True, kw_only=True, slots=True)
class Clause:
    name: str
    value: str = ""
    every: int | None = None
    first: int | None = None
    percent: float | None = None
    seed: str = "0"
    once: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    """Response headers that go with a refusal."""


@dataclass(frozen=True, slots=True)
class Faults:
    """The clauses that hit one request, by the name of the fault, in the order of the spec."""

    clauses: Mapping[str, Clause] = field(default_factory=dict)

    def __contains__(self, name: str) -> bool:
        return name in self.clauses

    def text(self, name: str) -> str | None:
        clause = self.clauses.get(name)
        return None if clause is None else clause.value

    def whole(self, name: str) -> int | None:
        clause = self.clauses.get(name)
        return None if clause is None else int(clause.value)

    def number(self, name: str) -> float | None:
        clause = self.clauses.get(name)
        return None if clause is None else float(clause.value)


def parse_spec(spec: str) -> tuple[Clause, ...]:
    """Raise `FaultSpecError` with the part that is wrong; an empty spec has no clauses."""
    return tuple(parse_clause(unquote(part)) for part in spec.split("+")) if spec else ()


def parse_clause(text: str) -> Clause:
    head, *modifiers = MODIFIER.split(text)
    name, equals, value = head.partition("=")
    kind = FAULTS.get(name)
    if kind is None:
        raise FaultSpecError(f"there is no fault {name!r}; see batchrun simulate --list-faults")
    if not equals:
        value = kind.default or ""
    check_value(name, value, kind)
    given: dict[str, str] = {}
    for modifier in modifiers:
        key, _, setting = modifier.partition("=")
        given[key] = setting
    percent = given.get("pct")
    return Clause(
        name=name,
        value=value,
        every=count(text, given.get("every")),
        first=count(text, given.get("first")),
        percent=None if percent is None else decimal(text, percent),
        seed=given.get("seed", "0"),
        once="once" in given,
        headers={name: header_text(text, given[key]) for key, name in HINTS.items() if key in given},
    )


def check_value(name: str, value: str, kind: Kind) -> None:
    if kind.values is None:
        if value:
            raise FaultSpecError(f"the fault {name} takes no value, but {value!r} was given")
    elif isinstance(kind.values, tuple):
        if value not in kind.values:
            raise FaultSpecError(f"the value of {name} must be one of {', '.join(kind.values)}, not {value!r}")
    elif kind.values is int:
        count(name, value)
    elif kind.values is float:
        decimal(name, value)


def count(where: str, value: str | None) -> int | None:
    if value is None:
        return None
    if not re.fullmatch(r"[0-9]{1,9}", value):
        raise FaultSpecError(f"{where}: a whole number is needed, not {value!r}")
    return int(value)


def decimal(where: str, value: str) -> float:
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value):
        raise FaultSpecError(f"{where}: a number is needed, not {value!r}")
    return float(value)


def header_text(where: str, value: str) -> str:
    if not value.isascii() or not value.isprintable():
        raise FaultSpecError(f"{where}: a header value must be printable ASCII, not {value!r}")
    return value


class FaultMemory:
    """Counts requests and remembers bodies, which `every`, `first` and `once` need."""

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self.hit: set[tuple[str, bytes]] = set()

    def select(self, key: str, clauses: Sequence[Clause], body_hash: bytes) -> Faults:
        """The clauses that hit this request. `key` names the region and spec for which requests count."""
        chosen: dict[str, Clause] = {}
        for index, clause in enumerate(clauses):
            if self.hits(f"{key}#{index}", clause, body_hash):
                chosen.setdefault(clause.name, clause)
        return Faults(chosen)

    def hits(self, key: str, clause: Clause, body_hash: bytes) -> bool:
        self.requests[key] += 1
        number = self.requests[key]
        if clause.every is not None and (clause.every == 0 or number % clause.every):
            return False
        if clause.first is not None and number > clause.first:
            return False
        if clause.percent is not None and bucket(clause, body_hash) >= clause.percent:
            return False
        if clause.once:
            mark = (key, body_hash[:8])
            if mark in self.hit:
                return False
            self.hit.add(mark)
        return True


def bucket(clause: Clause, body_hash: bytes) -> float:
    """A number in [0, 100) that depends on the seed, the fault and the body only."""
    mixed = hashlib.sha256(f"{clause.seed} {clause.name} ".encode() + body_hash).digest()
    return int.from_bytes(mixed[:8], "big") * 100 / math.ldexp(1, 64)

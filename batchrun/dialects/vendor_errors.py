"""Reads the error answers of vendors, by the tables of `error_tables`. Bytes in, values out; never raises."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from batchrun.dialects.error_tables import NEVER_HEALS, REMEDIES, ErrorTable
from batchrun.errors import ErrorKind, ProviderError
from batchrun.messages import JsonValue
from batchrun.stream.sse import ERROR, Splitter

MAX_MESSAGE = 2048
"""Bytes of a vendor's message that are kept."""

_EMBEDDED_CODE = re.compile(r"<[0-9]{3}> ([A-Za-z.]{1,100}):")
_SECRET = re.compile(r"\b(sk-|Bearer +)[\w.\-]{6,}")
_WAIT_IN_WORDS = re.compile(
    r"try again (?:in|after) (?:(\d{1,6})h)?(?:(\d{1,6})m(?!s))?(?:(\d{1,12}(?:\.\d{1,12})?) ?(ms|s))?",
    re.IGNORECASE | re.ASCII,
)
"""`after 3 seconds` (Moonshot), `in 20ms`, `in 1.5s`, `in 1h2m3s` (OpenAI)."""
_NUMBER = re.compile(r"[0-9]{1,12}(\.[0-9]{1,12})?|\.[0-9]{1,12}")
_ERROR_STATUS = re.compile(r"[345][0-9]{2}", re.ASCII)
_FIELDS = (b"id:", b"event:", b"data:", b":")
"""How a stream of events begins."""
_TITLE = re.compile(r"<title[^>]*>([^<]{1,200})", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class VendorError:
    """The words of one error, out of any of the shapes of contract 7.1, 8.1.1 and 8.5."""

    message: str
    codes: tuple[str, ...]
    """What may name the error, most telling first: code, type, a code at the head of the message."""
    request_id: str | None
    status: int | None
    """A status that the body itself names."""


def read_error(table: ErrorTable, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
    """The error that an answer of any status but 200 stands for. Reads whatever comes, never raises."""
    if 300 <= status < 400:
        return _redirect(status, headers)
    return as_provider_error(table, words_of(body), status=status, headers=headers)


def as_provider_error(
    table: ErrorTable, words: VendorError, *, status: int, headers: Mapping[str, str] | None = None
) -> ProviderError:
    """`status` is that of the HTTP answer: 200 for an error inside a stream."""
    headers = headers or {}
    effective = words.status if status == 200 and words.status else status
    code, kind = _kind(table, words, effective)
    message = clean(words.message) or "no message"
    label = " ".join(part for part in (f"HTTP {effective}" if effective != 200 else "", clean(code)) if part)
    should_retry = _should_retry(headers)
    hopeless = " (the server says not to try again)" if should_retry is False else ""
    return ProviderError(
        kind,
        f"{label}: {message}{hopeless}" if label else f"{message}{hopeless}",
        http_status=status,
        vendor_code=clean(code, 200) or None,
        request_id=clean(words.request_id or _any_header(headers, "x-request-id", "x-trace-id"), 200) or None,
        retry_after=_retry_after(headers, words.message if kind is ErrorKind.RATE_LIMITED else ""),
        should_retry=should_retry,
        remedy=_remedy(table, code.lower(), kind, message),
    )


def error_event(table: ErrorTable, event: bytes, data: bytes) -> ProviderError:
    """The error that an event of the name `error` stands for. Its status, where it has one, decides as that of an
    answer would."""
    words = words_of(data)
    status = event.removeprefix(ERROR).strip()
    if words.status is None and _ERROR_STATUS.fullmatch(status.decode("latin-1")):
        words = replace(words, status=int(status))
    return as_provider_error(table, words, status=200)


def words_of(body: bytes) -> VendorError:
    """The words of a body that is known to be an error, whatever it looks like."""
    words = error_in(_parse(_data_of(body)))
    return words or VendorError(message=_first_words(body), codes=(), request_id=None, status=None)


def error_in(value: JsonValue) -> VendorError | None:
    """The error that a decoded body or frame reports; None if it reports none."""
    if isinstance(value, list) and value:
        value = value[0]
    if not isinstance(value, Mapping):
        return None
    inner = value.get("error") or value.get("errors")
    if isinstance(inner, list):
        inner = inner[0] if inner else None
    if isinstance(inner, Mapping):
        return _words(inner, value) if any(inner.values()) else None
    if isinstance(inner, str) and inner:
        return _words({"message": inner}, value)
    return _words(value, value) if inner or _names_error(value) else None


def clean(text: str, limit: int = MAX_MESSAGE) -> str:
    """`text` for a log and a terminal: no control characters, no keys, one line, at most `limit` bytes of UTF-8."""
    text = "".join(letter if letter.isprintable() else " " for letter in text[:limit])
    text = _SECRET.sub(r"\1***", " ".join(text.split()))
    return text.encode()[:limit].decode(errors="ignore")


def header(headers: Mapping[str, str], name: str) -> str:
    """The value of a header, whatever its case; empty if it isn't there."""
    return next((value for key, value in headers.items() if key.lower() == name), "")


def _names_error(value: Mapping[str, JsonValue]) -> bool:
    """Whether a body without an `error` member is an error all the same (contract T20)."""
    if value.get("choices"):
        return False
    code = value.get("code")
    return code not in (None, "", 0, 200, "0", "200") or value.get("success") is False or bool(value.get("detail"))


def _words(fields: Mapping[str, JsonValue], outer: Mapping[str, JsonValue]) -> VendorError:
    message = _text(fields.get("message") or fields.get("detail") or outer.get("message") or fields.get("msg"))
    named = [_text(fields.get(name)) for name in ("code", "type", "status")] + [_text(outer.get("code"))]
    embedded = _EMBEDDED_CODE.match(message)
    numbers = [int(name) for name in named if _ERROR_STATUS.fullmatch(name)]
    identity = outer.get("request_id") or outer.get("trace_id") or fields.get("request_id") or outer.get("id")
    return VendorError(
        message=message,
        codes=tuple(name for name in (*named, embedded[1] if embedded else "") if name and not name.isdigit()),
        request_id=_text(identity) or None,
        status=numbers[0] if numbers else None,
    )


def _text(value: JsonValue) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError:  # nested just below the limit of the parser
        return ""


def _kind(table: ErrorTable, words: VendorError, status: int) -> tuple[str, ErrorKind]:
    """The code that decided (or the first one there is) and the kind."""
    for code in words.codes:
        for name in _families(code.lower()):
            if (kind := table.codes.get(name)) is not None:
                if kind is ErrorKind.SERVER:
                    kind = _server_kind(table, name, words.message, status)
                return code, kind
    first = words.codes[0] if words.codes else ""
    if status < 300:
        return first, ErrorKind.INVALID if "invalid_request_error" in words.codes else ErrorKind.SERVER
    return first, table.statuses.get(status, ErrorKind.SERVER if status >= 500 else ErrorKind.INVALID)


def _server_kind(table: ErrorTable, name: str, message: str, status: int) -> ErrorKind:
    """A code that only says "our fault" is read by its status; `InternalError` also by its message."""
    if name.startswith("internal") and _cause(message):
        return ErrorKind.INVALID
    return table.statuses.get(status, ErrorKind.SERVER)


def _remedy(table: ErrorTable, code: str, kind: ErrorKind, message: str) -> str:
    """That of the cause which the message of a server error names, else of the code, of its family, of the kind."""
    if kind is ErrorKind.INVALID and code.startswith("internal") and (cause := _cause(message)):
        return cause
    found = (table.remedies[name] for name in _families(code) if name in table.remedies)
    return next(found, REMEDIES.get(kind, ""))


def _cause(message: str) -> str:
    """What to do about a server error that comes from the request; empty for any other."""
    return next((remedy for words, remedy in NEVER_HEALS.items() if words in message.lower()), "")


def _families(code: str) -> Iterator[str]:
    """`a.b.c`, then `a.b`, then `a`."""
    while code:
        yield code
        code = code.rpartition(".")[0]


def _redirect(status: int, headers: Mapping[str, str]) -> ProviderError:
    try:
        host = urlsplit(header(headers, "location")).hostname
    except ValueError:
        host = None
    return ProviderError(
        ErrorKind.INVALID,
        f"HTTP {status}: the server redirects to {clean(host, 200) if host else 'another path'}. "
        "Redirects aren't followed, so that the key goes to no other host.",
        http_status=status,
        remedy="Put the right base URL into the catalogue entry.",
    )


def _data_of(body: bytes) -> bytes:
    """The data of the first event, where an answer to a call for a stream refuses it in the form of one."""
    if not body.startswith(_FIELDS):
        return body
    splitter = Splitter()
    return next((data for _, data in splitter.feed(body) + splitter.close() if data), body)


def _parse(body: bytes) -> JsonValue:
    try:
        value: JsonValue = json.loads(body.decode("utf-8-sig", "replace"))
    except (ValueError, RecursionError):
        return None
    return value


def _first_words(body: bytes) -> str:
    text = body[: 4 * MAX_MESSAGE].decode("utf-8", "replace")
    title = _TITLE.search(text)
    return title[1] if title else text


def _any_header(headers: Mapping[str, str], *names: str) -> str:
    return next((value for name in names if (value := header(headers, name))), "")


def _retry_after(headers: Mapping[str, str], message: str) -> float | None:
    """The server's wish in seconds: `retry-after-ms`, `retry-after`, or "try again after 3 seconds".

    A date is measured from the answer's own `Date`, so that no clock of ours takes part; without one it says
    nothing. A date that is past is 0; what can't be read is None.
    """
    if _NUMBER.fullmatch(milliseconds := header(headers, "retry-after-ms").strip()):
        return float(milliseconds) / 1000
    wish = header(headers, "retry-after").strip()
    if _NUMBER.fullmatch(wish):
        return float(wish)
    until, now = _date(wish), _date(header(headers, "date"))
    if until and now:
        return max(0.0, (until - now).total_seconds())
    return _wait_in_words(message)


def _should_retry(headers: Mapping[str, str]) -> bool | None:
    """`x-should-retry`, which the vendors' own clients obey whatever the status is (contract 8.2)."""
    return {"true": True, "false": False}.get(header(headers, "x-should-retry").strip().lower())


def _wait_in_words(message: str) -> float | None:
    """Seconds; None where the message names no wait."""
    found = _WAIT_IN_WORDS.search(message)
    if found is None or not any(found.groups()):
        return None
    hours, minutes, count, unit = found.groups(default="0")
    seconds = float(count) / (1000 if unit.lower() == "ms" else 1)
    return 3600 * int(hours) + 60 * int(minutes) + seconds


def _date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)

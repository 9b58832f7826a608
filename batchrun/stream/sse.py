"""Server-sent events out of bytes, as the HTML standard ("Server-sent events", 9.2.6) describes them.

Lines end with CR, LF or CRLF and with nothing else: U+2028 and U+0085 inside an answer are text, which is why no
line iterator of the standard library or of an HTTP client is used. Nothing is decoded here; a UTF-8 character
that two reads share comes out whole.

Kept small on purpose: `id` and `retry` are ignored, since a broken model call is never resumed.
"""

from __future__ import annotations

from batchrun.errors import ErrorKind, ProviderError

MAX_EVENT = 8 * 1024 * 1024
"""Bytes of one event, and so of one line."""
MAX_EVENTS = 2_000_000
"""Events of one stream; comments and empty ones count."""

ERROR = b"error"
"""How the name of an event that reports an error begins."""
STATUS = b":HTTP_STATUS/"
"""DashScope writes the status of an event into a comment (contract 8.1.1); `error` is then called `error 429`."""

BOM = b"\xef\xbb\xbf"
Event = tuple[bytes, bytes]
"""Name (empty if the server gave none) and data."""


class Splitter:
    """Cuts one stream into events, whatever the sizes of the reads."""

    __slots__ = ("_after_cr", "_events", "_max_event", "_max_events", "_pending", "_pending_size")

    def __init__(self, *, max_event: int = MAX_EVENT, max_events: int = MAX_EVENTS) -> None:
        self._max_event = max_event
        self._max_events = max_events
        self._events = 0
        self._after_cr = False
        self._pending: list[bytes] = []
        self._pending_size = 0

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that are complete with these bytes. Comments and keep-alives give none.

        Raises ProviderError(INCOMPLETE) that names the limit when an event or the stream is too long.
        """
        if b"\r" in chunk or self._after_cr:
            chunk = self._to_lf(chunk)
        pending = self._pending
        if (
            not pending
            and chunk[:6] == b"data: "
            and 8 < len(chunk) == chunk.find(b"\n") + 2 <= self._max_event
            and chunk[-1:] == b"\n"
            and self._events < self._max_events
        ):
            # Most reads of a slow compat stream: one whole event of one line. What follows gives the same, at a price.
            self._events += 1
            return [(b"", chunk[6:-2])]
        if (
            not pending
            and 2 < len(chunk) == chunk.find(b"\n\n") + 2 <= self._max_event
            and 0 < self._events < self._max_events
        ):
            # Nearly every read of native: one whole event of several lines.
            self._events += 1
            event = _fields(chunk[:-2])
            return [event] if event else []
        if b"\n\n" not in chunk and not (pending and pending[-1][-1:] == b"\n" == chunk[:1]):
            if chunk:
                pending.append(chunk)
                self._pending_size += len(chunk)
                self._check_size(self._pending_size)
            return []
        if pending:
            pending.append(chunk)
            chunk = b"".join(pending)
            pending.clear()
        if chunk[:6] == b"data: " and len(chunk) <= self._max_event:
            # Most reads of a quick one: several events of one line each.
            whole, _, rest = chunk.rpartition(b"\n\n")
            texts = whole[6:].split(b"\n\ndata: ")
            events = self._events + len(texts)
            if whole.count(b"\n") == 2 * (len(texts) - 1) and b"" not in texts and events <= self._max_events:
                self._events = events
                self._keep(rest)
                return [(b"", text) for text in texts]
        blocks = chunk.split(b"\n\n")
        self._keep(blocks.pop())
        return self._read(blocks)

    def _keep(self, rest: bytes) -> None:
        """For the next read; nothing is pending."""
        self._pending_size = len(rest)
        if rest:
            self._pending.append(rest)

    def close(self) -> list[Event]:
        """The last event, where the stream ended without the blank line that closes it.

        The standard drops such an event, yet servers do end with `data: [DONE]` and one line end, or none. It is
        given only if nothing can be missing from it: its last line has its line end, or closes a bracket. An
        object cut short never parses and the marker cut short isn't the marker, so no half answer gets through.
        """
        block = b"".join(self._pending)
        self._pending.clear()
        self._pending_size = 0
        return self._read([block]) if block.endswith((b"\n", b"}", b"]")) else []

    def _to_lf(self, chunk: bytes) -> bytes:
        """Every line end as one LF. A CR ends its line at once; the LF that may follow in the next read is dropped."""
        if not chunk:
            return chunk
        if self._after_cr and chunk[:1] == b"\n":
            chunk = chunk[1:]
            self._after_cr = False
            if not chunk:
                return chunk
        self._after_cr = chunk[-1:] == b"\r"
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _read(self, blocks: list[bytes]) -> list[Event]:
        if self._events == 0 and blocks:
            blocks[0] = blocks[0].removeprefix(BOM)
        self._events += len(blocks)
        if self._events > self._max_events:
            raise _too_much(f"{self._max_events:,} events of one stream")
        events: list[Event] = []
        for block in blocks:
            if len(block) > self._max_event:
                self._check_size(len(block))
            if block[:6] == b"data: " and len(block) > 6 and b"\n" not in block:
                events.append((b"", block[6:]))
            elif block and (event := _fields(block)):
                events.append(event)
        return events

    def _check_size(self, size: int) -> None:
        if size > self._max_event:
            raise _too_much(f"{self._max_event:,} bytes of one event")


def _fields(block: bytes) -> Event | None:
    """The event of these lines; None if there is no `data` line, or an empty one and no name (a keep-alive)."""
    name = status = b""
    data: list[bytes] = []
    for line in block.split(b"\n"):
        start = line[:5]
        if start == b"data:":
            data.append(line[6:] if line[5:6] == b" " else line[5:])
        elif start == b"event" and line[5:6] in (b":", b""):
            name = line[6:].removeprefix(b" ")
        elif start == b":HTTP" and line.startswith(STATUS):
            status = line.removeprefix(STATUS)
        elif line == b"data":
            data.append(b"")
    text = data[0] if len(data) == 1 else b"\n".join(data)
    if name == ERROR and status:
        name = b"error " + status
    return (name, text) if text or (data and name) else None


def _too_much(limit: str) -> ProviderError:
    return ProviderError(
        ErrorKind.INCOMPLETE,
        f"The answer's stream went over the limit of {limit}; reading stopped.",
        remedy="What arrived is kept. If this repeats, the server is broken or isn't a model server.",
    )


def looks_plain(head: bytes) -> bool:
    """Whether a body that should be a stream is JSON or a page instead: its first byte that isn't blank says so.

    Servers answer 200 with an error object or an HTML page, and label real streams `application/json`; so the
    bytes decide, not the content type. False as long as `head` is blank.
    """
    return head.removeprefix(BOM).lstrip(b" \t\r\n")[:1] in (b"{", b"[", b"<")

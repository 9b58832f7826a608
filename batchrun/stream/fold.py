"""Deltas folded into one answer, and the rule that says when an answer is complete.

    complete = no error
               and a finish reason of `DONE_REASONS | TRUNCATED_REASONS`
               and (the dialect's terminal marker, or a usage with or after that finish reason)

The end of a connection proves nothing: proxies and servers end streams in the middle without any error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from batchrun.answer import DONE_REASONS, TRUNCATED_REASONS, Answer, Delta, ToolCallPart, Usage
from batchrun.errors import ErrorKind, ProviderError
from batchrun.messages import JsonValue

MAX_ANSWER = 16 * 1024 * 1024
"""Characters of text and reasoning together."""

FINISHED = DONE_REASONS | TRUNCATED_REASONS
_FREE_BEFORE_CONTENT = frozenset({ErrorKind.RATE_LIMITED, ErrorKind.UNAVAILABLE})


class Channel:
    """One growing text. Also notices a server that sends all text so far in each frame instead of the new part.

    Such a stream is recognised by its first pieces: `STEPS` of them, each longer than the one before and beginning
    with it, the last of at least `LENGTH` characters. A model doesn't write like that. Shorter texts stay as they
    came: no guessing.
    """

    STEPS = 4
    LENGTH = 32

    __slots__ = ("_cumulative", "_last", "_pieces", "_steps", "size")

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._last: str | None = ""
        """The piece before, as long as every piece so far continues its predecessor."""
        self._steps = 0
        self._cumulative = False
        self.size = 0

    def add(self, piece: str) -> None:
        if self._last is not None and self._continues(piece):
            return
        self._pieces.append(piece)
        self.size += len(piece)

    def add_all(self, pieces: Sequence[str]) -> None:
        """As if each was added by itself."""
        rest = iter(pieces)
        while self._last is not None and (piece := next(rest, None)) is not None:
            self.add(piece)
        added = list(rest)
        self._pieces += added
        self.size += sum(map(len, added))

    def add_whole(self, piece: str) -> None:
        """`piece` is all there is so far. Where it doesn't contain what arrived, the server meant an addition."""
        if piece.startswith(self.text):
            self._replace(piece)
        else:
            self.add(piece)

    def says(self, piece: str) -> bool:
        """Whether `piece` is all the text so far once more, and long enough not to be so by chance."""
        return self.LENGTH <= len(piece) == self.size and piece == self.text

    @property
    def text(self) -> str:
        if len(self._pieces) > 1:
            self._pieces = ["".join(self._pieces)]
        return self._pieces[0] if self._pieces else ""

    def _continues(self, piece: str) -> bool:
        """Whether `piece` has been taken as all the text so far."""
        last = self._last or ""
        if not piece.startswith(last) or (piece == last and not self._cumulative):
            self._last = None
            return False
        self._last = piece
        self._steps += 1
        self._cumulative = self._cumulative or (self._steps >= self.STEPS and len(piece) >= self.LENGTH)
        if self._cumulative:
            self._replace(piece)
        return self._cumulative

    def _replace(self, piece: str) -> None:
        self._pieces = [piece]
        self.size = len(piece)


class ToolCalls:
    """The calls to tools of an answer, put together from their pieces."""

    __slots__ = ("_calls", "size")

    def __init__(self) -> None:
        self._calls: dict[int, tuple[str, str, list[str]]] = {}
        self.size = 0
        """Characters of names and arguments."""

    def add(self, part: ToolCallPart) -> None:
        id_, name, pieces = self._calls.get(part.index, ("", "", []))
        pieces.append(part.arguments)
        self._calls[part.index] = id_ or part.id, name or part.name, pieces
        self.size += len(part.arguments) + (0 if name else len(part.name))

    def values(self) -> tuple[Mapping[str, JsonValue], ...]:
        return tuple(
            {
                "id": storable(id_),
                "type": "function",
                "function": {"name": storable(name), "arguments": storable("".join(pieces))},
            }
            for _, (id_, name, pieces) in sorted(self._calls.items())
        )


class Fold:
    """What has arrived of one attempt. Fed in order; can be asked at any time, also after an error."""

    __slots__ = (
        "_ended",
        "_error",
        "_finish_reason",
        "_reasoning",
        "_request_id",
        "_running",
        "_sealed",
        "_text",
        "_tools",
        "_usage",
    )

    def __init__(self) -> None:
        self._text = Channel()
        self._reasoning = Channel()
        self._tools = ToolCalls()
        self._finish_reason: str | None = None
        self._usage: Usage | None = None
        self._running: Callable[[], Usage | None] | None = None
        """Reads a usage that came after `_usage`."""
        self._request_id: str | None = None
        self._error: ProviderError | None = None
        self._ended = False
        self._sealed = False
        """The usage counts the whole answer."""

    def feed(self, delta: Delta) -> None:
        """Take one delta. After the terminal marker only a late usage still counts.

        Raises ProviderError(INCOMPLETE) that names the limit when the answer grows too long; what came before
        stays readable.
        """
        if not self._ended:
            self._take(delta)
        if delta.running_usage is not None and self._finish_reason is None:
            self._running = delta.running_usage
            return
        usage = delta.usage if delta.running_usage is None else delta.running_usage()
        if usage is not None:
            self._usage, self._running = usage, None
            self._sealed = self._ended or self._finish_reason is not None
        elif delta.end and delta.finish_reason is None:
            self._sealed = True  # a marker of its own; what was counted before it is all there was

    def _take(self, delta: Delta) -> None:
        if delta.text or delta.reasoning or delta.tool_calls:
            self._add(delta)
        if delta.texts or delta.reasonings:
            self._add_run(delta)
        if delta.finish_reason is not None:
            self._finish_reason = delta.finish_reason
        if delta.request_id is not None:
            self._request_id = delta.request_id
        if delta.error is not None and self._error is None:
            self._error = _maybe_billed(delta.error) if self.has_content else delta.error
        if delta.end:
            self._ended = True

    def _add(self, delta: Delta) -> None:
        # Some servers repeat the whole answer in the frame that ends it.
        repeats = delta.finish_reason is not None and self._text.says(delta.text)
        if delta.text and not repeats:
            (self._text.add_whole if delta.whole else self._text.add)(delta.text)
        if delta.reasoning:
            (self._reasoning.add_whole if delta.whole else self._reasoning.add)(delta.reasoning)
        if not (delta.whole and self._tools.size):  # else the whole message says again what came in pieces
            for part in delta.tool_calls:
                self._tools.add(part)
        self._check_length()

    def _add_run(self, delta: Delta) -> None:
        self._text.add_all(delta.texts)
        self._reasoning.add_all(delta.reasonings)
        self._check_length()

    def _check_length(self) -> None:
        if self.size > MAX_ANSWER:
            self._error = _too_long()
            raise self._error

    @property
    def text(self) -> str:
        return storable(self._text.text)

    @property
    def reasoning(self) -> str:
        return storable(self._reasoning.text)

    @property
    def finish_reason(self) -> str | None:
        """The last one, as the server sent it."""
        return self._finish_reason

    @property
    def size(self) -> int:
        """Characters of text, reasoning and calls to tools so far."""
        return self._text.size + self._reasoning.size + self._tools.size

    @property
    def has_content(self) -> bool:
        """Whether anything of the answer has arrived: what the first-token and silence clocks count."""
        return self.size > 0

    @property
    def usage(self) -> Usage | None:
        """The last one, wherever it stood; never a sum."""
        if self._running is not None:
            self._usage, self._running = self._running() or self._usage, None
        return self._usage

    @property
    def usage_is_final(self) -> bool:
        """Whether the usage counts the whole answer: it came with or after the finish reason, or before a marker that
        isn't the finish reason itself."""
        return self._sealed and self.usage is not None

    @property
    def error(self) -> ProviderError | None:
        """The first error of the stream. Kinds that are free before any content are SERVER after it."""
        return self._error

    @property
    def ended(self) -> bool:
        """Whether the terminal marker was seen; reading on can only bring a late usage."""
        return self._ended

    @property
    def complete(self) -> bool:
        return not self.missing()

    def missing(self) -> str:
        """Why the answer isn't complete, in words for a message; empty when it is."""
        if self._error is not None:
            return f"the server reported an error: {self._error.message}"
        if self._finish_reason is None:
            got = "after some text" if self.has_content else "before any text"
            return f"the answer ended {got}, without a finish reason"
        if self._finish_reason not in FINISHED:
            known = ", ".join(sorted(FINISHED))
            return f"the finish reason is {storable(self._finish_reason[:100])!r}, not one of {known}"
        if not (self._ended or self._sealed):
            return "the finish reason came, but neither the end marker nor the usage after it"
        return ""

    def answer(self) -> Answer:
        """All that arrived, complete or not. Texts are `storable`; `complete` by the rule at the top."""
        return Answer(
            text=self.text,
            reasoning=self.reasoning,
            finish_reason=None if self._finish_reason is None else storable(self._finish_reason[:100]),
            complete=self.complete,
            usage=self.usage,
            request_id=None if self._request_id is None else storable(self._request_id[:200]),
            tool_calls=self._tools.values(),
        )


def storable(text: str) -> str:
    """`text` as every database can keep it: NUL and lone surrogates become U+FFFD.

    PostgreSQL refuses both. The two halves of a character that arrived in two frames are joined first.
    """
    text = text.replace("\0", "\ufffd")
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _maybe_billed(error: ProviderError) -> ProviderError:
    """The same error as it counts after content: tokens were generated, so it isn't free any more."""
    if error.kind not in _FREE_BEFORE_CONTENT:
        return error
    return ProviderError(
        ErrorKind.SERVER,
        error.message,
        http_status=error.http_status,
        vendor_code=error.vendor_code,
        request_id=error.request_id,
        retry_after=error.retry_after,
        remedy=error.remedy,
    )


def _too_long() -> ProviderError:
    return ProviderError(
        ErrorKind.INCOMPLETE,
        f"The answer went over the limit of {MAX_ANSWER:,} characters; reading stopped.",
        remedy="The text up to there is kept. Set `max_tokens`: the usual cause is a model that repeats itself.",
    )

"""Every error that batchrun raises on purpose.

BatchrunError               code, message, remedy, exit code
├── SpecError               a job file or its rows: all problems at once (exit 2)
├── CatalogueError          a catalogue file (exit 2)
├── UsageError              a command or an option (exit 2)
├── ChangedError            a job or a row that says something else than before (exit 2)
├── DatabaseError           the database can't be opened, or has another schema (exit 4 or 2)
├── MediaError              a picture or a path: that item fails, no call is made
├── TemplateError           a prompt that can't be parsed or filled
└── ProviderError           one attempt failed; `kind` says how
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

PASSING_ERRNOS = frozenset({errno.EMFILE, errno.ENFILE, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN})
"""Errors of the system that pass: no file handle left, a network disk that doesn't answer."""

EXIT_DONE = 0
EXIT_ITEMS_FAILED = 1
EXIT_USAGE = 2
EXIT_STOPPED = 3
EXIT_UNREACHABLE = 4
EXIT_INTERRUPTED = 130


class BatchrunError(Exception):
    """An error with a stable `code`, a message that says what and where, and a `remedy` that says what to do."""

    exit_code = EXIT_USAGE

    def __init__(self, message: str, *, code: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.remedy = remedy
        if remedy:
            self.add_note(f"→ {remedy}")  # a traceback shows it below the message


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing wrong with a file that a person wrote. Lines and columns count from 1; None where there is none."""

    file: Path | None
    line: int | None
    column: int | None
    field: str
    """The path of the field, such as `jobs[0].params.max_tokens`; empty for the file as a whole."""
    message: str
    remedy: str

    @property
    def told(self) -> str:
        """Where and what."""
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)
        return ": ".join(part for part in (place, self.field, self.message) if part)

    def __str__(self) -> str:
        text = self.told
        if not self.remedy:
            return text
        return f"{text} {self.remedy}" if text.endswith(("?", ".")) else f"{text}. {self.remedy}"


class SpecError(BatchrunError):
    """What is wrong with a job file or its rows, all problems at once."""

    def __init__(self, problems: list[Problem], *, code: str = "job-file") -> None:
        super().__init__("\n".join(str(problem) for problem in problems), code=code)
        self.problems = problems


class CatalogueError(BatchrunError):
    """A catalogue file that can't be used, or a provider or model that it doesn't have."""


class UsageError(BatchrunError):
    """A command, an option or a name on the command line that can't be carried out."""


class ChangedError(BatchrunError):
    """What is asked for differs from what the job of this name was bought with. Nothing is written."""


class DatabaseError(BatchrunError):
    """The database can't be reached, or can't be used as it is."""

    MISUSES = frozenset(
        [
            "database-url",
            "database-not-a-file",
            "database-foreign",
            "database-damaged",
            "no-database",
            "schema-older",
            "schema-newer",
        ]
    )
    """Codes for what trying again doesn't mend: they end as wrong use does."""

    def __init__(self, message: str, *, code: str, remedy: str = "") -> None:
        super().__init__(message, code=code, remedy=remedy)
        self.exit_code = EXIT_USAGE if code in self.MISUSES else EXIT_UNREACHABLE


class WorkerError(BatchrunError):
    """The workers of a run are gone before its work was done."""

    exit_code = EXIT_UNREACHABLE


class MediaError(BatchrunError):
    """A picture that can't be sent. The item fails before any call; the others go on."""


class TemplateError(BatchrunError):
    """A prompt template that can't be parsed, or can't be filled from the variables of a row."""


class ErrorKind(StrEnum):
    """What went wrong with an attempt, as it is stored. `retry.decide` says what each leads to."""

    RATE_LIMITED = "rate_limited"
    """Refused for the moment; nothing was generated, nothing is billed."""
    UNAVAILABLE = "unavailable"
    """503 or 529 before any body: no capacity, nothing generated."""
    LOCAL = "local"
    """This machine couldn't for the moment: no file handle left, a disk that doesn't answer, a process that stood
    still. Nothing left."""
    NOT_SENT = "not_sent"
    """DNS, refused connection, TLS: the request never left."""
    SERVER = "server"
    """5xx, or an error inside a stream: may have been billed."""
    NETWORK = "network"
    """The connection broke after the request was sent: may have been billed."""
    TIMEOUT = "timeout"
    """One of our three clocks, or the vendor's: may have been billed."""
    INCOMPLETE = "incomplete"
    """The answer ended without its terminal marker and an allowed finish reason."""
    INVALID = "invalid"
    """The request is wrong and will be wrong again."""
    INVALID_ANSWER = "invalid_answer"
    """The answer is whole and paid for, and doesn't fit the job's schema."""
    MODERATED = "moderated"
    NOT_FOUND = "not_found"
    """The model doesn't exist here, or is retired."""
    ACCOUNT = "account"
    """The key is refused: wrong key, wrong region, no permission."""
    ARREARS = "arrears"
    """No money: overdue account, used-up quota."""
    MEDIA = "media"
    """The item's own file can't be sent. Found before the call."""
    MEDIA_UNAVAILABLE = "media_unavailable"
    """The item's media can't be looked at, or uploaded, for the moment. Nothing was generated, nothing is billed."""
    TEMPLATE = "template"
    """The item's prompt can't be filled. Found before the call."""
    PARTS = "parts"
    """The item merges what its parts say, and one of them has no answer. Found before the call."""
    INTERNAL = "internal"
    """A fault in batchrun itself, in the middle of a call: may have been billed."""
    LOST = "lost"
    """The worker died while the call was in flight: may have been billed."""


EXITS = {
    ErrorKind.ACCOUNT: EXIT_STOPPED,
    ErrorKind.ARREARS: EXIT_STOPPED,
    ErrorKind.INVALID: EXIT_USAGE,
    ErrorKind.MODERATED: EXIT_USAGE,
    ErrorKind.NOT_FOUND: EXIT_USAGE,
}
"""The exit code of a command that such an error ends; of other kinds, that of a service that can't be reached."""


class ProviderError(BatchrunError):
    """One failed attempt, or another question to a server that failed.

    `http_status` is None where there was no answer; `vendor_code` is the vendor's own word; `retry_after` is the
    server's wish in seconds, uncapped and unchecked; `should_retry` is its word on whether to try again at all, None
    where it says nothing.
    """

    def __init__(
        self,
        kind: ErrorKind,
        message: str,
        *,
        http_status: int | None = None,
        vendor_code: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        should_retry: bool | None = None,
        remedy: str = "",
    ) -> None:
        super().__init__(message, code=kind.value, remedy=remedy)
        self.exit_code = EXITS.get(kind, EXIT_UNREACHABLE)
        self.kind = kind
        self.http_status = http_status
        self.vendor_code = vendor_code
        self.request_id = request_id
        self.retry_after = retry_after
        self.should_retry = should_retry

"""Collects what is wrong with the rows of one source, so that a person sees more than the first problem."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from batchrun.errors import Problem, SpecError

MAX_PROBLEMS = 20


@dataclass(slots=True, kw_only=True)
class Complaints:
    file: Path | None
    """The file that the rows come from; None for a listing and for inline rows."""
    key: str
    """Key of the job file that named the source."""
    problems: list[Problem] = field(default_factory=list)

    def add(self, message: str, remedy: str, *, line: int | None = None, place: str = "") -> None:
        """Note a problem. Raises SpecError once MAX_PROBLEMS are there: more would not be read."""
        self.problems.append(
            Problem(file=self.file, line=line, column=None, field=place or self.key, message=message, remedy=remedy)
        )
        if len(self.problems) >= MAX_PROBLEMS:
            self._note("… and perhaps more: the reading stopped here", "Correct these first")
            self.finish()

    def stop(self, message: str, remedy: str, *, line: int | None = None) -> SpecError:
        """The error to raise where the rest can't be read at all."""
        self.problems.append(
            Problem(file=self.file, line=line, column=None, field=self.key, message=message, remedy=remedy)
        )
        return SpecError(self.problems, code="rows")

    def finish(self) -> None:
        """Raise SpecError if anything was noted."""
        if self.problems:
            raise SpecError(self.problems, code="rows")

    def _note(self, message: str, remedy: str) -> None:
        problem = Problem(file=self.file, line=None, column=None, field=self.key, message=message, remedy=remedy)
        self.problems.append(problem)

"""`KEY=VALUE` of `batchrun set`, checked by the rules of the job file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from pydantic import ValidationError

from batchrun.errors import UsageError
from batchrun.jobfile.quantities import Money
from batchrun.jobfile.sections import Cap, LimitsSpec, Priority
from batchrun.jobfile.wording import wrong_value
from batchrun.showing import clean

NONE = "none"
Value = int | Money | None


class ProfileChanges(LimitsSpec):
    """What can be set of a profile."""


class JobChanges(LimitsSpec):
    """What can be set of a job."""

    budget: Cap | None = None
    priority: Priority = 0


def pairs(texts: Iterable[str]) -> dict[str, str]:
    """`KEY=VALUE` texts taken apart. Raises UsageError."""
    found: dict[str, str] = {}
    for text in texts:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not key or not value:
            raise UsageError(
                f"`{clean(text)}` is not KEY=VALUE",
                code="usage",
                remedy="write for example concurrency=8",
            )
        if key in found:
            raise UsageError(f"{clean(key)} is given twice", code="usage", remedy="give each key once")
        found[key] = value
    return found


def checked(changes: Mapping[str, object], known: type[LimitsSpec]) -> dict[str, Value]:
    """The new values; None takes a limit away. Raises UsageError with all that is wrong."""
    problems = [unknown_key(key, known) for key in changes if key not in known.model_fields]
    if not problems:
        try:
            section = known.model_validate({key: read(value) for key, value in changes.items()})
        except ValidationError as error:
            for details in error.errors(include_url=False):
                message, remedy = wrong_value(details, None)
                problems.append(f"{details['loc'][0]}: {message}. {remedy}")
        else:
            return {key: getattr(section, key) for key in changes}
    raise UsageError("\n".join(problems), code="set-value", remedy="nothing was changed; correct it and set it again")


def unknown_key(key: str, known: type[LimitsSpec]) -> str:
    near = get_close_matches(key.lower(), known.model_fields, n=1)
    hint = f"; did you mean {near[0]}?" if near else f"; there are: {', '.join(known.model_fields)}"
    return f"nothing called `{clean(key)}` can be set here{hint}"


def read(value: object) -> object:
    """What a text of the command line stands for; other values are themselves."""
    if not isinstance(value, str):
        return value
    if value.lower() == NONE:
        return None
    return int(value) if re.fullmatch(r"[+-]?\d{1,20}", value, re.ASCII) else value

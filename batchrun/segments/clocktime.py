"""Times within a video: seconds, and how they are written."""

from __future__ import annotations

import math
import re

LONGEST = 360_000.0
"""Seconds: a time has two digits of hours."""
_CLOCK = re.compile(r"(?:(\d{1,2}):)?(\d{1,2}):(\d{2})(?:[.,](\d{1,9}))?", re.ASCII)


def clock_text(seconds: float) -> str:
    """Whole seconds as `HH:MM:SS`; what is less than a second is left out."""
    whole = int(seconds)
    return f"{whole // 3600:02}:{whole % 3600 // 60:02}:{whole % 60:02}"


def clock_seconds(text: str) -> float | None:
    """What `HH:MM:SS` or `MM:SS` says in seconds, thousandths behind a point or comma included; None for what is no
    such time."""
    found = _CLOCK.fullmatch(text.strip())
    if found is None or int(found[3]) > 59 or (found[1] is not None and int(found[2]) > 59):
        return None
    return int(found[1] or 0) * 3600 + int(found[2]) * 60 + int(found[3]) + float(f"0.{found[4] or 0}")


def seconds_of(value: object) -> float | None:
    """What an answer says about a time: a number of seconds, also as text, or a clock time. None for anything else."""
    if isinstance(value, str):
        clock = clock_seconds(value)
        if clock is not None:
            return clock
        plain = value.strip().removesuffix("s").strip()
        return None if not re.fullmatch(r"\d{1,9}(\.\d{1,9})?", plain, re.ASCII) else within(float(plain))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return within(value)
    return None


def within(seconds: float) -> float | None:
    """None for what can be no time of a video."""
    return float(seconds) if 0 <= seconds < LONGEST and math.isfinite(seconds) else None

"""The hours in which a job may start calls, by the clock on the wall of a time zone. No I/O.

A window is an interval of real time: it opens at the first moment at which the wall clock shows its start, and closes
at the first moment after that at which it shows its end. So a night on which clocks are put back is an hour longer, a
time that clocks jump over counts as the moment of the jump, and nothing ever opens twice in a night.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)
COUNTED = 1_000
"""Windows that are looked at one by one; later ones are taken to be like these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    start: time
    end: time
    """Another time than `start`; an earlier one is of the next day."""
    zone: ZoneInfo

    def __str__(self) -> str:
        return f"{self.start:%H:%M} to {self.end:%H:%M} {self.zone.key}"

    def is_open(self, now: datetime) -> bool:
        return any(opens <= now < closes for opens, closes in self.around(now))

    def opens_at(self, now: datetime) -> datetime:
        """The next opening after `now`, in UTC."""
        return min(opens for opens, _ in self.around(now) if opens > now)

    def takes(self, now: datetime, seconds: float) -> float:
        """Seconds from `now` on until the window has been open for so many; for none, until it is open."""
        moment, left = now, seconds
        for _ in range(COUNTED):
            opens, closes = next(span for span in self.around(moment) if span[1] > moment)
            begins = max(opens, moment)
            length = (closes - begins).total_seconds()
            if left <= length:
                return (begins - now).total_seconds() + left
            left, moment = left - length, closes
        passed = (moment - now).total_seconds()
        return passed + left * passed / (seconds - left)

    def around(self, now: datetime) -> list[tuple[datetime, datetime]]:
        """Opening and closing, in UTC, of the windows that begin on the days around `now`; nothing where clocks jump
        over both."""
        today = now.astimezone(self.zone).date()
        days = [today + number * DAY for number in (-1, 0, 1, 2)]
        later = DAY if self.end <= self.start else timedelta(0)
        found = [(self.moment(day, self.start), self.moment(day + later, self.end)) for day in days]
        return [(opens, closes) for opens, closes in found if opens < closes]

    def moment(self, day: date, at: time) -> datetime:
        """The first moment, in UTC, at which the wall clock shows this time of this day, or a later one."""
        wall = datetime.combine(day, at, self.zone)
        moment = wall.astimezone(UTC)
        if moment.astimezone(self.zone).replace(tzinfo=None) == wall.replace(tzinfo=None):
            return moment
        # The clock never shows it. With the offset after the jump it lies before the jump, else behind it.
        before, after = wall.replace(fold=1).astimezone(UTC), moment
        while after - before > SECOND:
            middle = before + (after - before) / 2
            if middle.astimezone(self.zone).replace(tzinfo=None) < wall.replace(tzinfo=None):
                before = middle
            else:
                after = middle
        return after.replace(microsecond=0)


def stored_window(value: Mapping[str, str] | None) -> Window | None:
    """The window of a job's row, which holds what the job file says; None for at any time."""
    if value is None:
        return None
    return window_of(value["start"], value["end"], value["timezone"])


def window_of(start: str, end: str, timezone: str) -> Window:
    """Times as `22:00`. Raises ValueError, and ZoneInfoNotFoundError, which is a KeyError."""
    return Window(start=time.fromisoformat(start), end=time.fromisoformat(end), zone=ZoneInfo(timezone))

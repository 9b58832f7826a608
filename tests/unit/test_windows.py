"""When a job may start calls, by the clock on the wall, also on the nights on which clocks are changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.pacing.windows import window_of

BERLIN = "Europe/Berlin"
"""Clocks go from 2:00 to 3:00 on 2026-03-29 at 01:00 UTC, and from 3:00 to 2:00 on 2026-10-25 at 01:00 UTC."""


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("moment", "is_open"),
    [
        ("2026-11-25T12:59:59", False),
        ("2026-11-25T13:00:00", True),
        ("2026-11-25T15:00:00", True),
        ("2026-11-25T20:59:59", True),
        ("2026-11-25T21:00:00", False),
    ],
)
def test_a_night_in_tokyo(moment: str, is_open: bool) -> None:
    assert window_of("22:00", "06:00", "Asia/Tokyo").is_open(utc(moment)) is is_open


def test_a_window_within_a_day() -> None:
    window = window_of("09:00", "17:30", "UTC")
    found = [window.is_open(utc(f"2026-11-25T{at}")) for at in ("08:59", "09:00", "17:29", "17:30")]
    assert found == [False, True, True, False]


def open_during(start: str, end: str, first: str, last: str) -> list[tuple[datetime, datetime]]:
    """The windows between two moments, found by asking each minute."""
    window, moment, spans = window_of(start, end, BERLIN), utc(first), []
    opened: datetime | None = None
    while moment <= utc(last):
        if window.is_open(moment) and opened is None:
            opened = moment
        if not window.is_open(moment) and opened is not None:
            spans.append((opened, moment))
            opened = None
        moment += timedelta(minutes=1)
    return spans


@pytest.mark.parametrize(
    ("start", "end", "opens", "closes"),
    [
        ("22:00", "06:00", "2026-03-28T21:00", "2026-03-29T04:00"),  # seven hours
        ("02:30", "06:00", "2026-03-29T01:00", "2026-03-29T04:00"),  # never shown: opens with the jump
        ("22:00", "02:30", "2026-03-28T21:00", "2026-03-29T01:00"),  # never shown: closes with the jump
    ],
)
def test_the_night_on_which_clocks_are_put_forward(start: str, end: str, opens: str, closes: str) -> None:
    assert open_during(start, end, "2026-03-28T12:00", "2026-03-29T12:00") == [(utc(opens), utc(closes))]


def test_a_window_inside_the_hour_that_is_left_out_does_not_open() -> None:
    assert open_during("02:10", "02:50", "2026-03-28T12:00", "2026-03-29T12:00") == []


@pytest.mark.parametrize(
    ("start", "end", "opens", "closes"),
    [
        ("22:00", "06:00", "2026-10-24T20:00", "2026-10-25T05:00"),  # nine hours
        ("22:00", "02:30", "2026-10-24T20:00", "2026-10-25T00:30"),  # shown twice: closes the first time, for good
        ("02:30", "06:00", "2026-10-25T00:30", "2026-10-25T05:00"),  # shown twice: opens the first time
    ],
)
def test_the_night_on_which_clocks_are_put_back(start: str, end: str, opens: str, closes: str) -> None:
    assert open_during(start, end, "2026-10-24T12:00", "2026-10-25T12:00") == [(utc(opens), utc(closes))]


@pytest.mark.parametrize(
    ("now", "work", "passes"),
    [
        ("2026-11-25T12:00", 0, 1.0),  # hours
        ("2026-11-25T13:00", 0, 0.0),
        ("2026-11-25T12:00", 8, 9.0),
        ("2026-11-25T14:00", 8, 24.0),
        ("2026-11-25T13:00", 8 * 10_000, 24 * 9_999 + 8),
    ],
)
def test_work_takes_as_long_as_it_takes_until_the_window_was_open_for_it(now: str, work: int, passes: float) -> None:
    found = window_of("22:00", "06:00", "Asia/Tokyo").takes(utc(now), work * 3_600) / 3_600
    assert found == pytest.approx(passes, rel=0.001)


def test_the_night_on_which_clocks_are_put_back_has_an_hour_more() -> None:
    window = window_of("22:00", "06:00", BERLIN)
    assert window.takes(utc("2026-10-24T20:00"), 9 * 3_600) == 9 * 3_600
    assert window.takes(utc("2026-10-25T21:00"), 9 * 3_600) == 25 * 3_600


TIMES = st.integers(0, 24 * 60 - 1).map(lambda minute: f"{minute // 60:02}:{minute % 60:02}")
MOMENTS = st.datetimes(datetime(2020, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - bounds


@given(start=TIMES, end=TIMES, zone=st.sampled_from([BERLIN, "America/New_York", "Asia/Kolkata"]), now=MOMENTS)
def test_it_is_closed_just_before_it_opens_and_open_then(start: str, end: str, zone: str, now: datetime) -> None:
    if start == end:
        return
    window = window_of(start, end, zone)
    opens = window.opens_at(now)
    assert now < opens <= now + timedelta(days=2)
    assert window.is_open(opens)
    assert window.is_open(now) or not window.is_open(opens - timedelta(seconds=1))

"""What answers say happens when: events with start and end, out of JSON or lines of text, in the times of the video.

A model that sees a part of a video sees one that begins at 0. Where its times fit into the length of the part they are
moved by where the part begins; where they don't, as it was told `start` and has added it itself, they stay.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from batchrun.messages import JsonValue
from batchrun.segments.clocktime import LONGEST, clock_seconds, clock_text, seconds_of

SLACK = 1.0
"""Seconds by which an event may stand over its part."""
MOST_EVENTS = 100_000
STARTS, ENDS = ("start", "start_time", "begin"), ("end", "end_time", "stop")
WORDS = ("description", "event", "text", "title", "summary", "caption")
"""Names of the fields, the first that is there counts."""

_TIME = r"(?:\d{1,2}:)?\d{1,2}:\d{2}(?:[.,]\d{1,3})?"
_LINE = re.compile(
    rf"[\s>*+\-#|\[(]{{0,16}}(?:\d{{1,4}}[.)]\s)?[\s*_`\[(]{{0,16}}({_TIME})\s*(?:-->|[-–—~]|to)\s*({_TIME})[\s*_`\])|:,.–—-]*(.*)",
    re.ASCII,
)
_FENCED = re.compile(r"```(?:json)?[ \t]*\n(.*)\n?```", re.DOTALL)
_BREAKS = re.compile(r"\r\n|[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    start: float
    """Seconds."""
    end: float
    text: str


def events_in(text: str, parsed: JsonValue) -> list[Event]:
    """The events of an answer: of its structured form where there is one, else of its lines with a time range, such as
    `00:01:00 - 00:02:30 text`. What has no readable times is passed over."""
    found = list(_structured(structured(text, parsed)))
    return sorted(found or _written(text), key=lambda event: (event.start, event.end))[:MOST_EVENTS]


def structured(text: str, parsed: JsonValue) -> JsonValue:
    """The structured form of an answer: the stored one, else what its text is; None where that is prose."""
    return _json_in(text) if parsed is None else parsed


def _json_in(text: str) -> JsonValue:
    """What a text says that is JSON, alone or in a fence; None where it isn't."""
    plain = text.strip()
    fenced = _FENCED.fullmatch(plain)
    plain = plain if fenced is None else fenced[1].strip()
    if not plain.startswith(("{", "[")):
        return None
    try:
        found: JsonValue = json.loads(plain)
    except (ValueError, RecursionError):  # prose that only looks like it
        return None
    return found


def event_list(parsed: JsonValue) -> list[Mapping[str, JsonValue]] | None:
    """The objects under `events`, or of a list that is the whole answer; None where there is neither."""
    listed = parsed.get("events") if isinstance(parsed, dict) else parsed
    if not isinstance(listed, list):
        return None
    return [one for one in listed if isinstance(one, dict)]


def _structured(parsed: JsonValue) -> Iterator[Event]:
    for one in event_list(parsed) or []:
        start = seconds_of(_first(one, STARTS))
        end = seconds_of(_first(one, ENDS))
        said = _first(one, WORDS)
        if start is not None and end is not None and end >= start and isinstance(said, str) and said.strip():
            yield Event(start=start, end=end, text=said.strip())


def _first(one: Mapping[str, JsonValue], names: Iterable[str]) -> JsonValue:
    return next((one[name] for name in names if name in one), None)


def _written(text: str) -> Iterator[Event]:
    """A line without times goes on with the event before it, up to a blank one."""
    current: Event | None = None
    for line in _BREAKS.split(text):
        found = _LINE.fullmatch(line)
        start, end = (clock_seconds(found[1]), clock_seconds(found[2])) if found else (None, None)
        if found and start is not None and end is not None and end >= start:
            if current is not None and current.text:
                yield current
            current = Event(start=start, end=end, text=found[3].strip())
        elif current is not None:
            if line.strip():
                current = replace(current, text=f"{current.text}\n{line.strip()}".strip())
            else:
                if current.text:
                    yield current
                current = None
    if current is not None and current.text:
        yield current


def offset_of(events: Sequence[Event], start: float, end: float) -> float:
    """By how many seconds the times in the answer to the part from `start` to `end` are to be moved."""
    fits = all(event.end <= end - start + SLACK for event in events)
    added_itself = all(event.start >= start - SLACK for event in events)
    return 0.0 if added_itself and not fits else start


def moved(events: Sequence[Event], start: float, end: float) -> list[Event]:
    """The events of a part in the times of the whole video."""
    by = offset_of(events, start, end)
    return [replace(event, start=event.start + by, end=event.end + by) for event in events]


def text_in_video(text: str, parsed: JsonValue, start: float, end: float) -> str:
    """The answer about the part from `start` to `end`, as text in which structured events and lines with times have
    the times of the video; all else of it stays as it is."""
    moved_form = with_moved_events(structured(text, parsed), start, end)
    if moved_form is not None:
        return json.dumps(moved_form, ensure_ascii=False)
    by = offset_of(list(_written(text)), start, end)
    return "".join(_moved_line(line, by) for line in text.splitlines(keepends=True))


def _moved_line(line: str, by: float) -> str:
    """The line with its two times moved, where it begins with two."""
    found = _LINE.match(line)
    if found is None:
        return line
    (first, then), (second, rest) = found.span(1), found.span(2)
    start, end = clock_seconds(found[1]), clock_seconds(found[2])
    if start is None or end is None:
        return line
    return f"{line[:first]}{clock_text(start + by)}{line[then:second]}{clock_text(end + by)}{line[rest:]}"


def with_moved_events(parsed: JsonValue, start: float, end: float) -> JsonValue | None:
    """A structured answer about the part from `start` to `end`, its events with clock times of the video; None where it
    has no events."""
    events = list(_structured(parsed))
    if not events:
        return None
    by = offset_of(events, start, end)
    moved_list: list[JsonValue] = [_moved_fields(one, by) for one in event_list(parsed) or []]
    return {**parsed, "events": moved_list} if isinstance(parsed, dict) else moved_list


def _moved_fields(one: Mapping[str, JsonValue], by: float) -> dict[str, JsonValue]:
    changed: dict[str, JsonValue] = {}
    for name in (*STARTS, *ENDS):
        seconds = seconds_of(one.get(name))
        if seconds is not None:
            changed[name] = clock_text(seconds + by)
    return {**one, **changed}


def lines(events: Iterable[Event]) -> str:
    """A line for each event, with its times."""
    return "\n".join(f"{clock_text(event.start)} - {clock_text(event.end)} {flat(event.text)}" for event in events)


def flat(text: str) -> str:
    """On one line, without control characters."""
    return " ".join(_CONTROL.sub(" ", text).split())


def srt(events: Sequence[Event]) -> str:
    """Subtitles in the form of SubRip: numbered, in order, each with its times and its text, which can't end it."""
    blocks: list[str] = []
    for event in events:
        start = _milliseconds(event.start)
        end = max(_milliseconds(event.end), start + 1)
        words = [shown for line in _BREAKS.split(event.text) if (shown := flat(line).replace("-->", "→"))]
        if words:
            blocks.append(f"{len(blocks) + 1}\n{_stamp(start)} --> {_stamp(end)}\n" + "\n".join(words) + "\n")
    return "\n".join(blocks)


def _milliseconds(seconds: float) -> int:
    return round(min(seconds, LONGEST - SLACK) * 1000)


def _stamp(milliseconds: int) -> str:
    return f"{clock_text(milliseconds // 1000)},{milliseconds % 1000:03}"

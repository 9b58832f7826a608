"""A document for each item, and for each video that was split one of all its parts: Markdown to read, or subtitles.

What a model has written goes into them as text: it can end no line, no fence and no subtitle that isn't its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import PurePosixPath

from batchrun.output.sidecar import Form, NameProblem
from batchrun.output.visible import calls_text, money_text, visible, visible_lines
from batchrun.reports.results import ItemResult
from batchrun.segments.clocktime import clock_text
from batchrun.segments.timeline import Event, event_list, events_in, flat, moved, srt, structured, text_in_video

NO_EVENTS = "no answer about it has times, such as `events` with start and end, or lines like 00:01:00 - 00:02:30 text"

APART = "give one of the two another name"

PartsOf = Callable[[ItemResult], Sequence[ItemResult]]
"""The parts that an item merges, in their order; none for any other item."""


def markdown_form(parts_of: PartsOf) -> Form:
    """The answer as it is; below it what was said about each part, with its times; and what all of it has cost."""
    return Form(name=lambda item: named(item, ".md"), text=lambda item: document(item, parts_of(item)), apart=APART)


def srt_form(parts_of: PartsOf) -> Form:
    """Subtitles of what happens when."""
    return Form(name=lambda item: named(item, ".srt"), text=lambda item: subtitles(item, parts_of(item)), apart=APART)


def named(item: ItemResult, suffix: str) -> str:
    """The name of the item's file, with another ending, beside it as players look for it."""
    path = next((str(media["path"]) for media in item.media if media.get("path") is not None), None)
    return f"{item.custom_id if path is None else PurePosixPath(path).stem}{suffix}"


def document(item: ItemResult, parts: Sequence[ItemResult]) -> str | None:
    """None where there is no answer."""
    if item.text is None:
        return None
    pieces = [f"# {heading(item.custom_id)}", body(item)]
    if parts:
        pieces.append("## Parts")
    for part in parts:
        start, end = span_of(part)
        pieces += [f"### {clock_text(start)} - {clock_text(end)}", body(part)]
    return "\n\n".join([*pieces, "---", cost_line([item, *parts])])


def heading(text: str) -> str:
    """On one line, and nothing in it that Markdown would take for more than text."""
    shown = visible(text)
    return "".join(f"\\{char}" if char in "\\`*_[]<>#!&|" else char for char in shown)


def body(item: ItemResult) -> str:
    """The answer, its events as a list with the times of the video; or why there is none."""
    if item.text is None:
        return f"*No answer: {heading(item.error or item.state.value)}*"
    events = events_of(item) if event_list(structured(item.text, item.parsed)) else []
    if events:
        return "\n".join(
            f"- {clock_text(event.start)} - {clock_text(event.end)} {heading(flat(event.text))}" for event in events
        )
    text = item.text if item.part_of is None else text_in_video(item.text, None, *span_of(item))
    called = [f"- calls {heading(call)}" for call in calls_text(item.tool_calls)]
    return "\n".join([*visible_lines(text), *called]).strip()


def cost_line(items: Sequence[ItemResult]) -> str:
    """What all calls for these items have cost, failed ones included."""
    calls = sum(attempt.sent_at is not None for item in items for attempt in item.attempts)
    billed = [attempt for item in items for attempt in item.attempts if attempt.billed]
    unknown = sum(attempt.cost_low is None or attempt.cost_high is None for attempt in billed)
    amounts: dict[str, tuple[Decimal, Decimal]] = {}
    for attempt in billed:
        if attempt.cost_low is not None and attempt.cost_high is not None and attempt.currency is not None:
            low, high = amounts.get(attempt.currency, (Decimal(0), Decimal(0)))
            amounts[attempt.currency] = low + attempt.cost_low, high + attempt.cost_high
    told = [between(low, high, currency) for currency, (low, high) in sorted(amounts.items())]
    if unknown:
        told.append(f"{unknown} of unknown cost")
    simulated = ", simulated" if items[0].simulated else ""
    return (
        f"{visible(items[0].model)}, {calls} call{'' if calls == 1 else 's'}{simulated}: {', '.join(told) or 'nothing'}"
    )


def between(low: Decimal, high: Decimal, currency: str) -> str:
    amount = money_text(low) if low == high else f"{money_text(low)} to {money_text(high)}"
    return f"{amount} {currency}"


def subtitles(item: ItemResult, parts: Sequence[ItemResult]) -> str | None:
    """None where there is no answer. Raises NameProblem where no answer has times."""
    if item.text is None:
        return None
    events = [event for part in parts for event in events_of(part)] or events_of(item)
    made = srt(sorted(events, key=lambda event: (event.start, event.end)))
    if not made:
        raise NameProblem(NO_EVENTS)
    return made


def events_of(item: ItemResult) -> list[Event]:
    """What an answer says happens when, in the times of the video."""
    if item.text is None:
        return []
    found = events_in(item.text, item.parsed)
    return moved(found, *span_of(item)) if item.part_of is not None else found


def span_of(item: ItemResult) -> tuple[float, float]:
    """Where the part begins and ends, in seconds."""
    for media in item.media:
        start, end = media.get("start"), media.get("end")
        if isinstance(start, int | float) and isinstance(end, int | float):
            return float(start), float(end)
    return 0.0, 0.0

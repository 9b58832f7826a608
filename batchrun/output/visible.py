"""Texts that others wrote, such as answers and names, on their way to a terminal or into a file.

A terminal obeys control characters, and a reader is misled by characters that have no shape or that turn the line
around. In text they become visible escapes; in JSON they become JSON's own escapes, which lose nothing.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime
from decimal import Decimal

from batchrun.messages import JsonValue

_SHAPELESS = (
    "\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffb\ud800-\udfff\U000110bd\U000110cd\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e007f"
)
_HOSTILE = re.compile(f"[\x00-\x1f{_SHAPELESS}]")
_HOSTILE_IN_JSON = re.compile(f"[{_SHAPELESS}]")
TAB = 4


def visible(text: str) -> str:
    """`text` on one line: line breaks, control characters, shapeless characters and bidi marks as escapes."""
    return _HOSTILE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def visible_lines(text: str) -> list[str]:
    """The lines of `text`, each of them `visible`, with tabs as blanks."""
    return [visible(line.removesuffix("\r").expandtabs(TAB)) for line in text.split("\n")]


def first_line(text: str, limit: int) -> str:
    """The first line that isn't blank, `visible`, of at most `limit` characters before escaping; `…` for the rest."""
    stripped = text.lstrip()
    line = stripped[: limit + 1].split("\n", 1)[0].rstrip()
    more = len(line) < len(stripped.rstrip())
    return visible(line[:limit].expandtabs(TAB)) + ("…" if more else "")


def calls_text(calls: JsonValue) -> list[str]:
    """The calls of tools that the answer asks for, such as `weather({"city": "Rome"})`."""
    functions = [call.get("function") for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
    return [f"{one.get('name')}({one.get('arguments')})" for one in functions if isinstance(one, dict)]


def json_text(value: object, *, indent: int | None = None) -> str:
    """JSON, safe to print. Money becomes a text without exponent, a time RFC 3339 in UTC."""
    separators = (",", ": ") if indent else (",", ":")
    return safe_json(json.dumps(value, ensure_ascii=False, indent=indent, separators=separators, default=_plain))


def safe_json(text: str) -> str:
    """The same JSON, with all that is hostile in its texts as escapes; for readers that end a line at any break too."""
    return _HOSTILE_IN_JSON.sub(lambda found: json.dumps(found[0])[1:-1], text)


def _plain(value: object) -> str:
    if isinstance(value, Decimal):
        return money_text(value)
    if isinstance(value, datetime):
        return time_text(value)
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"no JSON form for {type(value).__name__}")


def money_text(amount: Decimal) -> str:
    """The exact amount in plain digits, with at least two decimals."""
    whole, _, decimals = f"{amount:f}".partition(".")
    return f"{whole}.{decimals.rstrip('0').ljust(2, '0')}"


def amount_of(cost: tuple[Decimal, Decimal]) -> str:
    """Money to its last digit, without zeros at the end; both ends where they differ."""
    low, high = (f"{bound.normalize():f}" for bound in cost)
    return low if low == high else f"{low}–{high}"


def time_text(moment: datetime) -> str:
    """RFC 3339 in UTC, such as `2026-11-23T08:00:00Z`."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")

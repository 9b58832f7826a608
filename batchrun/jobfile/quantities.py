"""Durations and money as people write them in a job file: `1h30m`, `5.00 USD`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

from pydantic_core import PydanticCustomError

from batchrun.showing import shown

_DURATION = re.compile(r"(?:(\d{1,5})d)?(?:(\d{1,7})h)?(?:(\d{1,8})m)?(?:(\d{1,9})s)?", re.ASCII)
_MONEY = re.compile(r"(\d{1,12}(?:\.\d{1,12})?) ?([A-Z]{3})", re.ASCII)
_UNITS = (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Money:
    amount: Decimal
    currency: str
    """Three letters of ISO 4217."""

    def __str__(self) -> str:
        return f"{self.amount:f} {self.currency}"


def refusal(message: str, remedy: str, key: str | None = None) -> PydanticCustomError:
    """A ValueError for pydantic that keeps the remedy apart from the message. `key` is the offender in a mapping."""
    return PydanticCustomError("refused", "{message}", {"message": message, "remedy": remedy, "key": key})


def parse_duration(value: object) -> timedelta:
    """Days, hours, minutes, seconds in this order, such as `24h` or `1h30m`. A number without a unit is refused."""
    if isinstance(value, timedelta):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise refusal(f"{value} has no unit", f"Write `{value}s`, `{value}m` or `{value}h`")
    match = _DURATION.fullmatch(value) if isinstance(value, str) and value else None
    if match is None:
        raise refusal(f"must be a duration, not {shown(value)}", "Write whole d, h, m, s such as `90s` or `1h30m`")
    pairs = zip(match.groups(), _UNITS, strict=True)
    return timedelta(seconds=sum(int(digits or 0) * seconds for digits, (_, seconds) in pairs))


def check_duration(value: timedelta, *, longest: timedelta, shortest: timedelta = timedelta(seconds=1)) -> timedelta:
    """Refuse what is shorter than `shortest` or longer than `longest`."""
    if not shortest <= value <= longest:
        bounds = f"from {format_duration(shortest)} to {format_duration(longest)}"
        raise refusal(f"must be {bounds}, not {format_duration(value)}", "Write a value within the bounds")
    return value


def format_duration(value: timedelta) -> str:
    """The shortest text that `parse_duration` reads back as the same whole seconds."""
    rest, parts = int(value.total_seconds()), []
    for letter, seconds in _UNITS[1:]:
        count, rest = divmod(rest, seconds)
        parts.append(f"{count}{letter}" if count else "")
    return "".join(parts) or "0s"


def parse_money(value: object) -> Money:
    """An amount with its currency, such as `5.00 USD`; exact, at most 12 digits on either side of the point."""
    if isinstance(value, Money):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise refusal(f"{value} names no currency", f"Write for example `{value} USD`")
    match = _MONEY.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise refusal(f"must be an amount and a currency, not {shown(value)}", "Write for example `5.00 USD`")
    money = Money(amount=Decimal(match[1]), currency=match[2])
    if not money.amount:
        raise refusal("a cap of zero lets nothing run", "Write an amount above zero, or leave the budget out")
    return money

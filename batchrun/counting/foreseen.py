"""What a job was estimated at when its items were loaded, for the report to compare the bill with. Values, no I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TypedDict, cast

from batchrun.messages import JsonValue


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreseen:
    """Sums over items, each answered by one call; a low and a high end, None where that isn't known."""

    items: int = 0
    input_tokens: tuple[int, int | None] = (0, 0)
    output_tokens: tuple[int, int | None] = (0, 0)
    currency: str | None
    """Of the price; None without one."""
    cost: tuple[Decimal, Decimal | None] | None
    """None without a price."""

    def __add__(self, other: Foreseen) -> Foreseen:
        """Of two parts of one job. Money in two currencies has no sum."""
        same = self.currency == other.currency and self.cost is not None and other.cost is not None
        return Foreseen(
            items=self.items + other.items,
            input_tokens=_counts(self.input_tokens, other.input_tokens),
            output_tokens=_counts(self.output_tokens, other.output_tokens),
            currency=self.currency if same else None,
            cost=_money(self.cost, other.cost) if same else None,
        )

    def stored(self) -> dict[str, JsonValue]:
        """As it stands in the job's row; money as text, so that no digit is lost."""
        cost: JsonValue = None if self.cost is None else [None if end is None else f"{end:f}" for end in self.cost]
        return {
            "items": self.items,
            "input_tokens": list(self.input_tokens),
            "output_tokens": list(self.output_tokens),
            "currency": self.currency,
            "cost": cost,
        }


class _Stored(TypedDict):
    items: int
    input_tokens: list[int | None]
    output_tokens: list[int | None]
    currency: str | None
    cost: list[str | None] | None


def stored_foreseen(value: object) -> Foreseen | None:
    """What `Foreseen.stored` gave, out of a row; None for a job of which nothing was estimated."""
    if value is None:
        return None
    stored = cast("_Stored", value)
    low, high = (None, None) if stored["cost"] is None else stored["cost"]
    return Foreseen(
        items=stored["items"],
        input_tokens=_ends(stored["input_tokens"]),
        output_tokens=_ends(stored["output_tokens"]),
        currency=stored["currency"],
        cost=None if low is None else (Decimal(low), None if high is None else Decimal(high)),
    )


def _ends(ends: Sequence[int | None]) -> tuple[int, int | None]:
    low, high = ends
    if low is None:
        raise ValueError("an estimate has a low end")
    return low, high


def _counts(one: tuple[int, int | None], other: tuple[int, int | None]) -> tuple[int, int | None]:
    return one[0] + other[0], None if one[1] is None or other[1] is None else one[1] + other[1]


def _money(
    one: tuple[Decimal, Decimal | None] | None, other: tuple[Decimal, Decimal | None] | None
) -> tuple[Decimal, Decimal | None] | None:
    if one is None or other is None:
        return None
    return one[0] + other[0], None if one[1] is None or other[1] is None else one[1] + other[1]

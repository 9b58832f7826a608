"""Adding up what new items are estimated at while they are loaded, which must not slow loading down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import lru_cache

from batchrun.counting.foreseen import Foreseen
from batchrun.counting.tokens import Between
from batchrun.loading.needs import LEAST_ANSWER, REMEMBERED, Money, Needs
from batchrun.messages import JsonValue

LOOKED_INTO = 1_000
"""Items of a load that are estimated as `batchrun estimate` does it, their local pictures opened. The others take their
high end from the bound that loading computes for each anyway, and their low end by the smallest share of that bound
that a low end had so far."""


class Foreseeing:
    """The sums of one load of one job."""

    def __init__(self, needs: Needs) -> None:
        self.needs = needs
        self.items = 0
        self.share = 1.0
        """The smallest share of an item's bound that its low end was."""
        self.shortest: int | None = None
        """The smallest of these bounds: shorter items may have a smaller share, longer ones of like texts don't, as the
        bound begins with a room for the chat template that is mostly empty."""
        self.input = Ends()
        self.output = Ends()
        self.money = Ends()
        self.of_all = None if needs.plan.written else self.answer({})
        """What `answer` says of every item, where it doesn't depend on the item."""
        self.rough_cost = lru_cache(REMEMBERED)(self._rough_cost)

    def add(
        self, variables: Mapping[str, JsonValue], media: Sequence[Mapping[str, JsonValue]], bound: int | None
    ) -> None:
        """An item, and the most input tokens that it can have; None where they have no known bound."""
        self.items += 1
        if self.items > LOOKED_INTO:
            self.add_roughly(variables, bound)
            return
        need = self.needs.of(variables, self.needs.plan.texts(variables), media)
        if need is None:  # it can't be sent, and costs nothing
            return
        if bound is not None:
            self.share = min(self.share, need.input.low / bound)
            self.shortest = bound if self.shortest is None else min(self.shortest, bound)
        self.input.add(need.input.low, need.input.high)
        self.output.add(need.output.low, need.output.high)
        if need.cost is not None:
            self.money.add(*need.cost)

    def add_roughly(self, variables: Mapping[str, JsonValue], bound: int | None) -> None:
        low = 1
        if bound is not None and self.shortest is not None and bound >= self.shortest:
            low = int(bound * self.share)
        longest, may_think = self.of_all or self.answer(variables)
        self.input.add(low, bound)
        self.output.add(LEAST_ANSWER, longest)
        cost = self.rough_cost(low, bound, longest, may_think)
        if cost is not None:
            self.money.add(*cost)

    def answer(self, variables: Mapping[str, JsonValue]) -> tuple[int | None, bool]:
        """The most tokens of an answer, and whether there may be thinking in it."""
        plan = self.needs.plan
        return plan.output_bound(variables), plan.model.may_think(plan.asked(variables)[1])

    def _rough_cost(self, low: int, bound: int | None, longest: int | None, may_think: bool) -> Money | None:
        return self.needs.cost(Between(low, bound), Between(LEAST_ANSWER, longest), may_think)

    def sums(self) -> Foreseen:
        money = (Decimal(self.money.low), None if self.money.high is None else Decimal(self.money.high))
        return Foreseen(
            items=self.items,
            input_tokens=self.input.whole(),
            output_tokens=self.output.whole(),
            currency=self.needs.currency,
            cost=None if self.needs.price is None else money,
        )


class Ends:
    """The sum of a low and of a high end; None where one of the high ends isn't known."""

    def __init__(self) -> None:
        self.low: int | Decimal = 0
        self.high: int | Decimal | None = 0

    def add(self, low: int | Decimal, high: int | Decimal | None) -> None:
        self.low += low
        self.high = None if high is None or self.high is None else self.high + high

    def whole(self) -> tuple[int, int | None]:
        return int(self.low), None if self.high is None else int(self.high)

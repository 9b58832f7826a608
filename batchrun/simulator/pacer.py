"""Cheap waiting for a thousand streams: waits are rounded up to a grid, and one timer wakes all of a slot."""

import asyncio
import math
from typing import Final

GRID: Final = 0.005
"""Seconds."""


class Pacer:
    def __init__(self) -> None:
        self.slots: dict[int, asyncio.Event] = {}

    async def until(self, when: float) -> None:
        """Return soon after the loop's clock has reached `when`."""
        loop = asyncio.get_running_loop()
        slot = math.ceil(when / GRID)
        event = self.slots.get(slot)
        if event is None:
            event = self.slots[slot] = asyncio.Event()
            loop.call_at(slot * GRID, self.wake, slot)
        await event.wait()

    def wake(self, slot: int) -> None:
        self.slots.pop(slot).set()

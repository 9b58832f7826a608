"""One client's connection while it is being answered, with the ways to break it."""

import asyncio
import socket
import struct
from typing import Final

from batchrun.simulator.pacer import Pacer

LOOK: Final = 0.25
"""Seconds between two looks at whether a waiting client is still there."""


class ClientLeft(ConnectionError):
    """The client has closed the connection before its answer was complete."""


class Line:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pacer: Pacer) -> None:
        self.reader = reader
        self.writer = writer
        self.pacer = pacer

    @property
    def gone(self) -> bool:
        return self.reader.at_eof() or self.writer.is_closing()

    def check(self) -> None:
        if self.gone:
            raise ClientLeft

    async def send(self, data: bytes) -> None:
        """Write, and wait while the client is slow to read."""
        self.check()
        self.writer.write(data)
        try:
            await self.writer.drain()
        except ConnectionError as error:
            raise ClientLeft from error

    async def until(self, when: float) -> None:
        """Wait for the loop's clock; raise `ClientLeft` when the client does not wait that long."""
        loop = asyncio.get_running_loop()
        while (now := loop.time()) < when:
            await self.pacer.until(min(when, now + LOOK))
            self.check()

    async def stall(self) -> None:
        """Say nothing until the client leaves."""
        try:
            while await self.reader.read(65_536):
                pass
        except ConnectionError as error:
            raise ClientLeft from error
        raise ClientLeft

    async def flush(self) -> None:
        """Wait until the kernel has all that was written."""
        self.writer.transport.set_write_buffer_limits(high=0)
        try:
            await self.writer.drain()
        except ConnectionError as error:
            raise ClientLeft from error

    async def reset(self) -> None:
        """Break the connection so that the client sees a reset and not an end."""
        await self.flush()
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

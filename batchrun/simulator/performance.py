"""Sends a script to the client at the pace asked for, and breaks off where the script says so."""

import asyncio
from dataclasses import dataclass
from typing import Final, Self

from batchrun.simulator.accounts import Account
from batchrun.simulator.faults import Faults
from batchrun.simulator.line import Line
from batchrun.simulator.options import Options
from batchrun.simulator.script import COMMENT, Event, Framing, Script, parts

LAST_CHUNK: Final = b"0\r\n\r\n"
SHORTEST: Final = 0.001
"""Seconds between two comments at least, so that one stream leaves the loop to the others."""
WRITE: Final = 65_536
"""Bytes after which events that are due together are written."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """Seconds to the first token, and from token to token."""

    ttft: float
    per_token: float = 0.0
    comment_seconds: float = 0.0

    @classmethod
    def of(cls, options: Options, faults: Faults, content_hash: bytes) -> Self:
        ttft = faults.number("ttft")
        if ttft is None:
            ttft = options.ttft * (0.75 + content_hash[1] / 510)
        speed = faults.number("tps")
        if speed is None:
            speed = options.tokens_per_second
        return cls(
            ttft=ttft,
            per_token=1 / speed if speed else 0.0,
            comment_seconds=faults.number("keepalive") or 0.0,
        )

    def for_plain(self, tokens: int) -> Self:
        """The whole answer comes when its last token is there."""
        return type(self)(ttft=self.ttft + tokens * self.per_token, comment_seconds=self.comment_seconds)


async def perform(script: Script, head: bytes, pace: Pace, line: Line, account: Account) -> None:
    """Raise `ClientLeft` when the client does not wait for the end."""
    start = asyncio.get_running_loop().time() + pace.ttft
    await line.until(start)
    account.status = 200
    if script.split is not None or script.ending != "end":
        await line.send(head)
        head = b""
    await send_events(script, head, start, pace, line, account)
    match script.ending:
        case "end" if script.framing == "chunked":
            await line.send(LAST_CHUNK)
        case "reset":
            await line.reset()
        case "stall":
            await line.stall()
        case "keepalive":
            await send_comments(script.framing, pace.comment_seconds, line)


async def send_events(script: Script, head: bytes, start: float, pace: Pace, line: Line, account: Account) -> None:
    """Send what is due together in one write; wait only when nothing is due."""
    loop = asyncio.get_running_loop()
    now = loop.time()
    due = start
    waiting: list[Event] = []
    data = [head]
    size = 0
    for event in script.events:
        if due > now or size > WRITE:
            await send_batch(data, waiting, script, line, account)
            data, waiting, size = [], [], 0
            await line.until(due)
            now = loop.time()
        data.append(event.data if script.split is not None else framed(event.data, script.framing))
        waiting.append(event)
        size += len(event.data)
        due += event.tokens * pace.per_token
    await send_batch(data, waiting, script, line, account)


async def send_batch(data: list[bytes], events: list[Event], script: Script, line: Line, account: Account) -> None:
    if script.split is None:
        await line.send(b"".join(data))
    else:
        for piece in parts(b"".join(data), script.split):
            await line.send(framed(piece, script.framing))
            await asyncio.sleep(0)  # another turn of the loop, so that the client can read between two writes
    for event in events:
        account.sent(event)


def framed(data: bytes, framing: Framing) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data) if framing == "chunked" else data


async def send_comments(framing: Framing, seconds: float, line: Line) -> None:
    loop = asyncio.get_running_loop()
    while True:
        await line.until(loop.time() + max(seconds, SHORTEST))
        await line.send(framed(f"{COMMENT}\n\n".encode(), framing))

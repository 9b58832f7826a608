"""A cheap local server for the benchmarks: one fixed answer, as fast or as slow as asked.

    python -m benchmarks.server CHUNKS SECONDS

Prints its address, answers every POST with CHUNKS frames spread over SECONDS (0 frames: with plain JSON after SECONDS),
and ends when its standard input closes.
"""

from __future__ import annotations

import asyncio
import json
import sys

STEPS = 10
"""Writes of an answer that is spread over time. One that isn't is written frame by frame, as tokens come."""
USAGE = {"prompt_tokens": 20, "completion_tokens": 100, "total_tokens": 120}


def frame(delta: dict[str, object], finish: str | None = None, usage: dict[str, int] | None = None) -> bytes:
    """One server-sent event in an HTTP chunk of its own."""
    choices = [] if usage else [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}]
    body = {
        "id": "chatcmpl-0",
        "object": "chat.completion.chunk",
        "created": 1770992031,
        "model": "bench",
        "system_fingerprint": None,
        "choices": choices,
        "usage": usage,
    }
    data = b"data: " + json.dumps(body).encode() + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(data), data)


def plain_answer() -> bytes:
    message = {"role": "assistant", "content": " ".join(f"word{number}" for number in range(100))}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    body = {"id": "chatcmpl-0", "object": "chat.completion", "created": 1770992031, "model": "bench"}
    data = json.dumps(body | {"choices": [choice], "usage": USAGE}).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(data), data)


def streamed_answer(chunks: int) -> list[bytes]:
    return [
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
        *(frame({"content": f"word{number} "}) for number in range(chunks)),
        frame({"content": ""}, finish="stop"),
        frame({}, usage=USAGE),
        b"e\r\ndata: [DONE]\n\n\r\n",
        b"0\r\n\r\n",
    ]


def script(chunks: int, seconds: float) -> list[tuple[float, list[bytes]]]:
    """What an answer is written in: seconds to wait, and then what is written, each piece by itself."""
    if not chunks:
        return [(seconds, [plain_answer()])]
    pieces = streamed_answer(chunks)
    if not seconds:
        return [(0, pieces)]
    share = len(pieces) / STEPS
    parts = [b"".join(pieces[int(step * share) : int((step + 1) * share)]) for step in range(STEPS)]
    return [(seconds / STEPS, [part]) for part in parts]


class Answering(asyncio.Protocol):
    def __init__(self, steps: list[tuple[float, list[bytes]]], loop: asyncio.AbstractEventLoop) -> None:
        self.steps = steps
        self.loop = loop
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, blank, body = self.buffer.partition(b"\r\n\r\n")
        if not blank:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return
        self.buffer = body[length:]
        self.next(0)

    def next(self, number: int) -> None:
        if number < len(self.steps):
            wait = self.steps[number][0]
            if wait:
                self.loop.call_later(wait, self.write, number)
            else:
                self.write(number)

    def write(self, number: int) -> None:
        if self.transport.is_closing():
            return
        for piece in self.steps[number][1]:
            self.transport.write(piece)
        self.next(number + 1)


async def main(chunks: int, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    steps = script(chunks, seconds)
    server = await loop.create_server(lambda: Answering(steps, loop), "127.0.0.1", 0, backlog=4096)
    sys.stdout.write(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1\n")
    sys.stdout.flush()
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2])))

"""A cheap local server for the benchmarks: one fixed streamed answer, as fast or as slow as asked.

    python benchmarks/server.py CHUNKS SECONDS

Prints its address, answers every POST with CHUNKS frames spread over SECONDS, and ends when its standard input closes.
"""

import asyncio
import json
import os
import sys

CHUNKS, SECONDS = int(sys.argv[1]), float(sys.argv[2])
STEPS = 1 if SECONDS == 0 else 10


def frame(delta: dict[str, object], finish: str | None = None, usage: dict[str, int] | None = None) -> bytes:
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


FRAMES = [frame({"content": f"word{number} "}) for number in range(CHUNKS)]
FRAMES += [
    frame({"content": ""}, finish="stop"),
    frame({}, usage={"prompt_tokens": 20, "completion_tokens": CHUNKS, "total_tokens": 20 + CHUNKS}),
    b"e\r\ndata: [DONE]\n\n\r\n",
    b"0\r\n\r\n",
]
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


class Answering(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, blank, body = self.buffer.partition(b"\r\n\r\n")
        if not blank:
            return
        length = next(
            int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
        )
        if len(body) < length:
            return
        self.buffer = body[length:]
        self.transport.write(HEAD)
        self.step(0)

    def step(self, number: int) -> None:
        if self.transport.is_closing():
            return
        share = len(FRAMES) / STEPS
        for chunk in FRAMES[int(number * share) : int((number + 1) * share)]:
            self.transport.write(chunk)
        if number + 1 < STEPS:
            asyncio.get_running_loop().call_later(SECONDS / STEPS, self.step, number + 1)


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", 0, backlog=4096)
    port = server.sockets[0].getsockname()[1]
    sys.stdout.write(json.dumps({"url": f"http://127.0.0.1:{port}", "pid": os.getpid()}) + "\n")
    sys.stdout.flush()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


asyncio.run(main())

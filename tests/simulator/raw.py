"""A client that shows what really comes over the socket."""

import itertools
import json
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, cast
from urllib.parse import quote, urlsplit

from batchrun.simulator import BookRow, Running

Json = dict[str, object]
numbers = itertools.count()


@dataclass(frozen=True, kw_only=True)
class Raw:
    """A response as it came. `end` is how the connection stood when reading stopped."""

    status: int
    head: str
    body: bytes
    """After the transfer coding, before any content coding."""
    end: Literal["whole", "cut", "reset", "silent"]

    def header(self, name: str) -> str | None:
        match = re.search(rf"(?im)^{name}: *(.*)\r$", self.head)
        return match[1] if match else None

    def json(self) -> Json:
        return cast("Json", json.loads(self.body))

    @property
    def error(self) -> Json:
        return cast("Json", self.json()["error"])

    @property
    def frames(self) -> list[str]:
        """The data of each frame, for streams with plain line ends."""
        return re.findall(r"(?m)^data: ?(.*)$", self.body.decode().replace("\u2028", "?"))

    @property
    def chunks(self) -> list[Json]:
        return [json.loads(frame) for frame in self.frames if frame != "[DONE]"]

    def deltas(self, key: str) -> list[str]:
        """The texts under this key, chunk by chunk."""
        found = []
        for chunk in self.chunks:
            for choice in cast("list[dict[str, dict[str, str | None]]]", chunk["choices"]):
                text = choice["delta"].get(key)
                if text:
                    found.append(text)
        return found

    @property
    def finishes(self) -> list[object]:
        choices = [cast("list[Json]", chunk["choices"]) for chunk in self.chunks]
        return [choice[0].get("finish_reason") for choice in choices if choice]

    @property
    def usages(self) -> list[Json]:
        return [cast("Json", chunk["usage"]) for chunk in self.chunks if chunk.get("usage")]


class Client:
    """Sends one request on each connection. `fault` of a call is the spec put into the address."""

    path = "compatible-mode/v1/chat/completions"
    extra_headers = ""

    def __init__(self, simulator: Running, region: str = "singapore") -> None:
        self.simulator = simulator
        self.region = region

    def body(self, **changes: object) -> Json:
        """A request whose text differs from that of all others."""
        text = f"Request {next(numbers)} of the tests."
        return {
            "model": "qwen3-vl-plus",
            "messages": [{"role": "user", "content": text}],
            **changes,
        }

    def streamed(self, **changes: object) -> Json:
        return self.body(stream=True, stream_options={"include_usage": True}, **changes)

    def ask(
        self, body: object, *, fault: str = "", region: str = "", key: str | None = None, quiet: float = 10.0
    ) -> Raw:
        """`quiet` seconds without a byte end the reading."""
        return self.exchange(self.request(body, fault=fault, region=region, key=key), quiet=quiet)

    def request(self, body: object, *, fault: str = "", region: str = "", key: str | None = None) -> bytes:
        region = region or self.region
        key = self.simulator.keys[region] if key is None else key
        middle = f"/fault/{quote(fault, safe='+=,')}" if fault else ""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = (
            f"POST /{region}{middle}/{self.path} HTTP/1.1\r\nhost: x\r\n"
            f"authorization: Bearer {key}\r\ncontent-type: application/json\r\n{self.extra_headers}"
            f"content-length: {len(content)}\r\n\r\n"
        )
        return head.encode() + content

    def exchange(self, request: bytes, *, quiet: float = 10.0) -> Raw:
        with self.connect() as connection:
            connection.settimeout(quiet)
            connection.sendall(request)
            return read_response(lambda: connection.recv(65_536))

    def connect(self) -> socket.socket:
        address = urlsplit(self.simulator.url)
        return socket.create_connection((address.hostname or "", address.port or 0), timeout=10)

    def row(self, raw: Raw) -> BookRow:
        """The row of the bill book for this response."""
        request_id = raw.header("x-request-id")
        return next(row for row in self.simulator.book() if row.request_id == request_id)


def read_response(receive: Callable[[], bytes]) -> Raw:
    """Read one response; stop at its end, or where the connection stops."""
    data = b""
    end: Literal["whole", "cut", "reset", "silent"] = "whole"
    while not (finished := parse(data)):
        try:
            more = receive()
        except ConnectionResetError:
            end = "reset"
            break
        except TimeoutError:
            end = "silent"
            break
        if not more:
            end = "whole" if until_close(data) else "cut"
            break
        data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    body = finished[0] if finished else b"".join(dechunked(rest)) if is_chunked(head) else rest
    match = re.match(rb"HTTP/1\.1 (\d+)", head)
    return Raw(status=int(match[1]) if match else 0, head=head.decode("latin-1") + "\r\n", body=body, end=end)


def is_chunked(head: bytes) -> bool:
    return b"transfer-encoding: chunked" in head


def until_close(data: bytes) -> bool:
    head, ends, _ = data.partition(b"\r\n\r\n")
    return bool(ends) and not is_chunked(head) and b"content-length" not in head


def parse(data: bytes) -> list[bytes]:
    """The body in a list when it is whole, otherwise an empty list."""
    head, ends, rest = data.partition(b"\r\n\r\n")
    if not ends:
        return []
    length = re.search(rb"content-length: (\d+)", head)
    if length:
        return [rest] if len(rest) >= int(length[1]) else []
    if head.startswith((b"HTTP/1.1 204", b"HTTP/1.1 100")):
        return [rest]
    if is_chunked(head) and (rest.endswith(b"\r\n0\r\n\r\n") or rest == b"0\r\n\r\n"):
        return [b"".join(dechunked(rest))]
    return []


def dechunked(data: bytes) -> Iterator[bytes]:
    """The pieces, one for each HTTP chunk; an unfinished last one as far as it came."""
    while data:
        size, _, data = data.partition(b"\r\n")
        count = int(size, 16)
        if count == 0:
            return
        yield data[:count]
        data = data[count + 2 :]


def tokens(row: BookRow) -> Mapping[str, int]:
    """What the compat usage must say for what the book has billed."""
    return {
        "prompt_tokens": row.billed.input,
        "completion_tokens": row.billed.output,
        "total_tokens": row.billed.input + row.billed.output,
    }

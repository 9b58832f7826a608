"""The network as it is: each way in which an exchange can break, over a real socket, and what is made of it."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import os
import socket
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import TypeVar

import pytest

from batchrun.dialects.base import Body
from batchrun.errors import ErrorKind, MediaError, ProviderError
from batchrun.media import open_media
from batchrun.simulator import Running
from batchrun.transport import HEADER_BYTES, Transport
from tests.integration.running import KEY

pytestmark = pytest.mark.usefixtures("nothing_left_behind")

T = TypeVar("T")
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
PICTURES = Path(__file__).parents[2] / "batchrun" / "demo" / "pictures"
HEADERS = {
    "accept": "text/event-stream",
    "accept-encoding": "identity",
    "authorization": f"Bearer {KEY}",
    "content-type": "application/json",
    "user-agent": "batchrun/test",
}
HELLO = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"


class Server:
    """Notes what is sent to it, and answers each request with the same bytes, or as a handler wants. `stays` says
    whether a connection is kept for more than one request."""

    def __init__(self, answer: bytes | Handler, *, stays: bool = False) -> None:
        self.answer = answer
        self.stays = stays
        self.requests: list[bytes] = []
        self.connections = 0
        self.said = asyncio.Event()
        self.gone = asyncio.Event()
        """A client has closed its connection."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        async with server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while request := await read_request(reader):
                self.requests.append(request)
                if not isinstance(self.answer, bytes):
                    await self.answer(reader, writer)
                    break
                writer.write(self.answer)
                await writer.drain()
                if not self.stays:
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # that is what these tests are about
        finally:
            self.gone.set()
            writer.close()


async def read_request(reader: asyncio.StreamReader) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = await reader.readline()
        if not line:
            return b""
        head += line
    length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return head + await reader.readexactly(length)


def body(*pieces: bytes) -> Body:
    return Body(pieces=pieces or (b'{"model":"x"}',))


async def ask(transport: Transport, url: str, sent: Body | None = None) -> tuple[int, bytes]:
    async with transport.post(url, HEADERS, sent or body()) as response:
        return response.status, await response.read(1_000_000)


def exchange(answer: bytes | Handler, sent: Body | None = None) -> tuple[int, bytes, Server]:
    """Status and body of the answer of such a server."""

    async def scenario() -> tuple[int, bytes, Server]:
        server = Server(answer)
        async with server.running() as url, Transport() as transport:
            return *await ask(transport, url, sent), server

    return asyncio.run(scenario())


def error_of(url: str | bytes | Handler) -> ProviderError:
    """What is raised for a call to this address, or to a server that answers so."""

    async def scenario() -> None:
        if isinstance(url, str):
            async with Transport() as transport:
                await ask(transport, url)
        else:
            async with Server(url).running() as own, Transport() as transport:
                await ask(transport, own)

    with pytest.raises(ProviderError) as caught:
        asyncio.run(scenario())
    return caught.value


@pytest.fixture
def closed_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port: int = server.getsockname()[1]
        return port


def test_a_connection_on_which_nothing_comes_is_kept_alive() -> None:
    """Routers forget it otherwise, and batch chat holds calls for an hour."""

    async def scenario() -> list[int]:
        async with (
            Server(HELLO, stays=True).running() as url,
            Transport() as transport,
            transport.post(url, HEADERS, body()),
        ):
            return list(keeps_alive(int(url.split(":")[2].removesuffix("/v1"))))

    assert asyncio.run(scenario()) == [1]


def keeps_alive(port: int) -> Iterator[int]:
    """Of each connection of this process to the port, whether it is kept alive."""
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # most files are no sockets
            found = socket.socket(fileno=int(name))
            try:
                if found.family == socket.AF_INET and found.getpeername()[1] == port:
                    yield found.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            finally:
                found.detach()


# Nothing has left this machine.


def test_a_refused_connection_was_not_sent(closed_port: int) -> None:
    assert error_of(f"http://127.0.0.1:{closed_port}/v1").kind is ErrorKind.NOT_SENT


def test_a_name_that_nobody_knows_was_not_sent() -> None:
    assert error_of("https://nobody.invalid/v1").kind is ErrorKind.NOT_SENT


def test_a_server_that_does_not_speak_tls_was_not_sent_to(simulator: Running) -> None:
    assert error_of(simulator.base_url().replace("http:", "https:")).kind is ErrorKind.NOT_SENT


def test_the_message_names_the_address_and_what_to_check(closed_port: int) -> None:
    error = error_of(f"http://127.0.0.1:{closed_port}/v1")
    assert f"127.0.0.1:{closed_port}" in error.message
    assert "base_url" in error.remedy


# It has left, and may have been billed.


async def close_at_once(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    writer.transport.abort()


async def reset_in_the_middle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")
    await writer.drain()
    await asyncio.sleep(0.05)
    await reset(reader, writer)


def plain(headers: bytes, content: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\n" + headers + b"\r\n\r\n" + content


BREAKS: dict[str, bytes | Handler] = {
    "closed": close_at_once,
    "reset": reset,
    "reset in the middle": reset_in_the_middle,
    "no http": b"220 mail.example ESMTP ready\r\n\r\n",
    "no status": b"HTTP/1.1 OK\r\n\r\n",
    "a status of two digits": b"HTTP/1.1 20 OK\r\n\r\n",
    "half a header": b"HTTP/1.1 200 OK\r\ncontent-le",
    "a header of 100 kB": plain(b"x-long: " + b"x" * 100_000, b""),
    "ten thousand headers": plain(b"\r\n".join(b"x-%d: 1" % number for number in range(10_000))),
    "a length that is a key": plain(b"content-length: sk-canary", b"hello"),
    "a negative length": plain(b"content-length: -5", b"hello"),
    "two lengths": plain(b"content-length: 5\r\ncontent-length: 6", b"hello!"),
    "shorter than its length": plain(b"content-length: 500", b"hello"),
    "a chunk without a size": plain(b"transfer-encoding: chunked", b"zz\r\nhello\r\n"),
    "no last chunk": plain(b"transfer-encoding: chunked", b"5\r\nhello\r\n"),
    "no gzip": plain(b"content-encoding: gzip\r\ncontent-length: 5", b"hello"),
    "gzip in gzip, of which a kilobyte may hold a gigabyte": plain(
        b"content-encoding: gzip, gzip\r\nconnection: close", gzip.compress(gzip.compress(b"hello"))
    ),
    "zstd": plain(b"content-encoding: zstd\r\ncontent-length: 5", b"hello"),
    "no deflate": plain(b"content-encoding: deflate\r\ncontent-length: 5", b"hello"),
}


@pytest.mark.parametrize("answer", BREAKS.values(), ids=BREAKS.keys())
def test_what_breaks_after_the_request_left_may_have_been_billed(answer: bytes | Handler) -> None:
    assert error_of(answer).kind is ErrorKind.NETWORK


@pytest.mark.parametrize("answer", BREAKS.values(), ids=BREAKS.keys())
def test_its_message_is_one_short_line(answer: bytes | Handler) -> None:
    message = error_of(answer).message
    assert message.isprintable()
    assert 0 < len(message) < 500
    assert "canary" not in message


def test_a_header_of_sixty_kilobytes_is_read() -> None:
    status, text, _ = exchange(plain(b"x-long: " + b"x" * (HEADER_BYTES - 5_000) + b"\r\ncontent-length: 2", b"ok"))
    assert (status, text) == (200, b"ok")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.0 200 OK\r\n\r\nhello", b"hello"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + HELLO, b"hello"),
        (plain(b"content-encoding: gzip\r\nconnection: close", gzip.compress(b"hello")), b"hello"),
        (plain(b"content-encoding: identity\r\ncontent-length: 5", b"hello"), b"hello"),
        (plain(b"set-cookie: a=b\r\ncontent-length: 0"), b""),
    ],
    ids=["http 1.0", "continue", "gzip", "identity", "empty"],
)
def test_unusual_answers_are_read(answer: bytes, expected: bytes) -> None:
    assert exchange(answer)[:2] == (200, expected)


def test_a_bomb_is_read_no_further_than_asked() -> None:
    bomb = gzip.compress(b"0" * 200_000_000, 1)
    head = plain(b"content-encoding: gzip\r\ncontent-length: %d" % len(bomb))
    assert len(exchange(head + bomb)[1]) == 1_000_000


def test_an_answer_before_the_upload_has_ended_is_an_answer() -> None:
    """A gateway that refuses a large body at its first bytes."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 5\r\n\r\nlarge")
        await writer.drain()
        with suppress(ConnectionError, asyncio.CancelledError):
            await reader.read(1 << 40)
        writer.close()

    async def scenario() -> tuple[int, bytes]:
        server = await asyncio.start_server(refuse, "127.0.0.1", 0)
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server, Transport() as transport:
            return await ask(transport, address, body(b"x" * 20_000_000))

    assert asyncio.run(scenario()) == (413, b"large")


# What goes over the wire.


def test_the_length_is_told_exactly_and_the_body_is_not_chunked(tmp_path: Path) -> None:
    with open_media(PICTURES, "chessboard.jpg") as picture:
        sent = Body(pieces=(b'{"url":"', picture, b'"}'))
        head, _, content = exchange(HELLO, sent)[2].requests[0].partition(b"\r\n\r\n")
    assert f"content-length: {sent.length}".encode() in head.lower()
    assert b"transfer-encoding" not in head.lower()
    assert json.loads(content)["url"] == b64encode((PICTURES / "chessboard.jpg").read_bytes()).decode()


def test_a_long_text_is_sent_to_its_last_byte() -> None:
    text = b"0123456789" * 300_000
    assert exchange(HELLO, body(b"[", text, b"]"))[2].requests[0].endswith(b"\r\n\r\n[" + text + b"]")


def test_only_what_was_given_is_sent_with_host_and_length() -> None:
    head = exchange(HELLO)[2].requests[0].partition(b"\r\n\r\n")[0].decode()
    names = sorted(line.partition(":")[0].lower() for line in head.split("\r\n")[1:])
    assert names == sorted([*HEADERS, "content-length", "host"])


def test_cookies_are_not_kept() -> None:
    async def scenario() -> list[bytes]:
        server = Server(HELLO.replace(b"\r\n\r\n", b"\r\nset-cookie: track=me; Path=/\r\n\r\n"), stays=True)
        async with server.running() as url, Transport() as transport:
            await ask(transport, url)
            await ask(transport, url)
        return server.requests

    assert [b"track" in request for request in asyncio.run(scenario())] == [False, False]


def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch, closed_port: int) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port}")
    assert exchange(HELLO)[:2] == (200, b"hello")


def test_keys_of_a_netrc_file_are_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password hidden\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert b"Basic" not in exchange(HELLO)[2].requests[0]


# Connections.


def test_two_calls_share_a_connection() -> None:
    async def scenario() -> int:
        server = Server(HELLO, stays=True)
        async with server.running() as url, Transport() as transport:
            await ask(transport, url)
            await ask(transport, url)
        return server.connections

    assert asyncio.run(scenario()) == 1


def test_a_connection_that_was_closed_while_idle_is_not_used_again() -> None:
    async def scenario() -> tuple[int, int]:
        server = Server(plain(b"content-length: 5", b"bye!!"))
        async with server.running() as url, Transport() as transport:
            first = await ask(transport, url)
            await server.gone.wait()
            await asyncio.sleep(0.05)
            second = await ask(transport, url)
        return first[0], second[0]

    assert asyncio.run(scenario()) == (200, 200)


def test_a_cancelled_call_hangs_up() -> None:
    async def scenario() -> None:
        async def say_half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")
            await writer.drain()
            server.said.set()
            await reader.read()

        server = Server(say_half)
        async with server.running() as url, Transport() as transport:
            call = asyncio.create_task(ask(transport, url))
            await server.said.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            async with asyncio.timeout(5):
                await server.gone.wait()

    asyncio.run(scenario())


def test_a_thousand_cancelled_calls_leave_the_pool_usable(simulator: Running) -> None:
    """Cancelled at every stage: connecting, sending, waiting, reading."""
    document = {"model": "qwen3-vl-plus", "messages": [{"role": "user", "content": "storm"}], "stream": True}
    slow = simulator.base_url("beijing", "ttft=0.05+tps=200+chunks=40") + "/chat/completions"
    quick = simulator.base_url("beijing") + "/chat/completions"
    sent = body(json.dumps(document).encode())

    async def scenario() -> list[int]:
        async with Transport() as transport:
            for wave in range(10):
                calls = [asyncio.create_task(ask(transport, slow, sent)) for _ in range(100)]
                await asyncio.sleep(wave * 0.02)
                for call in calls:
                    call.cancel()
                await asyncio.gather(*calls, return_exceptions=True)
            async with asyncio.timeout(20):
                return [status for status, _ in await asyncio.gather(*(ask(transport, quick, sent) for _ in range(50)))]

    before = open_sockets()
    assert asyncio.run(scenario()) == [200] * 50
    assert open_sockets() <= before


def open_sockets() -> int:
    gc.collect()
    names = (Path("/proc/self/fd") / name for name in os.listdir("/proc/self/fd"))
    return sum(name.is_symlink() and os.readlink(name).startswith("socket:") for name in names)


# Files that change while they are sent.


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def shrink(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def overwrite(path: Path) -> None:
    path.write_bytes(path.read_bytes()[::-1])


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    copied = tmp_path / "picture.jpg"
    copied.write_bytes((PICTURES / "mountains.jpg").read_bytes())
    os.utime(copied, (1, 1))
    return copied


CHANGES: Sequence[Callable[[Path], None]] = (append, shrink, overwrite)


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changes_before_it_is_sent_is_the_items_fault(
    picture: Path, change: Callable[[Path], None]
) -> None:
    with open_media(picture.parent, picture.name) as media:
        change(picture)
        with pytest.raises(MediaError) as caught:
            exchange(HELLO, Body(pieces=(b'{"url":"', media, b'"}')))
    assert caught.value.code == "media-changed"


@pytest.mark.parametrize("change", CHANGES)
def test_no_request_with_a_changed_file_is_ever_complete(picture: Path, change: Callable[[Path], None]) -> None:
    async def scenario() -> list[bytes]:
        server = Server(HELLO)
        async with server.running() as url, Transport() as transport:
            with open_media(picture.parent, picture.name) as media:
                change(picture)
                with pytest.raises((MediaError, ProviderError)):
                    await ask(transport, url, Body(pieces=(b'{"url":"', media, b'"}')))
        return server.requests

    assert asyncio.run(scenario()) == []

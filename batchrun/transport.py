"""Requests over the network. The only importer of httpx and aiohttp; their errors are translated here, once.

httpx gives the API, aiohttp the pool and the parser: httpx's own pool costs several times more CPU for each chunk and
leaks connections when requests are cancelled. Redirects are never followed: a key must not travel to another host.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from errno import EACCES, ETIMEDOUT
from functools import lru_cache
from ipaddress import ip_address
from types import TracebackType
from typing import Self, cast

import aiohttp
import httpx
from aiohttp.abc import AbstractResolver, ResolveResult

from batchrun.dialects.base import Body
from batchrun.errors import PASSING_ERRNOS, ErrorKind, MediaError, ProviderError

CONNECT_SECONDS = 30.0
STILL_THERE = {"TCP_KEEPIDLE": 60, "TCP_KEEPALIVE": 60, "TCP_KEEPINTVL": 30, "TCP_KEEPCNT": 4}
"""Seconds and number of the probes by which a silent connection is kept: routers forget one after some minutes, and
batch chat holds calls for an hour. Each system knows some of the names."""
KEEPALIVE_SECONDS = 20.0
"""Shorter than servers usually keep it: a call on a connection that is just being closed may have been billed."""
HEADER_BYTES = 65_536
ERROR_BYTES = 65_536
"""An error body is read up to here."""
MESSAGE_CHARS = 300
"""Of a library's message, at most."""
LONG = 1024 * 1024
"""A body of more bytes is sent piece by piece, even if it is all text."""
PLAIN_BYTES = 64 * 1024 * 1024
"""An answer that isn't streamed is read up to here."""
ENCODED_BYTES = 16 * 1024
"""Of a compressed answer are decoded at once: a thousand times as many may come of them."""
DENSE = frozenset({"br", "zstd"})
"""Encodings of which there is no such bound; nor is there where one stands within another."""

FOREIGN = (httpx.HTTPError, aiohttp.ClientError, OSError)


class OverAiohttp(httpx.AsyncBaseTransport):
    """Sends httpx's requests by a session of aiohttp. Errors are aiohttp's own: they tell whether a request left."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        stream = request.stream
        answer = await self.session.request(
            request.method,
            str(request.url),
            headers=[(name.decode("ascii"), value.decode("ascii")) for name, value in request.headers.raw],
            # aiohttp writes bytes at one go and warns about long ones; an iterator waits while the connection is full
            data=(b"".join(stream) or None) if isinstance(stream, httpx.ByteStream) else stream,
            allow_redirects=False,
        )
        return httpx.Response(answer.status, headers=answer.raw_headers, stream=Arriving(answer))

    async def aclose(self) -> None:
        await self.session.close()


class Arriving(httpx.AsyncByteStream):
    """The body of an answer, as it comes."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while chunk := await self.answer.content.read(ENCODED_BYTES):
            yield chunk

    async def aclose(self) -> None:
        self.answer.release()
        await self.answer.wait_for_close()


class Leaving(httpx.AsyncByteStream):
    """The body of a request, in order. Files are read and encoded on a thread, a block at a time: a slow disk stops
    nobody else."""

    def __init__(self, body: Body) -> None:
        self.body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.body.pieces:
            if isinstance(piece, bytes):
                yield piece
                continue
            blocks = piece.read_encoded()
            while block := await asyncio.to_thread(next, blocks, b""):
                yield block


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """Status and headers have arrived. `chunks` gives the body as it comes, `read` the whole of it."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    response: httpx.Response

    async def chunks(self) -> AsyncIterator[bytes]:
        """Raises ProviderError where the connection breaks."""
        encoding = self.headers.get("content-encoding", "identity").strip().lower()
        if "," in encoding or encoding in DENSE:
            raise ProviderError(ErrorKind.NETWORK, "the answer is compressed in a way that nobody asked for")
        try:
            # Encodings are refused in `post`'s headers, and decoded where a server doesn't care.
            if encoding != "identity":
                async for chunk in self.response.aiter_bytes():
                    yield chunk
            else:
                content = cast(Arriving, self.response.stream).answer.content
                while chunk := await content.readany():
                    yield chunk
        except FOREIGN as error:
            raise translated(error) from error

    async def read(self, limit: int) -> bytes:
        """The body up to `limit` bytes; what is longer is cut."""
        return await read_up_to(self.chunks(), limit)


async def read_up_to(chunks: AsyncIterator[bytes], limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for chunk in chunks:
        parts.append(chunk[: limit - size])
        size += len(chunk)
        if size >= limit:
            break
    return b"".join(parts)


class Transport:
    """One pool of connections for one event loop. Use it as an async context manager."""

    async def __aenter__(self) -> Self:
        self.client = OverAiohttp(self.open_session())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.client.aclose()

    def open_session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=self.connector(),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(sock_connect=CONNECT_SECONDS),
            max_line_size=HEADER_BYTES,
            max_field_size=HEADER_BYTES,
            skip_auto_headers=("User-Agent",),
        )

    def connector(self) -> aiohttp.TCPConnector:
        # limit=0: how many connections there are is decided by the claim, not by a pool that makes calls wait
        return aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_SECONDS, socket_factory=open_socket)

    @asynccontextmanager
    async def post(self, url: str, headers: Mapping[str, str], body: Body) -> AsyncIterator[Response]:
        """Send `body` to `url`. Raises ProviderError: `not_sent` where nothing left, else it may have been billed;
        MediaError where a file of the body can't be read to its end."""
        sized = {**headers, "content-length": str(body.length)}
        response = await self.sent(httpx.Request("POST", parsed(url), headers=sized, stream=stream_of(body)))
        try:
            yield response
        finally:
            await response.response.aclose()

    @asynccontextmanager
    async def get(self, url: str, headers: Mapping[str, str], *, method: str = "GET") -> AsyncIterator[Response]:
        """Ask for what stands at `url`, or by `HEAD` only about it. Raises ProviderError."""
        response = await self.sent(httpx.Request(method, parsed(url), headers=headers, stream=httpx.ByteStream(b"")))
        try:
            yield response
        finally:
            await response.response.aclose()

    async def sent(self, request: httpx.Request) -> Response:
        """Whoever takes the response closes it. Raises as `post` does."""
        try:
            response = await self.client.handle_async_request(request)
        except FOREIGN as error:
            raise translated(error) from error
        return Response(status=response.status_code, headers=response.headers, response=response)


def open_socket(place: aiohttp.AddrInfoType) -> socket.socket:
    family, kind, protocol, _, _ = place
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in STILL_THERE.items():
        if hasattr(socket, name):
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return made


class PinnedTransport(Transport):
    """Connects to these addresses and to nothing else, whatever a URL says or a name resolves to."""

    def __init__(self, addresses: Collection[str], port: int) -> None:
        """`addresses` are those of the one host that will be asked."""
        self.addresses = frozenset(str(ip_address(address)) for address in addresses)
        self.port = port

    def connector(self) -> aiohttp.TCPConnector:
        return aiohttp.TCPConnector(
            resolver=Known(self.addresses), use_dns_cache=False, force_close=True, socket_factory=self.open_socket
        )

    def open_socket(self, place: aiohttp.AddrInfoType) -> socket.socket:
        """Every connection begins here, those to hosts that are written as addresses too."""
        family, kind, protocol, _, address = place
        if str(ip_address(address[0])) not in self.addresses or address[1] != self.port:
            raise OSError(EACCES, "the address isn't the one that was checked")
        return socket.socket(family, kind, protocol)


class Known(AbstractResolver):
    """Gives the addresses that are known already; nothing is looked up a second time."""

    def __init__(self, addresses: Collection[str]) -> None:
        self.addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self.addresses
        ]

    async def close(self) -> None:
        """There is nothing to close."""


async def addresses_of(host: str, port: int) -> list[str]:
    """What the system's resolver says. Raises OSError (socket.gaierror)."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(place[4][0]) for place in found]


def stream_of(body: Body) -> httpx.ByteStream | Leaving:
    if body.length <= LONG and all(isinstance(piece, bytes) for piece in body.pieces):
        return httpx.ByteStream(b"".join(piece for piece in body.pieces if isinstance(piece, bytes)))
    return Leaving(body)


@lru_cache(maxsize=256)
def parsed(url: str) -> httpx.URL:
    """Raises ProviderError."""
    try:
        return httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ProviderError(ErrorKind.NOT_SENT, f"can't reach the server: {words(error)}") from error


def translated(error: BaseException) -> ProviderError | MediaError:
    """What a foreign error means. A file that can't be sent to its end comes back as its own error: without its last
    bytes no request is complete."""
    if isinstance(error.__cause__, MediaError):
        return error.__cause__
    if isinstance(error, aiohttp.ClientConnectorError) and error.errno in PASSING_ERRNOS - {ETIMEDOUT}:
        return ProviderError(ErrorKind.LOCAL, f"no connection can be opened: {words(error)}")
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError | aiohttp.InvalidURL):
        return ProviderError(
            ErrorKind.NOT_SENT,
            f"can't reach the server: {words(error)}",
            remedy="check the network, the proxy and the base_url of the catalogue entry",
        )
    if isinstance(error, TimeoutError):
        return ProviderError(ErrorKind.TIMEOUT, f"the connection timed out: {words(error)}")
    return ProviderError(ErrorKind.NETWORK, broken(error))


def is_no_url(error: ProviderError) -> bool:
    """Whether nothing could be asked at all, as no host is written like that."""
    return isinstance(error.__cause__, httpx.InvalidURL | aiohttp.InvalidURL)


def unreadable_answer(error: ProviderError) -> bool:
    """Whether something answered, in what isn't HTTP, such as a length that is no number."""
    return isinstance(error.__cause__, aiohttp.ClientResponseError)


def broken(cause: BaseException) -> str:
    """How the connection broke. What the server sent isn't quoted, whole or in part: it may repeat the key."""
    if isinstance(cause, aiohttp.ServerDisconnectedError):
        return "the server closed the connection before it had answered"
    if isinstance(cause, aiohttp.ClientResponseError):
        return f"the server's answer isn't valid HTTP: {cause.message.partition(':')[0]}"
    if isinstance(cause, aiohttp.ClientPayloadError):
        return "the connection broke in the middle of the answer"
    if isinstance(cause, httpx.DecodingError):
        return f"the answer isn't encoded as its header says: {words(cause)}"
    return f"the connection broke: {words(cause)}"


def words(cause: BaseException) -> str:
    return " ".join(str(cause).split())[:MESSAGE_CHARS] or type(cause).__name__

"""HTTP/1.1 requests read from a stream, and the heads of responses. No framework, so that faults can break it."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

MAX_LINE: Final = 65_536
MAX_HEADERS: Final = 200
MAX_BODY: Final = 128 * 1024 * 1024

REQUEST_LINE: Final = re.compile(rb"([A-Z]{1,20}) ([\x21-\x7e]+) HTTP/1\.([01])\r?\n")
HEADER_LINE: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\0]*?)[ \t]*\r?\n")
CHUNK_LINE: Final = re.compile(rb"([0-9a-fA-F]{1,8})[ \t]*(?:;[^\r\n]*)?\r?\n")

Headers = Sequence[tuple[str, str]]


@dataclass(kw_only=True, eq=False)  # not frozen: Python sets the traceback of a raised one
class MalformedRequest(Exception):
    """Bytes that are no acceptable HTTP request; the connection cannot be used any further."""

    status: int
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpRequest:
    method: str
    target: str
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes
    keep_alive: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """An answer that is sent at once."""

    status: int
    body: bytes = b""
    headers: Headers = field(default=(("content-type", "application/json"),))


def head(status: int, headers: Headers) -> bytes:
    """Status line and headers, encoded."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Unknown"
    lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def encode_reply(reply: Reply, *, keep_alive: bool) -> bytes:
    headers = list(reply.headers)
    if reply.status != HTTPStatus.NO_CONTENT:
        headers.append(("content-length", str(len(reply.body))))
    if not keep_alive:
        headers.append(("connection", "close"))
    return head(reply.status, headers) + reply.body


async def read_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> HttpRequest | None:
    """The next request of a connection; None when the client has closed it.

    Raise `MalformedRequest`, and `asyncio.IncompleteReadError` when the client leaves within a request.
    """
    line = await read_line(reader)
    while line in (b"\r\n", b"\n"):
        line = await read_line(reader)
    if not line:
        return None
    match = REQUEST_LINE.fullmatch(line)
    if match is None:
        raise MalformedRequest(status=400, message="The first line is not a request of HTTP/1.1.")
    headers = await read_headers(reader)
    if headers.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = await read_body(reader, headers)
    return HttpRequest(
        method=match[1].decode("ascii"),
        target=match[2].decode("ascii"),
        headers=headers,
        body=body,
        keep_alive=stays_open(headers, minor_version=match[3]),
    )


def stays_open(headers: Mapping[str, str], *, minor_version: bytes) -> bool:
    wishes = {wish.strip() for wish in headers.get("connection", "").lower().split(",")}
    return "close" not in wishes and (minor_version == b"1" or "keep-alive" in wishes)


async def read_line(reader: asyncio.StreamReader) -> bytes:
    """A line with its end; empty at the end of the connection."""
    try:
        return await reader.readuntil(b"\n")
    except asyncio.LimitOverrunError as error:
        raise MalformedRequest(status=431, message=f"A line is longer than {MAX_LINE} bytes.") from error
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise MalformedRequest(status=400, message="The request ends within a line.") from error
        return b""


async def read_headers(reader: asyncio.StreamReader) -> dict[str, str]:
    headers: dict[str, str] = {}
    size = 0
    for _ in range(MAX_HEADERS + 1):
        line = await read_line(reader)
        if line in (b"\r\n", b"\n"):
            return headers
        size += len(line)
        match = HEADER_LINE.fullmatch(line)
        if match is None:
            raise MalformedRequest(status=400, message="A header line is malformed.")
        if size > MAX_LINE:
            break
        name, value = match[1].decode("ascii").lower(), match[2].decode("latin-1")
        if name == "content-length" and headers.get(name, value) != value:
            raise MalformedRequest(status=400, message="Content-Length is given twice with different values.")
        headers[name] = value
    raise MalformedRequest(status=431, message="The headers are too many or too long.")


async def read_body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    coding = headers.get("transfer-encoding")
    length = headers.get("content-length")
    if coding is not None:
        if length is not None:
            raise MalformedRequest(status=400, message="Content-Length and Transfer-Encoding contradict.")
        if coding.lower() != "chunked":
            raise MalformedRequest(status=501, message="Only the chunked transfer encoding is known.")
        return await read_chunked(reader)
    if length is None:
        return b""
    if not re.fullmatch(r"[0-9]{1,18}", length):
        raise MalformedRequest(status=400, message="Content-Length is not a number.")
    if int(length) > MAX_BODY:
        raise MalformedRequest(status=413, message=f"The body is larger than {MAX_BODY} bytes.")
    return await reader.readexactly(int(length))


async def read_chunked(reader: asyncio.StreamReader) -> bytes:
    parts: list[bytes] = []
    total = 0
    while True:
        match = CHUNK_LINE.fullmatch(await read_line(reader))
        if match is None:
            raise MalformedRequest(status=400, message="A chunk of the body has no valid length.")
        size = int(match[1], 16)
        if size == 0:
            await read_headers(reader)  # trailers
            return b"".join(parts)
        total += size
        if total > MAX_BODY:
            raise MalformedRequest(status=413, message=f"The body is larger than {MAX_BODY} bytes.")
        parts.append(await reader.readexactly(size))
        if await read_line(reader) not in (b"\r\n", b"\n"):
            raise MalformedRequest(status=400, message="A chunk of the body is longer than its length.")

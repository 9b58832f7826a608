"""The HTTP side: connections that are used again, chunked bodies, and garbage."""

import http.client
import json
from urllib.parse import urlsplit

import pytest

from .raw import Client, read_response

PATH = "/singapore/compatible-mode/v1/chat/completions"


def connection_to(client: Client) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(urlsplit(client.simulator.url).netloc, timeout=10)


def headers(client: Client) -> dict[str, str]:
    return {"authorization": f"Bearer {client.simulator.keys['singapore']}"}


def test_a_connection_is_used_again(client: Client) -> None:
    connection = connection_to(client)
    connection.connect()
    before = connection.sock
    for body in (client.streamed(), client.body(), client.body(model="none")):
        connection.request("POST", PATH, json.dumps(body), headers(client))
        connection.getresponse().read()
    assert connection.sock is before
    connection.close()


def test_a_chunked_request_body(client: Client) -> None:
    connection = connection_to(client)
    content = json.dumps(client.body()).encode()
    connection.request("POST", PATH, iter([content[:7], content[7:]]), headers(client), encode_chunked=True)
    assert connection.getresponse().status == 200
    connection.close()


def test_the_client_may_ask_before_it_sends_the_body(client: Client) -> None:
    request = client.request(client.body()).replace(b"host: x", b"host: x\r\nexpect: 100-continue")
    head, _, body = request.partition(b"\r\n\r\n")
    with client.connect() as connection:
        connection.sendall(head + b"\r\n\r\n")
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert read_response(lambda: connection.recv(65_536)).status == 200


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"hello\r\n\r\n", 400),
        (b"\x16\x03\x01\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\na: b\r\n c\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\ncontent-length: many\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"POST / HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\ncontent-length: 99999999999\r\n\r\n", 413),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 300 + b"\r\n", 431),
        (b"GET /nowhere HTTP/1.1\r\n\r\n", 404),
        (b"GET //[ HTTP/1.1\r\n\r\n", 404),
        (b"POST /paris/compatible-mode/v1/chat/completions HTTP/1.1\r\ncontent-length: 0\r\n\r\n", 404),
        (b"GET /compatible-mode/v1/chat/completions HTTP/1.1\r\n\r\n", 405),
        (b"POST /book HTTP/1.1\r\ncontent-length: 0\r\n\r\n", 405),
        (b"GET /healthz HTTP/1.1\r\n\r\n", 200),
        (b"\r\nGET /healthz HTTP/1.0\r\n\r\n", 200),
    ],
)
def test_each_request_gets_a_status(client: Client, request_bytes: bytes, status: int) -> None:
    assert client.exchange(request_bytes).status == status


def test_a_head_request_has_no_body(client: Client) -> None:
    with client.connect() as connection:
        connection.sendall(b"HEAD /healthz HTTP/1.1\r\nconnection: close\r\n\r\n")
        data = b""
        while more := connection.recv(1_000):
            data += more
    assert data.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("wish", ["close", "Keep-Alive, Close"])
def test_connection_close_is_honoured(client: Client, wish: str) -> None:
    with client.connect() as connection:
        connection.sendall(f"GET /healthz HTTP/1.1\r\nconnection: {wish}\r\n\r\n".encode())
        data = b""
        while more := connection.recv(1_000):
            data += more
    assert b"connection: close" in data


def test_half_a_request_harms_nobody(client: Client) -> None:
    with client.connect() as connection:
        connection.sendall(client.request(client.body())[:-10])
    assert client.ask(client.body()).status == 200

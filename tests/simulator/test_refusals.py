"""Faults that refuse a call or break it before its answer; none of them costs anything."""

import socket
from decimal import Decimal

import pytest

from .raw import Client

JSON_ERRORS = [
    ("400", 400, "invalid_parameter_error"),
    ("moderation", 400, "data_inspection_failed"),
    ("arrearage", 400, "Arrearage"),
    ("401", 401, "invalid_api_key"),
    ("403", 403, "access_denied"),
    ("404", 404, "model_not_found"),
    ("429", 429, "limit_requests"),
    ("429-burst", 429, "limit_burst_rate"),
    ("429-quota", 429, "insufficient_quota"),
    ("429-billing", 429, "PostpaidBillOverdue"),
    ("500", 500, "internal_error"),
    ("500-algo", 500, "internal_error"),
    ("500-timeout", 500, "RequestTimeOut"),
    ("503", 503, "ModelUnavailable"),
    ("400-download", 400, "invalid_parameter_error"),
    ("403-unpurchased", 403, "AccessDenied.Unpurchased"),
    ("403-free-tier", 403, "AllocationQuota.FreeTierOnly"),
    ("404-region", 404, "model_not_supported"),
    ("500-system", 500, "SystemError"),
    ("503-serving", 503, "ModelServingError"),
    ("529", 529, "overloaded"),
]


@pytest.mark.parametrize(("fault", "status", "code"), JSON_ERRORS)
def test_an_error_has_its_status_code_and_request_id(client: Client, fault: str, status: int, code: str) -> None:
    raw = client.ask(client.streamed(), fault=fault)
    assert (raw.status, raw.error["code"]) == (status, code)
    assert raw.json()["request_id"] == raw.header("x-request-id")


@pytest.mark.parametrize("fault", ["401", "429", "503", "502", "200-error", "307"])
def test_a_refused_call_costs_nothing(client: Client, fault: str) -> None:
    row = client.row(client.ask(client.streamed(), fault=fault))
    assert (row.amount, row.billed.input, row.complete, row.hit) == (Decimal(0), 0, False, (fault,))


@pytest.mark.parametrize("value", ["1", "0", "-1", "1e9", "soon", "Wed, 21 Oct 2099 07:28:00 GMT"])
def test_retry_after_is_sent_as_written(client: Client, value: str) -> None:
    raw = client.ask(client.streamed(), fault=f"429-retry-after={value}")
    assert raw.header("retry-after") == value


def test_retry_after_in_milliseconds(client: Client) -> None:
    raw = client.ask(client.streamed(), fault="429-retry-after-ms=250")
    assert raw.header("retry-after-ms") == "250"


def test_without_the_modifier_no_retry_after_is_sent(client: Client) -> None:
    assert "retry-after" not in client.ask(client.streamed(), fault="429").head


def test_a_fault_that_hits_once_lets_the_same_request_through_then(client: Client) -> None:
    body = client.streamed()
    statuses = [client.ask(body, fault="503-once").status for _ in range(3)]
    assert statuses == [503, 200, 200]


@pytest.mark.parametrize(
    ("fault", "status", "beginning"),
    [
        ("502", 502, b"<!DOCTYPE html>"),
        ("504", 504, b"upstream"),
        ("200-html", 200, b"<!DOCTYPE html>"),
        ("200-error", 200, b'{"error"'),
        ("200-code", 200, b'{"code"'),
        ("200-empty", 200, b""),
        ("204", 204, b""),
    ],
)
def test_bodies_that_are_no_error_object(client: Client, fault: str, status: int, beginning: bytes) -> None:
    raw = client.ask(client.streamed(), fault=fault)
    assert (raw.status, raw.body[: len(beginning)] or b"") == (status, beginning)
    assert bool(raw.body) == bool(beginning)


def test_an_html_page_of_a_given_size(client: Client) -> None:
    assert len(client.ask(client.streamed(), fault="502=100").body) >= 100 * 1024


@pytest.mark.parametrize("status", [302, 307, 308])
def test_redirects_lead_to_another_host(client: Client, status: int) -> None:
    raw = client.ask(client.streamed(), fault=f"{status}=8099")
    assert (raw.status, raw.header("location")) == (
        status,
        "http://localhost:8099/compatible-mode/v1/chat/completions",
    )


def test_the_key_comes_back_in_the_error_and_not_in_the_book(client: Client) -> None:
    raw = client.ask(client.streamed(), fault="key-echo")
    key = client.simulator.keys["singapore"]
    assert key in str(raw.error["message"])
    assert key not in client.row(raw).to_json()


@pytest.mark.parametrize(("fault", "end"), [("reset", "reset"), ("close", "cut"), ("stall", "silent")])
def test_no_answer_at_all(client: Client, fault: str, end: str) -> None:
    raw = client.ask(client.streamed(), fault=fault, quiet=0.2)
    assert (raw.status, raw.body, raw.end) == (0, b"", end)


def test_headers_and_nothing_more(client: Client) -> None:
    raw = client.ask(client.streamed(), fault="stall-headers", quiet=0.2)
    assert (raw.status, raw.body, raw.end) == (200, b"", "silent")


def test_an_answer_that_is_not_http(client: Client) -> None:
    assert client.ask(client.streamed(), fault="bad-http").head.startswith("220 mail")


def test_a_header_of_two_hundred_kilobytes(client: Client) -> None:
    raw = client.ask(client.streamed(), fault="big-header")
    assert len(raw.header("x-padding") or "") == 200 * 1024


@pytest.mark.parametrize(("fault", "status"), [("reset+503", 0), ("503+reset", 503)])
def test_of_two_faults_that_end_the_call_the_first_one_wins(client: Client, fault: str, status: int) -> None:
    assert client.ask(client.streamed(), fault=fault).status == status


def test_an_unknown_fault_is_refused_by_name(client: Client) -> None:
    raw = client.ask(client.streamed(), fault="typo")
    assert (raw.status, "typo" in str(raw.error["message"])) == (400, True)


def test_close_idle_does_not_say_so_before(client: Client) -> None:
    with client.connect() as connection:
        connection.sendall(client.request(client.body(), fault="close-idle"))
        data = read_to_end(connection)
    assert (b"200 OK" in data, b"connection:" in data) == (True, False)


def test_connection_close_says_so(client: Client) -> None:
    with client.connect() as connection:
        connection.sendall(client.request(client.body(), fault="connection-close"))
        data = read_to_end(connection)
    assert b"connection: close\r\n" in data


def read_to_end(connection: socket.socket) -> bytes:
    data = b""
    while more := connection.recv(65_536):
        data += more
    return data

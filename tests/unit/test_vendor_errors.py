"""Error answers beyond the contract's own rows, which `test_error_contract` holds: what nobody planned for."""

from __future__ import annotations

import json

import pytest

from batchrun.dialects.compat import Compat
from batchrun.errors import ErrorKind, ProviderError

ACCOUNT, ARREARS, INVALID = ErrorKind.ACCOUNT, ErrorKind.ARREARS, ErrorKind.INVALID
MODERATED, NOT_FOUND, RATE_LIMITED = ErrorKind.MODERATED, ErrorKind.NOT_FOUND, ErrorKind.RATE_LIMITED
SERVER, TIMEOUT, UNAVAILABLE = ErrorKind.SERVER, ErrorKind.TIMEOUT, ErrorKind.UNAVAILABLE


def read(table: str, status: int, body: object = None, headers: dict[str, str] | None = None) -> ProviderError:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Compat(table).read_error(status, headers or {}, raw)


@pytest.mark.parametrize(
    ("table", "status", "code", "kind"),
    [
        ("model-studio", 400, "InvalidURL.ConnectionRefused", INVALID),
        ("model-studio", 429, "Throttling.NeverSeenBefore", RATE_LIMITED),
        ("model-studio", 500, "InternalError.Algo.InvalidParameter", INVALID),
        ("model-studio", 503, "InternalError", UNAVAILABLE),
        ("acedata", 429, "api_error", RATE_LIMITED),
        ("openai", 400, "context_length_exceeded", INVALID),
        ("openai", 429, "insufficient_quota", ARREARS),
        ("openai", 429, "billing_hard_limit_reached", ARREARS),
        ("openai", 429, "tokens", RATE_LIMITED),
    ],
)
def test_codes_beyond_the_contract(table: str, status: int, code: str, kind: ErrorKind) -> None:
    assert read(table, status, {"error": {"code": code, "message": "Words"}}).kind is kind


@pytest.mark.parametrize(
    "body", [b"", b"<html>no</html>", b"null", b"[]", b"{}", b'{"error":{}}', b"\xff\xfe", b'{"a":']
)
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (204, SERVER),
        (400, INVALID),
        (401, ACCOUNT),
        (402, ARREARS),
        (403, ACCOUNT),
        (404, NOT_FOUND),
        (405, INVALID),
        (408, TIMEOUT),
        (409, SERVER),
        (410, NOT_FOUND),
        (413, INVALID),
        (418, INVALID),
        (422, INVALID),
        (429, RATE_LIMITED),
        (500, SERVER),
        (502, SERVER),
        (503, UNAVAILABLE),
        (504, SERVER),
        (522, SERVER),
        (529, UNAVAILABLE),
    ],
)
def test_without_a_code_the_status_decides(status: int, kind: ErrorKind, body: bytes) -> None:
    error = read("openai", status, body)
    assert (error.kind, error.http_status, error.vendor_code) == (kind, status, None)


@pytest.mark.parametrize(
    "message",
    ["missing Content-Length of multimodal url", "<500> InternalError.Algo: The last message must be from the user"],
)
@pytest.mark.parametrize("code", ["InternalError.Algo", "internal_error", None])
def test_server_errors_that_come_from_the_request_never_heal(message: str, code: str | None) -> None:
    message = message if code else f"<500> InternalError.Algo: {message.rpartition(': ')[2]}"
    assert read("model-studio", 500, {"error": {"message": message, "code": code}}).kind is INVALID


def test_a_gateway_that_speaks_of_content_length_is_tried_again() -> None:
    assert read("model-studio", 502, b"upstream sent a wrong Content-Length").kind is SERVER


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "HTTP 502: no message"),
        (b"<html><head><title>502 Bad Gateway</title></head><body>nginx", "HTTP 502: 502 Bad Gateway"),
        (b"upstream \x1b[31mdied\r\n\x00\xe2\x80\xae now", "HTTP 502: upstream [31mdied now"),
        (b'{"error":"plain words"}', "HTTP 502: plain words"),
        (b'{"errors":[{"message":"first"}]}', "HTTP 502: first"),
        (b'[{"error":{"message":"in a list","status":"UNAVAILABLE"}}]', "HTTP 502 UNAVAILABLE: in a list"),
        (b'{"detail":"Not here"}', "HTTP 502: Not here"),
        (b'{"error":{"code":"a","message":"bad \\ud800 half"}}', "HTTP 502 a: bad half"),
        (b'\xef\xbb\xbf{"message":"after a mark","code":1}', "HTTP 502: after a mark"),
        (b'{"error":{"message":{"why":"nested"}}}', 'HTTP 502: {"why": "nested"}'),
    ],
)
def test_message(body: bytes, message: str) -> None:
    assert read("openai", 502, body).message == message


def test_a_long_message_is_cut_at_2_kb() -> None:
    error = read("openai", 500, {"error": {"message": "é" * 5000}})
    assert error.message == "HTTP 500: " + "é" * 1024


@pytest.mark.parametrize(
    "echo", ["Incorrect API key provided: sk-abcdef123456.", "Header was Bearer abc.def-123456 here"]
)
def test_a_key_that_the_server_repeats_is_hidden(echo: str) -> None:
    message = read("openai", 401, {"error": {"message": echo}}).message
    assert "123456" not in message
    assert "***" in message


@pytest.mark.parametrize("depth", range(900, 1000, 3))
def test_deep_nesting_is_survived(depth: int) -> None:
    body = b'{"error":{"message":' + b"[" * depth + b"]" * depth + b"}}"
    assert read("openai", 500, body).kind is SERVER


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "3"}, 3.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after": "0"}, 0.0),
        ({"Retry-After-Ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after": "999999"}, 999999.0),
        ({"retry-after": "Fri, 06 Feb 2026 10:00:30 GMT", "date": "Fri, 06 Feb 2026 10:00:00 GMT"}, 30.0),
        ({"retry-after": "Fri, 06 Feb 2026 10:00:30 GMT", "date": "Fri, 06 Feb 2026 11:00:00 +0000"}, 0.0),
        ({"retry-after": "Fri, 06 Feb 2026 10:00:30 -0000", "date": "Fri, 06 Feb 2026 10:00:00 GMT"}, 30.0),
        ({"retry-after": "Fri, 06 Feb 2026 10:00:30 GMT"}, None),
        ({"retry-after": "Fri, 06 Feb 2026 10:00:30 GMT", "date": "yesterday"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1_000"}, None),
        ({"retry-after": "٣"}, None),
        ({"retry-after": "9" * 400}, None),
        ({"retry-after": ""}, None),
        ({}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert read("openai", 429, {}, headers).retry_after == seconds


@pytest.mark.parametrize(
    ("words", "seconds"),
    [
        ("Your account reached max organization concurrency: 1, please try again after 2 seconds", 2.0),
        ("Rate limit reached for requests. Please try again in 20ms.", 0.02),
        ("Please try again in 1.5s. Visit the page.", 1.5),
        ("Please try again in 6m0s.", 360.0),
        ("Please try again in 1h2m3.5s.", 3_723.5),
        ("Please try again in 2m.", 120.0),
        ("Please try again later.", None),
        ("Please try again in a moment, within 5s.", None),
        (f"Please try again in {'9' * 400}s", None),
    ],
)
def test_retry_after_in_words(words: str, seconds: float | None) -> None:
    error = read("openai", 429, {"error": {"type": "rate_limit_reached_error", "message": words}})
    assert error.retry_after == seconds


@pytest.mark.parametrize(
    ("value", "word"), [("true", True), (" False", False), ("0", None), ("", None), ("maybe", None)]
)
def test_whether_to_try_again_at_all(value: str, word: bool | None) -> None:
    error = read("model-studio", 503, {"error": "Full"}, {"X-Should-Retry": value})
    assert error.should_retry is word
    assert error.message == "HTTP 503: Full" + (" (the server says not to try again)" if word is False else "")


def test_the_request_id_of_a_header_is_used_where_the_body_has_none() -> None:
    assert read("openai", 500, b"", {"X-Request-ID": "r-7"}).request_id == "r-7"


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("https://evil.example/v1", "evil.example"),
        ("https://user:secret@evil.example:8443/v1", "evil.example"),
        ("/login", "another path"),
        ("https://[broken", "another path"),
        ("", "another path"),
    ],
)
def test_a_redirect_is_refused_with_its_target(location: str, target: str) -> None:
    error = read("openai", 307, b"", {"Location": location})
    assert (error.kind, error.http_status) == (INVALID, 307)
    assert error.message == (
        f"HTTP 307: the server redirects to {target}. Redirects aren't followed, so that the key goes to no other host."
    )


@pytest.mark.parametrize("kind_and_status", [(ACCOUNT, 401), (ARREARS, 402), (NOT_FOUND, 404), (INVALID, 400)])
def test_errors_that_need_a_person_say_what_to_do(kind_and_status: tuple[ErrorKind, int]) -> None:
    assert read("openai", kind_and_status[1]).remedy.endswith(".")


def test_a_wrong_key_at_model_studio_speaks_of_regions() -> None:
    remedy = read("model-studio", 401, {"error": {"code": "invalid_api_key", "message": "No"}}).remedy
    assert remedy == "Keys belong to one region: use the key of this region, and look for typing errors."

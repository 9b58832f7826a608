"""The error tables of the provider contract, row by row: what each error is, and what follows from it.

Hold it beside the contract: 7.1 and 8.12 (AceData), 8.1.1 to 8.1.3 (Model Studio), 8.2 (statuses), 8.5 (Moonshot). The
dialect and the table are those of the catalogue, so that a wrong entry there fails here too.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from batchrun.catalogue import load_catalogue
from batchrun.dialects import DIALECTS
from batchrun.dialects.base import Dialect
from batchrun.errors import ErrorKind, ProviderError
from batchrun.messages import JsonValue
from batchrun.retries import PROFILE_IS_REFUSED, Policy, Tries, decide
from batchrun.states import State

INVALID, MODERATED, NOT_FOUND = ErrorKind.INVALID, ErrorKind.MODERATED, ErrorKind.NOT_FOUND
ACCOUNT, ARREARS = ErrorKind.ACCOUNT, ErrorKind.ARREARS
RATE_LIMITED, UNAVAILABLE = ErrorKind.RATE_LIMITED, ErrorKind.UNAVAILABLE
SERVER, TIMEOUT = ErrorKind.SERVER, ErrorKind.TIMEOUT

AGAIN, FREE, ITEM, STOP = "again, counted", "again, free", "item fails", "job stops"
"""What follows: tried again, `retry.attempts` times or for `max_elapsed`; only this item fails; no more calls."""

COMPAT, NATIVE, ACEDATA, MOONSHOT = "model-studio/singapore", "dashscope/singapore", "acedata", "moonshot"

MODEL_STUDIO_ROWS = [
    # 8.1.2: HTTP, code (native, then compat where the page gives one), kind, what follows
    (400, "InvalidParameter", INVALID, ITEM),
    (400, "invalid_parameter_error", INVALID, ITEM),
    (400, "InvalidParameter.NotSupportEnableThinking", INVALID, ITEM),
    (400, "InvalidURL", INVALID, ITEM),
    (400, "InvalidURL.Anything", INVALID, ITEM),
    (400, "BadRequest.EmptyInput", INVALID, ITEM),
    (400, "BadRequest.EmptyParameters", INVALID, ITEM),
    (400, "BadRequest.EmptyModel", INVALID, ITEM),
    (400, "BadRequest.TooLarge", INVALID, ITEM),
    (400, "DataInspectionFailed", MODERATED, ITEM),
    (400, "data_inspection_failed", MODERATED, ITEM),
    (400, "Arrearage", ARREARS, STOP),
    (401, "InvalidApiKey", ACCOUNT, STOP),
    (401, "invalid_api_key", ACCOUNT, STOP),
    (403, "AccessDenied", ACCOUNT, STOP),
    (403, "access_denied", ACCOUNT, STOP),
    (403, "AccessDenied.Unpurchased", ACCOUNT, STOP),
    (403, "Model.AccessDenied", ACCOUNT, STOP),
    (403, "Workspace.AccessDenied", ACCOUNT, STOP),
    (403, "AllocationQuota.FreeTierOnly", ARREARS, STOP),
    (404, "ModelNotFound", NOT_FOUND, STOP),
    (404, "model_not_found", NOT_FOUND, STOP),
    (404, "model_not_supported", NOT_FOUND, STOP),
    (429, "Throttling", RATE_LIMITED, FREE),
    (429, "Throttling.RateQuota", RATE_LIMITED, FREE),
    (429, "LimitRequests", RATE_LIMITED, FREE),
    (429, "limit_requests", RATE_LIMITED, FREE),
    (429, "Throttling.BurstRate", RATE_LIMITED, FREE),
    (429, "limit_burst_rate", RATE_LIMITED, FREE),
    (429, "Throttling.AllocationQuota", RATE_LIMITED, FREE),
    (429, "insufficient_quota", RATE_LIMITED, FREE),  # 8.1.3: transient here, in spite of its name
    (429, "CommodityNotPurchased", ARREARS, STOP),
    (429, "PrepaidBillOverdue", ARREARS, STOP),
    (429, "PostpaidBillOverdue", ARREARS, STOP),
    (500, "InternalError", SERVER, AGAIN),
    (500, "internal_error", SERVER, AGAIN),
    (500, "SystemError", SERVER, AGAIN),
    (500, "ModelServiceFailed", SERVER, AGAIN),
    (500, "InternalError.Algo", SERVER, AGAIN),
    (500, "InternalError.Timeout", TIMEOUT, AGAIN),
    (500, "RequestTimeOut", TIMEOUT, AGAIN),
    (500, "ModelServingError", SERVER, AGAIN),
    (503, "ModelServingError", UNAVAILABLE, FREE),
    (503, "ModelUnavailable", UNAVAILABLE, FREE),
    # the SDK's enumeration
    (503, "ServiceUnavailable", UNAVAILABLE, FREE),
    (504, "GatewayTimeout", TIMEOUT, AGAIN),
]

ACEDATA_ROWS = [
    # 7.1
    (400, "token_mismatched", INVALID, ITEM),
    (400, "api_not_implemented", INVALID, ITEM),
    (401, "invalid_token", ACCOUNT, STOP),
    (429, "too_many_requests", RATE_LIMITED, FREE),
    (500, "api_error", SERVER, AGAIN),
    # 8.12
    (401, "no_token", ACCOUNT, STOP),
    (401, "token_expired", ACCOUNT, STOP),
    (403, "used_up", ARREARS, STOP),
    (403, "disabled", ACCOUNT, STOP),
    (400, "bad_request", INVALID, ITEM),
    (402, "any_code", ARREARS, STOP),
    (403, "any_code", MODERATED, ITEM),
]

MOONSHOT_ROWS = [
    # 8.5: the type names the error, there is no code
    (400, "content_filter", MODERATED, ITEM),
    (400, "invalid_request_error", INVALID, ITEM),
    (401, "invalid_authentication_error", ACCOUNT, STOP),
    (401, "incorrect_api_key_error", ACCOUNT, STOP),
    (403, "permission_denied_error", ACCOUNT, STOP),
    (404, "resource_not_found_error", NOT_FOUND, STOP),
    (429, "engine_overloaded_error", UNAVAILABLE, FREE),
    (429, "rate_limit_reached_error", RATE_LIMITED, FREE),
    (429, "exceeded_current_quota_error", ARREARS, STOP),
    (429, "insufficient_quota", ARREARS, STOP),  # 8.1.3: no money everywhere but at Model Studio
    (500, "server_error", SERVER, AGAIN),
]

STATUS_ROWS = [
    # 8.2 and 8.12: what both SDKs and AceData's client try again, whatever the body
    (408, TIMEOUT, AGAIN),
    (409, SERVER, AGAIN),
    (429, RATE_LIMITED, FREE),
    (500, SERVER, AGAIN),
    (502, SERVER, AGAIN),
    (503, UNAVAILABLE, FREE),
    (504, SERVER, AGAIN),
]


def body_of(endpoint: str, code: str) -> JsonValue:
    """An error in the form of its service: 8.1.1 (compat, native), 7.1, 8.5."""
    if endpoint == COMPAT:
        error: JsonValue = {"message": "Words.", "type": "invalid_request_error", "param": None, "code": code}
        return {"error": error, "request_id": "r-1"}
    if endpoint == NATIVE:
        return {"code": code, "message": "Words.", "request_id": "r-1"}
    if endpoint == ACEDATA:
        return {"success": False, "error": {"code": code, "message": "Words."}, "trace_id": "r-1"}
    return {"error": {"type": code, "message": "Words."}}


def dialect_at(name: str) -> Dialect:
    endpoint = load_catalogue().endpoint(name)
    return DIALECTS[endpoint.dialect](endpoint.error_table)


def read(endpoint: str, status: int, body: JsonValue, headers: dict[str, str] | None = None) -> ProviderError:
    return dialect_at(endpoint).read_error(status, headers or {}, json.dumps(body).encode())


def follows(error: ProviderError) -> str:
    now = datetime(2026, 11, 22, tzinfo=UTC)
    tries = Tries(free=0, paid=0, free_since=None)
    decision = decide(error, tries, Policy(attempts=4, max_elapsed=timedelta(hours=24)), now, lambda: 0.5)
    if decision.pauses is not None or error.kind in PROFILE_IS_REFUSED:
        return STOP
    if decision.state is State.FAILED:
        return ITEM
    return AGAIN if decision.tries.paid else FREE


ROWS = [
    *((endpoint, *row) for row in MODEL_STUDIO_ROWS for endpoint in (COMPAT, NATIVE)),
    *((ACEDATA, *row) for row in ACEDATA_ROWS),
    *((MOONSHOT, *row) for row in MOONSHOT_ROWS),
]


@pytest.mark.parametrize(("endpoint", "status", "code", "kind", "then"), ROWS)
def test_row_of_the_contract(endpoint: str, status: int, code: str, kind: ErrorKind, then: str) -> None:
    error = read(endpoint, status, body_of(endpoint, code))
    assert (error.kind, follows(error)) == (kind, then)
    assert (error.message, error.vendor_code) == (f"HTTP {status} {code}: Words.", code)


@pytest.mark.parametrize(("endpoint", "status", "code", "kind", "then"), ROWS)
def test_every_row_says_what_to_do(endpoint: str, status: int, code: str, kind: ErrorKind, then: str) -> None:
    assert read(endpoint, status, body_of(endpoint, code)).remedy.endswith(".")


@pytest.mark.parametrize(("status", "kind", "then"), STATUS_ROWS)
@pytest.mark.parametrize("endpoint", [COMPAT, NATIVE, ACEDATA, MOONSHOT, "openai"])
def test_status_without_a_code(endpoint: str, status: int, kind: ErrorKind, then: str) -> None:
    error = read(endpoint, status, {})
    assert (error.kind, follows(error)) == (kind, then)


SHAPES: list[tuple[str, int, JsonValue, ErrorKind, str | None]] = [
    # 8.1.1, as the pages print them
    (NATIVE, 401, {"code": "InvalidApiKey", "message": "Invalid API-key provided.", "request_id": "r"}, ACCOUNT, "r"),
    (
        COMPAT,
        401,
        {
            "error": {
                "message": "Incorrect API key provided. ",
                "type": "invalid_request_error",
                "param": None,
                "code": "invalid_api_key",
            },
            "request_id": "r",
        },
        ACCOUNT,
        "r",
    ),
    (
        COMPAT,
        400,
        {
            "error": {
                "message": "<400> InternalError.Algo.InvalidParameter: Words",
                "type": "invalid_request_error",
                "param": None,
                "code": "invalid_parameter_error",
            },
            "id": "chatcmpl-1",
            "request_id": "r",
        },
        INVALID,
        "r",
    ),
    (COMPAT, 429, {"error": {"message": "W", "type": "limit_requests", "code": "limit_requests"}}, RATE_LIMITED, None),
    (
        COMPAT,
        400,
        {"error": {"message": "W", "type": "data_inspection_failed", "code": "data_inspection_failed"}},
        MODERATED,
        None,
    ),
    # 8.1.2: server errors that will not get better
    (
        COMPAT,
        500,
        {"error": {"message": "missing Content-Length of multimodal url", "code": "internal_error"}},
        INVALID,
        None,
    ),
    (NATIVE, 500, {"code": "InternalError.Algo", "message": "The last message must be user"}, INVALID, None),
    # 7.1
    (
        ACEDATA,
        500,
        {"success": False, "error": {"code": "api_error", "message": "fetch failed"}, "trace_id": "2cf86e86"},
        SERVER,
        "2cf86e86",
    ),
    # 8.5
    (MOONSHOT, 400, {"error": {"type": "content_filter", "message": "The request was rejected"}}, MODERATED, None),
]


@pytest.mark.parametrize(("endpoint", "status", "body", "kind", "request_id"), SHAPES)
def test_shape_of_the_contract(
    endpoint: str, status: int, body: JsonValue, kind: ErrorKind, request_id: str | None
) -> None:
    error = read(endpoint, status, body)
    assert (error.kind, error.request_id) == (kind, request_id)


@pytest.mark.parametrize("endpoint", [COMPAT, NATIVE])
def test_a_code_in_an_answer_of_status_200_is_a_failure(endpoint: str) -> None:
    error = dialect_at(endpoint).decode_plain(b'{"code":"Arrearage","message":"W","request_id":"r"}', {}).error
    assert error is not None
    assert (error.kind, error.request_id) == (ARREARS, "r")


def test_an_error_member_in_a_compat_stream_is_read_by_the_same_table() -> None:
    error = dialect_at(COMPAT).decode(b"", b'{"error":{"code":"insufficient_quota","message":"W"}}').error
    assert error is not None
    assert error.kind is RATE_LIMITED


@pytest.mark.parametrize("endpoint", [COMPAT, NATIVE, ACEDATA, MOONSHOT])
@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3.0),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after": "Sun, 22 Nov 2026 10:00:30 GMT", "date": "Sun, 22 Nov 2026 10:00:00 GMT"}, 30.0),
        ({}, None),
    ],
)
def test_every_service_may_say_how_long_to_wait(endpoint: str, headers: dict[str, str], seconds: float | None) -> None:
    assert read(endpoint, 429, body_of(endpoint, "x"), headers).retry_after == seconds


REMEDIES = [
    (COMPAT, 401, "invalid_api_key", "Keys belong to one region"),
    (NATIVE, 429, "Throttling.AllocationQuota", "The tokens of this minute are used up"),
    (COMPAT, 429, "insufficient_quota", "The tokens of this minute are used up"),
    (COMPAT, 429, "limit_burst_rate", "Calls began too quickly"),
    (NATIVE, 403, "Model.AccessDenied", "Give the key's workspace access"),
    (NATIVE, 500, "RequestTimeOut", "Stream the answer"),
    (COMPAT, 400, "InvalidURL.ConnectionRefused", "Look whether the picture or video can be fetched"),
    (NATIVE, 400, "BadRequest.TooLarge", "Send fewer or smaller"),
    (COMPAT, 404, "model_not_found", "Check the model's name, whether it is offered in this region"),
    (ACEDATA, 403, "used_up", "Add credit"),
    (ACEDATA, 403, "any_code", "The vendor's moderation refused"),
    (MOONSHOT, 401, "incorrect_api_key_error", "Keys of api.moonshot.ai and api.moonshot.cn are not interchangeable"),
    (MOONSHOT, 429, "exceeded_current_quota_error", "Recharge the account"),
]


@pytest.mark.parametrize(
    ("message", "remedy"),
    [
        ("missing Content-Length of multimodal url", "The server that has"),
        ("Last message must be user", "Let `messages`"),
    ],
)
def test_a_server_error_of_the_request_says_what_is_wrong_with_it(message: str, remedy: str) -> None:
    for endpoint, body in (
        (NATIVE, {"code": "InternalError.Algo", "message": message}),
        (COMPAT, {"error": {"message": f"<500> InternalError.Algo: {message}", "code": "internal_error"}}),
    ):
        assert read(endpoint, 500, body).remedy.startswith(remedy)


@pytest.mark.parametrize(("endpoint", "status", "code", "remedy"), REMEDIES)
def test_the_remedy_is_about_this_error(endpoint: str, status: int, code: str, remedy: str) -> None:
    assert read(endpoint, status, body_of(endpoint, code)).remedy.startswith(remedy)

"""The answers of the faults that refuse a call (contract 8.1.2); nothing is generated for them."""

import json
from collections.abc import Callable, Mapping
from typing import Final

from batchrun.simulator.faults import Clause, Faults
from batchrun.simulator.http import Headers, Reply
from batchrun.simulator.refusals import (
    Refusal,
    invalid,
    no_such_model,
    timed_out,
    too_many_requests,
    too_many_tokens,
    wrong_key,
)

JSON: Final = ("content-type", "application/json")
HTML: Final = ("content-type", "text/html; charset=utf-8")
TEXT: Final = ("content-type", "text/plain; charset=utf-8")
PAGE: Final = b"<!DOCTYPE html><html><head><title>Bad Gateway</title></head><body>%s</body></html>"


def refusal(status: int, code: str, message: str, kind: str = "invalid_request_error") -> Refusal:
    return Refusal(status=status, code=code, message=message, type=kind)


REFUSALS: Final[Mapping[str, Refusal]] = {
    "400": invalid("Refused by a fault."),
    "moderation": refusal(
        400,
        "data_inspection_failed",
        "Input or output data may contain inappropriate content.",
        "data_inspection_failed",
    ),
    "arrearage": refusal(400, "Arrearage", "Access denied: the account is overdue.", "Arrearage"),
    "401": wrong_key(),
    "403": refusal(403, "access_denied", "Access denied.", "access_denied"),
    "404": no_such_model("of a fault"),
    "429": too_many_requests(),
    "429-burst": refusal(429, "limit_burst_rate", "The request rate grew too fast.", "limit_burst_rate"),
    "429-quota": too_many_tokens(),
    "429-billing": refusal(429, "PostpaidBillOverdue", "The postpaid bill is overdue.", "PostpaidBillOverdue"),
    "500": refusal(500, "internal_error", "An internal error has occurred.", "internal_error"),
    "500-algo": refusal(
        500,
        "internal_error",
        "<500> InternalError.Algo: An error occurred in model serving: missing Content-Length of multimodal url.",
        "internal_error",
    ),
    "500-timeout": timed_out(),
    "503": refusal(503, "ModelUnavailable", "The model is unavailable, try again later.", "internal_error"),
    "529": refusal(529, "overloaded", "The service is overloaded.", "internal_error"),
}


def json_reply(status: int, document: object) -> Reply:
    return Reply(status=status, headers=(JSON,), body=json.dumps(document).encode())


def page(clause: Clause, _: str) -> Reply:
    line = b"<p>The proxy had no answer.</p>"
    return Reply(status=502, headers=(HTML,), body=PAGE % (line * (int(clause.value) * 1024 // len(line) + 1)))


def redirect(clause: Clause, _: str) -> Reply:
    # 127.0.0.1 and localhost are different hosts to a client, and both stay on this machine.
    location = f"http://localhost:{clause.value}/compatible-mode/v1/chat/completions"
    return Reply(status=int(clause.name), headers=(("location", location), TEXT))


def echo(_: Clause, key: str) -> Reply:
    error = {
        "message": f"Incorrect API key provided: {key}.",
        "type": "invalid_request_error",
        "param": None,
        "code": "invalid_api_key",
    }
    return json_reply(401, {"error": error})


def error_in_success(_: Clause, __: str) -> Reply:
    error = {"message": "It failed.", "type": "internal_error", "param": None, "code": "internal_error"}
    return json_reply(200, {"error": error})


REPLIES: Final[Mapping[str, Callable[[Clause, str], Reply]]] = {
    "key-echo": echo,
    "502": page,
    "504": lambda _, __: Reply(status=504, headers=(TEXT,), body=b"upstream request timeout"),
    "200-html": lambda _, __: Reply(status=200, headers=(HTML,), body=PAGE % b"Please sign in."),
    "200-error": error_in_success,
    "200-code": lambda _, __: json_reply(200, {"code": "InternalError", "message": "It failed."}),
    "200-empty": lambda _, __: Reply(status=200),
    "204": lambda _, __: Reply(status=204, headers=()),
    "302": redirect,
    "307": redirect,
    "308": redirect,
}


def refusing_clause(faults: Faults) -> Clause | None:
    """The first clause that refuses the call."""
    for name, clause in faults.clauses.items():
        if name in REFUSALS or name in REPLIES:
            return clause
    return None


def injected_reply(clause: Clause, *, key: str, request_id: str, chat_id: str) -> Reply:
    """What such a clause answers, with its Retry-After headers and the request id."""
    extra: Headers = (*clause.retry_after.items(), ("x-request-id", request_id))
    if clause.name in REPLIES:
        reply = REPLIES[clause.name](clause, key)
    else:
        refused = REFUSALS[clause.name]
        body = refused.body(request_id=request_id, chat_id=chat_id)
        reply = Reply(status=refused.status, headers=(JSON,), body=body)
    return Reply(status=reply.status, headers=(*reply.headers, *extra), body=reply.body)

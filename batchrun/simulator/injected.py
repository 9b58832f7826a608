"""The answers of the faults that refuse a call (contract 8.1.2); nothing is generated for them."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from batchrun.simulator.dialect import Chunk, Dialect, Identity
from batchrun.simulator.faults import Clause, Faults
from batchrun.simulator.http import Headers, Reply
from batchrun.simulator.refusals import (
    Refusal,
    failed,
    invalid,
    moderated,
    no_such_model,
    timed_out,
    too_many_requests,
    too_many_tokens,
    wrong_key,
)

JSON: Final = ("content-type", "application/json")
EVENTS: Final = ("content-type", "text/event-stream;charset=UTF-8")
HTML: Final = ("content-type", "text/html; charset=utf-8")
TEXT: Final = ("content-type", "text/plain; charset=utf-8")
LF: Final = "\n"
PAGE: Final = b"<!DOCTYPE html><html><head><title>Bad Gateway</title></head><body>%s</body></html>"


def refusal(status: int, code: str, message: str, kind: str, *, inside: str = "") -> Refusal:
    return Refusal(status=status, code=code, message=message, type=kind, inside=inside)


REFUSALS: Final[Mapping[str, Refusal]] = {
    "400": invalid("Refused by a fault."),
    "400-download": invalid("Failed to download multimodal content: the media could not be fetched in time."),
    "moderation": moderated(),
    "arrearage": refusal(400, "Arrearage", "Access denied: the account is overdue.", "Arrearage"),
    "401": wrong_key(),
    "403": refusal(403, "access_denied", "Access denied.", "access_denied"),
    "403-unpurchased": refusal(403, "AccessDenied.Unpurchased", "The service is not activated.", "access_denied"),
    "403-free-tier": refusal(
        403, "AllocationQuota.FreeTierOnly", "The free tier of the model is used up.", "AllocationQuota.FreeTierOnly"
    ),
    "404": no_such_model("of a fault"),
    "404-region": refusal(404, "model_not_supported", "The model is not supported here.", "invalid_request_error"),
    "429": too_many_requests(),
    "429-burst": refusal(429, "limit_burst_rate", "The request rate grew too fast.", "limit_burst_rate"),
    "429-quota": too_many_tokens(),
    "429-billing": refusal(429, "PostpaidBillOverdue", "The postpaid bill is overdue.", "PostpaidBillOverdue"),
    "500": refusal(500, "internal_error", "An internal error has occurred.", "internal_error"),
    "500-system": refusal(500, "SystemError", "The system is busy.", "internal_error"),
    "500-algo": refusal(
        500,
        "internal_error",
        "An error occurred in model serving: missing Content-Length of multimodal url.",
        "internal_error",
        inside="InternalError.Algo",
    ),
    "500-timeout": timed_out(),
    "503": refusal(503, "ModelUnavailable", "The model is unavailable, try again later.", "internal_error"),
    "503-serving": refusal(503, "ModelServingError", "Too many requests in route.", "internal_error"),
    "529": refusal(529, "overloaded", "The service is overloaded.", "internal_error"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Refused:
    """The request that a clause refuses."""

    dialect: Dialect
    identity: Identity
    key: str
    """The one that came with it."""
    path: str
    """Without region and fault."""
    in_stream: bool
    """The refusal is to come as the only frame of a stream."""

    def reply(self, refusal: Refusal) -> Reply:
        if self.in_stream:
            return Reply(status=200, headers=(EVENTS,), body=self.frame(refusal).encode())
        status, body = self.dialect.refusal(refusal, self.identity)
        return Reply(status=status, headers=(JSON,), body=body)

    def frame(self, refusal: Refusal) -> str:
        encoder = self.dialect.encoder(self.identity)
        chunk = Chunk(role="error", refusal=refusal)
        return f"{encoder.heading(chunk, 0, LF)}{self.dialect.field}{encoder.encode(chunk, 0)}{LF}{LF}"


def page(clause: Clause, _: Refused) -> Reply:
    line = b"<p>The proxy had no answer.</p>"
    return Reply(status=502, headers=(HTML,), body=PAGE % (line * (int(clause.value) * 1024 // len(line) + 1)))


def redirect(clause: Clause, refused: Refused) -> Reply:
    # 127.0.0.1 and localhost are different hosts to a client, and both stay on this machine.
    location = f"http://localhost:{clause.value}/{refused.path}"
    return Reply(status=int(clause.name), headers=(("location", location), TEXT))


def echo(_: Clause, refused: Refused) -> Reply:
    answer = wrong_key()
    answer.message = f"Incorrect API key provided: {refused.key}."
    return refused.reply(answer)


def error_in_success(_: Clause, refused: Refused) -> Reply:
    return replace(refused.reply(failed()), status=200)


def code_in_success(_: Clause, __: Refused) -> Reply:
    body = json.dumps({"code": "InternalError", "message": "It failed."}).encode()
    return Reply(status=200, headers=(JSON,), body=body)


REPLIES: Final[Mapping[str, Callable[[Clause, Refused], Reply]]] = {
    "key-echo": echo,
    "502": page,
    "504": lambda _, __: Reply(status=504, headers=(TEXT,), body=b"upstream request timeout"),
    "200-html": lambda _, __: Reply(status=200, headers=(HTML,), body=PAGE % b"Please sign in."),
    "200-error": error_in_success,
    "200-code": code_in_success,
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


def injected_reply(clause: Clause, refused: Refused) -> Reply:
    """What such a clause answers, with its Retry-After headers and the request id."""
    extra: Headers = (*clause.headers.items(), ("x-request-id", refused.identity.request_id))
    own = REPLIES.get(clause.name)
    reply = refused.reply(REFUSALS[clause.name]) if own is None else own(clause, refused)
    return replace(reply, headers=(*reply.headers, *extra))

"""What the service answers when it refuses a call, in the body shapes of contract 8.1.1 and 8.1.2."""

import json
from dataclasses import dataclass


@dataclass(kw_only=True, eq=False)  # not frozen: Python sets the traceback of a raised one
class Refusal(Exception):
    """An answer other than 200; nothing was generated. `model_side` adds an `id` beside the error."""

    status: int
    code: str
    message: str
    type: str = "invalid_request_error"
    param: str | None = None
    model_side: bool = False

    def body(self, *, request_id: str, chat_id: str) -> bytes:
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        document: dict[str, object] = {"error": error}
        if self.model_side:
            document["id"] = chat_id
        document["request_id"] = request_id
        return json.dumps(document).encode()


def invalid(message: str, *, param: str | None = None) -> Refusal:
    """A parameter or content that the model refuses; the real service prefixes such messages."""
    return Refusal(
        status=400,
        code="invalid_parameter_error",
        message=f"<400> InternalError.Algo.InvalidParameter: {message}",
        param=param,
        model_side=True,
    )


def malformed(message: str, *, code: str = "invalid_parameter_error") -> Refusal:
    """A request that does not get as far as a model."""
    return Refusal(status=400, code=code, message=message)


def wrong_key() -> Refusal:
    return Refusal(
        status=401,
        code="invalid_api_key",
        message="Incorrect API key provided. Check that the key belongs to this region.",
    )


def no_such_model(name: str) -> Refusal:
    return Refusal(
        status=404,
        code="model_not_found",
        message=f"The model `{name[:200]}` does not exist in this region or you have no access to it.",
    )


def too_many_requests() -> Refusal:
    return Refusal(
        status=429,
        code="limit_requests",
        type="limit_requests",
        message="You exceeded your current requests limit.",
    )


def too_many_tokens() -> Refusal:
    return Refusal(
        status=429,
        code="insufficient_quota",
        type="insufficient_quota",
        message="You exceeded your current quota: tokens per minute.",
    )


def timed_out() -> Refusal:
    return Refusal(
        status=500,
        code="RequestTimeOut",
        type="internal_error",
        message="The answer was not finished in time. Use streaming for long answers.",
        model_side=True,
    )

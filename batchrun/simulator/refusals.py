"""Why the service refuses a call (contract 8.1.2), in the names of compat; each dialect writes it in its own form."""

from dataclasses import dataclass


@dataclass(kw_only=True, eq=False)  # not frozen: Python sets the traceback of a raised one
class Refusal(Exception):
    """An answer other than 200; nothing was generated. `model_side` adds an `id` beside the error of compat."""

    status: int
    code: str
    message: str
    type: str = "invalid_request_error"
    param: str | None = None
    model_side: bool = False
    inside: str = ""
    """The name that the error had on the model's side, which compat puts before the message."""


def invalid(message: str, *, param: str | None = None) -> Refusal:
    """A parameter or content that the model refuses."""
    return Refusal(
        status=400,
        code="invalid_parameter_error",
        message=message,
        param=param,
        model_side=True,
        inside="InternalError.Algo.InvalidParameter",
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


def moderated() -> Refusal:
    return Refusal(
        status=400,
        code="data_inspection_failed",
        type="data_inspection_failed",
        message="Input or output data may contain inappropriate content.",
    )


def failed() -> Refusal:
    """An error after the service has begun to answer."""
    return Refusal(status=500, code="internal_error", type="internal_error", message="The server had an error.")

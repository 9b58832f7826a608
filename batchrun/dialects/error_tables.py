"""What vendors' error codes mean, as data.

Sources: the provider contract, 8.1.2 and 8.1.3 (Model Studio), 7.1 and 8.12 (AceData), 8.5 (Moonshot, which is read by
the `openai` table), and the OpenAI words that other servers copy. A code decides before the HTTP status does:
billing errors come as 429, and the same word means different things at different vendors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from batchrun.errors import CatalogueError, ErrorKind

K = ErrorKind


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorTable:
    """How one vendor's errors are read: by code, else by status; `remedies` of a code before those of a kind."""

    codes: Mapping[str, ErrorKind]
    """In lower case. A dotted code that isn't here is read as its family: `Throttling.New` as `throttling`."""
    statuses: Mapping[int, ErrorKind]
    remedies: Mapping[str, str] = field(default_factory=dict)


STATUSES: dict[int, ErrorKind] = {
    401: K.ACCOUNT,
    402: K.ARREARS,
    403: K.ACCOUNT,
    404: K.NOT_FOUND,
    408: K.TIMEOUT,
    409: K.SERVER,  # a conflict that vendors' own clients repeat
    410: K.NOT_FOUND,
    425: K.UNAVAILABLE,
    429: K.RATE_LIMITED,
    503: K.UNAVAILABLE,
    529: K.UNAVAILABLE,
}
"""Other 3xx and 4xx are INVALID, other 5xx SERVER."""

OPENAI_CODES: dict[str, ErrorKind] = {
    "invalid_api_key": K.ACCOUNT,
    "incorrect_api_key_error": K.ACCOUNT,
    "invalid_authentication_error": K.ACCOUNT,
    "authentication_error": K.ACCOUNT,
    "account_deactivated": K.ACCOUNT,
    "permission_denied_error": K.ACCOUNT,
    "permission_error": K.ACCOUNT,
    "insufficient_quota": K.ARREARS,
    "billing_hard_limit_reached": K.ARREARS,
    "billing_not_active": K.ARREARS,
    "exceeded_current_quota_error": K.ARREARS,
    "insufficient_balance": K.ARREARS,
    "rate_limit_exceeded": K.RATE_LIMITED,
    "rate_limit_error": K.RATE_LIMITED,
    "rate_limit_reached_error": K.RATE_LIMITED,
    "engine_overloaded_error": K.UNAVAILABLE,
    "overloaded_error": K.UNAVAILABLE,
    "server_error": K.SERVER,
    "api_error": K.SERVER,
    "internal_error": K.SERVER,
    "internal_server_error": K.SERVER,
    "model_not_found": K.NOT_FOUND,
    "resource_not_found_error": K.NOT_FOUND,
    "not_found_error": K.NOT_FOUND,
    "context_length_exceeded": K.INVALID,
    "content_filter": K.MODERATED,
    "content_policy_violation": K.MODERATED,
    "moderation_blocked": K.MODERATED,
}

MODEL_STUDIO_CODES: dict[str, ErrorKind] = {
    "invalidparameter": K.INVALID,
    "invalid_parameter_error": K.INVALID,
    "invalidparameter.notsupportenablethinking": K.INVALID,
    "invalidurl": K.INVALID,
    "badrequest": K.INVALID,
    "badrequest.emptyinput": K.INVALID,
    "badrequest.emptyparameters": K.INVALID,
    "badrequest.emptymodel": K.INVALID,
    "badrequest.toolarge": K.INVALID,
    "datainspectionfailed": K.MODERATED,
    "data_inspection_failed": K.MODERATED,
    "arrearage": K.ARREARS,
    "invalidapikey": K.ACCOUNT,
    "accessdenied": K.ACCOUNT,
    "access_denied": K.ACCOUNT,
    "accessdenied.unpurchased": K.ACCOUNT,
    "model.accessdenied": K.ACCOUNT,
    "workspace.accessdenied": K.ACCOUNT,
    "allocationquota.freetieronly": K.ARREARS,
    "modelnotfound": K.NOT_FOUND,
    "model_not_supported": K.NOT_FOUND,
    "throttling": K.RATE_LIMITED,
    "throttling.ratequota": K.RATE_LIMITED,
    "throttling.burstrate": K.RATE_LIMITED,
    "throttling.allocationquota": K.RATE_LIMITED,
    "limitrequests": K.RATE_LIMITED,
    "limit_requests": K.RATE_LIMITED,
    "limit_burst_rate": K.RATE_LIMITED,
    "insufficient_quota": K.RATE_LIMITED,  # tokens per minute here, no matter what the word says (contract 8.1.3)
    "commoditynotpurchased": K.ARREARS,
    "prepaidbilloverdue": K.ARREARS,
    "postpaidbilloverdue": K.ARREARS,
    "internalerror": K.SERVER,
    "internalerror.algo": K.SERVER,
    "internalerror.algo.invalidparameter": K.INVALID,
    "internalerror.algo.datainspectionfailed": K.MODERATED,
    "internalerror.timeout": K.TIMEOUT,
    "systemerror": K.SERVER,
    "modelservicefailed": K.SERVER,
    "requesttimeout": K.TIMEOUT,
    "gatewaytimeout": K.TIMEOUT,
    "modelservingerror": K.SERVER,  # UNAVAILABLE where it comes as 503
    "modelunavailable": K.UNAVAILABLE,
    "serviceunavailable": K.UNAVAILABLE,
}

ACEDATA_CODES: dict[str, ErrorKind] = {
    "token_mismatched": K.INVALID,
    "api_not_implemented": K.INVALID,
    "bad_request": K.INVALID,
    "invalid_token": K.ACCOUNT,
    "no_token": K.ACCOUNT,
    "token_expired": K.ACCOUNT,
    "disabled": K.ACCOUNT,
    "used_up": K.ARREARS,
    "too_many_requests": K.RATE_LIMITED,
    "api_error": K.SERVER,
}

_KEY_OF_REGION = "Keys belong to one region: use the key of this region, and look for typing errors."
_NO_PURCHASE = "Activate the service or the model in the vendor's console; then resume the job."
_NO_ACCESS = "Give the key's workspace access to this model in the vendor's console, or use another key."
_TOKENS = "The tokens of this minute are used up, whatever the word says; if it goes on, lower `tokens_per_minute`."
_RAMP = "Calls began too quickly; they are slowed down. If it goes on, lower `requests_per_minute`."

MODEL_STUDIO_REMEDIES = {
    "invalidapikey": _KEY_OF_REGION,
    "invalid_api_key": _KEY_OF_REGION,
    "invalidparameter.notsupportenablethinking": "This model has no thinking switch: leave `thinking` out of the job.",
    "accessdenied.unpurchased": _NO_PURCHASE,
    "commoditynotpurchased": _NO_PURCHASE,
    "model.accessdenied": _NO_ACCESS,
    "workspace.accessdenied": _NO_ACCESS,
    "allocationquota.freetieronly": "Switch off `free tier only` in the vendor's console.",
    "throttling.allocationquota": _TOKENS,
    "insufficient_quota": _TOKENS,
    "throttling.burstrate": _RAMP,
    "limit_burst_rate": _RAMP,
    "invalidurl": "Look whether the picture or video can be fetched from its address; or name a local file.",
    "badrequest.toolarge": "Send fewer or smaller pictures and videos in one call.",
    "requesttimeout": "Stream the answer, or ask for less in one call.",
}

TABLES: dict[str, ErrorTable] = {
    "openai": ErrorTable(codes=OPENAI_CODES, statuses=STATUSES),
    "model-studio": ErrorTable(
        codes=OPENAI_CODES | MODEL_STUDIO_CODES,
        statuses=STATUSES,
        remedies=MODEL_STUDIO_REMEDIES,
    ),
    "acedata": ErrorTable(
        codes=OPENAI_CODES | ACEDATA_CODES,
        statuses=STATUSES | {403: K.MODERATED},  # its own client reads an unknown 403 so (contract 8.12)
        remedies={
            "token_mismatched": "Check the fields of the request: the vendor says that one is missing or wrong.",
            "api_not_implemented": "Check the model's name and the base_url: the vendor has no such service.",
            "token_expired": "Make a new token in the vendor's console, and put it into the key variable.",
            "disabled": "Look into the vendor's console why the token or the account is disabled.",
            "used_up": "Add credit in the vendor's console.",
        },
    ),
    "moonshot": ErrorTable(
        codes=OPENAI_CODES,
        statuses=STATUSES,
        remedies=dict.fromkeys(
            ("invalid_authentication_error", "incorrect_api_key_error", "invalid_api_key"),
            "Keys of api.moonshot.ai and api.moonshot.cn are not interchangeable: `moonshot` takes the one, "
            "`moonshot/china` the other.",
        )
        | dict.fromkeys(
            ("exceeded_current_quota_error", "insufficient_quota"),
            "Recharge the account in the vendor's console.",
        ),
    ),
}


def table_named(name: str) -> ErrorTable:
    """Raises CatalogueError where there is none of that name."""
    if name not in TABLES:
        raise CatalogueError(
            f"There is no error table {name!r}.", code="error-table", remedy=f"Use one of {', '.join(TABLES)}."
        )
    return TABLES[name]


NEVER_HEALS: dict[str, str] = {
    "content-length": "The server that has the picture or video must tell Content-Length and Content-Type: put the "
    "file elsewhere, or name a local one.",
    "last message": "Let `messages` end with a message of the user.",
}
"""Words of server errors that come from the request and will come again (contract 8.1.2, `InternalError.Algo`)."""

REMEDIES: dict[ErrorKind, str] = {
    K.RATE_LIMITED: "Calls are slowed down and tried again; if it goes on, lower `limits`, or ask the vendor for more.",
    K.UNAVAILABLE: "The vendor has no capacity for the moment; calls are tried again later.",
    K.SERVER: "The fault is the vendor's; calls are tried again. If it goes on, give the vendor the request's id.",
    K.TIMEOUT: "The vendor took too long; calls are tried again. If it goes on, stream, or ask for less in one call.",
    K.INVALID: "Change the request: sent again as it is, it will be refused again.",
    K.MODERATED: "The vendor's moderation refused this input or its answer; change the prompt or leave the item out.",
    K.NOT_FOUND: "Check the model's name, whether it is offered in this region, and whether it is retired.",
    K.ACCOUNT: "Check the key, its region and its permissions.",
    K.ARREARS: "Pay the bill or add credit in the vendor's console; then resume the job.",
}
"""What to do, where the code has no remedy of its own."""

"""Temporary storage for files that a call names as `oss://…` (contract 8.8).

A client asks for a policy, posts the file to the storage that the policy names, and has its address for two days: for
the same account, the same model, and with a header in the call that asks for it. Nothing of it is billed.
"""

import base64
import hashlib
import json
import secrets
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qs, quote, unquote, urlsplit

from batchrun.simulator.dialect import new_identity
from batchrun.simulator.faults import FaultMemory, Faults, FaultSpecError, parse_spec
from batchrun.simulator.forms import FormField, MalformedForm, read_form
from batchrun.simulator.http import HttpRequest, Reply
from batchrun.simulator.injected import REFUSALS
from batchrun.simulator.keys import bearer, same_key
from batchrun.simulator.models import REGIONS, model_at
from batchrun.simulator.native import error_object
from batchrun.simulator.refusals import Refusal, invalid, malformed, no_such_model, too_many_requests, wrong_key

POLICY_SECONDS: Final = 300
MAX_FILE_MB: Final = 1_024
MAX_PICTURE: Final = 10 * 1_024 * 1_024
"""Bytes of a picture by its address (5.1)."""
MAX_VIDEO: Final = 100 * 1_024 * 1_024
"""Bytes of a video that the SDK uploads (5.2)."""
POLICIES_PER_SECOND: Final = 100
RESOLVE: Final = "x-dashscope-ossresourceresolve"
STORAGE: Final = "/oss"
FIELDS: Final = (
    "OSSAccessKeyId",
    "Signature",
    "policy",
    "x-oss-object-acl",
    "x-oss-forbid-overwrite",
    "key",
    "success_action_status",
)
"""What the form must have before its file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """What one client may upload, and until when."""

    account: str
    """The region, as each has one key."""
    model: str
    folder: str
    signature: str
    most_mb: int
    ends: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    account: str
    model: str
    mime: str
    data: bytes = field(repr=False)
    ends: float


class StorageRefusal(Exception):
    """The storage doesn't take a file. `code` is a word of OSS."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Uploads:
    """Policies and files of one simulator. `clock` counts seconds."""

    def __init__(self, *, keys: Mapping[str, str], lifetime: float, limits: bool, clock: Callable[[], float]) -> None:
        self.keys = keys
        self.lifetime = lifetime
        self.limits = limits
        self.clock = clock
        self.memory = FaultMemory()
        self.policies: dict[str, Policy] = {}
        self.files: dict[str, Stored] = {}
        self.recent: dict[str, deque[float]] = {region: deque() for region in REGIONS}
        self.asked = 0
        self.posted = 0

    # The API: policies.

    def policy_reply(self, request: HttpRequest, region: str, spec: str) -> Reply:
        """The answer to `GET …/uploads?action=getPolicy&model=…`."""
        self.asked += 1
        identity = new_identity(region)
        try:
            document = self.policy(request, region, spec, self.select(spec, "policies"))
        except Refusal as refusal:
            body = json.dumps(error_object(refusal, identity))
            return Reply(status=refusal.status, body=body.encode())
        return Reply(status=200, body=json.dumps({"request_id": identity.request_id, "data": document}).encode())

    def policy(self, request: HttpRequest, region: str, spec: str, faults: Faults) -> dict[str, object]:
        for name, refusal in POLICY_FAULTS.items():
            if name in faults:
                raise refusal
        if not same_key(bearer(request.headers), self.keys[region]):
            raise wrong_key()
        asked = parse_qs(urlsplit(request.target).query)
        if asked.get("action") != ["getPolicy"]:
            raise malformed("The parameter action must be getPolicy.")
        (model,) = asked.get("model", [""])[:1]
        if model_at(region, model) is None:
            raise no_such_model(model)
        self.count(region)
        folder = f"dashscope-instant/{secrets.token_hex(16)}/{secrets.token_hex(8)}"
        text = json.dumps({"conditions": [["starts-with", "$key", folder]], "id": secrets.token_hex(8)})
        policy = base64.b64encode(text.encode()).decode()
        signature = base64.b64encode(secrets.token_bytes(20)).decode()
        most = faults.whole("policy-mb") or MAX_FILE_MB
        self.policies[policy] = Policy(
            account=region,
            model=model,
            folder=folder,
            signature=signature,
            most_mb=most,
            ends=self.clock() + POLICY_SECONDS,
        )
        return {
            "policy": policy,
            "signature": signature,
            "upload_dir": folder,
            "upload_host": self.host(request, spec, faults),
            "expire_in_seconds": POLICY_SECONDS,
            "max_file_size_mb": most,
            "capacity_limit_mb": 999_999_999,
            "oss_access_key_id": access_key(region),
            "x_oss_object_acl": "private",
            "x_oss_forbid_overwrite": "true",
        }

    def host(self, request: HttpRequest, spec: str, faults: Faults) -> str:
        elsewhere = faults.text("policy-host")
        if elsewhere is not None:
            return f"http://localhost:{elsewhere}{STORAGE}"
        fault = f"/fault/{quote(spec, safe='+=,')}" if spec else ""
        return f"http://{request.headers.get('host', '127.0.0.1')}{STORAGE}{fault}"

    def count(self, region: str) -> None:
        now, recent = self.clock(), self.recent[region]
        while recent and recent[0] <= now - 1:
            recent.popleft()
        if self.limits and len(recent) >= POLICIES_PER_SECOND:
            raise too_many_requests()
        recent.append(now)

    def select(self, spec: str, what: str) -> Faults:
        try:
            clauses = parse_spec(unquote(spec))
        except FaultSpecError as error:
            raise malformed(f"simulator: {error}", code="simulator_fault_spec") from error
        return self.memory.select(f"{what}/{spec}", clauses, b"")

    # The storage: files.

    def storage_reply(self, request: HttpRequest, path: str) -> Reply:
        """The answer to a form that is posted to the host of a policy."""
        self.posted += 1
        try:
            spec = path.removeprefix(STORAGE).removeprefix("/fault/")
            refuse_by_fault(self.select(spec, "files"))
            return Reply(status=self.store(request), headers=())
        except StorageRefusal as refused:
            return storage_error(refused)
        except (MalformedForm, Refusal) as error:
            return storage_error(StorageRefusal(400, "MalformedPOSTRequest", str(error)))

    def store(self, request: HttpRequest) -> int:
        """Keep the file; return the status that the form asks for."""
        if "authorization" in request.headers:
            raise StorageRefusal(400, "InvalidArgument", "A form carries its signature in its fields, not in a header.")
        if "content-length" not in request.headers:
            raise StorageRefusal(411, "MissingContentLength", "You must provide the Content-Length HTTP header.")
        fields = read_form(request.headers.get("content-type", ""), request.body)
        file = file_of(fields)
        given = {one.name: one.value.decode("utf-8", "replace") for one in fields if not one.is_file}
        missing = next((name for name in FIELDS if name not in given), None)
        if missing is not None:
            raise StorageRefusal(400, "InvalidArgument", f"The form has no field {missing} before its file.")
        policy = self.allowed(given)
        key = given["key"]
        if not key.startswith(f"{policy.folder}/"):
            raise StorageRefusal(403, "AccessDenied", "Invalid according to Policy: Policy Condition failed: key.")
        if key in self.files and given["x-oss-forbid-overwrite"] == "true":
            raise StorageRefusal(409, "FileAlreadyExists", "The object you specified already exists.")
        if len(file.value) > policy.most_mb * 1_024 * 1_024:
            raise StorageRefusal(400, "EntityTooLarge", "Your proposed upload exceeds the maximum allowed size.")
        self.files[key] = Stored(
            account=policy.account,
            model=policy.model,
            mime=given.get("x-oss-content-type") or file.content_type,
            data=file.value,
            ends=self.clock() + self.lifetime,
        )
        return 200 if given["success_action_status"] == "200" else 204

    def allowed(self, given: Mapping[str, str]) -> Policy:
        policy = self.policies.get(given["policy"])
        if policy is None or not same_key(given["Signature"], policy.signature):
            raise StorageRefusal(403, "SignatureDoesNotMatch", "The signature does not match the policy.")
        if given["OSSAccessKeyId"] != access_key(policy.account):
            raise StorageRefusal(403, "InvalidAccessKeyId", "The OSS access key id does not exist.")
        if self.clock() >= policy.ends:
            raise StorageRefusal(403, "AccessDenied", "Invalid according to Policy: Policy expired.")
        return policy

    # The call that names a file.

    def resolver(self, region: str, model: str, headers: Mapping[str, str]) -> Callable[[str], tuple[str, bytes]]:
        """Gives type and bytes of an `oss://` address to a call of this account for this model."""
        asked = headers.get(RESOLVE, "").lower() == "enable"

        def resolve(url: str) -> tuple[str, bytes]:
            if not asked:
                raise invalid(
                    "The provided URL does not appear to be valid: oss needs the resolve header.", param="url"
                )
            stored = self.files.get(url.removeprefix("oss://"))
            if stored is None or self.clock() >= stored.ends:
                raise invalid("The media of the oss URL could not be downloaded: it is not there.", param="url")
            if (stored.account, stored.model) != (region, model):
                raise invalid("The oss URL belongs to another account or another model.", param="url")
            if len(stored.data) > (MAX_VIDEO if stored.mime.startswith("video/") else MAX_PICTURE):
                raise invalid("Multimodal file size is too large.", param="url")
            return stored.mime, stored.data

        return resolve

    def to_json(self) -> str:
        """Counts of requests and the files, for `/uploads`."""
        files = [
            {
                "url": f"oss://{key}",
                "region": stored.account,
                "model": stored.model,
                "mime": stored.mime,
                "size": len(stored.data),
                "sha256": hashlib.sha256(stored.data).hexdigest(),
            }
            for key, stored in self.files.items()
        ]
        return json.dumps({"policies_asked": self.asked, "files_posted": self.posted, "files": files})


POLICY_FAULTS: Final = {"policy-429": REFUSALS["429"], "policy-500": REFUSALS["500"]}
STORAGE_FAULTS: Final = {
    "upload-503": (503, "ServiceUnavailable", "Please reduce your request rate."),
    "upload-403": (403, "AccessDenied", "Invalid according to Policy: Policy expired."),
}


def refuse_by_fault(faults: Faults) -> None:
    for name, answer in STORAGE_FAULTS.items():
        if name in faults:
            raise StorageRefusal(*answer)


def access_key(region: str) -> str:
    return f"STS.simulator-{region}"


def file_of(fields: Sequence[FormField]) -> FormField:
    """The file, which must be the last field: what stands behind it is not read."""
    if not fields or fields[-1].name != "file" or not fields[-1].is_file:
        raise StorageRefusal(400, "InvalidArgument", "The last field of the form must be its file.")
    if any(one.is_file for one in fields[:-1]):
        raise StorageRefusal(400, "InvalidArgument", "The form has more than one file.")
    return fields[-1]


def storage_error(refused: StorageRefusal) -> Reply:
    body = (
        f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{refused.code}</Code>'
        f"<Message>{refused}</Message><RequestId>{secrets.token_hex(12).upper()}</RequestId></Error>"
    )
    return Reply(status=refused.status, body=body.encode(), headers=(("content-type", "application/xml"),))

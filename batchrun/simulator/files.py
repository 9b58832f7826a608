"""Moonshot's store of files, which calls name as `ms://<id>` (contract 8.5): pictures and videos."""

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from batchrun.simulator.dialect import new_identity
from batchrun.simulator.forms import FormField, MalformedForm, read_form
from batchrun.simulator.http import HttpRequest, Reply
from batchrun.simulator.keys import bearer, same_key
from batchrun.simulator.models import MOONSHOT
from batchrun.simulator.moonshot import error_object, error_of
from batchrun.simulator.moonshot_request import PICTURE_TYPES
from batchrun.simulator.refusals import Refusal, malformed, wrong_key

SCHEME: Final = "ms://"
PURPOSES: Final = ("image", "video")
"""`file-extract` and `batch` are of no use in a chat request."""
MAX_FILES: Final = 1_000
MAX_FILE: Final = 100 * 1_024 * 1_024
MAX_TOTAL: Final = 10 * 1_024**3


@dataclass(frozen=True, kw_only=True, slots=True)
class File:
    mime: str
    data: bytes = field(repr=False)


class Files:
    """The files of the one account that a simulator has."""

    def __init__(self, keys: Mapping[str, str]) -> None:
        self.keys = keys
        self.files: dict[str, File] = {}

    def reply(self, request: HttpRequest) -> Reply:
        """The answer to a form that is posted to `/v1/files`."""
        try:
            document = self.store(request)
        except Refusal as refusal:
            status, _ = error_of(refusal)
            return Reply(status=status, body=json.dumps(error_object(refusal)).encode())
        return Reply(status=200, body=json.dumps(document).encode())

    def store(self, request: HttpRequest) -> dict[str, object]:
        if not same_key(bearer(request.headers), self.keys[MOONSHOT]):
            raise wrong_key()
        try:
            fields = read_form(request.headers.get("content-type", ""), request.body)
        except MalformedForm as error:
            raise malformed(f"invalid form: {error}") from error
        purpose = next((one.value.decode("utf-8", "replace") for one in fields if one.name == "purpose"), "")
        if purpose not in PURPOSES:
            raise malformed(f"purpose must be one of {', '.join(PURPOSES)}")
        file = self.file_of(fields)
        if file.content_type not in PICTURE_TYPES if purpose == "image" else not file.content_type.startswith("video/"):
            raise malformed(f"unsupported {purpose} format: {file.content_type[:80] or 'none'}")
        name = f"file-{secrets.token_hex(12)}"
        self.files[name] = File(mime=file.content_type, data=file.value)
        return {
            "id": name,
            "object": "file",
            "bytes": len(file.value),
            "created_at": new_identity(MOONSHOT).created,
            "purpose": purpose,
            "status": "ok",
        }

    def file_of(self, fields: list[FormField]) -> FormField:
        file = next((one for one in fields if one.name == "file" and one.is_file), None)
        if file is None or not file.value:
            raise malformed("the form has no file, or an empty one")
        used = sum(len(one.data) for one in self.files.values())
        if len(file.value) > MAX_FILE or len(self.files) >= MAX_FILES or used + len(file.value) > MAX_TOTAL:
            raise malformed(f"a file has at most {MAX_FILE} bytes; all {MAX_FILES} together at most {MAX_TOTAL}")
        return file

    def resolve(self, url: str) -> tuple[str, bytes]:
        """Type and bytes of a file by its id."""
        file = self.files.get(url.removeprefix(SCHEME))
        if file is None:
            raise Refusal(status=404, code="model_not_found", message=f"file {url[:100]} not found")
        return file.mime, file.data

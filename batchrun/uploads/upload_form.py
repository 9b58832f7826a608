"""What a vendor says about where a file may go, and the form that goes there (contract 8.8). Values only, no I/O.

The answer names a host, so it is believed only as far as the catalogue says: a file must not go to a stranger.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol
from urllib.parse import urlsplit

import msgspec

from batchrun.dialects.base import Body
from batchrun.errors import ErrorKind, MediaError, ProviderError
from batchrun.showing import clean

ACCOUNT_CHARS = 32
MEGABYTE = 1024 * 1024
_ENDINGS = {
    "image/bmp": ".bmp",
    "image/heic": ".heic",
    "image/jpeg": ".jpg",
    "image/png": ".png",
    "image/tiff": ".tif",
    "image/webp": ".webp",
    "video/mp2t": ".ts",
    "video/mp4": ".mp4",
    "video/mpeg": ".mpg",
    "video/quicktime": ".mov",
    "video/webm": ".webm",
    "video/x-flv": ".flv",
    "video/x-matroska": ".mkv",
    "video/x-ms-wmv": ".wmv",
    "video/x-msvideo": ".avi",
}
_CODE = re.compile(rb"<Code>([^<]{1,80})</Code>")
_MESSAGE = re.compile(rb"<Message>([^<]{1,300})")


class UploadFile(Protocol):
    """An opened file, as the upload needs it."""

    name: str
    size: int
    mime: str

    @property
    def digest(self) -> str | None:
        """SHA-256 of its bytes; None until they were read once."""

    def read_raw(self) -> Iterator[bytes]:
        """All bytes, from the beginning. Raises MediaError where the file isn't as it was opened."""


class _Grant(msgspec.Struct):
    policy: str
    signature: str
    upload_dir: str
    upload_host: str
    oss_access_key_id: str
    x_oss_object_acl: str = "private"
    x_oss_forbid_overwrite: str | bool = "true"
    expire_in_seconds: float = 300
    max_file_size_mb: float | None = None


class _Answer(msgspec.Struct):
    data: _Grant


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Where files may go for some minutes, and with which fields."""

    host: str
    folder: str
    fields: Mapping[str, str] = field(repr=False)
    """With the signature, which lets whoever has it upload."""
    seconds: float
    """How long it holds."""
    most_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadRules:
    """Where and for whom the files of a job are uploaded."""

    which: Literal["large", "always"]
    policy_url: str
    headers: Mapping[str, str] = field(repr=False)
    """With the key."""
    base_url: str
    hosts: tuple[str, ...]
    """Endings of the names of hosts to which files may go."""
    account: str
    read_error: Callable[[int, Mapping[str, str], bytes], ProviderError]


@dataclass(frozen=True, slots=True, kw_only=True)
class RawFile:
    """A piece of a body that goes out as the file's own bytes, not as base64."""

    file: UploadFile

    @property
    def encoded_size(self) -> int:
        return self.file.size

    def read_encoded(self) -> Iterator[bytes]:
        return self.file.read_raw()


def account_of(key: str) -> str:
    """Tells accounts apart. A key has too many possible values for anybody to find it by its digest."""
    return hashlib.sha256(b"batchrun upload\0" + key.encode()).hexdigest()[:ACCOUNT_CHARS]


def read_policy(body: bytes, *, base_url: str, hosts: Collection[str]) -> Policy:
    """The answer to `getPolicy`. Raises ProviderError(MEDIA_UNAVAILABLE) where it is none, MediaError(`upload-host`)
    where it names a host to which nothing may go."""
    try:
        grant = msgspec.json.decode(body, type=_Answer).data
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _no_policy() from error
    overwrite = grant.x_oss_forbid_overwrite
    fields = {
        "OSSAccessKeyId": grant.oss_access_key_id,
        "Signature": grant.signature,
        "policy": grant.policy,
        "x-oss-object-acl": grant.x_oss_object_acl,
        "x-oss-forbid-overwrite": overwrite if isinstance(overwrite, str) else str(overwrite).lower(),
        "success_action_status": "200",
    }
    words = [*fields.values(), grant.upload_dir]
    if any(not word or not word.isascii() or not word.isprintable() for word in words):
        raise _no_policy()
    check_upload_host(grant.upload_host, base_url=base_url, hosts=hosts)
    most = grant.max_file_size_mb
    return Policy(
        host=grant.upload_host,
        folder=grant.upload_dir.strip("/"),
        fields=fields,
        seconds=grant.expire_in_seconds,
        most_bytes=None if most is None else int(min(most, 1e9) * MEGABYTE),
    )


def check_upload_host(url: str, *, base_url: str, hosts: Collection[str]) -> None:
    """Files go by https to a host below one of `hosts`, or to the very server that was asked. Raises MediaError."""
    try:
        parts, asked = urlsplit(url), urlsplit(base_url)
        same = (parts.scheme, parts.hostname, parts.port) == (asked.scheme, asked.hostname, asked.port)
        known = any((parts.hostname or "").endswith("." + host.lstrip(".")) for host in hosts)
        plain = parts.username is None and "\\" not in url and url.isascii() and url.isprintable() and " " not in url
        good = plain and (same or (known and parts.scheme == "https" and parts.port in (None, 443)))
    except ValueError:
        good = False
    if not good:
        raise MediaError(
            f"The vendor wants the file to be uploaded to {clean(url)!r}, which is none of its own hosts.",
            code="upload-host",
            remedy="If it is one, add it to `upload_hosts` of the endpoint, in a catalogue file of your own.",
        )


def check_upload_size(file: UploadFile, policy: Policy) -> None:
    if policy.most_bytes is not None and file.size > policy.most_bytes:
        raise MediaError(
            f"{file.name!r} has {file.size:,} bytes; the vendor takes uploads of {policy.most_bytes:,} at most.",
            code="media-too-large",
            remedy="Shrink it; of a video pictures can be sent instead: `media: {video: frames}`.",
        )


def form_of(file: UploadFile, policy: Policy) -> tuple[str, str, Body]:
    """The key under which the file will be stored, the content type of the form, and the form, whose last field is the
    file: the vendor reads nothing behind it. The file's own name stays here."""
    ending = _ENDINGS.get(file.mime, "")
    key = f"{policy.folder}/{secrets.token_hex(16)}{ending}"
    boundary = secrets.token_hex(16)
    fields = {**policy.fields, "key": key, "x-oss-content-type": file.mime}
    texts = "".join(
        f'--{boundary}\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    )
    head = (
        f'{texts}--{boundary}\r\ncontent-disposition: form-data; name="file"; filename="file{ending}"\r\n'
        f"content-type: {file.mime}\r\n\r\n"
    )
    body = Body(pieces=(head.encode(), RawFile(file=file), f"\r\n--{boundary}--\r\n".encode()))
    return key, f"multipart/form-data; boundary={boundary}", body


def read_refusal(status: int, body: bytes, name: str) -> ProviderError | MediaError:
    """What another answer of the storage than 200 means. Nothing of it costs anything."""
    told = [found[1].decode("utf-8", "replace") for words in (_CODE, _MESSAGE) if (found := words.search(body))]
    what = f"the vendor's storage answered {status}{': ' if told else ''}{clean(': '.join(told), 200)}"
    # 403: the policy has run out; 409: the name was taken. A new policy mends both.
    if status < 500 and status not in (403, 408, 409, 429):
        return MediaError(f"{name!r} can't be uploaded: {what}.", code="upload-refused", remedy="See what it says.")
    return ProviderError(ErrorKind.MEDIA_UNAVAILABLE, f"{name!r} can't be uploaded: {what}", http_status=status)


def _no_policy() -> ProviderError:
    return ProviderError(ErrorKind.MEDIA_UNAVAILABLE, "the vendor's answer about uploads isn't what it should be")

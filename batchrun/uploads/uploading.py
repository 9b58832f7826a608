"""Uploads of local files to a vendor's temporary storage, before the calls that name them (contract 8.8).

A file is uploaded once for an account and a model, and named by all items that hold it for as long as the vendor keeps
it. Nothing here costs money: whatever fails before the call is tried again like any failure that is free.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from batchrun import __version__
from batchrun.errors import ErrorKind, ProviderError
from batchrun.messages import Uploaded
from batchrun.store.uploads import UploadKey
from batchrun.transport import ERROR_BYTES, Transport
from batchrun.uploads.upload_form import (
    Policy,
    UploadFile,
    UploadRules,
    check_upload_size,
    form_of,
    read_policy,
    read_refusal,
)

KEPT = timedelta(hours=48)
"""The vendor keeps a file for so long."""
MARGIN = timedelta(hours=3)
"""What is kept for less isn't used any more: the call that names it may wait and take long."""
POLICY_MARGIN = 60.0
"""Seconds before its end from which a policy isn't used: the upload must begin in time."""
LEAST_POLICY = 1.0
"""Seconds for which every policy is used, so that few are asked for; vendors allow 100 a second."""
BASE_SECONDS = 60.0
SLOWEST = 50_000.0
"""Bytes per second below which an upload is given up."""
RESOLVE = {"x-dashscope-ossresourceresolve": "enable"}
"""Header of calls that name an upload."""

_PASSING = frozenset(
    {
        ErrorKind.RATE_LIMITED,
        ErrorKind.UNAVAILABLE,
        ErrorKind.NOT_SENT,
        ErrorKind.SERVER,
        ErrorKind.NETWORK,
        ErrorKind.TIMEOUT,
        ErrorKind.INCOMPLETE,
    }
)
_ABOUT_MEDIA = re.compile(r"\b(?:url|oss|download|file|media)", re.IGNORECASE)


class Shelf(Protocol):
    """The uploads that the database remembers."""

    async def find(self, key: UploadKey, *, until: datetime) -> str | None: ...

    async def keep(self, key: UploadKey, *, url: str, expires_at: datetime) -> None: ...

    async def forget(self, keys: Collection[UploadKey]) -> None: ...


@dataclass(slots=True, kw_only=True)
class Held:
    """A policy while it may be used."""

    policy: Policy
    until: float
    """Of the monotonic clock."""


class Uploader:
    """One for an event loop. Two items with the same file upload it once."""

    def __init__(
        self, *, transport: Transport, shelf: Shelf, now: Callable[[], datetime], monotonic: Callable[[], float]
    ) -> None:
        self.transport = transport
        self.shelf = shelf
        self.now = now
        self.monotonic = monotonic
        self.policies: dict[str, Held] = {}
        self.asking: dict[str, asyncio.Lock] = {}
        self.uploading: dict[UploadKey, asyncio.Lock] = {}

    async def uploaded(self, file: UploadFile, rules: UploadRules, profile_id: int) -> Uploaded:
        """Where the vendor has this file; uploads it if it hasn't.

        Raises MediaError where it can't be, ProviderError: MEDIA_UNAVAILABLE where that may pass, else what the vendor
        says about key or model.
        """
        digest = file.digest
        if digest is None:
            digest = await asyncio.to_thread(digest_of, file)
        key = UploadKey(profile_id=profile_id, account=rules.account, digest=digest)
        lock = self.uploading.setdefault(key, asyncio.Lock())
        try:
            async with lock:
                url = await self.shelf.find(key, until=self.now() + MARGIN)
                fresh = url is None
                if url is None:
                    began = self.now()
                    url = await self.upload(file, rules)
                    await self.shelf.keep(key, url=url, expires_at=began + KEPT)
        finally:
            if not lock.locked():
                self.uploading.pop(key, None)
        return Uploaded(url=url, digest=digest, fresh=fresh)

    async def upload(self, file: UploadFile, rules: UploadRules) -> str:
        """Raises as `uploaded` does."""
        policy = await self.policy(rules)
        check_upload_size(file, policy)
        key, content_type, body = form_of(file, policy)
        headers = {"content-type": content_type, "accept": "*/*", "user-agent": f"batchrun/{__version__}"}
        try:
            async with (
                asyncio.timeout(BASE_SECONDS + file.size / SLOWEST),
                self.transport.post(policy.host, headers, body) as response,
            ):
                if response.status == 200:
                    return f"oss://{key}"
                refused = read_refusal(response.status, await response.read(ERROR_BYTES), file.name)
        except TimeoutError as error:
            raise ProviderError(
                ErrorKind.MEDIA_UNAVAILABLE, f"the upload of {file.name!r} took too long and was given up"
            ) from error
        except ProviderError as error:
            raise passing(error, f"{file.name!r} can't be uploaded") from error
        self.policies.pop(rules.policy_url, None)
        raise refused

    async def policy(self, rules: UploadRules) -> Policy:
        """One that still holds: a policy lets many files in."""
        async with self.asking.setdefault(rules.policy_url, asyncio.Lock()):
            held = self.policies.get(rules.policy_url)
            if held is None or self.monotonic() >= held.until:
                policy = await self.asked_policy(rules)
                until = self.monotonic() + max(policy.seconds - POLICY_MARGIN, LEAST_POLICY)
                held = self.policies[rules.policy_url] = Held(policy=policy, until=until)
            return held.policy

    async def asked_policy(self, rules: UploadRules) -> Policy:
        try:
            async with asyncio.timeout(BASE_SECONDS), self.transport.get(rules.policy_url, rules.headers) as response:
                body = await response.read(ERROR_BYTES)
                if response.status != 200:
                    raise rules.read_error(response.status, response.headers, body)
        except TimeoutError as error:
            raise ProviderError(ErrorKind.MEDIA_UNAVAILABLE, "the vendor doesn't answer about uploads") from error
        except ProviderError as error:
            raise passing(error, "the vendor lets nothing be uploaded") from error
        return read_policy(body, base_url=rules.base_url, hosts=rules.hosts)

    async def judged(
        self, error: ProviderError, uploads: Collection[Uploaded], rules: UploadRules, profile_id: int
    ) -> ProviderError:
        """What an error of a call that names these uploads means: one that was there before may be gone. It is
        forgotten then and uploaded anew at the next try; what is refused when it is new stays refused."""
        earlier = [upload for upload in uploads if not upload.fresh]
        if not earlier or error.kind is not ErrorKind.INVALID or not _ABOUT_MEDIA.search(error.message):
            return error
        await self.shelf.forget(
            {UploadKey(profile_id=profile_id, account=rules.account, digest=upload.digest) for upload in earlier}
        )
        return ProviderError(
            ErrorKind.MEDIA_UNAVAILABLE,
            f"an earlier upload isn't accepted any more and is made anew: {error.message}",
            http_status=error.http_status,
            vendor_code=error.vendor_code,
            request_id=error.request_id,
        )


def digest_of(file: UploadFile) -> str:
    """Reads the whole file. Raises MediaError."""
    for _ in file.read_raw():
        pass
    assert file.digest is not None  # noqa: S101 - it was read to its end
    return file.digest


def passing(error: ProviderError, what: str) -> ProviderError:
    """The same error, as one of media where it will pass: the vendor's limits of calls have nothing to do with it."""
    if error.kind not in _PASSING:
        return error
    return ProviderError(
        ErrorKind.MEDIA_UNAVAILABLE,
        f"{what}: {error.message}",
        http_status=error.http_status,
        vendor_code=error.vendor_code,
        request_id=error.request_id,
        retry_after=error.retry_after,
        should_retry=error.should_retry,
    )

"""Files that a vendor keeps for a while, as this database remembers them (contract 8.8)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import Connection

from batchrun.tables import uploads


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadKey:
    """What an upload is good for: one model of one account, and one content."""

    profile_id: int
    account: str
    """A digest of the key that uploaded it."""
    digest: str
    """SHA-256 of the bytes, in hexadecimal."""


def find_upload(connection: Connection, key: UploadKey, *, until: datetime) -> str | None:
    """The address under which the vendor has it, if it is good until then at least."""
    found: str | None = connection.execute(
        sa.select(uploads.c.url).where(*_is(key), uploads.c.expires_at >= until)
    ).scalar_one_or_none()
    return found


def keep_upload(connection: Connection, key: UploadKey, *, url: str, expires_at: datetime) -> None:
    """Remember it instead of an earlier one."""
    changed = connection.execute(sa.update(uploads).where(*_is(key)).values(url=url, expires_at=expires_at))
    if changed.rowcount:
        return
    row = {
        "profile_id": key.profile_id,
        "account": key.account,
        "digest": key.digest,
        "url": url,
        "expires_at": expires_at,
    }
    try:
        with connection.begin_nested():
            connection.execute(sa.insert(uploads).values(row))
    except sa.exc.IntegrityError:  # another process was quicker, with an upload as good as this one
        return


def forget_uploads(connection: Connection, keys: Collection[UploadKey]) -> None:
    for key in sorted(keys, key=lambda key: key.digest):
        connection.execute(sa.delete(uploads).where(*_is(key)))


def _is(key: UploadKey) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        uploads.c.profile_id == key.profile_id,
        uploads.c.account == key.account,
        uploads.c.digest == key.digest,
    )

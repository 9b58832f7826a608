"""Which addresses a request and its key may go to."""

from __future__ import annotations

import re
from ipaddress import ip_address
from urllib.parse import urlsplit

from batchrun.jobfile.quantities import refusal

_PRINTABLE = re.compile(r"[!-~]+", re.ASCII)


def check_base_url(url: str) -> str:
    """`url` without slashes at its end. Raises ValueError, without repeating the text: it may hold a key."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        parts, host = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not host or "\\" in url or not _PRINTABLE.fullmatch(url):
        raise refusal("must be an http or https address", "Write for example `https://host/v1`, without blanks")
    if parts.username is not None or parts.password is not None:
        raise refusal("must not contain a user name or a key", "Name the key's variable in `key_env`")
    if "?" in url or "#" in url:
        raise refusal("must not contain `?` or `#`", "Write the address up to `/chat/completions`, without it")
    return url.rstrip("/")


def is_exposed(url: str) -> bool:
    """Whether what is sent to `url` can be read on its way: plain http to another machine."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        loopback = ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    return parts.scheme == "http" and not loopback

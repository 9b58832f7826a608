"""Which media URLs may be asked from this machine, and what their servers must answer. Rules only, no I/O.

Rows are hostile: a URL may name a machine that only this one can reach, in any spelling. So the host is judged as the
HTTP client reads it, each of its addresses is, and what isn't clearly public is refused (provider contract 5.3).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import SplitResult, urlsplit

from batchrun.errors import MediaError
from batchrun.showing import clean

PICTURE_TYPES = frozenset({"image/bmp", "image/heic", "image/jpeg", "image/png", "image/tiff", "image/webp"})
"""What vendors take by its URL (contract 5.1). Of videos they name containers "and others", so that any is taken."""
DEFAULT_PORTS = {"http": 80, "https": 443}
PORTS = frozenset(DEFAULT_PORTS.values())
URL_CHARS = 100
"""Of a URL in a message, at most."""

_NOT_PUBLIC = tuple(
    ip_network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT; Alibaba Cloud's metadata is in it too
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",  # multicast, reserved and broadcast
        "2001::/23",  # Teredo and other tunnels
        "2001:db8::/32",
        "2002::/16",  # 6to4
        "3fff::/20",
    )
)
_GLOBAL = ip_network("2000::/3")
_NAT64 = ip_network("64:ff9b::/96")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII | re.IGNORECASE)
_NAME = re.compile(r"(?:[a-z0-9_-]{1,63}\.)+[a-z0-9-]{1,63}", re.ASCII)
_LENGTH = re.compile(r"[0-9]{1,18}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a URL leads."""

    url: str
    host: str
    """In ASCII and lower case, without brackets and without a dot at its end."""
    port: int
    trusted: bool
    """The operator allows it, whatever its addresses are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a server says of a medium without sending it."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What has to stand behind a URL."""

    video: bool = False
    """A video; else a picture."""
    limit: int | None
    """Bytes at most; None where that isn't known."""

    def takes(self, mime: str) -> bool:
        return mime.startswith("video/") if self.video else mime in PICTURE_TYPES

    @property
    def types(self) -> str:
        """For a message."""
        return "video/mp4 and other types of videos" if self.video else ", ".join(sorted(PICTURE_TYPES))


def target_of(url: str, allowed: Collection[str], ports: Collection[int] = PORTS) -> Target:
    """`allowed` are hosts that the operator knows, as `host` or `host:port`; others are asked on `ports` alone.

    Raises MediaError(`media-url` or `media-url-private`) for a URL that must not be asked.
    """
    try:
        parts, host, port = _taken_apart(url)
    except ValueError as error:
        raise no_url(url) from error
    if parts.scheme not in DEFAULT_PORTS or not host or "\\" in url or not url.isprintable() or " " in url:
        raise no_url(url)
    if parts.username is not None or parts.password is not None:
        raise MediaError(
            f"{shortened(url)} holds a user name or a password.",
            code="media-url",
            remedy="Use an address that needs none, such as a signed one.",
        )
    trusted = _is_allowed(host, port, allowed)
    if not trusted:
        _check_host(url, host)
        if port not in ports:
            raise _private(url, f"names port {port}; only {' and '.join(map(str, sorted(ports)))} are asked")
    return Target(url=url, host=host, port=port, trusted=trusted)


def check_reachable(url: str, allowed: Collection[str]) -> None:
    """Raises MediaError(`media-url-private`) where a URL is written with an address that isn't public, or names this
    machine. Nothing is looked up, and other names are left to the vendor; `allowed` as in `target_of`."""
    try:
        _, host, port = _taken_apart(url)
    except ValueError:
        return  # the vendor will say what is wrong with it
    if _is_written_near(host) and not _is_allowed(host, port, allowed):
        raise _private(url, "is at an address that isn't public")


def is_near(base_url: str) -> bool:
    """Whether a server stands in a network of its own, where it may reach what others don't."""
    host = urlsplit(base_url).hostname or ""
    return "." not in host or _is_written_near(host)


def check_addresses(target: Target, addresses: Collection[str]) -> None:
    """Raises MediaError(`media-url-private`) where one of the addresses of the host isn't public."""
    if target.trusted:
        return
    for text in addresses:
        address = _address(text)
        if address is None or not is_public(address):
            raise _private(target.url, "leads to an address that isn't public")


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether it is clearly a machine on the public internet. An IPv6 address that stands for an IPv4 one is as public
    as that."""
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return False
        inner = address.ipv4_mapped or (IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else None)
        if inner is not None:
            return is_public(inner)
        if address not in _GLOBAL:
            return False
    return not any(address in network for network in _NOT_PUBLIC if network.version == address.version)


def check_seen(url: str, seen: Seen, wanted: Wanted) -> None:
    """Whether the vendor will take what stands there: a picture or video that isn't too large, with its type and length
    told. Raises MediaError `media-url-answer`, `media-url-type`, `media-url-length`, `media-empty`, `media-too-large`.
    """
    what = "video" if wanted.video else "picture"
    if seen.status != 200:
        raise MediaError(
            f"{shortened(url)} answers {seen.status}.",
            code="media-url-answer",
            remedy="Open it in a browser without signing in; the vendor sees no more than that.",
        )
    mime = seen.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not wanted.takes(mime):
        told = f"says that it is {clean(mime[:80])}" if mime else "doesn't say what it is"
        raise MediaError(
            f"{shortened(url)} {told}; the vendor takes {wanted.types}.",
            code="media-url-type",
            remedy=f"Let its server send the right Content-Type, or name a {what}.",
        )
    length = seen.headers.get("content-length", "")
    if not _LENGTH.fullmatch(length):
        raise MediaError(
            f"{shortened(url)} has no Content-Length; the vendor refuses such.",
            code="media-url-length",
            remedy="Use a server that tells the length of its files, such as object storage.",
        )
    if int(length) == 0:
        raise MediaError(f"{shortened(url)} is empty.", code="media-empty", remedy="Upload the file again.")
    if wanted.limit is not None and int(length) > wanted.limit:
        raise MediaError(
            f"{shortened(url)} has {int(length):,} bytes; the limit of a {what} by its address is {wanted.limit:,}.",
            code="media-too-large",
            remedy="Shrink it; more pixels don't make answers better.",
        )


def shortened(url: str) -> str:
    """A URL for messages: its query and its user may be secrets, so they aren't shown."""
    try:
        parts = urlsplit(url)
        text = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    except ValueError:
        text = url.partition("?")[0].rpartition("@")[2]
    return repr(clean(text if len(text) <= URL_CHARS else f"{text[:URL_CHARS]}…"))


def _taken_apart(url: str) -> tuple[SplitResult, str, int]:
    """With its host as resolvers read it, where letters of other scripts that stand for ASCII ones are those, and its
    port. Raises ValueError, of which UnicodeError is one."""
    parts = urlsplit(url)
    host = (parts.hostname or "").encode("idna").decode().lower().rstrip(".")
    return parts, host, parts.port or DEFAULT_PORTS.get(parts.scheme, 0)


def _is_allowed(host: str, port: int, allowed: Collection[str]) -> bool:
    shown = f"[{host}]" if ":" in host else host
    return shown in allowed or f"{shown}:{port}" in allowed


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _check_host(url: str, host: str) -> None:
    if _is_written_near(host):
        raise _private(url, "is at an address that isn't public")
    if _address(host) is None and not _NAME.fullmatch(host):
        raise _private(url, "names no host of the public internet")


def _is_written_near(host: str) -> bool:
    if (address := _address(host)) is not None:
        return not is_public(address)
    # 0x7f.1, 2130706433 and 0177.0.0.1 are 127.0.0.1 to the system, and no other host is written like them.
    return bool(_NUMBER.fullmatch(host.rpartition(".")[2])) or host.rpartition(".")[2] == "localhost"


def _private(url: str, what: str) -> MediaError:
    return MediaError(
        f"{shortened(url)} {what}.",
        code="media-url-private",
        remedy="The vendor can't fetch it either: put the file on a public server, or name it by its path. A host that "
        "the operator knows may be allowed in BATCHRUN_ALLOW_HOSTS.",
    )


def no_url(url: str) -> MediaError:
    return MediaError(
        f"{shortened(url)} is no http or https URL.", code="media-url", remedy="Write the full address of the file."
    )

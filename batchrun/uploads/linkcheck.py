"""Whether media URLs can be fetched and are what the model takes, asked before a call is paid for.

Each URL is asked by HEAD, and that of a video, or where HEAD doesn't tell, by a GET too, of which no more than the head
is read. Redirects are followed one by one, each
judged like the first URL. The name is resolved once, all its addresses are judged, and the connection goes to these
alone: a name that answers differently the second time isn't asked a second time (see `media.public`).
"""

from __future__ import annotations

import asyncio
import socket
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urljoin

from batchrun import __version__
from batchrun.errors import ErrorKind, MediaError, ProviderError
from batchrun.media import RAW_LIMIT
from batchrun.media.public import PORTS, Seen, Target, Wanted, check_addresses, check_seen, no_url, shortened, target_of
from batchrun.transport import PinnedTransport, addresses_of, is_no_url, unreadable_answer

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""(host, port) → its addresses; raises OSError."""

SECONDS = 10.0
"""For a URL with all its redirects."""
REDIRECTS = 3
REDIRECTING = frozenset({301, 302, 303, 307, 308})
FRESH = 600.0
"""Seconds for which an answer is remembered."""
REMEMBERED = 10_000
"""Answers that are remembered at most."""
ALWAYS_GONE = frozenset({socket.EAI_NONAME, socket.EAI_FAIL})
"""What a resolver says of names that don't exist."""
PICTURE = Wanted(limit=RAW_LIMIT)
_HEADERS = {"accept": "*/*", "accept-encoding": "identity", "user-agent": f"batchrun/{__version__}"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    at: float
    """Of the monotonic clock."""
    problem: MediaError | None


class LinkCheck:
    """Remembers for a while what it has found, so that items with the same URL ask once. One for an event loop."""

    def __init__(
        self,
        *,
        monotonic: Callable[[], float],
        resolve: Resolve = addresses_of,
        seconds: float = SECONDS,
        ports: Collection[int] = PORTS,
    ) -> None:
        self.monotonic = monotonic
        self.resolve = resolve
        self.seconds = seconds
        self.ports = ports
        self.verdicts: OrderedDict[tuple[str, Wanted], Verdict] = OrderedDict()
        self.asking: dict[tuple[str, Wanted], asyncio.Lock] = {}

    async def check(self, url: str, allowed: Collection[str], wanted: Wanted = PICTURE) -> None:
        """`allowed` are hosts that may be asked although they aren't public.

        Raises MediaError where the vendor couldn't use the URL, ProviderError(MEDIA_UNAVAILABLE) where that may pass.
        """
        asked = url, wanted
        lock = self.asking.setdefault(asked, asyncio.Lock())
        try:
            async with lock:
                problem = await self.problem(url, allowed, wanted)
        finally:
            if not lock.locked():
                self.asking.pop(asked, None)
        if problem is not None:
            raise MediaError(problem.message, code=problem.code, remedy=problem.remedy)

    async def problem(self, url: str, allowed: Collection[str], wanted: Wanted) -> MediaError | None:
        now, asked = self.monotonic(), (url, wanted)
        known = self.verdicts.get(asked)
        if known is not None and now - known.at < FRESH:
            return known.problem
        problem: MediaError | None = None
        try:
            seen = await look(
                url, allowed, resolve=self.resolve, seconds=self.seconds, ports=self.ports, twice=wanted.video
            )
            check_seen(url, seen, wanted)
        except MediaError as error:
            problem = error
        self.verdicts[asked] = Verdict(at=now, problem=problem)
        self.verdicts.move_to_end(asked)
        if len(self.verdicts) > REMEMBERED:
            self.verdicts.popitem(last=False)
        return problem


async def look(
    url: str,
    allowed: Collection[str],
    *,
    resolve: Resolve,
    seconds: float,
    ports: Collection[int] = PORTS,
    twice: bool = False,
) -> Seen:
    """What stands at `url`, behind its redirects; `twice` asks by GET whatever HEAD says. Raises as `LinkCheck.check`
    does."""
    asked = url
    try:
        async with asyncio.timeout(seconds):
            for _ in range(REDIRECTS + 1):
                target = target_of(asked, allowed, ports)
                seen = await seen_at(target, await checked_addresses(target, resolve), twice=twice)
                location = seen.headers.get("location")
                if seen.status not in REDIRECTING or location is None:
                    return seen
                asked = redirected(asked, location)
    except TimeoutError as error:
        raise unavailable(url, f"doesn't answer within {seconds:g} s") from error
    raise MediaError(
        f"{shortened(url)} redirects more than {REDIRECTS} times.",
        code="media-url-answer",
        remedy="Write the address to which it leads in the end.",
    )


def redirected(url: str, location: str) -> str:
    """Raises MediaError for what is no URL."""
    try:
        return urljoin(url, location)
    except ValueError as error:
        raise no_url(location) from error


async def checked_addresses(target: Target, resolve: Resolve) -> Sequence[str]:
    try:
        addresses = await resolve(target.host, target.port)
    except OSError as error:
        if error.errno in ALWAYS_GONE:
            raise MediaError(
                f"{shortened(target.url)} names a host that doesn't exist.",
                code="media-url-answer",
                remedy="Check the spelling of its host.",
            ) from error
        raise unavailable(target.url, "names a host that can't be looked up at the moment") from error
    check_addresses(target, addresses)
    return addresses


async def seen_at(target: Target, addresses: Sequence[str], *, twice: bool) -> Seen:
    """Raises as `LinkCheck.check` does."""
    async with PinnedTransport(addresses, target.port) as transport:
        try:
            async with transport.get(target.url, _HEADERS, method="HEAD") as response:
                seen = Seen(status=response.status, headers=dict(response.headers))
            if not is_final(seen) or (twice and seen.status == 200):
                async with transport.get(target.url, _HEADERS) as response:
                    seen = Seen(status=response.status, headers=dict(response.headers))
        except ProviderError as error:
            if is_no_url(error):
                raise no_url(target.url) from error
            if unreadable_answer(error):
                raise MediaError(
                    f"{shortened(target.url)} can't be asked: {error.message}.",
                    code="media-url-answer",
                    remedy="Use a server that tells the type and the length of its files, such as object storage.",
                ) from error
            raise unavailable(target.url, f"can't be asked: {error.message}") from error
    if passes(seen.status):
        raise unavailable(target.url, f"answers {seen.status}", seen.headers)
    return seen


def is_final(seen: Seen) -> bool:
    """Whether a GET would say no more. Some servers refuse HEAD, or tell less in its answer."""
    if seen.status in REDIRECTING:
        return True
    return seen.status == 200 and "content-type" in seen.headers and seen.headers.get("content-length", "0") != "0"


def passes(status: int) -> bool:
    """Whether the server may have another answer later."""
    return status in (408, 425, 429) or (status >= 500 and status not in (501, 505))


def unavailable(url: str, what: str, headers: Mapping[str, str] | None = None) -> ProviderError:
    wish = (headers or {}).get("retry-after", "")
    return ProviderError(
        ErrorKind.MEDIA_UNAVAILABLE,
        f"{shortened(url)} {what}",
        retry_after=float(wish) if wish.isascii() and wish.isdigit() and len(wish) < 9 else None,
    )

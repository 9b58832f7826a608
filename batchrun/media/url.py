"""Refuses URLs of pictures and videos that can't be of use in a request. No network is touched."""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error as Base64Error
from urllib.parse import urlsplit

from batchrun.errors import MediaError
from batchrun.media import ENCODED_LIMIT, check_amount
from batchrun.media.header import Size, read_size, sniff
from batchrun.media.video_header import VIDEO_HEAD, container_of, what_it_is

_DATA_URL = re.compile(r"data:(image/[a-z0-9.+-]{1,40});base64,", re.IGNORECASE)
_VIDEO_DATA_URL = re.compile(r"data:(video/[a-z0-9.+-]{1,40});base64,", re.IGNORECASE)


def check_image_url(url: str, *, limit: int = ENCODED_LIMIT) -> None:
    """Raises MediaError: `media-url` for another scheme than http, https or data, for no host, and for blanks;
    `media-data-url` for a data URL that isn't base64, or holds another format than it says; `media-empty`, or
    `media-too-large` above `limit` characters of base64.
    """
    if url[:5].lower() == "data:":
        _check_data_url(url, limit)
    else:
        _check_web(url)


def check_video_url(url: str, *, limit: int = ENCODED_LIMIT) -> None:
    """The same for the URL of a video. Raises MediaError as `check_image_url` does."""
    if url[:5].lower() == "data:":
        _, head = _decoded_head(url, _VIDEO_DATA_URL, "video", "mp4", limit)
        if container_of(head) is None:  # a container has several names, so which one is written isn't compared
            raise _bad(f"{_short(url)} holds {what_it_is(head)}, and no video", "Write the base64 of a video file.")
    else:
        _check_web(url)


def _check_web(url: str) -> None:
    if not _is_web(url):
        raise MediaError(
            f"{_short(url)} is no http, https or data URL.",
            code="media-url",
            remedy="Write the full address; a local file is named by its path below the media root.",
        )
    elif " " in url or not url.isprintable():
        raise MediaError(
            f"{_short(url)} contains a blank or an invisible character.",
            code="media-url",
            remedy="Write it percent-encoded: a blank is %20.",
        )


def size_of_data_url(url: str) -> Size | None:
    """Width and height of the picture in a data URL; None for another URL, which isn't fetched, and where the header
    doesn't tell cheaply. Raises MediaError as `check_image_url` does, and `media-broken`."""
    check_image_url(url)
    match = _DATA_URL.match(url)
    if match is None:
        return None
    data = b64decode(url[match.end() :])
    try:
        return read_size(match[1].lower(), lambda offset, length: data[offset : offset + length])
    except ValueError as error:
        raise MediaError(
            f"The picture of {_short(url)} is broken: {error}.", code="media-broken", remedy="Encode the file again."
        ) from error


def _is_web(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        return False


def _check_data_url(url: str, limit: int) -> None:
    match, head = _decoded_head(url, _DATA_URL, "image", "png", limit)
    found = "image/gif" if head.startswith(b"GIF8") else sniff(head)  # GIF: some vendors take it (contract 8.5)
    if found is not None and found != match[1].lower():
        raise _bad(f"{_short(url)} holds {found}", f"Write data:{found};base64, before it.")


def _decoded_head(
    url: str, form: re.Pattern[str], kind: str, example: str, limit: int
) -> tuple[re.Match[str], bytes]:
    match = form.match(url)
    if match is None:
        remedy = f"Write data:{kind}/{example};base64, and then the base64."
        raise _bad(f"{_short(url)} is no base64 {kind}", remedy)
    encoded_size = len(url) - match.end()
    check_amount(_short(url), encoded_size, encoded_size, limit)
    try:
        return match, b64decode(url[match.end() :], validate=True)[:VIDEO_HEAD]
    except (Base64Error, ValueError) as error:
        raise _bad(f"The base64 of {_short(url)} is broken ({error})", "Encode the file again.") from error


def _bad(message: str, remedy: str) -> MediaError:
    return MediaError(f"{message}.", code="media-data-url", remedy=remedy)


def _short(url: str) -> str:
    return repr(url if len(url) <= 100 else f"{url[:60]}…")

"""Refuses URLs of pictures and videos that can't be of use in a request. No network is touched."""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error as Base64Error
from urllib.parse import urlsplit

from batchrun.errors import MediaError
from batchrun.media.header import HEAD, Size, name_of, read_size, sniff
from batchrun.media.rules import PictureRules
from batchrun.media.video_header import VIDEO_HEAD, container_of, instead_of_video, what_it_is
from batchrun.media.whole import check_end

SEEDS = PictureRules()
VIDEO_ENCODED = 10_485_760
"""Characters of base64 of a video that vendors take (contract 5.2)."""
FILE_ID = "ms://"
"""How the id of a file begins that was uploaded to Moonshot beforehand (contract 8.5)."""
_VIDEO_URL = re.compile(r"data:video/[a-z0-9.+-]{1,40};base64,", re.IGNORECASE)
_DATA_URL = re.compile(r"data:(image/[a-z0-9.+-]{1,40});base64,", re.IGNORECASE)


def is_file_id(source: object) -> bool:
    return isinstance(source, str) and source.startswith(FILE_ID)


def check_image_url(url: str, rules: PictureRules = SEEDS) -> None:
    """The id of an uploaded file is as it is. Raises MediaError: `media-url` for another scheme than http, https or
    data, for no host, and for blanks;
    `media-data-url` for a data URL that isn't base64, or holds another format than it says; `media-empty`, or
    `media-too-large` for more base64 than `rules` allow. What else there is to a picture, `check_data_picture` says.
    """
    if url[:5].lower() == "data:":
        _content(url, rules)
    elif not is_file_id(url):
        _check_web(url)


def check_video_url(url: str) -> None:
    """The same for the URL of a video. Raises MediaError with the same codes."""
    if is_file_id(url):
        return
    if url[:5].lower() != "data:":
        _check_web(url)
        return
    match = _VIDEO_URL.match(url)
    if match is None:
        raise _bad(f"{shortened(url)} is no base64 video", "Write data:video/mp4;base64, and then the base64.")
    check_video_amount(shortened(url), len(url) - match.end())
    try:
        head = b64decode(url[match.end() :], validate=True)[:VIDEO_HEAD]
    except (Base64Error, ValueError) as error:
        raise _bad(f"The base64 of {shortened(url)} is broken ({error})", "Encode the file again.") from error
    if container_of(head) is None:  # a container has several names, so which one is written isn't compared
        what = what_it_is(head)
        raise _bad(f"{shortened(url)} holds {what}, and no video", f"{instead_of_video(what)}.")


def check_video_amount(name: str, encoded_size: int) -> None:
    """Raises MediaError `media-empty` or `media-too-large`; `name` as it stands in the message."""
    if encoded_size == 0:
        raise MediaError(f"{name} is empty.", code="media-empty", remedy="Copy or download the file again.")
    if encoded_size > VIDEO_ENCODED:
        raise MediaError(
            f"{name} has {encoded_size:,} characters as base64; the limit of a video is {VIDEO_ENCODED:,}.",
            code="media-too-large",
            remedy="Write `media: {video: frames}`, or `upload: large` where the provider has a storage, or name a "
            "public URL.",
        )


def _check_web(url: str) -> None:
    if not _is_web(url):
        raise MediaError(
            f"{shortened(url)} is no http, https or data URL.",
            code="media-url",
            remedy="Write the full address; a local file is named by its relative path.",
        )
    if " " in url or not url.isprintable():
        raise MediaError(
            f"{shortened(url)} contains a blank or an invisible character.",
            code="media-url",
            remedy="Write it percent-encoded: a blank is %20.",
        )


def check_data_picture(url: str, rules: PictureRules) -> Size:
    """Width and height of the picture in a data URL. Raises MediaError as `check_image_url` does, and what `rules` say
    of the picture."""
    data, found = _content(url, rules)

    def read_at(offset: int, length: int) -> bytes:
        return data[offset : offset + length]

    name = shortened(url)
    mime = rules.check_format(name, found, name_of(data[:HEAD]))
    try:
        width, height = read_size(mime, read_at)
        rules.check_shape(name, width, height)
        rules.check_pixels(name, mime, width, height)
        check_end(mime, read_at, len(data))
    except ValueError as error:
        raise MediaError(
            f"The picture of {name} is broken: {error}.", code="media-broken", remedy="Encode the file again."
        ) from error
    return width, height


def data_of(url: str) -> bytes:
    """What a data URL of a picture holds. Raises MediaError `media-data-url`."""
    match = _DATA_URL.match(url)
    if match is None:
        raise _bad(f"{shortened(url)} is no base64 image", "Write data:image/png;base64, and then the base64.")
    try:
        return b64decode(url[match.end() :], validate=True)
    except (Base64Error, ValueError) as error:
        raise _bad(f"The base64 of {shortened(url)} is broken ({error})", "Encode the file again.") from error


def _is_web(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        return False


def _content(url: str, rules: PictureRules) -> tuple[bytes, str | None]:
    """The bytes of a data URL, and their MIME type where it is known."""
    match = _DATA_URL.match(url)
    if match is not None:  # before it is decoded
        encoded_size = len(url) - match.end()
        rules.check_amount(shortened(url), encoded_size, encoded_size)
    data = data_of(url)
    found = sniff(data[:HEAD])
    if match is not None and found in rules.formats and found != match[1].lower():
        raise _bad(f"{shortened(url)} holds {found}", f"Write data:{found};base64, before it.")
    return data, found


def _bad(message: str, remedy: str) -> MediaError:
    return MediaError(f"{message}.", code="media-data-url", remedy=remedy)


def shortened(url: str) -> str:
    """For a message."""
    return repr(url if len(url) <= 100 else f"{url[:60]}…")

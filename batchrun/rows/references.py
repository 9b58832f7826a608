"""What a row may say about a picture or video: a path inside the media root, an http(s) URL, a data URL, or the id of a
file at the vendor. Nothing is fetched.

Rows are written by anyone, so a path is taken literally and kept below the root, links included, and a URL is only
checked for its form. Problems are raised as ReferenceProblem; the reader of the rows adds the place.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import unquote, urlsplit

from batchrun.media.url import is_file_id
from batchrun.messages import JsonValue
from batchrun.rows.listing import VIDEO_EXTENSIONS
from batchrun.showing import clean

MAX_URL = 8_192
MAX_DATA_URL = 10_485_760
"""Characters of a data URL, the vendor's own bound (contract 5.1)."""
MAX_ID_BYTES = 256

MediaKind = Literal["image", "video", "frames"]
"""A picture; a video; a video as a list of pictures."""

_DATA = re.compile(r"data:([A-Za-z]{5})/[A-Za-z0-9.+-]{1,50};base64,", re.ASCII)
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}", re.ASCII)
_SCHEME = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]*://|(?:file|data|javascript|ftp|s3|gs|oss):|[A-Za-z]:[\\/]", re.IGNORECASE
)
_FILE_ID = re.compile(r"ms://[A-Za-z0-9][A-Za-z0-9._-]{0,199}", re.ASCII)
_PLAIN_URL = re.compile(r"https?://[A-Za-z0-9][A-Za-z0-9.-]*(?:/[A-Za-z0-9._~!$&'()*+,;=:@%/?#-]*)?", re.ASCII)
"""What nearly every URL looks like; the others are looked at part by part."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""With the marks that turn the direction of writing: a text that shows as another one is no name."""
_USER = re.compile(r":\s*[/\\].*@", re.DOTALL)
_HOST = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[A-Za-z0-9.-]+(?=[:/?#]|$)", re.ASCII)
_LINKED_FOLDERS = 65_536
"""Folders whose real path is remembered."""


class ReferenceProblem(Exception):
    """What is wrong with an id or a reference."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaRef:
    """One picture or video of a row. Exactly one of `path`, `url` and `frames` is set; `frames` goes with its kind."""

    kind: MediaKind = "image"
    path: str | None = None
    """Relative to the media root, with `/`."""
    url: str | None = None
    """An http(s) URL, a data URL, or the id of a file that was uploaded to Moonshot (`ms://…`)."""
    size: int | None = None
    """Bytes of a local file when the rows were read."""
    frames: tuple[MediaRef, ...] | None = None
    """The pictures of a video that is given as a list of them, in their order."""
    start: float | None = None
    """Seconds from the beginning of a local video at which the part that is meant begins; None for its beginning."""
    end: float | None = None
    """Seconds at which that part ends; None for the video's end."""
    fps: float | None = None
    """Pictures per second of a video, where the row says it itself; None leaves it to the job."""

    @property
    def files(self) -> tuple[MediaRef, ...]:
        """What has a path or a URL of its own: itself, or its frames."""
        return (self,) if self.frames is None else self.frames

    def stored(self) -> dict[str, JsonValue]:
        """As it stands in an item's row: what isn't set is left out."""
        named: dict[str, JsonValue] = {
            name: value
            for name in ("kind", "path", "url", "size", "start", "end", "fps")
            if (value := getattr(self, name)) is not None
        }
        return named if self.frames is None else {**named, "frames": [frame.stored() for frame in self.frames]}


class MediaRoot:
    """The folder that local pictures live below."""

    def __init__(self, folder: Path) -> None:
        self.folder = os.path.realpath(folder)
        self._real_folder = lru_cache(_LINKED_FOLDERS)(os.path.realpath)

    def refer(self, text: str, kind: MediaKind = "image") -> MediaRef:
        """Check what a row says of a picture or a video. Raises ReferenceProblem."""
        if text[:5].lower() == "data:":
            return MediaRef(kind=kind, url=check_data_url(text, kind))
        if text[:7].lower() == "http://" or text[:8].lower() == "https://" or is_file_id(text):
            return MediaRef(kind=kind, url=check_url(text))
        path = check_path(text)
        return MediaRef(kind=kind, path=path, size=self.size(path))

    def size(self, path: str) -> int:
        """Bytes of the regular file at `path`, which is relative and has no `..`. Raises ReferenceProblem."""
        full = f"{self.folder}/{path}"
        try:
            status = os.lstat(full)
            real = self._real_folder(os.path.dirname(full))
            if stat.S_ISLNK(status.st_mode):
                real, status = os.path.realpath(full), os.stat(full)
        except OSError as error:
            message = f"{_named(path)} can't be read below {self.folder}: {error.strerror}"
            raise ReferenceProblem(message, "Correct the path, or take the row out") from error
        if real != self.folder and not real.startswith(self.folder.rstrip("/") + "/"):
            message = f"`{clean(path)}` is a link that leads out of {self.folder}"
            raise ReferenceProblem(message, "Copy the file into the folder")
        if not stat.S_ISREG(status.st_mode):
            raise ReferenceProblem(f"`{clean(path)}` is not a regular file", "Name a file")
        return status.st_size


def check_path(text: str) -> str:
    """A relative path, normalised. Raises ReferenceProblem for anything that could lead out of the root."""
    if not text.strip():
        raise ReferenceProblem("the path is empty", "Name a file, or take the row out")
    if _CONTROL.search(text):
        raise ReferenceProblem(f"{_named(text)} has a control character", "Write a plain path")
    if "\\" in text:
        raise ReferenceProblem(f"{_named(text)} has a backslash", "Write the path with `/`")
    if _SCHEME.match(text):
        raise ReferenceProblem(
            f"{_named(text)} has a scheme other than http, https or data", "Copy the file, and write its path"
        )
    if text.startswith(("/", "~")):
        remedy = "Write a path relative to the folder of the file in which it stands" + (
            "; `./~…` for such a name" if text[0] == "~" else ""
        )
        raise ReferenceProblem(f"{_named(text)} is not relative", remedy)
    if ".." in text.split("/") or ("%" in text and _leaves(text)):
        raise ReferenceProblem(f"{_named(text)} leads out of its folder", "Write a path without `..`")
    path = str(PurePosixPath(text))
    if path == ".":
        raise ReferenceProblem(f"`{clean(text)}` names a folder", "Name a file")
    return path


def check_name(path: str) -> str:
    """A path that was found in a folder. Raises ReferenceProblem where its name can't be an id."""
    if _CONTROL.search(path):
        raise ReferenceProblem(f"the name `{clean(path)}` has a control character or isn't UTF-8", "Rename the file")
    return path


def check_url(text: str) -> str:
    """An http(s) URL with a host and without credentials, or the id of a file at Moonshot. Raises ReferenceProblem."""
    if is_file_id(text):
        if not _FILE_ID.fullmatch(text):
            raise ReferenceProblem(f"{_named(text)} is no id of a file", "Write ms:// and the id that the upload gave")
        return text
    if len(text) <= MAX_URL and _PLAIN_URL.fullmatch(text):
        return text
    named = _named(text)
    if len(text) > MAX_URL:
        raise ReferenceProblem(f"the URL {named} has {len(text):,} characters; at most {MAX_URL:,}", "Shorten it")
    if _CONTROL.search(text) or any(char in text for char in ' "<>\\`'):
        raise ReferenceProblem(f"the URL {named} has a character that URLs can't have", "Percent-encode it")
    try:
        parts = urlsplit(text)
        host, user, _ = parts.hostname, parts.username, parts.port
    except ValueError:  # its text repeats parts of the URL
        raise ReferenceProblem(
            f"the URL {_origin(text)} can't be read: its host or its port is malformed", "Correct the URL"
        ) from None
    if user is not None or parts.password is not None:
        raise ReferenceProblem("the URL has a user name or password", "Use a signed or public URL")
    if parts.scheme.lower() not in ("http", "https") or not host:
        raise ReferenceProblem(f"{named} is not an http(s) URL with a host", "Write https://host/path")
    return text


def check_data_url(text: str, kind: MediaKind = "image") -> str:
    """A base64 data URL of a picture or a video. Raises ReferenceProblem."""
    if len(text) > MAX_DATA_URL:
        message = f"the data URL has {len(text):,} characters; at most {MAX_DATA_URL:,} are taken"
        raise ReferenceProblem(message, "Save it as a file and name its path")
    head = _DATA.match(text)
    if head is None or head[1].lower() != kind:
        form = "image/jpeg" if kind == "image" else "video/mp4"
        remedy = f"Begin it like `data:{form};base64,`; no other media are taken"
        raise ReferenceProblem(f"the data URL doesn't start with `data:{kind}/…;base64,`", remedy)
    if not _BASE64.fullmatch(text, head.end()) or (len(text) - head.end()) % 4:
        raise ReferenceProblem("the data URL is not valid base64", "Encode the picture again")
    return text


def kind_of_url(url: str) -> MediaKind:
    """Of a URL in a list of URLs: what ends like a video is one. The server alone could tell for certain."""
    path = re.split(r"[?#]", url, maxsplit=1)[0]
    name = path.partition("://")[2].partition("/")[2].rpartition("/")[2]
    return "video" if name.rpartition(".")[2].lower() in VIDEO_EXTENSIONS else "image"


def check_id(value: JsonValue) -> str:
    """The id of a row as text, 1 to 256 bytes. Raises ReferenceProblem."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise ReferenceProblem("the id must be text or a whole number", "Write it in quotes")
    if not value:
        raise ReferenceProblem("the id is empty", "Write an id, or leave the field out of all rows")
    if _CONTROL.search(value):
        raise ReferenceProblem(f"the id `{clean(value)}` has a control character", "Delete it")
    if len(value.encode()) > MAX_ID_BYTES:
        raise ReferenceProblem(f"the id `{clean(value)}` is longer than {MAX_ID_BYTES} bytes", "Shorten it")
    return value


def id_of(media: MediaRef) -> str:
    """The id of an item that is named by its media: the path or URL, a hash where that is long or secret. A list of
    frames is named by its first and last one.

    The query of a URL may be a signature, so a hash stands for it.
    """
    if media.frames is not None:
        return _short(f"{id_of(media.frames[0])}..{id_of(media.frames[-1])}")
    if media.path is not None:
        return _short(media.path)
    url = media.url or ""
    if url[:5].lower() == "data:":
        return hashed(url)
    plain = re.split(r"[?#]", url, maxsplit=1)[0]
    return _short(url if plain == url else f"{plain}?{hashed(url)[:23]}", url)


def variables_of(media: MediaRef) -> dict[str, str]:
    """What a prompt can say about a picture or video; nothing about a data URL. A list of frames has those of its
    first one."""
    if media.frames is not None:
        return variables_of(media.frames[0])
    if media.path is not None:
        folder, _, filename = media.path.rpartition("/")
        return {"path": media.path, "filename": filename, "stem": _stem(filename), "folder": folder}
    if media.url is None or media.url[:5].lower() == "data:":
        return {}
    if is_file_id(media.url):
        return {"url": media.url}
    path = re.split(r"[?#]", media.url, maxsplit=1)[0].partition("://")[2].partition("/")[2]
    filename = path.rpartition("/")[2]
    return {"url": media.url, "filename": filename, "stem": _stem(filename)}


def _named(url: str) -> str:
    """A URL for a message, without what may be secret in it: its query, and all of it where it may name a user."""
    if _USER.search(url):
        return f"`{clean(url.partition(':')[0])}://…`"
    return f"`{clean(re.split('[?#]', url, maxsplit=1)[0] if '://' in url else url)}`"


def _origin(url: str) -> str:
    """Scheme and host of a URL that can't be read; the scheme alone where even they aren't clear."""
    host = None if "@" in url else _HOST.match(url)
    return f"`{host[0] if host else url.partition(':')[0] + '://'}…`"


def _stem(filename: str) -> str:
    stem, _, extension = filename.rpartition(".")
    return stem if stem and extension else filename


def hashed(text: str) -> str:
    return "sha256-" + hashlib.sha256(text.encode()).hexdigest()[:32]


def _short(text: str, whole: str | None = None) -> str:
    return text if len(text.encode()) <= MAX_ID_BYTES else hashed(whole or text)


def _leaves(text: str) -> bool:
    """Whether some decoding of the percent signs would lead out of the root; we decode none, others might."""
    for _ in range(3):
        text = unquote(text)
        if ".." in text.split("/") or "\\" in text or "\x00" in text or text.startswith(("/", "~")):
            return True
    return False

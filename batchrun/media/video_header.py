"""What the first bytes of a file say about a video: its container. Nothing is decoded.

The containers are those of provider contract 5.2; the extension of a file name plays no part.
"""

from __future__ import annotations

from dataclasses import dataclass

from batchrun.media.header import name_of, sniff
from batchrun.media.rules import OTHER_MEDIA

VIDEO_HEAD = 4_096
"""Bytes that `container_of` wants to see."""

_TS_PACKET = 188
_M2TS_PACKET = 192
"""A packet of a transport stream with four bytes of time in front."""
_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ISO_BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot"})
"""What a file of the MP4 family may begin with; the older ones have no `ftyp`."""
_STILLS = frozenset({b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1", b"jxl "})
"""Major brands of pictures in the same container."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    mime: str
    demuxer: str
    """The one reader of FFmpeg that may open such a file."""


MP4 = Container(mime="video/mp4", demuxer="mov")
MOV = Container(mime="video/quicktime", demuxer="mov")
MATROSKA = Container(mime="video/x-matroska", demuxer="matroska")
WEBM = Container(mime="video/webm", demuxer="matroska")
AVI = Container(mime="video/x-msvideo", demuxer="avi")
FLV = Container(mime="video/x-flv", demuxer="flv")
ASF = Container(mime="video/x-ms-wmv", demuxer="asf")
MPEG_TS = Container(mime="video/mp2t", demuxer="mpegts")
MPEG_PS = Container(mime="video/mpeg", demuxer="mpeg")


def container_of(head: bytes) -> Container | None:
    """The container of a video that can be sent; None for all else, playlists above all."""
    if head[4:8] in _ISO_BOXES:
        return _iso(head)
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return WEBM if b"webm" in head[:64] else MATROSKA
    if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        return AVI
    if head.startswith(b"FLV\x01"):
        return FLV
    if head.startswith(_ASF):
        return ASF
    if head.startswith(b"\x00\x00\x01\xba"):
        return MPEG_PS
    return MPEG_TS if _is_transport_stream(head) else None


def what_it_is(head: bytes) -> str:
    """What a file that isn't a video is, in words for a message."""
    text = head.lstrip(b"\xef\xbb\xbf \r\n\t")
    if text.startswith((b"#EXTM3U", b"ffconcat", b"[playlist]", b"<?xml", b"<MPD", b"<smil", b"<asx", b"<ASX")):
        return "a playlist or another text that names files"
    picture = sniff(head)
    return f"a picture ({picture})" if picture is not None else name_of(head)


def instead_of_video(what: str) -> str:
    """What to do with such a file; `what` as `what_it_is` says it."""
    if what == "a picture (image/gif)":
        return "Save it as MP4"
    if what.startswith("a picture"):
        return "Name it in a column `image` or `images`, or under `inputs.images`"
    return OTHER_MEDIA.get(what) or "Save it as MP4, MOV, MKV, AVI, FLV or WMV"


def _iso(head: bytes) -> Container | None:
    brand = head[8:12] if head[4:8] == b"ftyp" else b"qt  "
    if brand in _STILLS:
        return None
    return MOV if brand == b"qt  " else MP4


def _is_transport_stream(head: bytes) -> bool:
    """A mark stands at the start of each packet."""
    for first, packet in ((0, _TS_PACKET), (4, _M2TS_PACKET)):
        marks = [head[at : at + 1] for at in range(first, len(head), packet)]
        if len(marks) >= 3 and all(mark == b"\x47" for mark in marks):
            return True
    return False

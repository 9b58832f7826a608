"""Local pictures: what is refused and why, and that what is sent is exactly the file."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import struct
import threading
import time
from pathlib import Path

import pytest

from batchrun.errors import MediaError
from batchrun.media import OpenMedia, open_media
from batchrun.media.rules import PictureRules, Preparation
from batchrun.media.video_header import instead_of_video, what_it_is
from tests.pictures import heic, picture, png

RULES = PictureRules()


def webp_head(width: int, height: int) -> bytes:
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + size


def ftyp(major: bytes, *compatible: bytes) -> bytes:
    brands = major + b"\0\0\0\0" + b"".join(compatible)
    return struct.pack(">I", len(brands) + 8) + b"ftyp" + brands + b"\0" * 100


def opened(tmp_path: Path, content: bytes, name: str = "a.bin", rules: PictureRules = RULES) -> OpenMedia:
    (tmp_path / name).write_bytes(content)
    return open_media(tmp_path, name, Preparation(rules=rules))


def refused(root: Path, relative: str, rules: PictureRules = RULES) -> MediaError:
    with pytest.raises(MediaError) as caught:
        open_media(root, relative, Preparation(rules=rules))
    assert caught.value.remedy
    return caught.value


@pytest.mark.parametrize(
    ("content", "mime", "size"),
    [
        (picture("PNG"), "image/png", (32, 20)),
        (picture("PNG", mode="I;16"), "image/png", (32, 20)),
        (picture("JPEG"), "image/jpeg", (32, 20)),
        (picture("JPEG", mode="CMYK"), "image/jpeg", (32, 20)),
        (picture("JPEG", progressive=True), "image/jpeg", (32, 20)),
        (picture("JPEG", exif=b"Exif\0\0" + b"x" * 65_000, comment=b"y" * 60_000), "image/jpeg", (32, 20)),
        (picture("BMP"), "image/bmp", (32, 20)),
        (b"BM" + b"\0" * 12 + struct.pack("<IHH", 12, 32, 20) + b"\0" * 8, "image/bmp", (32, 20)),
        (b"BM" + b"\0" * 12 + struct.pack("<Iii", 40, 32, -20), "image/bmp", (32, 20)),
        (picture("WEBP"), "image/webp", (32, 20)),
        (picture("WEBP", lossless=True), "image/webp", (32, 20)),
        (picture("WEBP", mode="RGBA", exif=b"Exif\0\0xxxx"), "image/webp", (32, 20)),
        (picture("TIFF"), "image/tiff", (32, 20)),
        (picture("TIFF", big_endian=True), "image/tiff", (32, 20)),
        (heic(32, 20, b"heic", b"mif1"), "image/heic", (32, 20)),
        (heic(32, 20, b"mif1", b"mif1", b"heic"), "image/heic", (32, 20)),
        (png(7680, 4320), "image/png", (7680, 4320)),
        (webp_head(3840, 2160), "image/webp", (3840, 2160)),
        (png(11, 2200), "image/png", (11, 2200)),
    ],
)
@pytest.mark.parametrize("name", ["right.jpg", "none", "lie.gif"])
def test_content_tells_type_and_size(
    tmp_path: Path, name: str, content: bytes, mime: str, size: tuple[int, int]
) -> None:
    with opened(tmp_path, content, name) as media:
        assert (media.mime, (media.width, media.height), media.size) == (mime, size, len(content))


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        (b"", "media-empty", "'a' is empty."),
        (picture("GIF"), "media-format", "'a' is no picture that can be sent; its content is GIF."),
        (b"%PDF-1.7", "media-format", "'a' is no picture that can be sent; its content is PDF."),
        (b"\n<svg xmlns=", "media-format", "'a' is no picture that can be sent; its content is SVG."),
        (ftyp(b"avif", b"mif1"), "media-format", "'a' is no picture that can be sent; its content is AVIF."),
        (
            ftyp(b"isom", b"mp41"),
            "media-format",
            "'a' is no picture that can be sent; its content is a video or another ISO media file.",
        ),
        (b"BM, said the note", "media-format", "'a' is no picture that can be sent; its content is text."),
        (b"ID3\x04\0\0", "media-format", "'a' is no picture that can be sent; its content is sound."),
        (b"\x00", "media-format", "'a' is no picture that can be sent; its content is unknown."),
        (b"BM\0", "media-format", "'a' is no picture that can be sent; its content is unknown."),
        (picture("JPEG", 400, 300)[:-500], "media-broken", "'a' is broken: it ends in the middle."),
        (picture("PNG")[:-1], "media-broken", "'a' is broken: it ends in the middle."),
        (picture("WEBP")[:-4], "media-broken", "'a' is broken: it ends in the middle."),
        (picture("BMP")[:-10], "media-broken", "'a' is broken: it ends in the middle."),
        (picture("TIFF", 400, 300)[: 400 * 300], "media-broken", "'a' is broken: it ends in the middle."),
        (heic(20, 20, b"heic")[:-1], "media-broken", "'a' is broken: it ends in the middle."),
        (ftyp(b"heic", b"mif1"), "media-broken", "'a' is broken: the HEIC header is cut or broken."),
        (
            png(7_072, 7_072),
            "media-too-many-pixels",
            "'a' has 7,072×7,072 pixels; the limit is 50,000,000 pixels.",
        ),
        (b"\x89PNG\r\n\x1a\n", "media-broken", "'a' is broken: the PNG header is cut or isn't first."),
        (png(20, 20)[:22], "media-broken", "'a' is broken: the file ends inside its header."),
        (png(0, 20), "media-broken", "'a' is broken: the header says 0×20 pixels."),
        (picture("JPEG")[:100], "media-broken", "'a' is broken: the JPEG header is cut or broken."),
        (
            b"\xff\xd8\xff\xda" + b"\0" * 20,
            "media-broken",
            "'a' is broken: the JPEG has no frame header before its data.",
        ),
        (b"\xff\xd8" + b"\xff\xe0\0\0" * 1001, "media-broken", "'a' is broken: the JPEG header is cut or broken."),
        (
            b"\xff\xd8" + b"\xff" * 2000,
            "media-broken",
            "'a' is broken: the JPEG has no frame header in its first 1,000 segments.",
        ),
        (b"RIFF\0\0\0\0WEBPVP9 ", "media-broken", "'a' is broken: the WEBP header is cut or unknown."),
        (picture("PNG", 10, 40), "media-too-small", "'a' has 10×40 pixels; both sides must be over 10."),
        (png(2201, 11), "media-ratio", "'a' has 2,201×11 pixels; one side may be at most 200 times the other."),
        (
            webp_head(3841, 2160),
            "media-large-format",
            "'a' has 3,841×2,160 pixels; above 3840×2160 only JPEG and PNG are taken.",
        ),
    ],
)
def test_refused_by_content(tmp_path: Path, content: bytes, code: str, message: str) -> None:
    (tmp_path / "a").write_bytes(content)
    error = refused(tmp_path, "a")
    assert (error.code, error.message) == (code, message)


def test_the_limit_counts_the_encoded_length(tmp_path: Path) -> None:
    content = png(20, 20, 301)
    opened(tmp_path, content, "a", rules=PictureRules(max_encoded=404)).close()
    error = refused(tmp_path, "a", rules=PictureRules(max_encoded=403))
    assert error.message == "'a' has 404 characters as base64; the limit is 403."


def test_the_limit_is_10_mb_of_base64(tmp_path: Path) -> None:
    with (tmp_path / "a").open("wb") as file:
        file.write(png(20, 20))
        file.truncate(7_864_321)
    error = refused(tmp_path, "a")
    assert (error.code, error.message) == (
        "media-too-large",
        "'a' has 10,485,764 characters as base64; the limit is 10,485,760.",
    )


@pytest.mark.parametrize(
    ("relative", "code"),
    [
        ("../secret.png", "media-outside"),
        ("sub/../../secret.png", "media-outside"),
        ("sub/../ok.png", "media-outside"),
        ("/etc/passwd", "media-outside"),
        ("", "media-path"),
        ("a\0.png", "media-path"),
        ("\ud800.png", "media-path"),
        ("file:///etc/passwd", "media-path"),
        ("https://host/a.png", "media-path"),
        ("none.png", "media-missing"),
        ("none/none.png", "media-missing"),
        ("~/ok.png", "media-missing"),
        ("%2e%2e/secret.png", "media-missing"),
        ("..\\secret.png", "media-missing"),
        ("ok.png/x", "media-unreadable"),
        ("x" * 5000, "media-unreadable"),
        ("sub", "media-not-a-file"),
        (".", "media-not-a-file"),
        ("fifo", "media-not-a-file"),
        ("socket", "media-not-a-file"),
        ("link-to-secret.png", "media-outside"),
        ("link-to-parent/secret.png", "media-outside"),
        ("link-to-device", "media-outside"),
        ("link-to-itself", "media-unreadable"),
        ("link-to-nothing", "media-missing"),
        ("link-to-fifo", "media-not-a-file"),
    ],
)
def test_refused_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, relative: str, code: str) -> None:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(picture("PNG"))
    (root / "ok.png").write_bytes(picture("PNG"))
    os.mkfifo(root / "fifo")
    monkeypatch.chdir(root)  # the path of a socket is short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
    links = {"secret.png": "../secret.png", "parent": "..", "device": "/dev/zero", "itself": "link-to-itself"}
    for name, target in (links | {"nothing": "nowhere", "fifo": "fifo"}).items():
        (root / f"link-to-{name}").symlink_to(target)
    started = time.monotonic()
    error = refused(root, relative)
    assert (error.code, time.monotonic() - started < 1) == (code, True)


def test_links_that_stay_below_the_root_are_followed(tmp_path: Path) -> None:
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "real" / "deep" / "a.png").write_bytes(picture("PNG"))
    (tmp_path / "folder").symlink_to("real/deep")
    (tmp_path / "root").symlink_to(tmp_path)
    with open_media(tmp_path / "root", "folder/a.png") as media:
        assert media.mime == "image/png"


def test_a_folder_that_is_swapped_for_a_link_leads_nowhere(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    for folder, side in ((root / "real", 20), (outside, 40)):
        folder.mkdir(parents=True)
        (folder / "a.png").write_bytes(picture("PNG", side, side))
    (root / "link").symlink_to(outside)
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for name in ("real", "link"):
                (root / name).rename(root / "folder")
                (root / "folder").rename(root / name)

    def width() -> int | None:
        try:
            with open_media(root, "folder/a.png") as media:
                return media.width
        except MediaError:
            return None

    swapper = threading.Thread(target=swap)
    swapper.start()
    widths = {width() for _ in range(500)}
    stop.set()
    swapper.join()
    assert 40 not in widths


def test_names_with_any_letters_are_opened(tmp_path: Path) -> None:
    with opened(tmp_path, picture("PNG"), " 漁船 …\n.png") as media:
        assert media.name == " 漁船 …\n.png"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch(mode=0)
    assert refused(tmp_path, "a.png").message == "'a.png' can't be read (Permission denied)."


@pytest.mark.parametrize("root", ["missing", "file"])
def test_a_root_that_is_no_folder_is_named(tmp_path: Path, root: str) -> None:
    (tmp_path / "file").touch()
    error = refused(tmp_path / root, "a.png")
    assert error.code == "media-root"
    assert repr(str(tmp_path / root)) in error.message


@pytest.mark.parametrize("size", [100, 101, 102, 299, 300, 301])
@pytest.mark.parametrize("chunk", [3, 99, 300, 196_608])
def test_the_pieces_are_the_base64_of_the_file(tmp_path: Path, size: int, chunk: int) -> None:
    content = png(20, 20, size)
    with opened(tmp_path, content) as media:
        encoded = b"".join(media.read_encoded(chunk))
        assert (encoded, len(encoded)) == (base64.b64encode(content), media.encoded_size)


def test_the_file_can_be_read_again(tmp_path: Path) -> None:
    with opened(tmp_path, picture("PNG")) as media:
        assert b"".join(media.read_encoded()) == b"".join(media.read_encoded())


def test_the_digest_is_that_of_the_raw_bytes_once_all_is_read(tmp_path: Path) -> None:
    content = picture("PNG")
    with opened(tmp_path, content) as media:
        pieces = media.read_encoded(30)
        next(pieces)
        assert media.digest is None
        list(pieces)
        assert media.digest == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("chunk", [0, -3, 4])
def test_a_chunk_that_would_put_padding_inside_is_refused(tmp_path: Path, chunk: int) -> None:
    with opened(tmp_path, picture("PNG")) as media, pytest.raises(ValueError, match="must be a multiple of three"):
        next(media.read_encoded(chunk))


@pytest.mark.parametrize("change", ["shorter", "longer", "other bytes"])
def test_a_file_that_changes_is_never_sent_whole(tmp_path: Path, change: str) -> None:
    content = png(20, 20).ljust(300, b"\0")
    with opened(tmp_path, content, "a") as media:
        with (tmp_path / "a").open("r+b") as file:
            if change == "other bytes":
                file.write(content)
                os.utime(tmp_path / "a", ns=(1, 1))
            else:
                file.truncate(150 if change == "shorter" else 600)
        sent: list[bytes] = []
        with pytest.raises(MediaError, match="'a' changed while it was being sent") as caught:
            sent.extend(media.read_encoded(90))
    assert caught.value.code == "media-changed"
    assert len(b"".join(sent)) < media.encoded_size


def test_a_file_that_is_replaced_is_sent_as_it_was(tmp_path: Path) -> None:
    content = picture("PNG")
    with opened(tmp_path, content, "a") as media:
        (tmp_path / "new").write_bytes(b"other")
        (tmp_path / "new").rename(tmp_path / "a")
        assert b"".join(media.read_encoded()) == base64.b64encode(content)


def test_it_can_be_closed_twice(tmp_path: Path) -> None:
    with opened(tmp_path, picture("PNG")) as media:
        media.close()


@pytest.mark.parametrize(
    ("content", "of_a_picture", "of_a_video"),
    [
        (b"%PDF-1.7", "Save its pages as pictures first", "Save its pages as pictures first"),
        (b"hello there", "Put the text into a row", "Put the text into a row"),
        (b"RIFF\0\0\0\0WAVE", "Models don't hear", "Models don't hear"),
        (b"GIF89a", "Save it as JPEG", "Save it as MP4"),
        (b"\x00", "Save it as JPEG", "Save it as MP4"),
    ],
)
def test_media_that_are_not_taken_come_with_what_to_do_instead(
    tmp_path: Path, content: bytes, of_a_picture: str, of_a_video: str
) -> None:
    with pytest.raises(MediaError) as caught, opened(tmp_path, content):
        pass
    assert caught.value.remedy.startswith(of_a_picture)
    assert instead_of_video(what_it_is(content)).startswith(of_a_video)


def test_a_picture_and_a_video_in_each_others_place_are_told_theirs(tmp_path: Path) -> None:
    with pytest.raises(MediaError) as caught, opened(tmp_path, ftyp(b"isom", b"mp41")):
        pass
    assert caught.value.remedy.startswith("Name a video in a column `video`")
    assert instead_of_video(what_it_is(picture("JPEG"))).startswith("Name it in a column `image`")


@pytest.mark.parametrize(("sides", "remedy"), [((9_000, 9_000), "Write `media"), ((20_000, 9_000), "Shrink it with")])
def test_shrinking_is_advised_only_where_it_is_done(tmp_path: Path, sides: tuple[int, int], remedy: str) -> None:
    with pytest.raises(MediaError) as caught, opened(tmp_path, png(*sides)):
        pass
    assert caught.value.remedy.startswith(remedy)

"""What is left out of a picture without decoding it, and what stays."""

from __future__ import annotations

import io
import struct
from base64 import b64decode
from pathlib import Path

import pytest
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from batchrun.errors import MediaError
from batchrun.media import OpenMedia, open_media
from batchrun.media.rules import Preparation
from tests.pictures import chunk, picture, png

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SECRET = b"a secret place"


def sent(tmp_path: Path, content: bytes) -> bytes:
    (tmp_path / "a").write_bytes(content)
    with open_media(tmp_path, "a", Preparation(strip=True)) as opened:
        return whole(opened)


def whole(opened: OpenMedia) -> bytes:
    """What it gives as base64, which is the same whatever the pieces are."""
    pieces = [b64decode(b"".join(opened.read_encoded(size))) for size in (3, 300, 196_608)]
    assert pieces[0] == pieces[1] == pieces[2]
    assert len(pieces[0]) == opened.size
    return pieces[0]


def pixels(content: bytes) -> bytes:
    with Image.open(io.BytesIO(content)) as made:
        return made.tobytes()


def exif(orientation: int) -> Image.Exif:
    data = Image.Exif()
    data[0x0112], data[0x010F] = orientation, SECRET.decode()
    return data


def jpeg(orientation: int = 1, *, progressive: bool = False) -> bytes:
    return picture("JPEG", 64, 48, exif=exif(orientation), comment=SECRET, icc_profile=PROFILE, progressive=progressive)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_keeps_its_pixels_its_colours_and_its_orientation(
    tmp_path: Path, orientation: int, progressive: bool
) -> None:
    content = jpeg(orientation, progressive=progressive)
    after = sent(tmp_path, content)
    with Image.open(io.BytesIO(after)) as made:
        assert dict(made.getexif()) == ({} if orientation == 1 else {0x0112: orientation})
        assert made.info["icc_profile"] == PROFILE
    assert SECRET not in after
    assert pixels(after) == pixels(content)


def test_a_cmyk_jpeg_keeps_the_mark_of_its_colours(tmp_path: Path) -> None:
    content = picture("JPEG", 64, 48, mode="CMYK", exif=exif(1))
    assert pixels(sent(tmp_path, content)) == pixels(content)


def test_what_stands_behind_a_jpeg_is_left_out(tmp_path: Path) -> None:
    """Cameras put films and further pictures there, with metadata of their own."""
    assert sent(tmp_path, jpeg() + SECRET + jpeg()) == sent(tmp_path, jpeg())


def test_marks_of_an_end_within_metadata_are_none(tmp_path: Path) -> None:
    content = picture("JPEG", 64, 48, exif=b"Exif\0\0" + b"\xff\xd9\xff\xda" * 20)
    assert pixels(sent(tmp_path, content)) == pixels(content)


def test_other_segments_of_applications_are_left_out(tmp_path: Path) -> None:
    content = jpeg()
    xmp, photoshop = b"http://ns.adobe.com/xap/1.0/\0" + SECRET, b"Photoshop 3.0\0" + SECRET
    segments = b"".join(
        b"\xff" + bytes([kind]) + struct.pack(">H", len(body) + 2) + body
        for kind, body in (
            (0xE1, xmp),
            (0xED, photoshop),
            (0xE2, b"MPF\0" + SECRET),
            (0xE0, b"JFXX\0"),
        )
    )
    assert sent(tmp_path, content[:2] + segments + content[2:]) == sent(tmp_path, content)


@pytest.mark.parametrize("orientation", [1, 3])
def test_a_png_keeps_its_pixels_and_its_orientation(tmp_path: Path, orientation: int) -> None:
    text = PngInfo()
    text.add_text("Comment", SECRET.decode())
    text.add_itxt("XML:com.adobe.xmp", SECRET.decode())
    content = picture("PNG", 64, 48, mode="RGBA", exif=exif(orientation), pnginfo=text, icc_profile=PROFILE)
    after = sent(tmp_path, content + SECRET)
    with Image.open(io.BytesIO(after)) as made:
        made.load()
        assert dict(made.getexif()) == ({} if orientation == 1 else {0x0112: orientation})
        assert made.info["icc_profile"] == PROFILE
    assert SECRET not in after
    assert pixels(after) == pixels(content)


def test_unknown_parts_of_a_png_are_left_out(tmp_path: Path) -> None:
    content = png(20, 20)
    assert sent(tmp_path, content[:33] + chunk(b"prVt", SECRET) + content[33:]) == content


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize("orientation", [1, 8])
def test_a_webp_keeps_its_pixels_and_its_orientation(tmp_path: Path, orientation: int, lossless: bool) -> None:
    content = picture(
        "WEBP", 64, 48, mode="RGBA", exif=exif(orientation), xmp=SECRET, icc_profile=PROFILE, lossless=lossless
    )
    after = sent(tmp_path, content)
    with Image.open(io.BytesIO(after)) as made:
        assert dict(made.getexif()) == ({} if orientation == 1 else {0x0112: orientation})
        assert made.info["icc_profile"] == PROFILE
        assert "xmp" not in made.info
    assert SECRET not in after
    assert pixels(after) == pixels(content)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP"])
def test_a_picture_without_metadata_is_the_same_file(tmp_path: Path, form: str) -> None:
    content = picture(form, 64, 48)
    assert sent(tmp_path, content) == content


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_every_cut_is_noticed_and_nothing_else_happens(tmp_path: Path, form: str) -> None:
    content = picture(form, 24, 16, exif=exif(6))
    for end in range(1, len(content), 5):
        with pytest.raises(MediaError) as caught:
            sent(tmp_path, content[:end])
        assert caught.value.code in ("media-broken", "media-format"), end


@pytest.mark.parametrize(
    "content",
    [
        jpeg()[:-2] + b"\xff\xfe\0\2" * 200_000,
        jpeg()[:2] + b"\xff\xfe\0\2" * 900 + jpeg()[2:-2] + b"\xff" * 1_000_000,
        jpeg().replace(b"\xff\xda", b"\xff" * 1_000_000 + b"\xff\xda", 1),
        png(20, 20)[:33] + chunk(b"IDAT", b"") * 200_000 + png(20, 20)[33:],
    ],
    ids=["scans", "fill", "before-the-data", "chunks"],
)
def test_a_file_of_nothing_but_parts_is_given_up(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(MediaError) as caught:
        sent(tmp_path, content)
    assert caught.value.code == "media-broken"

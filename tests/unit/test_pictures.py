"""What the rules say of pictures, and what decoding makes of them."""

from __future__ import annotations

import io
import sys

import pytest
from PIL import Image

from batchrun.errors import MediaError
from batchrun.media.decoding.pictures import shrink
from batchrun.media.rules import PictureRules
from tests.pictures import heic, picture

BOX = {"long_side": 400, "short_side": 300, "bytes": 100_000, "pixels": 1_000_000}


def shrunk(content: bytes, **arguments: int) -> tuple[Image.Image, dict[str, object]]:
    target = io.BytesIO()
    values = shrink(io.BytesIO(content), target, {**BOX, **arguments})
    return Image.open(target), dict(values)


def refused(content: bytes, **arguments: int) -> MediaError:
    with pytest.raises(MediaError) as caught:
        shrunk(content, **arguments)
    return caught.value


def saved(made: Image.Image, form: str, **options: object) -> bytes:
    out = io.BytesIO()
    made.save(out, form, **options)
    return out.getvalue()


@pytest.mark.parametrize(("width", "height"), [(1_000, 200), (200, 1_000), (600, 600)])
def test_the_ratio_stays_and_the_picture_lies_within_the_box(width: int, height: int) -> None:
    made, values = shrunk(picture("PNG", width, height))
    assert (made.width / made.height) == pytest.approx(width / height, rel=0.01)
    assert (max(made.size) <= 400, min(made.size) <= 300) == (True, True)
    assert (values["width"], values["height"]) == made.size


def test_what_fits_the_box_is_not_enlarged() -> None:
    assert shrunk(picture("BMP", 100, 50))[0].size == (100, 50)


def test_quality_falls_before_the_sides_do() -> None:
    noise = saved(Image.effect_noise((300, 300), 90), "PNG")
    made, values = shrunk(noise, bytes=60_000)
    assert (made.size, values["quality"] in (80, 70)) == ((300, 300), True)
    assert shrunk(noise, bytes=10_000)[0].size < (300, 300)


def test_a_picture_that_nothing_makes_small_enough_is_refused() -> None:
    assert refused(picture("PNG", 300, 300), bytes=10).code == "media-too-large"


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "I", "F", "LA", "RGBA"])
def test_every_mode_can_be_written(mode: str) -> None:
    form = "TIFF" if mode in ("CMYK", "F", "I") else "PNG"
    content = saved(Image.new("L", (40, 30), 200).convert(mode), form)
    made, values = shrunk(content)
    assert (made.size, values["mime"]) == ((40, 30), "image/jpeg")


def test_sixteen_bits_keep_their_brightness() -> None:
    made, _ = shrunk(saved(Image.new("I;16", (40, 30), 32_768), "PNG"))
    assert made.getpixel((20, 15)) == pytest.approx(128, abs=3)


def test_a_picture_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    made, values = shrunk(saved(Image.new("RGB", (40, 20)), "JPEG", exif=exif))
    assert (made.size, (values["width"], values["height"]), dict(made.getexif())) == ((20, 40), (20, 40), {})


def test_more_pixels_than_are_decoded_are_refused_before() -> None:
    assert refused(picture("PNG", 2_000, 1_000)).code == "media-too-many-pixels"


def test_a_large_jpeg_is_reduced_while_it_is_decoded() -> None:
    assert shrunk(picture("JPEG", 2_000, 1_000))[0].size == (400, 200)


def test_a_picture_that_is_cut_is_broken() -> None:
    error = refused(saved(Image.effect_noise((300, 300), 90), "PNG")[:5_000])
    assert error.code == "media-broken"


def test_other_formats_are_not_even_looked_at() -> None:
    assert refused(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n").code == "media-broken"


def test_heic_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    error = refused(heic(64, 48, b"heic"))
    assert (error.code, error.remedy) == ("media-extra", "Install it: pip install 'batchrun[heic]'")


def test_heic_can_be_shrunk() -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    made = Image.new("RGB", (800, 400), (200, 30, 30))
    out = io.BytesIO()
    pillow_heif.from_pillow(made).save(out)
    assert shrunk(out.getvalue())[0].size == (400, 200)


@pytest.mark.parametrize(("embedded", "linked"), [(251, 0), (0, 257)])
def test_the_pictures_of_a_request_are_counted(embedded: int, linked: int) -> None:
    PictureRules().check_count(250, 256)
    with pytest.raises(MediaError) as caught:
        PictureRules().check_count(embedded, linked)
    assert caught.value.code == "media-too-many"

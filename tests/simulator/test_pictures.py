"""Sizes are read from the headers of real files, made by another library, and from boxes written by hand."""

import base64
import io
import struct

import pytest
from PIL import Image

from batchrun.simulator.pictures import Picture, UnreadablePicture, measure
from batchrun.simulator.videos import UnreadableVideo, measure_video

from .raw import Client


def picture(form: str, width: int = 70, height: int = 50, **settings: object) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), (200, 120, 40)).save(file, form, **settings)
    return file.getvalue()


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def heic(width: int, height: int, quarter_turns: int) -> bytes:
    sizes = [box(b"ispe", struct.pack(">III", 0, *size)) for size in ((64, 64), (width, height), (32, 24))]
    properties = box(b"ipco", b"".join(sizes) + box(b"irot", bytes([quarter_turns])))
    meta = box(b"meta", b"\0\0\0\0" + box(b"hdlr", bytes(20)) + box(b"iprp", properties))
    return box(b"ftyp", b"heic\0\0\0\0mif1heic") + meta


@pytest.mark.parametrize("form", ["BMP", "JPEG", "PNG", "TIFF", "WEBP"])
def test_size_of_each_format(form: str) -> None:
    assert measure(picture(form)) == Picture(format=form, width=70, height=50)


def test_lossless_webp() -> None:
    assert measure(picture("WEBP", 300, 20_0, lossless=True)) == Picture(format="WEBP", width=300, height=200)


def test_extended_webp() -> None:
    file = io.BytesIO()
    frames = [Image.new("RGBA", (300, 200), (shade, 0, 0, 9)) for shade in (1, 200)]
    frames[0].save(file, "WEBP", save_all=True, append_images=frames[1:])
    assert file.getvalue()[12:16] == b"VP8X"
    assert measure(file.getvalue()) == Picture(format="WEBP", width=300, height=200)


def test_progressive_jpeg() -> None:
    assert measure(picture("JPEG", progressive=True)).width == 70


@pytest.mark.parametrize(
    ("orientation", "size"), [(1, (70, 50)), (3, (70, 50)), (5, (50, 70)), (6, (50, 70)), (8, (50, 70))]
)
def test_a_jpeg_turned_by_its_exif(orientation: int, size: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = measure(picture("JPEG", exif=exif))
    assert (found.width, found.height) == size


def test_a_broken_exif_block_is_passed_over() -> None:
    data = picture("JPEG")
    broken = data[:2] + b"\xff\xe1\x00\x0cExif\0\0II*\0" + data[2:]
    assert measure(broken).width == 70


def test_a_bitmap_stored_from_the_top_down() -> None:
    data = bytearray(picture("BMP"))
    struct.pack_into("<i", data, 22, -50)
    assert measure(bytes(data)).height == 50


@pytest.mark.parametrize(("turns", "size"), [(0, (400, 300)), (1, (300, 400)), (2, (400, 300))])
def test_heic_takes_its_largest_size_and_rotation(turns: int, size: tuple[int, int]) -> None:
    assert measure(heic(400, 300, turns)) == Picture(format="HEIC", width=size[0], height=size[1])


@pytest.mark.parametrize("data", [b"", b"GIF89a\x10\0\x10\0", b"<svg/>", b"\xff\xd8\xff", b"RIFF1234WEBPVP8 "])
def test_what_is_no_supported_picture_is_refused(data: bytes) -> None:
    with pytest.raises(UnreadablePicture):
        measure(data)


@pytest.mark.parametrize("form", ["BMP", "JPEG", "PNG", "TIFF", "WEBP"])
def test_every_cut_gives_a_size_or_a_clear_refusal(form: str) -> None:
    data = picture(form)
    for length in range(min(len(data), 800)):
        try:
            found = measure(data[:length])
        except UnreadablePicture:
            continue
        assert (found.width, found.height) == (70, 50)


def movie(*, frames: int, rate: int, width: int, height: int) -> bytes:
    times = box(b"stts", struct.pack(">IIII", 0, 1, frames, 1))
    media = (
        box(b"mdhd", struct.pack(">IIIIII", 0, 0, 0, rate, frames, 0))
        + box(b"hdlr", struct.pack(">II4s", 0, 0, b"vide") + bytes(13))
        + box(b"minf", box(b"stbl", times))
    )
    head = box(b"tkhd", bytes(76) + struct.pack(">II", width << 16, height << 16))
    return box(b"ftyp", b"isom") + box(b"moov", box(b"trak", head + box(b"mdia", media)))


def test_a_movie_tells_its_frames_and_seconds() -> None:
    found = measure_video(movie(frames=250, rate=25, width=1280, height=720))
    assert (found.width, found.height, found.frames, found.seconds) == (1280, 720, 250, 10.0)


@pytest.mark.parametrize("data", [b"", b"\0\0\0\x08ftyp", box(b"moov", b""), b"\0\0\0\1moov"])
def test_what_is_no_movie_is_refused(data: bytes) -> None:
    with pytest.raises(UnreadableVideo):
        measure_video(data)


@pytest.mark.parametrize(
    ("model", "seconds", "status"),
    [
        ("qwen3-vl-plus", 1, 400),
        ("qwen3-vl-plus", 2, 200),
        ("qwen3-vl-plus", 3_600, 200),
        ("qwen3-vl-plus", 3_601, 400),
        ("qwen3-vl-8b-instruct", 1_201, 400),
        ("qwen-vl-max", 1_200, 200),
        ("qwen-vl-max", 1_201, 400),
        ("qwen-vl-max-2025-01-25", 601, 400),
        ("qwen-vl-plus", 601, 400),
        ("qwen-vl-plus", 600, 200),
    ],
)
def test_how_long_a_video_may_last_is_up_to_the_model(client: Client, model: str, seconds: int, status: int) -> None:
    video = movie(frames=seconds * 25, rate=25, width=640, height=360)
    url = "data:video/mp4;base64," + base64.b64encode(video).decode()
    part = {"type": "video_url", "video_url": {"url": url}, "fps": 0.1}
    raw = client.ask(client.body(model=model, messages=[{"role": "user", "content": [part]}]))
    assert (raw.status, b"too long or too short" in raw.body) == (status, status == 400)

"""Pictures of every kind in a run: what is refused costs no call, what is prepared is what arrives."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from PIL import ExifTags, Image

from batchrun.errors import ChangedError, UsageError
from batchrun.jobfile.spec import JobSpec
from batchrun.plan import prepare
from tests.integration.recording import recording, stream
from tests.integration.running import MODEL, Bench, check_items, check_money, check_reservations, faulty
from tests.pictures import heic, picture, png

ORIENTATION, GPS = ExifTags.Base.Orientation, ExifTags.IFD.GPSInfo
GOOD = {"good.png": picture("PNG"), "png-inside.jpg": picture("PNG"), "cmyk.jpg": picture("JPEG", mode="CMYK")}
BAD: Mapping[str, tuple[bytes, str]] = {
    "bomb.png": (png(12_000, 9_000, 17_000), "12,000×9,000 pixels; the limit is 50,000,000 pixels"),
    "truncated.jpg": (picture("JPEG", 400, 300)[:-500], "is broken: it ends in the middle"),
    "text.png": (b"Dear diary, this is no picture.\n", "its content is text"),
    "pages.jpg": (b"%PDF-1.7\n", "its content is PDF. Save its pages as pictures first"),
    "song.jpg": (b"ID3\x04\0\0", "its content is sound. Models don't hear"),
    "empty.png": (b"", "'empty.png' is empty"),
    "tiny.png": (png(9, 9), "9×9 pixels; both sides must be over 10"),
    "strip.png": (png(2_211, 11), "one side may be at most 200 times the other"),
    "heavy.png": (png(64, 64, 11_000_000), "14,666,668 characters as base64; the limit is 10,485,760"),
    "large.tif": (picture("TIFF", 3_841, 2_160, mode="L"), "above 3840×2160 only JPEG and PNG are taken"),
    "moving.gif": (picture("GIF"), "its content is GIF"),
}


@pytest.fixture
def folder(sqlite_bench: Bench) -> Path:
    pictures = sqlite_bench.folder / "pictures"
    pictures.mkdir()
    return pictures


def captions(provider: str = "", **settings: object) -> JobSpec:
    document = {
        "name": "captions",
        "provider": provider or faulty(""),
        "model": MODEL,
        "prompt": "Describe {{ stem }}.",
    }
    return JobSpec.model_validate({**document, "inputs": {"images": "pictures"}, **settings})


def exif(orientation: int) -> Image.Exif:
    """With a place and a camera besides."""
    data = Image.Exif()
    data[ORIENTATION] = orientation
    data[ExifTags.Base.Make] = "A camera"
    data.get_ifd(GPS)[ExifTags.GPS.GPSLatitude] = (35.0, 41.0, 22.0)
    return data


def photo(form: str, orientation: int = 6, size: tuple[int, int] = (64, 48)) -> bytes:
    out = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").save(out, form, exif=exif(orientation), quality=95)
    return out.getvalue()


def sent_pictures(bench: Bench, job: JobSpec) -> Iterator[bytes]:
    """The bytes of each picture as a server gets them."""
    with recording(bench, stream({"content": "yes"})) as bodies:
        assert bench.go(job).exit_code == 0
    for body in bodies:
        for url in re.findall(r"data:image/[a-z]+;base64,([A-Za-z0-9+/=]+)", body.decode()):
            yield base64.b64decode(url)


def test_bad_pictures_fail_for_nothing_and_the_rest_goes_on(sqlite_bench: Bench, folder: Path) -> None:
    for name, content in {**GOOD, **{name: content for name, (content, _) in BAD.items()}}.items():
        (folder / name).write_bytes(content)
    (sqlite_bench.folder / "secret.png").write_bytes(picture("PNG"))
    (folder / "gone.png").write_bytes(picture("PNG"))
    (folder / "swapped.png").write_bytes(picture("PNG"))
    (job_id,) = sqlite_bench.load(captions())
    (folder / "gone.png").unlink()
    (folder / "swapped.png").unlink()
    (folder / "swapped.png").symlink_to("../secret.png")
    end = sqlite_bench.run([job_id])
    items = {item.custom_id: item for item in sqlite_bench.items_of(job_id)}
    assert {name for name, item in items.items() if item.state == "done"} == set(GOOD)
    assert {item.error_kind for item in items.values() if item.state == "failed"} == {"media"}
    reasons = {name: words for name, (_, words) in BAD.items()}
    reasons |= {"gone.png": "'gone.png' isn't there", "swapped.png": "is a link out of the folder of the job's media"}
    assert {name: items[name].error for name, words in reasons.items() if words not in items[name].error} == {}
    assert len(sqlite_bench.book()) == len(GOOD)
    assert end.exit_code == 1
    check_items(sqlite_bench, [job_id])
    check_money(sqlite_bench, [job_id])
    check_reservations(sqlite_bench)


def test_a_picture_that_is_too_large_is_shrunk_and_its_attempt_says_so(sqlite_bench: Bench, folder: Path) -> None:
    Image.linear_gradient("L").resize((9_000, 3_000)).save(folder / "wide.jpg", quality=90)
    before = (folder / "wide.jpg").read_bytes()
    (sent,) = sent_pictures(sqlite_bench, captions(media={"oversize": "shrink"}))
    with Image.open(io.BytesIO(sent)) as arrived:
        assert (arrived.format, arrived.size) == ("JPEG", (7_680, 2_560))
    assert len(base64.b64encode(sent)) <= 10_485_760
    assert (folder / "wide.jpg").read_bytes() == before
    (attempt,) = sqlite_bench.attempts_of(1)
    assert attempt.note.startswith("'wide.jpg': sent as JPEG of quality 90, 7680×2560 pixels, instead of JPEG of 9000×")


def test_what_shows_through_stays_so(sqlite_bench: Bench, folder: Path) -> None:
    with Image.new("RGBA", (4_000, 2_500), (250, 0, 0, 120)) as made:
        made.save(folder / "glass.webp", lossless=True)
    (sent,) = sent_pictures(sqlite_bench, captions(media={"oversize": "shrink"}))
    with Image.open(io.BytesIO(sent)) as arrived:
        assert (arrived.format, arrived.size, arrived.getpixel((5, 5))) == ("PNG", (4_000, 2_500), (250, 0, 0, 120))


def test_a_small_picture_is_sent_as_it_is(sqlite_bench: Bench, folder: Path) -> None:
    (folder / "small.jpg").write_bytes(photo("JPEG"))
    (sent,) = sent_pictures(sqlite_bench, captions(media={"oversize": "shrink"}))
    assert sent == photo("JPEG")
    assert sqlite_bench.attempts_of(1)[0].note is None


def test_what_shrinking_does_not_mend_is_refused(sqlite_bench: Bench, folder: Path) -> None:
    for name in ("truncated.jpg", "tiny.png", "strip.png", "moving.gif"):
        (folder / name).write_bytes(BAD[name][0])
    (folder / "bomb.png").write_bytes(png(12_000, 9_000, 17_000))
    end = sqlite_bench.go(captions(media={"oversize": "shrink"}))
    assert (end.jobs[0].states, sqlite_bench.book()) == ({"failed": 5}, [])


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_metadata_stay_at_home_and_the_pixels_as_they_are(
    sqlite_bench: Bench, folder: Path, form: str, orientation: int
) -> None:
    content = photo(form, orientation)
    (folder / "photo.jpg").write_bytes(content)
    (sent,) = sent_pictures(sqlite_bench, captions(media={"strip": True}))
    with Image.open(io.BytesIO(content)) as before, Image.open(io.BytesIO(sent)) as after:
        assert after.tobytes() == before.tobytes()
        assert dict(after.getexif()) == ({} if orientation == 1 else {ORIENTATION: orientation})
        assert not after.getexif().get_ifd(GPS)
    assert b"A camera" not in sent


def test_metadata_of_a_data_url_stay_at_home_too(sqlite_bench: Bench) -> None:
    url = "data:image/jpeg;base64," + base64.b64encode(photo("JPEG")).decode()
    job = captions(inputs={"items": [{"id": "a", "image": url, "stem": "x"}]}, media={"strip": True})
    (sent,) = sent_pictures(sqlite_bench, job)
    assert b"A camera" not in sent
    assert len(sent) < len(photo("JPEG"))


def test_a_format_that_hides_its_metadata_is_written_anew_upright(sqlite_bench: Bench, folder: Path) -> None:
    (folder / "scan.tif").write_bytes(photo("TIFF", 6))
    (sent,) = sent_pictures(sqlite_bench, captions(media={"strip": True}))
    with Image.open(io.BytesIO(sent)) as arrived:
        assert (arrived.format, arrived.size, dict(arrived.getexif())) == ("JPEG", (48, 64), {})


def test_bounds_of_pixels_stand_beside_each_picture(sqlite_bench: Bench, folder: Path) -> None:
    (folder / "a.png").write_bytes(GOOD["good.png"])
    with recording(sqlite_bench, stream({"content": "yes"})) as bodies:
        assert sqlite_bench.go(captions(media={"max_pixels": 1_000_000, "min_pixels": 70_000})).exit_code == 0
    part = json.loads(bodies[0])["messages"][0]["content"][0]
    assert (part["type"], part["max_pixels"], part["min_pixels"]) == ("image_url", 1_000_000, 70_000)


@pytest.mark.parametrize(
    ("model", "asked", "words"),
    [
        ("qwen3-vl-plus", {"max_pixels": 20_000_000}, "takes 65,536 to 16,777,216"),
        ("qwen-vl-max", {"min_pixels": 100}, "takes 4,096 to 16,777,216"),
    ],
)
def test_bounds_that_the_model_does_not_take_are_refused(
    sqlite_bench: Bench, folder: Path, model: str, asked: Mapping[str, int], words: str
) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        prepare(captions(model=model, media=asked), sqlite_bench.catalogue)
    assert caught.value.code == "pixel-bounds"


def test_more_pictures_than_a_request_may_have_are_refused(sqlite_bench: Bench, folder: Path) -> None:
    (folder / "a.png").write_bytes(GOOD["good.png"])
    job = captions(inputs={"items": [{"id": "a", "images": ["pictures/a.png"] * 251, "stem": "x"}]})
    (job_id,) = sqlite_bench.load(job)
    sqlite_bench.run([job_id])
    (item,) = sqlite_bench.items_of(job_id)
    assert "has 251 pictures that are sent as data; the limit is 250" in item.error
    assert sqlite_bench.book() == []


def test_heic_is_sent_as_it_is(sqlite_bench: Bench, folder: Path) -> None:
    content = heic(64, 48, b"heic", b"mif1")
    (folder / "phone.heic").write_bytes(content)
    assert list(sent_pictures(sqlite_bench, captions())) == [content]


def test_a_job_of_before_media_had_settings_is_still_the_same(sqlite_bench: Bench, folder: Path) -> None:
    (folder / "a.png").write_bytes(GOOD["good.png"])
    assert captions().identity()["media"] == {}
    assert captions(media={"strip": True}).identity() != captions().identity()


def test_moonshot_takes_gif(sqlite_bench: Bench) -> None:
    rules = sqlite_bench.catalogue.model("moonshot/china", "kimi-k2.5").rules.pictures
    assert {"image/gif", "image/webp"} <= rules.formats
    assert "image/tiff" not in rules.formats


def test_a_picture_that_was_mended_is_taken_as_it_is_now(sqlite_bench: Bench, folder: Path) -> None:
    """It was never sent, so no answer belongs to what it was before."""
    (folder / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "b.png").write_bytes(GOOD["good.png"])
    (job_id,) = sqlite_bench.load(captions())
    sqlite_bench.run([job_id])
    (folder / "a.png").write_bytes(GOOD["good.png"])
    (loaded,) = sqlite_bench.loaded(captions())
    assert (loaded.updated, loaded.unchanged) == (1, 1)
    (folder / "b.png").write_bytes(picture("PNG", 600, 400))
    with pytest.raises(ChangedError, match=r"(?s): 1\n.*b\.png"):
        sqlite_bench.load(captions())


def test_pictures_leave_as_their_own_bytes(sqlite_bench: Bench, folder: Path) -> None:
    """Base64 is four thirds; the rest of the request is next to nothing."""
    for number in range(12):
        (folder / f"{number}.jpg").write_bytes(photo("JPEG", 1, (900 + number, 700)))
    size = sum(path.stat().st_size for path in folder.iterdir())
    with recording(sqlite_bench, stream({"content": "yes"})) as bodies:
        assert sqlite_bench.go(captions()).exit_code == 0
    assert len(bodies) == 12
    assert sum(map(len, bodies)) <= 1.34 * size

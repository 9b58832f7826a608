"""Local files go to the vendor's temporary storage once, and calls name them there (contract 8.8)."""

from __future__ import annotations

import asyncio
import hashlib
import struct
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from batchrun.catalogue import Catalogue
from batchrun.database import writing
from batchrun.drain import Stop
from batchrun.errors import MediaError, UsageError
from batchrun.jobfile.spec import JobSpec
from batchrun.media.decoder import Decoder
from batchrun.media.videos import Sampling, open_video
from batchrun.plan import prepare
from batchrun.running import run
from batchrun.simulator import Running
from batchrun.tables import Record, uploads, usage
from batchrun.uploads.upload_form import account_of
from tests.clips import clip, padded
from tests.integration.running import (
    KEY,
    KEY_VARIABLE,
    MODEL,
    NATIVE,
    Bench,
    check_items,
    check_money,
    check_reservations,
    faulty,
    fresh,
    opened_bench,
    running_simulator,
    wait_until,
)
from tests.media_server import MediaServer, media_server

LARGE = 9_000_000
"""Bytes of a picture that is too large to stand in a request, and not too large to be fetched."""


def bitmap(size: int, shade: int = 0) -> bytes:
    """A BMP of 1,000 pixels a line; only its header counts."""
    rows = size // 3_000
    header = struct.pack("<IiiHHIIiiII", 40, 1_000, rows, 1, 24, 0, 0, 2_835, 2_835, 0, 0)
    body = bytes([shade]) * (rows * 3_000)
    return b"BM" + struct.pack("<IHHI", 54 + len(body), 0, 0, 54) + header + body


@pytest.fixture(scope="module")
def storage() -> Iterator[Running]:
    """A simulator whose uploads nobody else counts."""
    with running_simulator() as started:
        yield started


@pytest.fixture
def native(database_url: str, tmp_path: Path, storage: Running) -> Iterator[Bench]:
    with opened_bench(database_url, tmp_path, storage) as made:
        yield in_native(made)


@pytest.fixture
def sqlite_native(sqlite_url: str, tmp_path: Path, storage: Running) -> Iterator[Bench]:
    with opened_bench(sqlite_url, tmp_path, storage) as made:
        yield in_native(made)


def in_native(bench: Bench) -> Bench:
    bench.like = NATIVE
    bench.at()
    (bench.folder / "photos").mkdir()
    return bench


def put(bench: Bench, name: str, data: bytes) -> str:
    (bench.folder / "photos" / name).write_bytes(data)
    return f"photos/{name}"


def looking(*paths: str, fault: str = "", name: str = "looking", column: str = "image", **settings: object) -> JobSpec:
    rows = [{"id": str(number), column: path, "number": number} for number, path in enumerate(paths)]
    document: dict[str, object] = {
        "name": name,
        "provider": faulty(fault),
        "model": MODEL,
        "prompt": "Describe number {{ number }}.",
        "inputs": {"items": rows},
        "media": {"upload": "always"},
        "params": {"max_tokens": 100},
    }
    return JobSpec.model_validate({**document, **settings})


def stored(bench: Bench) -> dict[str, Any]:
    page = bench.simulator.page("/uploads")
    assert isinstance(page, dict)
    return page


def new_files(bench: Bench, before: dict[str, Any]) -> list[dict[str, Any]]:
    files: list[dict[str, Any]] = stored(bench)["files"][len(before["files"]) :]
    return files


def rows(bench: Bench) -> list[Record]:
    return bench.rows(uploads)


def test_a_picture_that_is_too_large_for_a_request_is_uploaded(native: Bench) -> None:
    before, data = stored(native), bitmap(LARGE)
    ids = native.load(looking(put(native, "large.bmp", data), media={"upload": "large"}))
    assert native.run(ids).exit_code == 0
    (file,) = new_files(native, before)
    assert (file["sha256"], file["size"]) == (hashlib.sha256(data).hexdigest(), len(data))
    assert (file["mime"], file["model"], "large" in file["url"]) == ("image/bmp", MODEL, False)
    assert native.answers_of(ids[0])["0"].startswith("A 1000 by 3000 pixel BMP picture")
    check_items(native, ids)
    check_money(native, ids)


def test_a_picture_that_fits_stays_in_its_request(sqlite_native: Bench) -> None:
    before = stored(sqlite_native)
    end = sqlite_native.go(looking(put(sqlite_native, "small.bmp", bitmap(60_000)), media={"upload": "large"}))
    assert (end.exit_code, new_files(sqlite_native, before)) == (0, [])


def test_without_the_setting_a_picture_that_is_too_large_fails(sqlite_native: Bench) -> None:
    ids = sqlite_native.load(looking(put(sqlite_native, "large.bmp", bitmap(LARGE)), media={}))
    sqlite_native.run(ids)
    (item,) = sqlite_native.items_of(ids[0])
    assert (item.state, item.error_kind, sqlite_native.book()) == ("failed", "media", [])


def test_more_than_10_mb_is_too_large_to_be_uploaded_too(sqlite_native: Bench) -> None:
    before = stored(sqlite_native)
    ids = sqlite_native.load(looking(put(sqlite_native, "huge.bmp", bitmap(10_600_000))))
    sqlite_native.run(ids)
    (item,) = sqlite_native.items_of(ids[0])
    assert (item.state, item.error_kind, new_files(sqlite_native, before)) == ("failed", "media", [])


def test_items_with_the_same_bytes_share_one_upload_and_one_policy_serves_all(native: Bench) -> None:
    before = stored(native)
    paths = [put(native, f"{name}.bmp", bitmap(60_000, shade)) for name, shade in (("a", 1), ("b", 1), ("c", 2))]
    ids = native.load(looking(*paths, *paths))
    assert native.run(ids).exit_code == 0
    assert (len(new_files(native, before)), len(rows(native)), len(native.book())) == (2, 2, 6)
    assert stored(native)["policies_asked"] - before["policies_asked"] == 1


def test_a_later_run_uses_what_is_there(native: Bench) -> None:
    path = put(native, "a.bmp", bitmap(60_000, 3))
    native.go(looking(path))
    before = stored(native)
    end = native.go(looking(path, name="again"))
    assert (end.exit_code, new_files(native, before), len(rows(native))) == (0, [], 1)


def test_a_row_says_what_it_is_good_for_and_never_the_key(native: Bench) -> None:
    data = bitmap(60_000, 4)
    began = datetime.now(UTC)
    native.go(looking(put(native, "a.bmp", data)))
    (row,) = rows(native)
    assert (row.account, row.digest) == (account_of(KEY), hashlib.sha256(data).hexdigest())
    assert row.url == stored(native)["files"][-1]["url"]
    assert timedelta(hours=47, minutes=59) < row.expires_at - began < timedelta(hours=48, minutes=1)
    assert KEY not in str(row)


def change(bench: Bench, **values: object) -> None:
    with writing(bench.engine) as connection:
        connection.execute(sa.update(uploads).values(**values))


def test_what_expires_soon_is_uploaded_anew(native: Bench) -> None:
    path = put(native, "a.bmp", bitmap(60_000, 5))
    native.go(looking(path))
    change(native, expires_at=datetime.now(UTC) + timedelta(hours=1))
    before = stored(native)
    end = native.go(looking(path, name="again"))
    assert (end.exit_code, len(new_files(native, before)), len(rows(native))) == (0, 1, 1)
    assert rows(native)[0].expires_at > datetime.now(UTC) + timedelta(hours=47)


def test_another_account_uploads_its_own(native: Bench) -> None:
    path = put(native, "a.bmp", bitmap(60_000, 6))
    native.go(looking(path))
    change(native, account=account_of("another key"))
    before = stored(native)
    end = native.go(looking(path, name="again"))
    assert (end.exit_code, len(new_files(native, before)), len(rows(native))) == (0, 1, 2)


def test_an_upload_that_is_refused_is_made_anew_once_and_nothing_is_paid_twice(native: Bench) -> None:
    path = put(native, "a.bmp", bitmap(60_000, 7))
    first = native.load(looking(path))
    native.run(first)
    change(native, url="oss://gone/a.bmp")
    before = stored(native)
    ids = native.load(looking(path, name="again"))
    assert native.run(ids).exit_code == 0
    made = native.attempts_of(ids[0])
    assert [(row.outcome, row.error_kind) for row in made] == [("failed", "media_unavailable"), ("complete", None)]
    assert len(new_files(native, before)) == 1
    assert native.items_of(ids[0])[0].paid_tries == 0
    check_money(native, [*first, *ids])


def test_a_new_upload_that_is_refused_is_the_items_error(sqlite_url: str, tmp_path: Path) -> None:
    with (
        running_simulator(upload_lifetime=0.0) as forgetful,
        opened_bench(sqlite_url, tmp_path, forgetful) as made,
    ):
        bench = in_native(made)
        ids = bench.load(looking(put(bench, "a.bmp", bitmap(60_000))))
        assert bench.run(ids).exit_code == 1
        (attempt,) = bench.attempts_of(ids[0])
        assert (attempt.outcome, attempt.error_kind, attempt.http_status) == ("failed", "invalid", 400)


@pytest.mark.parametrize(
    "fault", ["policy-429-first=1", "policy-500-first=1", "upload-503-first=1", "upload-403-first=1"]
)
def test_an_upload_that_fails_is_tried_again_and_costs_nothing(sqlite_native: Bench, fault: str) -> None:
    fault = fresh(fault)
    sqlite_native.at(fault)
    ids = sqlite_native.load(looking(put(sqlite_native, "a.bmp", bitmap(60_000, 8)), fault=fault))
    assert sqlite_native.run(ids).exit_code == 0
    made = sqlite_native.attempts_of(ids[0])
    assert [(row.outcome, row.error_kind) for row in made] == [("unsent", "media_unavailable"), ("complete", None)]
    assert len(sqlite_native.book()) == 1


def test_a_refused_key_stops_the_job_before_any_call(sqlite_native: Bench) -> None:
    ids = sqlite_native.load(looking(put(sqlite_native, "a.bmp", bitmap(60_000, 9))))
    settings = replace(sqlite_native.settings, environment={KEY_VARIABLE: "another-key-of-nobody"})
    end = run(sqlite_native.engine, ids, sqlite_native.catalogue, settings)
    assert (end.exit_code, end.jobs[0].paused, sqlite_native.book()) == (3, "refused", [])


def test_a_host_that_is_none_of_the_vendors_gets_nothing(sqlite_native: Bench, canary: MediaServer) -> None:
    fault = f"policy-host={canary.port}"
    sqlite_native.at(fault)
    ids = sqlite_native.load(looking(put(sqlite_native, "a.bmp", bitmap(60_000, 10)), fault=fault))
    sqlite_native.run(ids)
    (item,) = sqlite_native.items_of(ids[0])
    assert (item.state, item.error_kind, canary.asked) == ("failed", "media", [])
    assert "none of its own hosts" in item.error


@pytest.fixture
def canary() -> Iterator[MediaServer]:
    with media_server() as made:
        yield made


def test_killed_after_an_upload_nothing_is_lost_and_nothing_uploaded_twice(native: Bench) -> None:
    fault = fresh("stall-first=1")
    native.at(fault)
    before = stored(native)
    ids = native.load(looking(put(native, "a.bmp", bitmap(60_000, 11)), fault=fault))
    process = native.drainer(ids)
    wait_until(lambda: bool(rows(native)), "the upload stands in the database")
    process.kill()
    process.wait()
    assert native.run(ids).exit_code == 0
    assert len(new_files(native, before)) == 1
    check_items(native, ids)
    check_reservations(native)


def test_the_key_and_the_signature_are_nowhere(sqlite_native: Bench) -> None:
    sqlite_native.go(looking(put(sqlite_native, "a.bmp", bitmap(60_000, 12))))
    found = b"".join(path.read_bytes() for path in sqlite_native.folder.rglob("batchrun.db*"))
    assert (KEY.encode() in found, b"STS.simulator" in found, b"oss://" in found) == (False, False, True)


def test_a_provider_without_storage_refuses_the_setting(catalogue: Catalogue) -> None:
    job = looking("a.png", name="x").model_copy(update={"provider": "model-studio/singapore"})
    with pytest.raises(UsageError) as caught:
        prepare(job, catalogue)
    assert caught.value.code == "no-uploads"


@pytest.fixture
def catalogue(sqlite_native: Bench) -> Catalogue:
    return sqlite_native.catalogue


def test_stopped_in_an_upload_the_item_is_given_back(sqlite_native: Bench) -> None:
    stop = Stop()
    stop.ask()
    ids = sqlite_native.load(looking(put(sqlite_native, "a.bmp", bitmap(60_000, 13))))
    sqlite_native.run(ids, stop=stop)
    assert sqlite_native.states(ids[0]) == {"pending": 1}


# Videos


@pytest.mark.parametrize(("how", "fault"), [("auto", ""), ("file", "503-first=1")])
def test_a_video_that_is_too_large_for_a_request_is_uploaded_once_and_not_taken_apart(
    native: Bench, how: str, fault: str
) -> None:
    """Items, jobs and tries share it."""
    fault = fresh(fault) if fault else fault
    native.at(fault)
    before, data = stored(native), padded(clip(seconds=4), 8_500_000 + len(how))
    path = put(native, "talk.mov", data)
    asked: dict[str, Any] = {"fault": fault, "column": "video", "media": {"upload": "large", "video": how, "fps": 1}}
    ids = native.load(looking(path, path, **asked), looking(path, name="again", **asked))
    assert native.run(ids).exit_code == 0
    (file,) = new_files(native, before)
    assert (file["sha256"], file["size"], file["mime"]) == (hashlib.sha256(data).hexdigest(), len(data), "video/mp4")
    assert [row.video_tokens for row in native.rows(usage)] == [2 * 70 + 2] * 3  # 4 frames, two on a grid of 10×7
    check_items(native, ids)
    check_money(native, ids)


@pytest.mark.parametrize(
    ("media", "mimes"),
    [
        ({"upload": "always"}, ["video/mp4"]),
        ({"upload": "large"}, []),  # it fits into the request
        ({"upload": "always", "video": "frames"}, []),  # its pictures stay in the request
    ],
)
def test_which_videos_are_uploaded(sqlite_native: Bench, media: dict[str, str], mimes: list[str]) -> None:
    before = stored(sqlite_native)
    job = looking(put(sqlite_native, "talk.mp4", clip(seconds=3, noise=len(str(media)))), column="video", media=media)
    end = sqlite_native.go(job)
    assert (end.exit_code, [file["mime"] for file in new_files(sqlite_native, before)]) == (0, mimes)


def test_a_file_that_the_policy_does_not_take_is_not_sent(sqlite_native: Bench) -> None:
    sqlite_native.at("policy-mb=8")
    before = stored(sqlite_native)
    paths = [put(sqlite_native, f"{size}.mp4", padded(clip(seconds=3), size)) for size in (8_388_609, 8_388_608)]
    ids = sqlite_native.load(looking(*paths, fault="policy-mb=8", column="video", media={"upload": "large"}))
    sqlite_native.run(ids)
    large, fitting = sqlite_native.items_of(ids[0])
    assert (large.state, large.error_kind, fitting.state) == ("failed", "media", "done")
    assert "has 8,388,609 bytes; the vendor takes uploads of 8,388,608 at most" in large.error
    assert stored(sqlite_native)["files_posted"] - before["files_posted"] == 1


@pytest.mark.parametrize(
    ("uploads", "size", "words"),
    [
        (True, 104_857_601, "has 104,857,601 bytes; the limit of a video that is uploaded is 104,857,600"),
        (False, 8_000_000, "as base64; the limit of a video is 10,485,760"),
    ],
)
def test_a_file_that_is_too_large_is_refused_before_anybody_looks_into_it(
    tmp_path: Path, uploads: bool, size: int, words: str
) -> None:
    with (tmp_path / "a.mp4").open("wb") as file:
        file.write(clip(seconds=1)[:1_000])  # broken, which isn't what is told
        file.truncate(size)

    async def opened() -> None:
        with Decoder(processes=1) as decoder:
            await open_video(tmp_path, "a.mp4", Sampling(how="file", uploads=uploads), decoder, start=None, end=None)

    with pytest.raises(MediaError) as caught:
        asyncio.run(opened())
    assert (caught.value.code, words in caught.value.message) == ("media-too-large", True)

"""Local videos from the file to the answer: what leaves, what it costs, and which are refused before any call."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import av
import numpy as np
import pytest

from batchrun.catalogue import load_catalogue
from batchrun.errors import MediaError, SpecError, UsageError
from batchrun.estimating import estimate_all
from batchrun.jobfile.spec import JobFile, JobSpec
from batchrun.loading.itemising import NO_SOUND
from batchrun.media.decoder import Decoder
from batchrun.media.videos import Sampling, VideoRules, linked_video, open_video
from batchrun.messages import FramesPart
from batchrun.plan import prepare
from batchrun.simulator import Running
from batchrun.tables import usage
from tests.clips import clip, write_clip
from tests.integration.running import MODEL, NATIVE, REAL, Bench, check_attempts, check_money, opened_bench


@pytest.fixture(params=[REAL, NATIVE], ids=["compat", "native"])
def either(request: pytest.FixtureRequest, sqlite_url: str, tmp_path: Path, simulator: Running) -> Iterator[Bench]:
    with opened_bench(sqlite_url, tmp_path, simulator, like=request.param) as made:
        yield made


def of_videos(name: str, **settings: object) -> JobSpec:
    document = {
        "name": name,
        "provider": "sim/none",
        "model": MODEL,
        "inputs": {"videos": "clips/*"},
        "prompt": f"{name}: what happens?",
        "params": {"max_tokens": 400},
    }
    return JobSpec.model_validate({**document, **settings})


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    folder = tmp_path / "clips"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("how", ["file", "frames"])
def test_a_video_is_answered_and_its_cost_is_that_of_the_book(either: Bench, clips: Path, how: str) -> None:
    write_clip(clips / "a.mp4", seconds=4)
    (job_id,) = either.load(of_videos(f"v-{how}", media={"fps": 2, "video": how}))
    either.run([job_id])
    assert either.states(job_id) == {"done": 1}
    (row,) = either.rows(usage, usage.c.job_id == job_id)
    assert row.video_tokens == 4 * 70 + 2  # 8 frames, two on a grid; 128×96 is scaled up to 65,536 pixels: 10×7
    check_attempts(either, [job_id], 0)
    check_money(either, [job_id])


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("empty.mp4", b"", "'empty.mp4' is empty"),
        (
            "list.mp4",
            b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/x\n",
            "is a playlist or another text that names files",
        ),
        ("picture.mp4", b"\x89PNG\r\n\x1a\n" + bytes(64), "is a picture (image/png)"),
        ("half.mp4", clip(seconds=3)[:2_000], "'half.mp4' is broken: Invalid data found when processing input. Copy"),
        ("half.mkv", clip("mkv", seconds=3)[:3_000], "'half.mkv' is cut: it ends at"),
        ("short.mp4", clip(seconds=0.2), "lasts 0.2 s; 4 pictures, the fewest that the model takes"),
    ],
)
def test_a_bad_video_costs_its_own_item_and_no_call(
    sqlite_bench: Bench, clips: Path, name: str, data: bytes, says: str
) -> None:
    (clips / name).write_bytes(data)
    write_clip(clips / "good.mp4", seconds=3)
    (job_id,) = sqlite_bench.load(of_videos(f"bad-{name}"))
    sqlite_bench.run([job_id])
    bad = next(item for item in sqlite_bench.attempts_of(job_id) if item.outcome != "complete")
    assert says in bad.error
    assert sqlite_bench.states(job_id) == {"done": 1, "failed": 1}
    assert len(sqlite_bench.book()) == 1


async def frames_of(folder: Path, name: str, sampling: Sampling, **part: float | None) -> FramesPart:
    with Decoder(processes=1) as decoder:
        opened = await open_video(folder, name, sampling, decoder, **{"start": None, "end": None, **part})
        opened.close()
    assert isinstance(opened.part, FramesPart)
    return opened.part


@pytest.mark.parametrize(
    ("sampling", "part", "number", "fps"),
    [
        (Sampling(how="frames"), {}, 8, 2.0),
        (Sampling(how="frames", fps=0.5), {}, 4, 1.0),  # a list has four pictures at least
        (Sampling(how="frames", fps=10, max_frames=16), {}, 16, 4.0),
        (Sampling(fps=5), {"start": 1.0, "end": 3.0}, 10, 5.0),
    ],
)
def test_frames_are_taken_at_the_rate_that_is_told(
    clips: Path, sampling: Sampling, part: dict[str, float], number: int, fps: float
) -> None:
    write_clip(clips / "a.mp4", seconds=4)
    taken = asyncio.run(frames_of(clips, "a.mp4", sampling, **part))
    assert (len(taken.sources), taken.fps) == (number, fps)


@pytest.mark.parametrize("kind", ["mp4", "mov", "mkv", "avi", "flv", "wmv", "ts"])
def test_every_container_is_sampled_whatever_it_is_called(clips: Path, kind: str) -> None:
    write_clip(clips / "clip.bin", kind, seconds=3)
    taken = asyncio.run(frames_of(clips, "clip.bin", Sampling(how="frames")))
    assert len(taken.sources) == 6


# What can't be sent, by the codes of the page of errors


def test_a_list_of_frames_is_as_long_as_the_model_takes() -> None:
    with pytest.raises(MediaError) as raised:
        VideoRules(frames=(4, 80)).check_list("the list", 3)
    assert raised.value.code == "media-frames"


def test_a_file_lasts_as_long_as_the_model_takes() -> None:
    with pytest.raises(MediaError) as raised:
        VideoRules(seconds=(2, 600)).check_seconds("a.mp4", 700.0)
    assert raised.value.code == "media-video-length"


def test_no_pictures_are_taken_out_of_a_video_by_url() -> None:
    with pytest.raises(MediaError) as raised:
        linked_video("https://host/a.mp4", Sampling(how="frames"))
    assert raised.value.code == "media-video-as"


def test_sound_alone_is_no_video(clips: Path) -> None:
    with av.open(str(clips / "a.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44_100, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1_024), dtype="float32"), format="fltp", layout="mono")
        frame.rate = 44_100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(MediaError) as raised:
        asyncio.run(frames_of(clips, "a.mp4", Sampling(how="frames")))
    assert raised.value.code == "media-no-frames"


def test_a_model_that_sees_no_videos_gets_none() -> None:
    job = of_videos("blind", provider="model-studio/beijing", model="kimi-k2-thinking", params={})
    with pytest.raises(UsageError) as raised:
        prepare(job, load_catalogue())
    assert raised.value.code == "model-without-videos"


@pytest.mark.parametrize(
    ("data", "sampling", "code"),
    [
        (clip(seconds=1), Sampling(how="file", rules=VideoRules(seconds=(2, 3_600))), "media-video-length"),
        (clip(seconds=80, rate=1), Sampling(how="frames", rules=VideoRules(frames=(4, 6))), "media-video-length"),
    ],
    ids=["too short for a file", "too long for so few pictures"],
)
def test_a_limit_of_the_model_is_found_in_the_video(clips: Path, data: bytes, sampling: Sampling, code: str) -> None:
    (clips / "a.mp4").write_bytes(data)
    with pytest.raises(MediaError) as raised:
        asyncio.run(frames_of(clips, "a.mp4", sampling))
    assert raised.value.code == code


def test_a_column_of_frames_is_one_video_and_urls_of_videos_are_known_by_their_ends(
    sqlite_bench: Bench, tmp_path: Path
) -> None:
    frames = [f"https://host/{number}.jpg" for number in range(4)]
    (tmp_path / "rows.jsonl").write_text(json.dumps({"id": "f", "frames": frames}))
    (tmp_path / "urls.txt").write_text("https://host/v.MP4?sig=1\nhttps://host/p.jpg\n")
    ids = sqlite_bench.load(
        of_videos("frames", inputs={"rows": "rows.jsonl"}), of_videos("urls", inputs={"urls": "urls.txt"})
    )
    sqlite_bench.run(ids)
    kinds = [media["kind"] for job_id in ids for item in sqlite_bench.items_of(job_id) for media in item.media]
    assert kinds == ["frames", "video", "image"]
    assert [sqlite_bench.states(job_id)["done"] for job_id in ids] == [1, 2]


def test_max_frames_is_refused_for_a_video_by_address_where_it_cannot_be_said(
    sqlite_bench: Bench, tmp_path: Path
) -> None:
    (tmp_path / "urls.txt").write_text("https://host/v.mp4\n")
    job = of_videos("most", inputs={"urls": "urls.txt"}, media={"max_frames": 10})
    with pytest.raises(SpecError, match=r"media\.max_frames can't be sent"):
        sqlite_bench.load(job)


URL = "https://host/v.mp4"


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        ({"videos": "clips/*"}, 1),
        ({"rows": "rows.jsonl"}, 1),
        ({"urls": "urls.txt"}, 1),
        ({"items": [{"id": "a", "videos": [URL, URL]}, {"id": "b", "video": URL}]}, 1),
        ({"items": [{"id": "a", "frames": [f"https://host/{number}.jpg" for number in range(4)]}]}, 0),
        ({"items": [{"id": "a", "image": "https://host/a.jpg"}]}, 0),
    ],
    ids=["videos", "rows", "urls", "items", "frames", "pictures"],
)
def test_that_models_do_not_hear_is_told_once_wherever_videos_come_from(
    sqlite_bench: Bench, clips: Path, inputs: dict[str, object], told: int
) -> None:
    write_clip(clips / "a.mp4", seconds=2)
    rows = [{"id": "p", "image": "https://host/a.jpg"}, {"id": "v", "video": URL}, {"id": "w", "video": URL}]
    (clips.parent / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (clips.parent / "urls.txt").write_text(f"https://host/a.jpg\n{URL}\n{URL}?2\n")
    job = of_videos("heard", inputs=inputs)
    (loaded,) = sqlite_bench.loaded(job)
    file = JobFile(version=1, jobs=(job,), path=None)
    now = datetime.now(UTC)
    (estimated,) = estimate_all(file, sqlite_bench.catalogue, base=clips.parent, engine=None, now=now).jobs
    assert (loaded.notes.count(NO_SOUND), list(estimated.notes).count(NO_SOUND)) == (told, told)

"""Videos as telephones, screen recorders and broken programs write them: what is seen of them, and when."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import av
import pytest
from PIL import Image

from batchrun.errors import MediaError
from batchrun.estimating import estimate_all
from batchrun.jobfile.spec import JobFile, JobSpec
from batchrun.loading.measuring import clip_of, measured
from batchrun.media.decoder import Decoder
from batchrun.media.videos import FilePart, Sampling, VideoFacts, open_video, probe_now
from batchrun.messages import FramesPart, JsonValue, Source
from batchrun.tables import usage
from tests.clips import clip, flag, padded, slides, turned, with_header_seconds
from tests.integration.running import MODEL, Bench

HOURS = slides([minute * 60 for minute in range(600)], size=(32, 32))
"""Ten of them, in six hundred frames."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    facts: VideoFacts
    fps: float
    pictures: list[Image.Image]

    @property
    def slides(self) -> list[int]:
        """The numbers of the slides that are shown, see `slides`."""
        return [round(picture.convert("L").resize((1, 1)).tobytes()[0] / 20) for picture in self.pictures]


def seen(folder: Path, video: bytes, fps: float | None = None, *part: float) -> Seen:
    """What a model gets to see of it, or of the part from the first to the second of `part`."""
    (folder / "a.mp4").write_bytes(video)

    async def taken() -> Seen:
        start, end = part or (None, None)
        with Decoder(processes=1) as decoder:
            facts = await asyncio.to_thread(probe_now, folder, "a.mp4", decoder)
            opened = await open_video(folder, "a.mp4", Sampling(how="frames", fps=fps), decoder, start=start, end=end)
            assert isinstance(opened.part, FramesPart)
            pictures: list[Image.Image] = [picture(source) for source in opened.part.sources]
            opened.close()
        return Seen(facts=facts, fps=opened.part.fps or 0, pictures=pictures)

    return asyncio.run(taken())


def picture(source: Source) -> Image.Image:
    assert isinstance(source, FilePart)
    return Image.open(BytesIO(b64decode(b"".join(source.read_encoded()))))


@pytest.mark.parametrize(
    ("degrees", "size", "red"), [(90, (64, 128), "right"), (180, (128, 64), "bottom"), (270, (64, 128), "left")]
)
def test_a_turned_video_is_seen_and_measured_upright(
    tmp_path: Path, degrees: int, size: tuple[int, int], red: str
) -> None:
    found = seen(tmp_path, turned(flag(), degrees))
    (width, height), picture = size, found.pictures[0]
    place = {"right": (width - 4, height // 3), "left": (3, height // 3), "bottom": (width // 3, height - 4)}[red]
    pixel = picture.getpixel(place)
    assert isinstance(pixel, tuple)
    assert (picture.size, pixel[0] > 200, pixel[2] < 60) == (size, True, True)
    clip = clip_of(measured(["a.mp4"], tmp_path), {"path": "a.mp4"})
    assert clip is not None
    assert (clip.width, clip.height) == size


@pytest.mark.parametrize(
    ("pixels", "degrees", "size"),
    [
        (Fraction(2), 0, (256, 64)),
        (Fraction(1, 2), 0, (64, 64)),
        (Fraction(2), 90, (64, 256)),
        (Fraction(1, 255), 0, (128, 64)),
    ],
)
def test_a_video_whose_pixels_are_no_squares_is_seen_as_players_show_it(
    tmp_path: Path, pixels: Fraction, degrees: int, size: tuple[int, int]
) -> None:
    video = flag(pixels=pixels)
    found = seen(tmp_path, turned(video, degrees) if degrees else video)
    assert ((found.facts.width, found.facts.height), found.pictures[0].size) == (size, size)


@pytest.mark.parametrize("kind", ["mp4", "mkv"])
def test_each_picture_is_what_is_shown_at_its_time_however_long_it_stays(tmp_path: Path, kind: str) -> None:
    """Screen recorders write a frame where something changes, and nothing else."""
    video = slides([0, 10, 20, 25, 26, 27, 50], kind)
    found = seen(tmp_path, video, 0.1)
    assert (found.fps, found.slides) == (0.1, [0, 1, 2, 5, 5])
    part = seen(tmp_path, video, 0.4, 20.0, 30.0)
    assert (part.fps, part.slides) == (0.4, [2, 2, 3, 5])


@pytest.mark.parametrize("kind", ["mkv", "avi", "ts", "wmv"])
def test_a_long_video_is_sought_in_and_not_decoded_to_its_end(tmp_path: Path, kind: str) -> None:
    found = seen(tmp_path, slides(range(61), kind), 0.1)
    brightness = [number * 20 % 256 for number in (0, 10, 20, 30, 40, 50)]
    assert (found.fps, found.slides) == (0.1, [round(one / 20) for one in brightness])


def test_a_slide_that_stays_for_a_whole_part_is_seen_in_it(tmp_path: Path) -> None:
    found = seen(tmp_path, slides([0, 10, 20, 100]), 2, 40.0, 60.0)
    assert (found.fps, found.slides) == (0.2, [2] * 4)


@pytest.mark.parametrize(
    ("times", "how", "grids"),
    [
        ([0, 10, 20, 25, 26, 27, 50], "frames", 3),  # six of its frames, two on a grid
        ([0, 60, 120, 180, 240, 300], "frames", 16),  # at 0.1 per second, the slowest that can be said
        ([0, 60, 120, 180, 240, 300], "file", 3),
    ],
)
def test_a_slow_video_costs_what_was_estimated(
    sqlite_bench: Bench, tmp_path: Path, times: list[float], how: str, grids: int
) -> None:
    """There are fewer frames in it than are asked for, and a vendor takes no more than there are."""
    (tmp_path / "a.mp4").write_bytes(slides(times))
    document = {
        "name": "slow",
        "provider": "sim/none",
        "model": MODEL,
        "inputs": {"videos": "*.mp4"},
        "media": {"video": how},
        "prompt": f"What is shown {how} in {len(times)} slides?",
    }
    job = JobSpec.model_validate(document)
    file = JobFile(version=1, jobs=(job,), path=None)
    now = datetime.now(UTC)
    (estimated,) = estimate_all(file, sqlite_bench.catalogue, base=tmp_path, engine=None, now=now).jobs
    sqlite_bench.go(job)
    (row,) = sqlite_bench.rows(usage)
    assert row.video_tokens == grids * 64 + 2
    assert estimated.input_tokens.low <= row.input_tokens
    assert estimated.input_tokens.high is not None
    assert row.input_tokens <= estimated.input_tokens.high


def test_ten_hours_with_a_frame_a_minute(tmp_path: Path) -> None:
    found = seen(tmp_path, HOURS, None, 600.0, 900.0)
    assert round(found.facts.seconds) == 35_940
    assert (found.fps, found.slides) == (0.1, [slide for slide in range(10, 13) for _ in range(6)] + [0] * 6 + [1] * 6)
    with pytest.raises(MediaError, match=r"fewer than 0\.1 per second"):
        seen(tmp_path, HOURS)


def with_streams(number: int, *, first: bool) -> bytes:
    """A video with one moving picture, before or behind its streams of sound."""
    file = BytesIO()
    with av.open(file, "w", format="matroska") as container:
        for place in range(number):
            if place != (0 if first else number - 1):
                container.add_stream("pcm_s16le", rate=8_000, layout="mono")
                continue
            stream = container.add_stream("mpeg4", rate=10)
            assert isinstance(stream, av.VideoStream)
            stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for _ in range(30):
            container.mux(stream.encode(av.VideoFrame.from_image(Image.new("RGB", (64, 64)))))  # type: ignore[no-untyped-call]
        container.mux(stream.encode())
    return file.getvalue()


@pytest.mark.parametrize("first", [True, False])
def test_the_moving_picture_is_found_among_a_hundred_streams(tmp_path: Path, first: bool) -> None:
    found = seen(tmp_path, with_streams(100, first=first))
    assert (len(found.pictures), found.facts.audio) == (6, True)


def test_behind_128_streams_none_is_looked_for(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="no moving pictures among its first 128 streams") as caught:
        seen(tmp_path, with_streams(200, first=False))
    assert caught.value.code == "media-no-frames"


@pytest.mark.parametrize("told", [0, 1, 100])
@pytest.mark.parametrize("size", [0, 17_000_000], ids=["small", "large"])
def test_a_header_that_lies_about_the_length_is_not_believed(tmp_path: Path, told: float, size: int) -> None:
    video = with_header_seconds(slides(range(10)), told)
    found = seen(tmp_path, padded(video, size) if size else video, 1)
    assert (round(found.facts.seconds), found.slides) == (9, list(range(9)))


def thinned(folder: Path, video: bytes, share: float, fps: float = 2.0) -> tuple[list[int], list[int], float]:
    """The sizes of all pictures of a video, those that are left when they may have that share of the bytes, and their
    rate."""
    (folder / "a.mp4").write_bytes(video)

    def taken(most: int) -> tuple[list[int], float]:
        arguments: dict[str, JsonValue] = {**Sampling(fps=fps).arguments(None, None), "bytes": most}
        with Decoder(processes=1) as decoder, (folder / "a.mp4").open("rb", buffering=0) as file:
            answer = decoder.ask("frames", file, arguments, name="a.mp4", writes=True)
        assert answer.output is not None
        answer.output.close()
        listed = answer.values["sizes"]
        assert isinstance(listed, list)
        return [int(str(place[1])) for place in listed if isinstance(place, list)], float(str(answer.values["fps"]))

    whole, _ = taken(10**9)
    left, rate = taken(int(sum(whole) * share))
    return whole, left, rate


def test_pictures_with_too_many_bytes_are_thinned_evenly_and_their_rate_says_so(tmp_path: Path) -> None:
    whole, left, rate = thinned(tmp_path, clip(seconds=20, noise=7), 0.5)
    assert (len(whole), sum(left) <= sum(whole) / 2, 18 <= len(left) <= 20) == (40, True, True)
    assert rate == pytest.approx(2 * len(left) / 40, abs=1e-4)
    assert left == [whole[index * 40 // len(left)] for index in range(len(left))]


def test_a_video_of_which_too_little_is_left_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"bytes hold, are fewer than 0\.1 per second") as caught:
        thinned(tmp_path, clip(seconds=80, rate=1, noise=7), 0.5, fps=0.15)
    assert caught.value.code == "media-video-length"

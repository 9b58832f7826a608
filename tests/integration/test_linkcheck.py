"""URLs are looked at before a call is paid for, where the job asks for it; private machines are never asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from batchrun.errors import ErrorKind, MediaError, ProviderError
from batchrun.jobfile.spec import JobSpec
from batchrun.plan import prepare
from batchrun.running import RunEnd, run
from batchrun.tables import Record
from batchrun.transport import PinnedTransport
from batchrun.uploads.linkcheck import LinkCheck, look
from tests.integration.running import KEY, MODEL, Bench, faulty
from tests.media_server import Answer, MediaServer, media_server

SECRET = "Signature=canary-of-a-query-91c2"


@pytest.fixture
def files() -> Iterator[MediaServer]:
    with media_server() as made:
        yield made


@pytest.fixture
def canary() -> Iterator[MediaServer]:
    """A machine that nobody may ask."""
    with media_server() as made:
        made.picture("/a.png")
        yield made


def looking(urls: Sequence[str], column: str = "image", inputs: object = None, **media: object) -> JobSpec:
    rows = [{"id": str(number), column: url} for number, url in enumerate(urls)]
    return JobSpec.model_validate(
        {
            "name": "looking",
            "provider": faulty(""),
            "model": MODEL,
            "prompt": "Describe it.",
            "inputs": inputs or {"items": rows},
            "media": {"check_urls": True, **media},
            "deduplicate": False,
        }
    )


def go(bench: Bench, job: JobSpec, files: MediaServer) -> tuple[RunEnd, list[Record]]:
    """Run with the media server allowed; the end and the items."""
    (job_id,) = bench.load(job)
    settings = replace(bench.settings, allowed_hosts=frozenset({files.place}))
    end = run(bench.engine, [job_id], bench.catalogue, settings)
    return end, bench.items_of(job_id)


def test_without_the_setting_no_url_is_asked(sqlite_bench: Bench, files: MediaServer) -> None:
    end, _ = go(sqlite_bench, looking([files.picture("/a.png")], check_urls=False), files)
    assert (end.exit_code, files.asked) == (0, [])


@pytest.mark.parametrize("column", ["image", "video"])
def test_without_the_setting_a_host_that_no_vendor_reaches_costs_no_call_either(
    sqlite_bench: Bench, files: MediaServer, column: str
) -> None:
    urls = ["http://10.0.0.7/a.mp4", "https://localhost/a.mp4", "http://0x7f.1/a.mp4", "https://host/a.mp4"]
    _, items = go(sqlite_bench, looking(urls, column, check_urls=False), files)
    assert [item.state for item in items] == ["failed", "failed", "failed", "done"]
    assert "'http://10.0.0.7/a.mp4' is at an address that isn't public" in items[0].error
    assert (len(sqlite_bench.book()), files.asked) == (1, [])


def test_a_server_of_ones_own_may_reach_more(sqlite_bench: Bench) -> None:
    spec = looking(["http://10.0.0.7/a.png"], check_urls=False)
    near = [prepare(spec.model_copy(update={"provider": name}), sqlite_bench.catalogue) for name in ("vllm", "ollama")]
    assert [plan.reached_hosts for plan in near] == [None, None]


def test_a_url_that_several_items_have_is_asked_once(sqlite_bench: Bench, files: MediaServer) -> None:
    url = files.picture("/a.png") + f"?{SECRET}"
    end, _ = go(sqlite_bench, looking([url, url, url]), files)
    assert (end.exit_code, files.methods("/a.png"), len(sqlite_bench.book())) == (0, ["HEAD"], 3)


def test_nothing_secret_goes_to_a_server_of_media(sqlite_bench: Bench, files: MediaServer) -> None:
    go(sqlite_bench, looking([files.picture("/a.png", set_cookie="a=b"), files.picture("/b.png")]), files)
    sent = [dict(asked.headers) for asked in files.asked]
    assert [set(headers) for headers in sent] == [{"host", "accept", "accept-encoding", "user-agent", "connection"}] * 2
    assert KEY not in str(sent)


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (Answer(status=404), "answers 404"),
        (Answer(status=403), "answers 403"),
        (Answer(headers={"content-type": "image/gif", "content-length": "5"}), "image/gif"),
        (Answer(headers={"content-type": "text/html", "content-length": "5"}), "text/html"),
        (Answer(headers={"content-type": "image/png"}), "Content-Length"),
        (Answer(headers={"content-type": "image/png", "content-length": "0"}), "empty"),
        (Answer(headers={"content-type": "image/png", "content-length": "11000000"}), "10,485,760"),
        (Answer(headers={"content-type": "image/png", "content-length": "many"}), "Content-Length"),
    ],
)
def test_a_url_of_no_use_is_one_items_error_and_no_call(
    sqlite_bench: Bench, files: MediaServer, answer: Answer, word: str
) -> None:
    files.answers["/bad.png"] = [answer]
    _, (bad, good) = go(sqlite_bench, looking([files.url(f"/bad.png?{SECRET}"), files.picture("/good.png")]), files)
    assert (bad.state, bad.error_kind, good.state) == ("failed", "media", "done")
    assert word in bad.error
    assert SECRET not in bad.error
    assert len(sqlite_bench.book()) == 1


def told(kind: str, length: str = "") -> Answer:
    return Answer(headers={"content-type": kind, **({"content-length": length} if length else {})})


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ({"/bad.mp4": told("text/html; charset=utf-8", "900")}, "says that it is text/html; the vendor takes video/"),
        ({"/bad.mp4": told("image/png", "900")}, "says that it is image/png"),
        ({"/bad.mp4": told("video/mp4")}, "has no Content-Length"),
        ({"/bad.mp4": told("video/mp4", "-1")}, "Content-Length"),
        ({"/bad.mp4": told("video/mp4", "2147483649")}, "has 2,147,483,649 bytes; the limit of a video by its address"),
        (  # what it says to HEAD isn't what the vendor would get
            {"HEAD /bad.mp4": told("video/mp4", "1000"), "GET /bad.mp4": told("video/mp4", "3000000000")},
            "has 3,000,000,000 bytes; the limit of a video by its address is 2,147,483,648",
        ),
        (
            {"HEAD /bad.mp4": told("video/mp4", "1000"), "GET /bad.mp4": told("text/html", "1000")},
            "says that it is text/html",
        ),
        ({"/bad.mp4": Answer(status=302, headers={"location": "http://127.0.0.2:80/a.mp4"})}, "isn't public"),
    ],
)
def test_a_video_url_of_no_use_is_one_items_error_and_no_call(
    sqlite_bench: Bench, files: MediaServer, answers: dict[str, Answer], words: str
) -> None:
    files.answers |= {path: [answer] for path, answer in answers.items()}
    urls = [files.url(f"/bad.mp4?{SECRET}"), files.video("/good.mp4", 2_147_483_648), "http://10.0.0.7/private.mp4"]
    _, (bad, good, private) = go(sqlite_bench, looking(urls, "video"), files)
    assert [item.state for item in (bad, good, private)] == ["failed", "done", "failed"]
    assert (words in bad.error, SECRET in bad.error, "isn't public" in private.error) == (True, False, True)
    assert len(sqlite_bench.book()) == 1


def test_a_url_is_judged_as_what_it_is_sent_as(sqlite_bench: Bench, files: MediaServer) -> None:
    """Lists of URLs know videos by their ends; a picture under such a name is none, whatever its server says of it."""
    (sqlite_bench.folder / "urls.txt").write_text(f"{files.video('/a.MP4')}?x\n{files.video('/a.png')}\n")
    job = looking([], inputs={"urls": "urls.txt"})
    _, (video, picture) = go(sqlite_bench, job, files)
    assert (video.state, picture.state, files.methods("/a.MP4")) == ("done", "failed", ["HEAD", "GET"])


@pytest.mark.parametrize("status", [405, 403, 501])
def test_where_head_is_refused_a_get_tells(sqlite_bench: Bench, files: MediaServer, status: int) -> None:
    url = files.picture("/a.png")
    files.answers["HEAD /a.png"] = [Answer(status=status)]
    end, _ = go(sqlite_bench, looking([url]), files)
    assert (end.exit_code, files.methods("/a.png")) == (0, ["HEAD", "GET"])


def test_of_a_get_no_more_than_the_head_is_read(files: MediaServer) -> None:
    url = files.picture("/a.png", size=10_000_000)
    files.answers["HEAD /a.png"] = [Answer(status=405)]
    seen = asyncio.run(look(url, {files.place}, resolve=as_written, seconds=5))  # the body never comes
    assert seen.headers["content-length"] == "10000000"


@pytest.mark.parametrize("status", [503, 500, 429])
def test_a_server_in_trouble_is_asked_again_and_nothing_is_paid(
    sqlite_bench: Bench, files: MediaServer, status: int
) -> None:
    url = files.picture("/a.png")
    files.answers["/a.png"] = [Answer(status=status), Answer(status=status), *files.answers["/a.png"]]
    end, (item,) = go(sqlite_bench, looking([url]), files)
    attempts = sqlite_bench.attempts_of(item.job_id)
    assert (end.exit_code, item.state, item.paid_tries) == (0, "done", 0)
    assert [(row.outcome, row.error_kind) for row in attempts] == [("unsent", "media_unavailable"), ("complete", None)]
    assert len(sqlite_bench.book()) == 1


def test_three_redirects_are_followed_and_four_are_not(sqlite_bench: Bench, files: MediaServer) -> None:
    files.picture("/4.png")
    chain = [files.redirect(f"/{n}.png", f"/{n + 1}.png") for n in range(4)]
    _, items = go(sqlite_bench, looking([chain[1], chain[0]]), files)
    assert [item.state for item in items] == ["done", "failed"]
    assert "more than 3" in items[1].error


async def as_written(host: str, _: int) -> list[str]:
    return [host]


async def loopback(_: str, __: int) -> list[str]:
    return ["127.0.0.1"]


async def both(_: str, __: int) -> list[str]:
    return ["47.88.1.2", "127.0.0.1"]


async def loopback_6(_: str, __: int) -> list[str]:
    return ["::ffff:127.0.0.1"]


HOSTILE = [
    "http://127.0.0.1:{port}/a.png",
    "http://127.0.0.1.:{port}/a.png",
    "http://127.1:{port}/a.png",
    "http://127.0.1:{port}/a.png",
    "http://2130706433:{port}/a.png",
    "http://0x7f000001:{port}/a.png",
    "http://0x7f.0.0.1:{port}/a.png",
    "http://0X7F.1:{port}/a.png",
    "http://0177.0.0.1:{port}/a.png",
    "http://0177.1:{port}/a.png",
    "http://017700000001:{port}/a.png",
    "http://127.000.000.001:{port}/a.png",
    "http://0:{port}/a.png",
    "http://0.0.0.0:{port}/a.png",
    "http://localhost:{port}/a.png",
    "http://localhost.:{port}/a.png",
    "http://LocalHost:{port}/a.png",
    "http://a.localhost:{port}/a.png",
    "http://localhost.localdomain:{port}/a.png",
    "http://ip6-localhost:{port}/a.png",
    "http://①②⑦.⓪.⓪.①:{port}/a.png",
    "http://127。0。0。1:{port}/a.png",
    "http://ⓛocalhost:{port}/a.png",
    "http://[::1]:{port}/a.png",
    "http://[::]:{port}/a.png",
    "http://[::127.0.0.1]:{port}/a.png",
    "http://[::ffff:127.0.0.1]:{port}/a.png",
    "http://[::ffff:7f00:1]:{port}/a.png",
    "http://[0:0:0:0:0:ffff:7f00:1]:{port}/a.png",
    "http://[64:ff9b::7f00:1]:{port}/a.png",
    "http://[2002:7f00:1::]:{port}/a.png",
    "http://[fe80::1%25lo]:{port}/a.png",
    "http://user@127.0.0.1:{port}/a.png",
    "http://example.org@127.0.0.1:{port}/a.png",
    "http://127.0.0.1:{port}\\@example.org/a.png",
    "http://example.org\\@127.0.0.1:{port}/a.png",
    "http://127.0.0.1:{port}#@example.org/a.png",
    "http://127.0.0.1%00.example.org:{port}/a.png",
    "http://loopback.example.org:{port}/a.png",
    "https://127.0.0.1:{port}/a.png",
    "ftp://127.0.0.1:{port}/a.png",
    "gopher://127.0.0.1:{port}/_GET%20/",
    "file:///etc/passwd",
    "//127.0.0.1:{port}/a.png",
]


@pytest.mark.parametrize("resolve", [loopback, both, loopback_6])
def test_no_spelling_of_a_private_address_reaches_it(canary: MediaServer, resolve: type[object]) -> None:
    """The canary's port counts as one that may be asked, so that the address alone protects it."""

    async def asked() -> list[str]:
        links = LinkCheck(monotonic=time.monotonic, resolve=resolve, ports={canary.port}, seconds=2)  # type: ignore[arg-type]
        codes = []
        for url in HOSTILE:
            try:
                await links.check(url.format(port=canary.port), ())
                codes.append("passed")
            except MediaError as error:
                codes.append(error.code)
        return codes

    codes = asyncio.run(asked())
    assert (len(codes) >= 40, set(codes), canary.asked) == (True, {"media-url", "media-url-private"}, [])


def test_the_canary_can_be_reached_by_whoever_may(canary: MediaServer) -> None:
    asyncio.run(LinkCheck(monotonic=time.monotonic).check(canary.url("/a.png"), {canary.place}))
    assert canary.methods("/a.png") == ["HEAD"]


@pytest.mark.parametrize("location", ["http://{place}/a.png", "//{place}/a.png", "http://localhost:{port}/a.png"])
def test_a_redirect_to_a_private_address_is_not_followed(
    sqlite_bench: Bench, files: MediaServer, canary: MediaServer, location: str
) -> None:
    files.redirect("/a.png", location.format(place=canary.place, port=canary.port))
    _, (item,) = go(sqlite_bench, looking([files.url("/a.png")]), files)
    assert (item.state, item.error_kind, canary.asked, sqlite_bench.book()) == ("failed", "media", [], [])


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "ftp://127.0.0.1/a.png", "data:image/png;base64,AA==", "http://[1/a.png"]
)
def test_a_redirect_to_another_scheme_is_not_followed(files: MediaServer, location: str) -> None:
    files.redirect("/a.png", location)
    with pytest.raises(MediaError) as caught:
        asyncio.run(look(files.url("/a.png"), {files.place}, resolve=as_written, seconds=5))
    assert caught.value.code == "media-url"


@pytest.mark.parametrize("host", ["☃.net", "a\u0301.com"])
def test_a_name_that_no_host_can_have_is_the_rows_mistake(host: str) -> None:
    async def resolve(_host: str, _port: int) -> list[str]:
        return ["93.184.216.34"]  # which isn't asked

    with pytest.raises(MediaError) as caught:
        asyncio.run(look(f"http://{host}/a.png", (), resolve=resolve, seconds=5))
    assert caught.value.code == "media-url"


def test_a_name_that_rebinds_is_resolved_once(files: MediaServer) -> None:
    """Its second answer would lead to another machine, with HEAD refused by the first."""
    with media_server(host="127.0.0.2", port=files.port) as other:
        answers = iter([["127.0.0.1"], ["127.0.0.2"], ["127.0.0.2"]])

        async def rebinding(_: str, __: int) -> list[str]:
            return next(answers)

        files.picture("/a.png")
        files.answers["HEAD /a.png"] = [Answer(status=405)]
        url = f"http://files.example:{files.port}/a.png"
        asyncio.run(look(url, {"files.example"}, resolve=rebinding, seconds=5))
        assert (files.methods("/a.png"), other.asked) == (["HEAD", "GET"], [])
        assert files.asked[0].headers["host"] == f"files.example:{files.port}"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_connection_goes_to_the_checked_address_or_nowhere(canary: MediaServer, host: str) -> None:
    async def ask() -> None:
        async with (
            PinnedTransport(["127.0.0.9"], canary.port) as transport,
            transport.get(f"http://{host}:{canary.port}/a.png", {}),
        ):
            pass

    with pytest.raises(ProviderError):
        asyncio.run(ask())
    assert canary.asked == []


def test_a_proxy_of_the_environment_is_not_asked(
    files: MediaServer, canary: MediaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, canary.url(""))
    asyncio.run(look(files.picture("/a.png"), {files.place}, resolve=as_written, seconds=5))
    assert (files.methods("/a.png"), canary.asked) == (["HEAD"], [])


def test_a_server_that_says_nothing_is_left_after_the_time_allowed() -> None:
    async def asked() -> ProviderError:
        async def say_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await released.wait()
            writer.close()

        released = asyncio.Event()
        server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server:
            with pytest.raises(ProviderError) as caught:
                await look(f"http://127.0.0.1:{port}/a", {"127.0.0.1"}, resolve=as_written, seconds=0.2)
            released.set()
        return caught.value

    assert asyncio.run(asked()).kind is ErrorKind.MEDIA_UNAVAILABLE

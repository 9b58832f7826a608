"""Faults of a native stream, over a raw socket: what the client gets, and what the book says it cost."""

import gzip
import itertools
from decimal import Decimal

import pytest

from batchrun.simulator import Bill, Options, Running, start

from .native import NativeClient, frames, looking, told, used
from .raw import Raw


@pytest.fixture
def client(simulator: Running) -> NativeClient:
    return NativeClient(simulator)


def thinking(client: NativeClient) -> dict[str, object]:
    return client.body(enable_thinking=True, incremental_output=True)


def texts(raw: Raw) -> list[str]:
    return [frame.text for frame in frames(raw) if frame.text]


@pytest.mark.parametrize(
    ("fault", "end"),
    [
        ("reset-after=2", "reset"),
        ("cut-after=2", "cut"),
        ("truncate=2", "whole"),
        ("truncate=2+framing=length", "whole"),
        ("truncate=2+framing=close", "whole"),
        ("cut-after=2+framing=length", "cut"),
        ("stall-after=2", "silent"),
    ],
)
def test_a_stream_that_stops_early_costs_what_it_told_last(client: NativeClient, fault: str, end: str) -> None:
    raw = client.ask(client.body(), fault=f"chunks=9+{fault}", quiet=0.2)
    found = frames(raw)
    row = client.row(raw)
    assert (raw.end, [frame.finish for frame in found], row.complete) == (end, ["null", "null"], False)
    assert (used(found[-1].data["usage"]), row.billed.output) == (told(row), 6)


@pytest.mark.parametrize("fault", ["truncate=0", "truncate=0+keepalive", "stall-headers"])
def test_headers_without_a_frame(client: NativeClient, fault: str) -> None:
    raw = client.ask(client.body(), fault=fault, quiet=0.1)
    assert (raw.status, raw.body, client.row(raw).amount) == (200, b"", Decimal(0))


@pytest.mark.parametrize(("fault", "end"), [("reset", "reset"), ("close", "cut"), ("stall", "silent")])
def test_no_answer_at_all(client: NativeClient, fault: str, end: str) -> None:
    raw = client.ask(client.body(), fault=fault, quiet=0.2)
    assert (raw.status, raw.body, raw.end) == (0, b"", end)


@pytest.mark.parametrize(("place", "finish"), [("finish", "null"), ("usage", "null"), ("done", "stop")])
def test_a_stream_falls_silent_before_its_last_frame_or_its_end(client: NativeClient, place: str, finish: str) -> None:
    raw = client.ask(client.body(), fault=f"stall-before={place}", quiet=0.2)
    assert (raw.end, frames(raw)[-1].finish) == ("silent", finish)


def test_comments_for_ever_instead_of_text(client: NativeClient) -> None:
    with client.connect() as connection:
        connection.sendall(client.request(client.body(), fault="keepalive=0.01"))
        data = b""
        while data.count(b": keep-alive") < 5:
            data += connection.recv(65_536)
    assert b"data:" not in data


def test_only_a_stream_with_its_finish_is_complete_in_the_book(client: NativeClient) -> None:
    faults = ["", "no-done", "usage=missing", "truncate=2", "finish=null", "finish=missing"]
    rows = [client.row(client.ask(client.body(), fault=fault)) for fault in faults]
    assert [row.complete for row in rows] == [True, True, True, False, False, False]


@pytest.mark.parametrize("word", ["abort", "length", "content_filter", "tool_calls"])
def test_another_finish_reason(client: NativeClient, word: str) -> None:
    assert frames(client.ask(client.body(), fault=f"finish={word}"))[-1].finish == word


def test_an_open_finish_reason_stays_the_word_null(client: NativeClient) -> None:
    assert b'"finish_reason":"null"}]},"usage":' in client.ask(client.body(), fault="finish=null").body[-600:]


def test_an_error_event_ends_the_stream(client: NativeClient) -> None:
    *before, error = frames(client.ask(client.body(), fault="error-event=2"))
    assert [frame.comment for frame in before] == [":HTTP_STATUS/200"] * 2
    assert (error.event, error.id, error.comment) == ("error", "3", ":HTTP_STATUS/500")
    assert list(error.data) == ["code", "message", "request_id"]


def test_an_error_event_may_come_first(client: NativeClient) -> None:
    raw = client.ask(client.body(), fault="error-event=0")
    assert [frame.event for frame in frames(raw)] == ["error"]
    assert client.row(raw).billed.output == 0


def test_moderation_in_the_middle_of_a_stream(client: NativeClient) -> None:
    error = frames(client.ask(client.body(), fault="moderation-event=2"))[-1]
    assert (error.comment, error.data["code"]) == (":HTTP_STATUS/400", "DataInspectionFailed")


def test_a_finish_behind_the_error(client: NativeClient) -> None:
    found = frames(client.ask(client.body(), fault="error-done=2"))
    assert [frame.event for frame in found] == ["result", "result", "error", "result"]
    assert found[-1].finish == "stop"


def usages(client: NativeClient, word: str) -> list[object]:
    """What each of three frames tells: its output tokens, `absent`, or None."""
    found = []
    for frame in frames(client.ask(client.body(), fault=f"chunks=2+usage={word}")):
        usage = frame.data.get("usage", "absent")
        found.append(usage["output_tokens"] if isinstance(usage, dict) else usage)
    return found


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("missing", ["absent", "absent", "absent"]),
        ("null", [None, None, None]),
        ("zero", [0, 0, 0]),
        ("twice", [3, 6, 6]),
        ("every", [3, 6, 6]),
        ("unasked", [3, 6, 6]),
        ("early", [3, 6, "absent"]),
        ("late", ["absent", "absent", "absent", 6]),
        ("text-chunk", ["absent", "absent", 6]),
        ("choice", ["absent", "absent", "absent"]),
    ],
)
def test_where_the_usage_stands(client: NativeClient, word: str, expected: list[object]) -> None:
    assert usages(client, word) == expected


def test_usage_inside_the_choice(client: NativeClient) -> None:
    raw = client.ask(client.body(), fault="usage=choice")
    assert used(frames(raw)[-1].data["output"]["choices"][0]["usage"]) == told(client.row(raw))


def test_usage_zero_is_billed_as_told(client: NativeClient) -> None:
    assert client.row(client.ask(client.body(), fault="usage=zero")).amount == Decimal(0)


def test_a_missing_usage_is_billed_in_full(client: NativeClient) -> None:
    row = client.row(client.ask(client.body(), fault="usage=missing+chunks=5"))
    assert (row.usage_sent, row.billed.output) == (None, 15)


@pytest.mark.parametrize(("bill", "output"), [(Bill.DELIVERED, 6), (Bill.FULL, 30), (Bill.COMPLETE_ONLY, 0)])
def test_who_pays_for_a_call_that_broke(bill: Bill, output: int) -> None:
    options = Options(ttft=0, tokens_per_second=0, limits=False, bill=bill)
    with start(options, environment={}) as running:
        client = NativeClient(running)
        client.ask(client.body(), fault="chunks=10+truncate=2")
        assert running.book()[0].billed.output == output


def test_a_mixed_frame_holds_reasoning_and_text(client: NativeClient) -> None:
    found = frames(client.ask(thinking(client), fault="mixed"))
    assert sum(bool(frame.text and frame.message["reasoning_content"]) for frame in found) == 1


def test_reasoning_that_is_counted_and_not_shown(client: NativeClient) -> None:
    raw = client.ask(thinking(client), fault="no-reasoning")
    assert ("reasoning_content" in raw.body.decode(), client.row(raw).billed.reasoning > 0) == (False, True)


def test_both_names_of_the_reasoning_say_the_same(client: NativeClient) -> None:
    found = frames(client.ask(thinking(client), fault="both-reasoning"))
    thoughts = [frame.message for frame in found if frame.message["reasoning_content"]]
    assert [message["reasoning"] for message in thoughts] == [message["reasoning_content"] for message in thoughts]


def test_the_last_text_stands_in_the_finishing_frame(client: NativeClient) -> None:
    found = frames(client.ask(client.body(), fault="text-in-finish+chunks=3"))
    assert ([frame.finish for frame in found], bool(found[-1].text)) == (["null", "null", "stop"], True)


def test_cumulative_frames_repeat_the_text_so_far(client: NativeClient) -> None:
    found = texts(client.ask(client.body(), fault="cumulative"))
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(found))


def test_the_full_text_comes_again_with_the_finish(client: NativeClient) -> None:
    *pieces, whole = texts(client.ask(client.body(), fault="full-final"))
    assert whole == "".join(pieces)


def test_a_duplicate_comes_directly_behind_its_original(client: NativeClient) -> None:
    found = texts(client.ask(client.body(), fault="duplicate+chunks=4"))
    assert (len(found), found[2]) == (5, found[3])


@pytest.mark.parametrize(
    ("fault", "finishes"), [("done-first", ["null", "stop", "null"]), ("done-twice", ["null", "null", "stop", "stop"])]
)
def test_a_finish_at_the_wrong_place(client: NativeClient, fault: str, finishes: list[str]) -> None:
    assert [frame.finish for frame in frames(client.ask(client.body(), fault=f"{fault}+chunks=2"))] == finishes


@pytest.mark.parametrize(("fault", "end"), [("crlf", b"\r\n"), ("cr", b"\r"), ("", b"\n")])
def test_line_ends(client: NativeClient, fault: str, end: bytes) -> None:
    body = client.ask(client.body(), fault=fault).body
    assert body.startswith(b"id:1" + end + b"event:result" + end + b":HTTP_STATUS/200" + end + b"data:{")
    assert body.endswith(b"}" + end + end)


def test_split_sends_the_same_bytes_in_small_pieces(client: NativeClient) -> None:
    body = looking({"text": "The same."})
    whole, split = (client.ask(body, fault=f"{fault}unicode+chunks=60") for fault in ("", "split=3+"))
    assert texts(split) == texts(whole)


def test_gzip(client: NativeClient) -> None:
    assert gzip.decompress(client.ask(client.body(), fault="gzip").body).startswith(b"id:1\n")


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        ("bom", b"\xef\xbb\xbfid:1\n"),
        ("comments", b": keep-alive\n\nid:2\n"),
        ("events", b"event: ping\ndata: {}\n\n"),
        ("multi-data", b'data:{\ndata:"output"'),
        ("garbage", b"\n~~ this line belongs to no protocol ~~\n"),
        ("bad-json", b'"half a\n\n'),
        ("invalid-utf8", b'"text":"\xff\xc3'),
        ("nul", b"\\u0000"),
        ("surrogate", b"\\ud83d"),
    ],
)
def test_oddities_of_the_bytes(client: NativeClient, fault: str, found: bytes) -> None:
    assert found in client.ask(client.body(), fault=f"{fault}+chunks=60").body


def test_a_huge_line(client: NativeClient) -> None:
    raw = client.ask(client.body(), fault="huge-line=1")
    assert max(map(len, raw.body.split(b"\n"))) > 1024 * 1024


def test_a_stream_of_the_wrong_content_type(client: NativeClient) -> None:
    assert client.ask(client.body(), fault="wrong-type").header("content-type") == "text/plain"


def test_a_client_that_leaves_pays_for_what_was_sent(client: NativeClient) -> None:
    with client.connect() as connection:
        connection.sendall(client.request(client.body(), fault="chunks=50+stall-after=4"))
        data = b""
        while data.count(b"data:") < 4:
            data += connection.recv(65_536)
    row = client.simulator.book()[-1]
    assert (row.billed.output, row.complete) == (12, False)

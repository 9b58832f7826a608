"""The splitter: any bytes, cut anywhere, give the events that the standard describes."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from httpx_sse._decoders import SSEDecoder, SSELineDecoder
from hypothesis import example, given
from hypothesis import strategies as st

from batchrun.errors import ErrorKind, ProviderError
from batchrun.stream.sse import Event, Splitter, looks_plain

FOLDER = Path(__file__).parent.parent / "streams"
STREAMS = sorted(FOLDER.rglob("*.sse"))
every_stream = pytest.mark.parametrize("path", STREAMS, ids=lambda path: str(path.relative_to(FOLDER).with_suffix("")))


def split(*chunks: bytes) -> list[Event]:
    """The events of these reads, without asking for one that the end left open."""
    splitter = Splitter()
    return [event for chunk in chunks for event in splitter.feed(chunk)]


def split_to_end(*chunks: bytes) -> list[Event]:
    splitter = Splitter()
    return [event for chunk in chunks for event in splitter.feed(chunk)] + splitter.close()


def oracle(text: str) -> list[Event]:
    """What httpx-sse makes of it. Its events without data don't count, and it calls an unnamed one `message`."""
    lines, events = SSELineDecoder(), SSEDecoder()
    found = lines.decode(text) if text else []
    found += lines.flush() if text.endswith("\r") else []  # it waits for an LF that never comes
    read = [event for line in found if (event := events.decode(line)) is not None and event.data]
    return [(event.event.removeprefix("message").encode(), event.data.encode()) for event in read]


LINE_ENDS = st.sampled_from(["\n", "\n", "\n", "\r\n", "\r"])
BLANK = ["", "", ""]
DATA = ["data: {}", "data:x", "data", "data: ", "data:  two", "data: a\u2028b\u0085c\x0bd", "data: 日本🚢"]
OTHER = [
    "event: error",
    "event:",
    ": comment",
    ":",
    "id: 7",
    "retry: 10",
    "retry: soon",
    "noise",
    "datax: 1",
    "data : 1",
]
LINES = st.sampled_from([*BLANK, *DATA, *OTHER])
TEXTS = st.lists(st.tuples(LINES, LINE_ENDS), max_size=30).map(lambda rows: "".join(a + b for a, b in rows))


@given(text=TEXTS, cuts=st.lists(st.integers(0, 400), max_size=8))
@example(text="data: a\r\n\r\n", cuts=[8, 9, 10])
@example(text="data: a\r\rdata: b\r\r", cuts=[8, 9])
@example(text="data: a\r\n\r\ndata: b\r\n\r\n", cuts=[11])
def test_any_text_cut_anywhere_gives_what_httpx_sse_gives(text: str, cuts: list[int]) -> None:
    body = text.encode()
    places = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    chunks = [body[start:stop] for start, stop in pairwise(places)]
    assert [event for event in split(*chunks) if event[1]] == oracle(text)


@given(
    body=st.binary(max_size=200)
    | st.lists(st.sampled_from([b"\n", b"\r", b"data: ", b":", b"x", b"\xef\xbb\xbf"])).map(b"".join)
)
def test_single_bytes_give_the_same_as_one_read(body: bytes) -> None:
    assert split_to_end(*(body[i : i + 1] for i in range(len(body)))) == split_to_end(body)


@every_stream
def test_a_recorded_stream_in_two_reads_gives_the_same_events_at_every_cut(path: Path) -> None:
    body = path.read_bytes()
    whole = split_to_end(body)
    assert {cut for cut in range(len(body)) if split_to_end(body[:cut], body[cut:]) != whole} == set()


@every_stream
@pytest.mark.parametrize("line_end", [b"\r\n", b"\r"], ids=["crlf", "cr"])
def test_a_recorded_stream_with_other_line_ends_gives_the_same_events(path: Path, line_end: bytes) -> None:
    body = path.read_bytes().replace(b"\r\n", b"\n")
    assert split_to_end(body.replace(b"\n", line_end)) == split_to_end(body)


@pytest.mark.parametrize(
    ("body", "events"),
    [
        (b"data: a\n\n", [(b"", b"a")]),
        (b"data:a\n\n", [(b"", b"a")]),
        (b"data:  a \n\n", [(b"", b" a ")]),
        (b"\xef\xbb\xbfdata: a\n\n", [(b"", b"a")]),
        (b"\xef\xbb\xbf\n\ndata: a\n\n", [(b"", b"a")]),
        (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [(b"", b"a")]),
        (b"data: a\ndata: b\n\n", [(b"", b"a\nb")]),
        (b"data\ndata\n\n", [(b"", b"\n")]),
        (b"data: a\n\n\n\ndata: b\n\n", [(b"", b"a"), (b"", b"b")]),
        (b"event: error\ndata: a\n\ndata: b\n\n", [(b"error", b"a"), (b"", b"b")]),
        (b"event: a\nevent: b\ndata: c\n\n", [(b"b", b"c")]),
        (b"event: error\ndata:\n\n", [(b"error", b"")]),
        (b"id: 1\nretry: 5\ndata: a\n\n", [(b"", b"a")]),
        ("data: a\u2028b\u2029c\u0085d\x0be\x0cf\n\n".encode(), [(b"", "a\u2028b\u2029c\u0085d\x0be\x0cf".encode())]),
        (b"data: a\x00b\n\n", [(b"", b"a\x00b")]),
        (b"event\nevent: a\nevent\ndata: b\n\n", [(b"", b"b")]),
        (b"id:1\nevent:result\n:HTTP_STATUS/200\ndata:a\n\n", [(b"result", b"a")]),
        (b"event:error\n:HTTP_STATUS/429\ndata:a\n\n", [(b"error 429", b"a")]),
        (b":HTTP_STATUS/429\nevent:error\ndata:a\n\n", [(b"error 429", b"a")]),
        (b":HTTP_STATUS/429\n\nevent:error\ndata:a\n\n", [(b"error", b"a")]),
    ],
)
def test_form(body: bytes, events: list[Event]) -> None:
    assert split(body) == events


@pytest.mark.parametrize(
    "body", [b": ping\n\n", b":\n\n", b"\n\n", b"data:\n\n", b"data: \n\n", b"event: ping\n\n", b"x\n\n"]
)
def test_keep_alives_give_nothing(body: bytes) -> None:
    assert split(body) == []


def test_a_crlf_in_two_reads_is_one_line_end() -> None:
    assert split(b"data: a\r", b"\ndata: b\r", b"\n\r", b"\n") == [(b"", b"a\nb")]


def test_a_cr_alone_closes_its_event_at_once() -> None:
    assert split(b"data: a\r\r") == [(b"", b"a")]


@pytest.mark.parametrize("tail", [b"data: [DONE]\n", b"data: [DONE]", b"data: [DONE]\r", b'data: {"a":1}'])
def test_a_whole_last_event_is_given_at_the_end(tail: bytes) -> None:
    assert split_to_end(b"data: a\n\n", tail) == [(b"", b"a"), (b"", tail.strip()[6:])]


@pytest.mark.parametrize("tail", [b"", b"data: [DON", b'data: {"a":"b', b"data", b"event: err", b": x\n", b"\n"])
def test_a_last_event_that_is_cut_is_dropped_at_the_end(tail: bytes) -> None:
    assert split_to_end(b"data: a\n\n", tail) == [(b"", b"a")]


def test_nothing_is_left_after_the_end() -> None:
    splitter = Splitter()
    splitter.feed(b"data: [DONE]\n")
    splitter.close()
    assert splitter.close() == []


@pytest.mark.parametrize(
    "reads", [[b"data: " + b"x" * 95], [b"data: ", *[b"x"] * 95], [b"data: " + b"x" * 95 + b"\n\n"]]
)
def test_an_event_over_the_limit_stops_the_stream(reads: list[bytes]) -> None:
    splitter = Splitter(max_event=100)
    with pytest.raises(ProviderError, match="over the limit of 100 bytes of one event") as caught:
        [splitter.feed(read) for read in reads]
    assert caught.value.kind is ErrorKind.INCOMPLETE


def test_an_event_at_the_limit_passes() -> None:
    assert Splitter(max_event=100).feed(b"data: " + b"x" * 94 + b"\n\n") == [(b"", b"x" * 94)]


@pytest.mark.parametrize("read", [b"data: a\n\n", b": ping\n\n", b"data:a\n\n"])
def test_too_many_events_stop_the_stream(read: bytes) -> None:
    splitter = Splitter(max_events=3)
    for _ in range(3):
        splitter.feed(read)
    with pytest.raises(ProviderError, match="over the limit of 3 events of one stream"):
        splitter.feed(read)


@pytest.mark.parametrize("head", [b'{"error":1}', b"  \r\n<!DOCTYPE html>", b"[1]", b"\xef\xbb\xbf {"])
def test_json_and_pages_are_plain(head: bytes) -> None:
    assert looks_plain(head)


@pytest.mark.parametrize("head", [b"", b"\n\n", b"data: {", b": ping", b"event: x", b"id:1"])
def test_streams_are_not_plain(head: bytes) -> None:
    assert not looks_plain(head)

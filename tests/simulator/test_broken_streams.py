"""Faults of a stream, over a raw socket: what the client gets, and what the book says it cost."""

import gzip
import itertools
import zlib
from decimal import Decimal

import pytest

from .raw import Client


@pytest.mark.parametrize(
    ("fault", "end"),
    [
        ("reset-after=2", "reset"),
        ("cut-after=2", "cut"),
        ("truncate=2", "whole"),
        ("truncate=2+framing=length", "whole"),
        ("truncate=2+framing=close", "whole"),
        ("cut-after=2+framing=length", "cut"),
        ("cut-after=2+framing=close", "whole"),
    ],
)
def test_a_stream_that_stops_early_has_no_end_mark(client: Client, fault: str, end: str) -> None:
    raw = client.ask(client.streamed(), fault=fault)
    assert (raw.end, len(raw.deltas("content")), set(raw.finishes)) == (end, 2, {None})
    assert "[DONE]" not in raw.frames


@pytest.mark.parametrize(("fault", "texts"), [("stall-after=0", 0), ("stall-after=2", 2)])
def test_a_silent_stream_stays_open(client: Client, fault: str, texts: int) -> None:
    raw = client.ask(client.streamed(), fault=fault, quiet=0.2)
    assert (raw.end, len(raw.deltas("content"))) == ("silent", texts)


def test_comments_for_ever_instead_of_text(client: Client) -> None:
    with client.connect() as connection:
        connection.sendall(client.request(client.streamed(), fault="keepalive=0.01"))
        data = b""
        while data.count(b": keep-alive") < 5:
            data += connection.recv(65_536)
    assert b'"content":"A' not in data


@pytest.mark.parametrize(
    ("place", "finish", "usages"), [("finish", None, 0), ("usage", "stop", 0), ("done", "stop", 1)]
)
def test_a_stream_falls_silent_before_each_last_frame(
    client: Client, place: str, finish: str | None, usages: int
) -> None:
    raw = client.ask(client.streamed(), fault=f"stall-before={place}", quiet=0.2)
    assert (raw.end, raw.finishes[-1], len(raw.usages)) == ("silent", finish, usages)


def test_only_a_stream_with_its_end_is_complete_in_the_book(client: Client) -> None:
    faults = ["", "no-done", "usage=missing", "truncate=2", "finish=null", "no-done+usage=missing"]
    rows = [client.row(client.ask(client.streamed(), fault=fault)) for fault in faults]
    assert [row.complete for row in rows] == [True, True, True, False, False, False]


def test_a_broken_stream_costs_its_input_and_the_tokens_sent(client: Client) -> None:
    body = client.streamed()
    whole = client.row(client.ask(body, fault="chunks=50"))
    broken = client.row(client.ask(body, fault="chunks=50+truncate=10"))
    assert (broken.billed.input, broken.billed.output) == (whole.billed.input, whole.billed.output // 5)
    assert broken.usage_sent is None


@pytest.mark.parametrize("word", ["abort", "error", "length", "content_filter", "tool_calls"])
def test_another_finish_reason(client: Client, word: str) -> None:
    raw = client.ask(client.streamed(), fault=f"finish={word}")
    assert (raw.finishes[-1], raw.frames[-1]) == (word, "[DONE]")


@pytest.mark.parametrize(("word", "count"), [("null", 1), ("missing", 0)])
def test_no_finish_reason(client: Client, word: str, count: int) -> None:
    raw = client.ask(client.streamed(), fault=f"finish={word}+chunks=3")
    assert (raw.finishes, raw.frames[-1]) == ([None] * (4 + count), "[DONE]")


def test_length_and_content_filter_halve_the_text(client: Client) -> None:
    raw = client.ask(client.streamed(), fault="chunks=10+finish=length")
    assert len(raw.deltas("content")) == 5


@pytest.mark.parametrize(("fault", "last"), [("error-event=2", '{"error":'), ("error-done=2", "[DONE]")])
def test_an_error_frame_ends_the_stream(client: Client, fault: str, last: str) -> None:
    raw = client.ask(client.streamed(), fault=fault)
    assert raw.frames[-1].startswith(last)
    assert sum('"error"' in frame for frame in raw.frames) == 1


def test_usage_missing(client: Client) -> None:
    assert client.ask(client.streamed(), fault="usage=missing").usages == []


def test_usage_null_has_no_choices_either(client: Client) -> None:
    last = client.ask(client.streamed(), fault="usage=null").chunks[-1]
    assert (last["choices"], last["usage"]) == ([], None)


def test_usage_zero_is_billed_as_told(client: Client) -> None:
    raw = client.ask(client.streamed(), fault="usage=zero")
    assert (raw.usages[-1]["total_tokens"], client.row(raw).amount) == (0, Decimal(0))


def test_usage_twice_grows(client: Client) -> None:
    first, last = client.ask(client.streamed(), fault="usage=twice").usages
    assert int(str(first["completion_tokens"])) < int(str(last["completion_tokens"]))


def test_usage_early_stands_before_the_finish(client: Client) -> None:
    chunks = client.ask(client.streamed(), fault="usage=early").chunks
    assert (chunks[-2]["choices"], bool(chunks[-2]["usage"])) == ([], True)


def test_usage_late_stands_behind_the_end_mark(client: Client) -> None:
    frames = client.ask(client.streamed(), fault="usage=late").frames
    assert (frames[-2], '"prompt_tokens"' in frames[-1]) == ("[DONE]", True)


def test_usage_in_every_chunk_grows_to_the_whole(client: Client) -> None:
    raw = client.ask(client.streamed(), fault="usage=every")
    counts = [int(str(usage["completion_tokens"])) for usage in raw.usages]
    assert (len(counts), counts) == (len(raw.chunks), sorted(counts))
    assert counts[-1] == client.row(raw).billed.output


def test_usage_beside_text_choices(client: Client) -> None:
    last = client.ask(client.streamed(), fault="usage=text-chunk").chunks[-1]
    assert bool(last["choices"])
    assert bool(last["usage"])


def test_usage_inside_the_choice(client: Client) -> None:
    raw = client.ask(client.streamed(), fault="usage=choice")
    assert '"usage":{"prompt_tokens"' in raw.frames[-2].partition('"object"')[0]
    assert client.row(raw).usage_sent is not None


def test_usage_unasked(client: Client) -> None:
    assert len(client.ask(client.body(stream=True), fault="usage=unasked").usages) == 1


def test_a_mixed_chunk_holds_reasoning_and_text(client: Client) -> None:
    raw = client.ask(client.streamed(enable_thinking=True), fault="mixed")
    assert any('"content":"' in frame and '"reasoning_content":"' in frame for frame in raw.frames[2:])


def test_both_names_of_the_reasoning_say_the_same(client: Client) -> None:
    raw = client.ask(client.streamed(enable_thinking=True), fault="both-reasoning")
    assert raw.deltas("reasoning") == raw.deltas("reasoning_content") != []


def test_the_last_text_stands_in_the_finishing_chunk(client: Client) -> None:
    raw = client.ask(client.streamed(), fault="text-in-finish+chunks=5")
    assert (len(raw.finishes), raw.finishes[-1], len(raw.deltas("content"))) == (6, "stop", 5)


def test_a_duplicate_comes_directly_behind_its_original(client: Client) -> None:
    texts = client.ask(client.streamed(), fault="duplicate+chunks=4").deltas("content")
    assert (len(texts), texts[2]) == (5, texts[3])


def test_cumulative_chunks_repeat_the_text_so_far(client: Client) -> None:
    body = client.streamed()
    texts = client.ask(body, fault="cumulative").deltas("content")
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(texts))
    assert texts[-1] == "".join(client.ask(body).deltas("content"))


def test_the_full_text_comes_again_with_the_finish(client: Client) -> None:
    texts = client.ask(client.streamed(), fault="full-final").deltas("content")
    assert texts[-1] == "".join(texts[:-1])


def test_text_behind_the_end_mark(client: Client) -> None:
    frames = client.ask(client.streamed(), fault="done-first").frames
    assert (frames.count("[DONE]"), frames[-1] == "[DONE]") == (1, False)


def test_two_end_marks(client: Client) -> None:
    assert client.ask(client.streamed(), fault="done-twice").frames[-2:] == ["[DONE]"] * 2


@pytest.mark.parametrize(("fault", "ending"), [("crlf", b"\r\n\r\n"), ("cr", b"\r\r"), ("", b"\n\n")])
def test_line_ends(client: Client, fault: str, ending: bytes) -> None:
    raw = client.ask(client.streamed(), fault=fault)
    assert raw.body.endswith(b"data: [DONE]" + ending)


def test_no_blank_after_the_field_name(client: Client) -> None:
    assert b"data: " not in client.ask(client.streamed(), fault="no-space").body


def test_the_texts_hold_what_breaks_line_splitters(client: Client) -> None:
    body = client.ask(client.streamed(), fault="unicode").body.decode()
    assert all(character in body for character in "\u2028\u2029\u0085é👩🎉描")


def test_split_sends_the_same_bytes_in_small_pieces(client: Client) -> None:
    body = client.streamed()
    shape = "unicode+chunks=60"
    whole, split = client.ask(body, fault=shape), client.ask(body, fault=f"split=3+{shape}")
    assert split.deltas("content") == whole.deltas("content")


def test_gzip(client: Client) -> None:
    raw = client.ask(client.streamed(), fault="gzip")
    assert raw.header("content-encoding") == "gzip"
    assert gzip.decompress(raw.body).endswith(b"data: [DONE]\n\n")


def test_truncated_gzip_has_no_trailer(client: Client) -> None:
    packed = zlib.decompressobj(wbits=31)
    raw = client.ask(client.streamed(), fault="gzip+truncate=2")
    assert (packed.decompress(raw.body).count(b"data: "), packed.eof) == (3, False)


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        ("bom", b"\xef\xbb\xbfdata: "),
        ("comments", b": keep-alive\n\ndata: "),
        ("events", b"id: 1\nevent: message\nretry: 3000\ndata: "),
        ("multi-data", b'data: {\ndata: "choices"'),
        ("garbage", b"\n~~ this line belongs to no protocol ~~\n"),
        ("bad-json", b'"half a\n\n'),
        ("invalid-utf8", b'"content":"\xff\xc3'),
        ("nul", b"\\u0000"),
        ("surrogate", b"\\ud83d"),
    ],
)
def test_oddities_of_the_bytes(client: Client, fault: str, found: bytes) -> None:
    assert found in client.ask(client.streamed(), fault=f"{fault}+chunks=60").body


def test_a_huge_line(client: Client) -> None:
    raw = client.ask(client.streamed(), fault="huge-line=1")
    assert max(map(len, raw.body.split(b"\n"))) > 1024 * 1024


def test_a_stream_of_the_wrong_content_type(client: Client) -> None:
    raw = client.ask(client.streamed(), fault="wrong-type")
    assert (raw.header("content-type"), raw.frames[-1]) == ("text/plain", "[DONE]")


def test_an_answer_beyond_its_limit(client: Client) -> None:
    raw = client.ask(client.streamed(max_tokens=10), fault="overrun=5")
    assert (client.row(raw).billed.output, raw.finishes[-1]) == (50, "length")

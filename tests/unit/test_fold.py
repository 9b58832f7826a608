"""The fold: what a recorded stream comes to, and when an answer is complete."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from batchrun.answer import Answer, Delta, Usage
from batchrun.dialects.base import Dialect
from batchrun.dialects.compat import Compat
from batchrun.dialects.native import Native
from batchrun.errors import ErrorKind, ProviderError
from batchrun.stream.fold import MAX_ANSWER, Channel, Fold, storable
from batchrun.stream.sse import Splitter

FOLDER = Path(__file__).parent.parent / "streams"
STREAMS = sorted(FOLDER.rglob("*.sse"))
PLAIN = sorted((FOLDER.parent / "answers").rglob("*.json"))
COMPAT, NATIVE = Compat("model-studio"), Native("model-studio")
USAGE = Usage(input_tokens=5, output_tokens=3)


def fold(*deltas: Delta) -> Fold:
    folded = Fold()
    for delta in deltas:
        folded.feed(delta)
    return folded


def dialect_of(path: Path) -> Dialect:
    return NATIVE if path.parent.name == "native" else COMPAT


def fold_stream(dialect: Dialect, body: bytes) -> Fold:
    splitter = Splitter()
    return fold(*dialect.decode_all(splitter.feed(body) + splitter.close()))


def answer_of(dialect: Dialect, body: bytes) -> tuple[str, str] | None:
    """Text and reasoning of a complete answer; None if it isn't complete, or its last event can't be read."""
    try:
        answer = fold_stream(dialect, body).answer()
    except ProviderError:
        return None
    return (answer.text, answer.reasoning) if answer.complete else None


def as_json(folded: Fold) -> dict[str, object]:
    answer, names = folded.answer(), ("text", "reasoning", "finish_reason", "complete", "request_id")
    usage = answer.usage and {name: getattr(answer.usage, name) for name in Usage.__slots__ if name != "raw"}
    error = folded.error and folded.error.kind.value
    told = {name: getattr(answer, name) for name in names} | {"usage": usage, "error": error}
    return told | ({"tool_calls": list(answer.tool_calls)} if answer.tool_calls else {})


every_stream = pytest.mark.parametrize("path", STREAMS, ids=lambda path: str(path.relative_to(FOLDER).with_suffix("")))


@every_stream
def test_a_recorded_stream_comes_to_the_answer_beside_it(path: Path) -> None:
    expected = json.loads(path.with_suffix(".json").read_text())
    assert as_json(fold_stream(dialect_of(path), path.read_bytes())) == expected


@every_stream
def test_a_recorded_stream_that_is_cut_is_never_complete_with_another_text(path: Path) -> None:
    body, dialect = path.read_bytes(), dialect_of(path)
    cut_answers = {cut: answer_of(dialect, body[:cut]) for cut in range(len(body))}
    expected = answer_of(dialect, body)
    assert {cut for cut, answer in cut_answers.items() if answer and answer != expected} == set()


@pytest.mark.parametrize("path", PLAIN, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_plain_answer_comes_to_what_stands_beside_it(path: Path) -> None:
    stored = json.loads(path.read_text())
    delta = dialect_of(path).decode_plain(json.dumps(stored["body"]).encode(), stored["headers"])
    assert as_json(fold(delta)) == stored["answer"]


NO_END = "the finish reason came, but neither the end marker nor the usage after it"
KNOWN = "content_filter, length, stop, tool_calls"
DIED = Delta(error=ProviderError(ErrorKind.SERVER, "Engine died"))


@pytest.mark.parametrize(
    ("deltas", "why"),
    [
        ([], "the answer ended before any text, without a finish reason"),
        ([Delta(text="a")], "the answer ended after some text, without a finish reason"),
        ([Delta(reasoning="a"), Delta(end=True)], "the answer ended after some text, without a finish reason"),
        ([Delta(finish_reason="stop")], NO_END),
        ([Delta(usage=USAGE), Delta(finish_reason="stop")], NO_END),
        ([Delta(finish_reason="abort", end=True)], f"the finish reason is 'abort', not one of {KNOWN}"),
        ([Delta(finish_reason="error", usage=USAGE)], f"the finish reason is 'error', not one of {KNOWN}"),
        ([Delta(end=True), Delta(finish_reason="stop")], "the answer ended before any text, without a finish reason"),
        ([DIED, Delta(finish_reason="stop", end=True)], "the server reported an error: Engine died"),
    ],
)
def test_incomplete_says_why(deltas: list[Delta], why: str) -> None:
    folded = fold(*deltas)
    assert (folded.answer().complete, folded.missing()) == (False, why)


@pytest.mark.parametrize("reason", ["stop", "tool_calls", "length", "content_filter"])
@pytest.mark.parametrize("last", [Delta(end=True), Delta(usage=USAGE)])
def test_complete(reason: str, last: Delta) -> None:
    assert fold(Delta(text="a"), Delta(finish_reason=reason), last).complete


def test_usage_in_the_frame_of_the_finish_reason_completes() -> None:
    assert fold(Delta(text="a", finish_reason="stop", usage=USAGE)).missing() == ""


def test_text_beside_the_finish_reason_counts() -> None:
    assert fold(Delta(text="a"), Delta(text="b", finish_reason="stop"), Delta(end=True)).text == "ab"


def test_text_after_the_marker_is_ignored() -> None:
    assert fold(Delta(text="a", finish_reason="stop"), Delta(end=True), Delta(text="b")).text == "a"


def test_an_error_after_the_marker_changes_nothing() -> None:
    late = Delta(error=ProviderError(ErrorKind.SERVER, "late"))
    assert fold(Delta(text="a", finish_reason="stop"), Delta(end=True), late).complete


def test_usage_after_the_marker_counts() -> None:
    assert fold(Delta(finish_reason="stop"), Delta(end=True), Delta(usage=USAGE)).usage == USAGE


def test_the_last_usage_wins_even_with_zeros() -> None:
    zero = Usage(input_tokens=0, output_tokens=0)
    assert fold(Delta(usage=USAGE), Delta(usage=zero), Delta(text="a")).answer().usage == zero


def test_no_usage_is_none() -> None:
    assert fold(Delta(text="a", finish_reason="stop"), Delta(end=True)).answer().usage is None


@pytest.mark.parametrize("kind", [ErrorKind.RATE_LIMITED, ErrorKind.UNAVAILABLE])
def test_a_free_error_is_not_free_after_content(kind: ErrorKind) -> None:
    error = ProviderError(kind, "busy", vendor_code="x", request_id="r", retry_after=3.0, http_status=200, remedy="y")
    seen = fold(Delta(reasoning="a"), Delta(error=error)).error
    assert seen is not None
    assert vars(seen) == vars(error) | {"kind": ErrorKind.SERVER, "code": "server"}


def test_a_free_error_before_content_stays_free() -> None:
    error = ProviderError(ErrorKind.RATE_LIMITED, "busy")
    assert fold(Delta(error=error)).error is error


def test_content_is_text_or_reasoning() -> None:
    has = [fold(delta).has_content for delta in (Delta(request_id="r"), Delta(reasoning=" "), Delta(text="a"))]
    assert has == [False, True, True]


def test_a_whole_text_that_continues_what_arrived_replaces_it() -> None:
    assert fold(Delta(text="a"), Delta(text="ab", whole=True)).text == "ab"


def test_a_whole_text_that_does_not_continue_what_arrived_is_added() -> None:
    assert fold(Delta(text="a"), Delta(text="b", whole=True)).text == "ab"


def test_too_long_an_answer_names_the_limit_and_keeps_what_arrived() -> None:
    folded = fold(Delta(text="a" * MAX_ANSWER))
    with pytest.raises(ProviderError, match="over the limit of 16,777,216 characters"):
        folded.feed(Delta(reasoning="b"))
    assert (len(folded.text), folded.complete) == (MAX_ANSWER, False)


@pytest.mark.parametrize(
    "pieces",
    [
        ["1", "1"],
        ["ha", "ha", "ha", "ha"],
        ["-", "--", "---", "----", "-----"],
        ["a", "ab", "abc"],
        ["x" * 40, "x" * 40],
        ["x" * 40, "x" * 50, "y", "x" * 60, "x" * 70],
    ],
)
def test_repeating_pieces_are_not_taken_for_all_the_text(pieces: list[str]) -> None:
    channel = Channel()
    for piece in pieces:
        channel.add(piece)
    assert channel.text == "".join(pieces)


def test_a_stream_of_all_the_text_so_far_takes_the_room_of_one_text() -> None:
    channel = Channel()
    for length in range(10, 1000, 10):
        channel.add("abcdefghij" * (length // 10))
    assert (channel.text, channel.size) == ("abcdefghij" * 99, 990)


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("plain", "plain"),
        ("a\0b", "a\ufffdb"),
        ("a\ud800b", "a\ufffdb"),
        ("\udc00", "\ufffd"),
        ("\ud83d\ude00", "😀"),
        ("\u2028\u0085\ufeff😀", "\u2028\u0085\ufeff😀"),
    ],
)
def test_texts_can_be_stored(text: str, stored: str) -> None:
    assert storable(text) == stored


def test_every_text_of_an_answer_can_be_stored() -> None:
    answer = fold(Delta(text="\0", reasoning="\ud800", finish_reason="\0", request_id="\udc00")).answer()
    assert answer == Answer(
        text="\ufffd", reasoning="\ufffd", finish_reason="\ufffd", complete=False, usage=None, request_id="\ufffd"
    )

"""Events that come in one read are decoded together: it must make no difference."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable

import pytest

from batchrun.answer import Answer, Delta
from batchrun.dialects.compat import Compat
from batchrun.errors import ProviderError
from batchrun.stream.fold import Fold

DIALECT = Compat("model-studio")
Event = tuple[bytes, bytes]
USAGE = {"prompt_tokens": 5, "completion_tokens": 3}
TOOL_CALL = {"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}}


def chunk(delta: object, choice: dict[str, object] | None = None, **others: object) -> Event:
    choices = [{"index": 0, "delta": delta} | (choice or {})]
    return b"", json.dumps({"id": "one", "choices": choices, **others}).encode()


TEXT = chunk({"content": "a"})


def outcome(decode: Callable[[], Iterable[Delta]]) -> tuple[Answer, str, str]:
    """The answer, the error that the server told, and why reading stopped."""
    fold, stopped = Fold(), ""
    try:
        for delta in decode():
            fold.feed(delta)
    except ProviderError as error:
        stopped = str(error)
    return fold.answer(), str(fold.error), stopped


@pytest.mark.parametrize(
    "event",
    [
        TEXT,
        chunk({"content": None, "reasoning_content": "b"}),
        chunk({"content": "", "reasoning_content": "", "reasoning": "c"}),
        chunk({"content": [{"text": "a"}]}),
        chunk({"content": "b\ud800"}),
        chunk({"content": None, "refusal": "I can't."}),
        chunk({"content": "b", "tool_calls": [TOOL_CALL]}),
        chunk({"content": "b", "tool_calls": []}),
        chunk({}, {"message": {"content": "abc"}}),
        chunk(None),
        chunk({"content": "b"}, {"index": 1}),
        chunk({"content": "b"}, {"index": None}),
        chunk({"content": "b"}, {"finish_reason": "stop"}),
        chunk({"content": "b"}, {"finish_reason": "null"}),
        chunk({"content": "b"}, {"finish_reason": ""}),
        chunk({"content": "b"}, {"usage": USAGE}),
        chunk({"content": "b"}, usage=USAGE),
        chunk({"content": "b"}, error={"message": "Engine died"}),
        chunk({"content": "b"}, id="two"),
        chunk({"content": "b"}, id=7),
        chunk({"content": "b"}, choices=[]),
        chunk({"content": "b"}, choices=[{"index": index, "delta": {"content": str(index)}} for index in (1, 0)]),
        (b"error", TEXT[1]),
        (b"", b"[DONE]"),
        (b"", b'{"choices": [{"del'),
        (b"", b'{"error": "Engine died"}'),
    ],
)
def test_an_event_among_texts_means_what_it_means_by_itself(event: Event) -> None:
    events = [TEXT, event, TEXT]
    one_by_one = outcome(lambda: (DIALECT.decode(*event) for event in events))
    assert outcome(lambda: DIALECT.decode_all(events)) == one_by_one


def test_texts_in_a_row_share_a_delta() -> None:
    assert list(DIALECT.decode_all([TEXT, chunk({"reasoning_content": "b"}), TEXT])) == [
        Delta(texts=["a", "a"], reasonings=["b"], request_id="one")
    ]


@pytest.mark.parametrize("together", [1, 3, 100])
def test_a_server_that_repeats_all_the_text_is_noticed_whatever_the_reads(together: int) -> None:
    pieces = [chunk({"content": "x" * length}) for length in range(1, 101)]
    fold = Fold()
    for start in range(0, len(pieces), together):
        for delta in DIALECT.decode_all(pieces[start : start + together]):
            fold.feed(delta)
    assert fold.text == "x" * 100

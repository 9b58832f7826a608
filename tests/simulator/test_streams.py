"""What a stream looks like on the wire (contract 4.2, 8.10)."""

import re

from .raw import Client, tokens


def test_a_stream_has_role_text_finish_usage_and_end(client: Client) -> None:
    raw = client.ask(client.streamed(), fault="chunks=3")
    assert raw.finishes == [None] * 4 + ["stop"]
    assert raw.chunks[-1]["choices"] == []
    assert raw.frames[-1] == "[DONE]"


def test_without_asking_there_is_no_usage(client: Client) -> None:
    raw = client.ask(client.body(stream=True))
    assert raw.usages == []


def test_the_usage_told_is_the_usage_billed(client: Client) -> None:
    raw = client.ask(client.streamed())
    assert {key: raw.usages[-1][key] for key in tokens(client.row(raw))} == tokens(client.row(raw))


def test_chunks_sets_the_number_of_text_chunks(client: Client) -> None:
    raw = client.ask(client.streamed(), fault="chunks=100")
    assert len(raw.deltas("content")) == 100


def test_a_stream_names_one_answer_throughout(client: Client) -> None:
    raw = client.ask(client.streamed())
    names = {(str(chunk["id"]), chunk["model"], chunk["created"]) for chunk in raw.chunks}
    assert len(names) == 1
    assert re.fullmatch(r"chatcmpl-[0-9a-f-]{36}", names.pop()[0])


def test_the_order_of_keys_varies(client: Client) -> None:
    raw = client.ask(client.streamed())
    assert len({tuple(chunk) for chunk in raw.chunks}) > 1


def test_reasoning_comes_before_the_text(client: Client) -> None:
    raw = client.ask(client.streamed(enable_thinking=True))
    kinds = [
        "r" if delta.get("reasoning_content") else "t"
        for chunk in raw.chunks
        for choice in chunk["choices"]  # type: ignore[attr-defined]  # parsed JSON
        if (delta := choice["delta"]).get("reasoning_content") or delta.get("content")
    ]
    assert re.fullmatch("r+t+", "".join(kinds))


def test_reasoning_tokens_lie_within_the_output(client: Client) -> None:
    row = client.row(client.ask(client.streamed(enable_thinking=True)))
    assert 0 < row.billed.reasoning < row.billed.output


def test_the_thinking_budget_cuts_the_reasoning(client: Client) -> None:
    row = client.row(client.ask(client.streamed(enable_thinking=True, thinking_budget=5)))
    assert row.billed.reasoning == 5


def test_max_tokens_cuts_the_text_and_not_the_reasoning(client: Client) -> None:
    raw = client.ask(client.streamed(enable_thinking=True, max_tokens=4))
    row = client.row(raw)
    assert (row.billed.output - row.billed.reasoning, raw.finishes[-1]) == (4, "length")


def test_streamed_and_plain_say_the_same(client: Client) -> None:
    body = client.body()
    plain = client.ask(body)
    streamed = client.ask({**body, "stream": True})
    assert f'"content":"{"".join(streamed.deltas("content"))}"' in plain.body.decode()


def test_the_same_request_gets_the_same_text_again(client: Client) -> None:
    body = client.streamed()
    assert client.ask(body).deltas("content") == client.ask(body).deltas("content")


def test_cached_tokens_lie_within_the_input_and_cost_less(client: Client) -> None:
    body = client.streamed(messages=[{"role": "user", "content": "word " * 400}])
    full, cached = (client.row(client.ask(body, fault=fault)) for fault in ("", "cached=50"))
    assert (cached.billed.input, cached.billed.cached) == (full.billed.input, full.billed.input // 2)
    assert cached.amount is not None
    assert full.amount is not None
    assert cached.amount < full.amount

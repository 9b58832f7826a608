"""What a native stream looks like on the wire (contract 4.4, 8.10)."""

import re

import pytest

from batchrun.simulator import Running

from .native import TEXT_PATH, NativeClient, frames, looking, told, used
from .test_validation import data_url

REQUEST_ID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


@pytest.fixture
def client(simulator: Running) -> NativeClient:
    return NativeClient(simulator)


@pytest.fixture
def text_client(simulator: Running) -> NativeClient:
    return NativeClient(simulator, "beijing", path=TEXT_PATH)


def test_the_bytes_of_a_thinking_frame_are_those_of_the_contract(client: NativeClient) -> None:
    body = looking({"image": data_url(size=(1024, 406))}, enable_thinking=True, incremental_output=True)
    first = client.ask(body).body.decode().partition("\n\n")[0]
    assert re.fullmatch(
        r"id:1\nevent:result\n:HTTP_STATUS/200\n"
        r'data:\{"output":\{"choices":\[\{"message":\{"content":\[\],"reasoning_content":"[^"]+","role":"assistant"\},'
        r'"finish_reason":"null"\}\]\},"usage":\{"total_tokens":\d+,"input_tokens_details":\{"image_tokens":418,'
        r'"text_tokens":10\},"output_tokens":3,"input_tokens":428,"output_tokens_details":\{"reasoning_tokens":3,'
        rf'"text_tokens":0\}},"image_tokens":418\}},"request_id":"{REQUEST_ID}"\}}',
        first,
    )


def test_the_bytes_of_an_answer_frame_and_of_the_last_one(client: NativeClient) -> None:
    body = client.body(enable_thinking=True, incremental_output=True)
    *_, answer, last = client.ask(body).body.decode().removesuffix("\n\n").split("\n\n")
    assert re.search(
        r'data:\{"output":\{"choices":\[\{"message":\{"content":\[\{"text":"[^"]+"\}\],"reasoning_content":"",'
        r'"role":"assistant"\},"finish_reason":"null"\}\]\},',
        answer,
    )
    assert (
        'data:{"output":{"choices":[{"message":{"content":[],"reasoning_content":"","role":"assistant"},'
        '"finish_reason":"stop"}]},' in last
    )


def test_the_frames_are_numbered_from_one_and_end_without_a_mark(client: NativeClient) -> None:
    raw = client.ask(client.body(), fault="chunks=5")
    assert [frame.id for frame in frames(raw)] == ["1", "2", "3", "4", "5", "6"]
    assert b"[DONE]" not in raw.body


def test_all_frames_but_the_last_finish_with_the_word_null(client: NativeClient) -> None:
    assert [frame.finish for frame in frames(client.ask(client.body(), fault="chunks=2"))] == ["null", "null", "stop"]


def test_thinking_comes_before_the_text_and_without_content(client: NativeClient) -> None:
    found = frames(client.ask(client.body(enable_thinking=True, incremental_output=True)))
    kinds = ["r" if frame.message["reasoning_content"] else "t" if frame.message["content"] else "-" for frame in found]
    assert re.fullmatch("r+t+-", "".join(kinds))
    assert all(frame.message["content"] == [] for frame in found if frame.message["reasoning_content"])


def test_at_the_text_address_the_content_is_a_string(text_client: NativeClient) -> None:
    found = frames(text_client.ask(text_client.body(incremental_output=True)))
    contents = [frame.message["content"] for frame in found]
    assert (contents[0], contents[-1], all(isinstance(content, str) for content in contents)) == ("", "", True)


def test_the_usage_grows_from_frame_to_frame_up_to_the_bill(client: NativeClient) -> None:
    raw = client.ask(client.body(enable_thinking=True, incremental_output=True))
    usages = [used(frame.data["usage"]) for frame in frames(raw)]
    assert usages == sorted(usages)
    assert (len(set(usages)) > 3, usages[-1]) == (True, told(client.row(raw)))


def test_the_details_name_the_reasoning(client: NativeClient) -> None:
    raw = client.ask(client.body(enable_thinking=True, incremental_output=True))
    details = frames(raw)[-1].data["usage"]["output_tokens_details"]
    billed = client.row(raw).billed
    assert details == {"text_tokens": billed.output - billed.reasoning, "reasoning_tokens": billed.reasoning}


def test_without_incremental_output_each_frame_holds_all_text_so_far(client: NativeClient) -> None:
    body = looking({"text": "One."}, incremental_output=False)
    pieces = [frame.text for frame in frames(client.ask({**body, "parameters": {"incremental_output": True}}))]
    texts = [frame.text for frame in frames(client.ask(body))]
    assert texts[:-1] == ["".join(pieces[: count + 1]) for count in range(len(pieces) - 1)]
    assert texts[-1] == "".join(pieces)


@pytest.mark.parametrize(("model", "cumulative"), [("qwen3-vl-plus", False), ("qwen-vl-max", True)])
def test_only_qwen3_vl_is_incremental_without_being_told(client: NativeClient, model: str, cumulative: bool) -> None:
    found = frames(client.ask(looking({"text": "One."}, model=model)))
    assert found[1].text.startswith(found[0].text) == cumulative


def test_the_thinking_budget_cuts_the_reasoning(client: NativeClient) -> None:
    body = client.body(enable_thinking=True, thinking_budget=5, incremental_output=True)
    assert client.row(client.ask(body)).billed.reasoning == 5


def test_a_text_answer_in_the_old_form(simulator: Running) -> None:
    client = NativeClient(simulator, "beijing", path=TEXT_PATH)
    body = {**client.body(incremental_output=True), "model": "Moonshot-Kimi-K2-Instruct"}
    outputs = [frame.data["output"] for frame in frames(client.ask(body, fault="chunks=1"))]
    assert [list(output) for output in outputs] == [["text", "finish_reason"]] * 2
    assert [output["finish_reason"] for output in outputs] == ["null", "stop"]


@pytest.mark.parametrize(
    ("region", "expected"),
    [("singapore", {"cached_tokens": 4}), ("beijing", {"prompt_tokens_details": {"cached_tokens": 4}})],
)
def test_cached_tokens_stand_where_the_region_puts_them(client: NativeClient, region: str, expected: object) -> None:
    usage = frames(client.ask(looking({"text": "One."}), region=region, fault="cached=40"))[-1].data["usage"]
    assert {name: value for name, value in usage.items() if "tokens" in name and name not in ORDINARY} == expected


ORDINARY = {"total_tokens", "input_tokens", "output_tokens", "input_tokens_details", "output_tokens_details"}

"""Which answers are continued, how the next request asks for the rest, and how the two become one."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from batchrun.answer import Answer
from batchrun.attachments import opened_request
from batchrun.call import continued, joined
from batchrun.catalogue import Catalogue, load_catalogue
from batchrun.errors import ErrorKind, UsageError
from batchrun.jobfile.spec import JobSpec
from batchrun.media.decoder import Decoder
from batchrun.messages import ChatRequest
from batchrun.plan import ENVELOPE_TOKENS, Plan, prepare
from batchrun.retries import Policy, Tries, after_cut
from batchrun.states import State
from batchrun.store.claim import Call
from batchrun.stream.continuing import Continuing, Prefix, Stopped, cut_early, may_continue
from batchrun.stream.fold import MAX_ANSWER
from batchrun.tables import EPOCH
from tests.unit.sending import tools_of

SAMPLES = sorted((Path(__file__).parent.parent / "requests" / "partial").glob("*.json"))
BOTH, BROKEN, CUT = (Continuing(broken=b, cut=c) for b, c in ((True, True), (True, False), (False, True)))
BROKE = Stopped(text="A qu", finish_reason=None, complete=False, error_kind="network", plain=True)
WAS_CUT = Stopped(text="A qu", finish_reason="length", complete=True, error_kind=None, plain=True)


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return load_catalogue()


def plan_of(catalogue: Catalogue, job: dict[str, JsonValue]) -> Plan:
    fixed: dict[str, JsonValue] = {"name": "j", "inputs": {"items": [{"x": "nothing"}]}}
    return prepare(JobSpec.model_validate({**fixed, **job}), catalogue)


async def made(plan: Plan, images: list[str]) -> ChatRequest:
    call = Call(
        attempt_id=1,
        item_id=1,
        job_id=1,
        profile_id=1,
        fence=1,
        custom_id="i",
        variables={},
        media=[{"kind": "image", "url": url} for url in images],
        free_tries=0,
        paid_tries=0,
        free_since=None,
        claimed_at=EPOCH,
        send_at=EPOCH,
        reserved=None,
        expected_tokens=1,
    )
    with Decoder() as decoder:
        async with opened_request(call, plan, tools_of(decoder)) as (request, _):
            return request


# The wire


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_the_text_so_far_is_sent_as_the_sample_says(catalogue: Catalogue, path: Path) -> None:
    sample = json.loads(path.read_text(encoding="utf-8"))
    plan = plan_of(catalogue, sample["job"])
    request = asyncio.run(made(plan, sample["images"]))
    so_far = Prefix(attempt_id=1, text=sample["prefix"])
    body = plan.dialect.encode(continued(request, so_far, plan.continuing_of({})), plan.model.rules)
    assert json.loads(b"".join(piece for piece in body.pieces if isinstance(piece, bytes))) == sample["sent"]


def test_a_call_without_a_text_so_far_is_sent_as_ever(catalogue: Catalogue) -> None:
    plan = plan_of(catalogue, json.loads(SAMPLES[0].read_text(encoding="utf-8"))["job"])
    request = asyncio.run(made(plan, []))
    assert continued(request, None, BROKEN) == request


# The join


def answer(text: str) -> Answer:
    return Answer(text=text, reasoning="", finish_reason="stop", complete=True, usage=None, request_id=None)


@given(st.text(), st.text())
def test_no_character_is_lost_or_doubled_at_the_seam(first: str, second: str) -> None:
    found = joined(answer(second), Prefix(attempt_id=7, text=first))
    assert (found.text, found.continues) == (first + second, 7)


def test_a_model_that_says_the_same_once_more_means_it() -> None:
    """By the contract the text so far isn't repeated; what looks so is the model's own."""
    assert joined(answer("Row, row, row. Merrily."), Prefix(attempt_id=7, text="Row, row, row. ")).text == (
        "Row, row, row. Row, row, row. Merrily."
    )


# What is continued


@pytest.mark.parametrize("kind", ["incomplete", "network", "timeout", "server", "lost"])
def test_a_text_that_broke_off_is_continued(kind: str) -> None:
    assert may_continue(replace(BROKE, error_kind=kind), BROKEN)


@pytest.mark.parametrize("kind", sorted(set(ErrorKind) - {"incomplete", "network", "timeout", "server", "lost"}))
def test_after_any_other_error_it_is_not(kind: str) -> None:
    assert not may_continue(replace(BROKE, error_kind=kind), BOTH)


@pytest.mark.parametrize("stopped", [BROKE, WAS_CUT], ids=["broken", "cut"])
@pytest.mark.parametrize(
    "text", ["", " \n\t", "A qu\ufffd", "\ufffdA", "x" * MAX_ANSWER], ids=lambda text: repr(text[:5])
)
def test_a_text_that_says_nothing_or_is_not_what_the_model_wrote_is_not_continued(stopped: Stopped, text: str) -> None:
    assert not may_continue(replace(stopped, text=text), BOTH)


@pytest.mark.parametrize("stopped", [BROKE, WAS_CUT], ids=["broken", "cut"])
def test_thinking_and_calls_to_tools_are_not_continued(stopped: Stopped) -> None:
    assert not may_continue(replace(stopped, plain=False), BOTH)


def test_an_answer_that_was_filtered_is_not_continued() -> None:
    assert not may_continue(replace(WAS_CUT, finish_reason="content_filter"), BOTH)
    assert not may_continue(replace(BROKE, finish_reason="content_filter"), BOTH)


@pytest.mark.parametrize(("limit", "rule"), [(3, False), (4, True), (None, True)])
def test_a_text_that_may_have_all_the_tokens_already_is_not_continued(limit: int | None, rule: bool) -> None:
    """`A qu`: at most three tokens."""
    assert may_continue(BROKE, replace(BROKEN, limit=limit)) is rule


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ({"on_incomplete": "continue"}, {"max_tokens": 6, "max_completion_tokens": 17}),
        ({"on_incomplete": "continue", "on_truncated": "continue"}, {"max_tokens": 9, "max_completion_tokens": 20}),
    ],
)
def test_the_rest_has_what_is_left_of_the_length_unless_each_call_has_it_whole(
    catalogue: Catalogue, asked: dict[str, JsonValue], sent: dict[str, int]
) -> None:
    lengths: dict[str, JsonValue] = {"max_tokens": 9, "max_completion_tokens": 20}
    of_job: dict[str, JsonValue] = {"provider": "model-studio/singapore", "model": "qwen3-vl-plus", **asked}
    written = plan_of(catalogue, {**of_job, "inputs": {"requests": "x.jsonl"}})
    body: dict[str, JsonValue] = {"messages": [{"role": "user", "content": "x"}], **lengths}
    plain = plan_of(catalogue, {**of_job, "prompt": "x", "params": lengths})
    for plan, variables in ((plain, {}), (written, body)):
        request = plan.request(variables, [])
        rest = continued(request, Prefix(attempt_id=1, text="A qu"), plan.continuing_of(variables))
        assert {name: rest.params[name] for name in lengths} == sent


@pytest.mark.parametrize(
    ("finish", "rule", "early"),
    [
        ("length", replace(BROKEN, limit=300), True),
        ("length", replace(BROKEN, limit=2), False),
        ("stop", replace(BROKEN, limit=300), False),
        ("length", BROKEN, False),
    ],
)
def test_a_rest_that_our_own_guess_may_have_cut(finish: str, rule: Continuing, early: bool) -> None:
    assert cut_early("A quiet street in the rain.", finish, rule) is early


def test_each_setting_is_about_its_own_kind_of_end() -> None:
    assert (may_continue(BROKE, CUT), may_continue(WAS_CUT, CUT)) == (False, True)
    assert (may_continue(BROKE, BROKEN), may_continue(WAS_CUT, BROKEN)) == (True, False)


@pytest.mark.parametrize(("before", "state"), [(0, State.WAITING), (2, State.WAITING), (3, State.TRUNCATED)])
def test_a_cut_answer_is_continued_at_once_while_a_try_is_left(before: int, state: State) -> None:
    policy = Policy(attempts=4, max_elapsed=timedelta(hours=1))
    decision = after_cut(Tries(free=5, paid=before, free_since=None), policy, EPOCH)
    assert (decision.state, decision.next_at, decision.tries.paid) == (state, EPOCH, before + 1)


# Which jobs may


@pytest.mark.parametrize("key", ["on_incomplete", "on_truncated"])
@pytest.mark.parametrize(
    ("provider", "model", "more", "reason"),
    [
        ("model-studio/beijing", "kimi-k2.5", {}, "kimi-k2.5 at model-studio/beijing doesn't have"),
        ("acedata", "kimi-k2.5", {}, "kimi-k2.5 at acedata doesn't have"),
        ("model-studio/singapore", "qwen3-vl-235b-a22b-thinking", {}, "doesn't have"),
        ("model-studio/singapore", "qwen3-vl-plus", {"thinking": {"enabled": True}}, "doesn't have while it thinks"),
    ],
)
def test_a_model_without_partial_mode_is_refused(
    catalogue: Catalogue, key: str, provider: str, model: str, more: dict[str, JsonValue], reason: str
) -> None:
    job: dict[str, JsonValue] = {"provider": provider, "model": model, "prompt": "x", key: "continue", **more}
    with pytest.raises(UsageError) as caught:
        plan_of(catalogue, job)
    assert caught.value.code == "partial-mode"
    assert caught.value.message.startswith(f"`{key}: continue` needs partial mode, which {model}")
    assert reason in caught.value.message
    assert f"write `{key}: {'retry' if key == 'on_incomplete' else 'keep'}`" in caught.value.remedy


@pytest.mark.parametrize("provider", ["model-studio/singapore", "dashscope/beijing", "simulator/dashscope-virginia"])
def test_the_models_that_have_it_have_it_at_every_address(catalogue: Catalogue, provider: str) -> None:
    plan = plan_of(
        catalogue, {"provider": provider, "model": "qwen3-vl-flash", "prompt": "x", "on_truncated": "continue"}
    )
    assert plan.continuing_of({}) == CUT


def test_nothing_is_continued_unless_the_job_says_so(catalogue: Catalogue) -> None:
    plan = plan_of(catalogue, {"provider": "model-studio/singapore", "model": "qwen3-vl-plus", "prompt": "x"})
    assert plan.continuing_of({}) is None


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        ({}, BROKEN),
        ({"enable_thinking": True}, None),
        (
            {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]},
            None,
        ),
    ],
    ids=["plain", "thinking", "a beginning of its own"],
)
def test_a_written_request_is_continued_where_it_can_be(
    catalogue: Catalogue, body: dict[str, JsonValue], rule: Continuing | None
) -> None:
    job: dict[str, JsonValue] = {"provider": "model-studio/singapore", "model": "qwen3-vl-plus"}
    plan = plan_of(catalogue, {**job, "inputs": {"requests": "x.jsonl"}, "on_incomplete": "continue"})
    assert plan.continuing_of({"messages": [{"role": "user", "content": "x"}], **body}) == rule


# Money


def test_the_text_so_far_counts_as_input_up_to_what_the_model_takes(catalogue: Catalogue) -> None:
    plan = plan_of(catalogue, {"provider": "model-studio/singapore", "model": "qwen3-vl-plus", "prompt": "x"})
    prefix = Prefix(attempt_id=1, text="é" * 100)
    assert plan.continued_bound(1_000, prefix) == 1_000 + 200 + ENVELOPE_TOKENS
    assert plan.continued_bound(1_000, None) == 1_000
    assert plan.continued_bound(None, prefix) is None
    assert plan.continued_bound(plan.input_limit, prefix) == plan.input_limit

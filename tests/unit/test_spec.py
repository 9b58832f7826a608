"""The values of a job file: what is checked, what is kept, what makes a request the same request."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue, ValidationError

from batchrun.jobfile.quantities import format_duration, parse_duration, parse_money
from batchrun.jobfile.spec import JobSpec, differences

MINIMAL: dict[str, JsonValue] = {
    "name": "captions",
    "provider": "model-studio/singapore",
    "model": "qwen3-vl-plus",
    "inputs": {"images": "photos"},
    "prompt": "Describe {{ filename }}.",
}


def job(**changes: JsonValue) -> JobSpec:
    return JobSpec.model_validate({**MINIMAL, **changes})


def test_the_defaults() -> None:
    found = job()
    assert (found.retry.attempts, found.retry.max_elapsed) == (4, timedelta(hours=24))
    assert (found.timeouts.first_token, found.timeouts.silence) == (timedelta(seconds=120), timedelta(seconds=120))
    assert found.timeouts.total == timedelta(hours=1)
    assert (found.stream, found.priority, found.tags, found.thinking, found.budget) == (True, 0, (), None, None)
    assert found.limits.concurrency is None


def test_batch_chat_does_not_stream() -> None:
    found = job(mode="batch-chat")
    assert (found.mode, found.stream, job().mode) == ("batch-chat", False, "online")
    assert JobSpec.model_validate(found.snapshot()) == found
    with pytest.raises(ValidationError, match="`mode: batch-chat` doesn't stream"):
        job(mode="batch-chat", stream=True)


def test_the_same_request_in_another_mode_is_the_same_request() -> None:
    assert job(mode="batch-chat").identity() == job().identity()


def test_known_and_extra_params_are_sent_together() -> None:
    found = job(params={"max_tokens": 200, "temperature": 1, "stop": "END", "extra": {"guided": {"a": None}}})
    assert found.params == {"max_tokens": 200, "temperature": 1.0, "stop": ["END"], "guided": {"a": None}}


@pytest.mark.parametrize(
    "extra",
    [
        {"a": {"api_key": "canary"}},
        {"a": [{"b": {"Access-Token": "canary"}}]},
        {"my_secret": "canary"},
        {"db_password": "canary"},
        {"properties": {"api_key": "canary"}},
        {"user": "sk-abcdefcanaryabc"},
        {"user": ["AKIACANARY0123456789"]},
        {"a": {"b": "ghp_canary0123456789abcdef"}},
        {"a": {"b": "x AIzaCanary0123456789abcdefghijk"}},
        {"a": {"b": "sk_live_canary01"}},
        {"a": {"AIzaCanary0123456789abcdefghijk": 1}},
    ],
)
def test_what_looks_like_a_key_is_not_sent_and_not_shown(extra: JsonValue) -> None:
    with pytest.raises(ValidationError, match=r"like a key|can't be sent") as caught:
        job(params={"extra": extra})
    assert "canary" not in str(caught.value).lower()


@pytest.mark.parametrize(
    "extra",
    [
        {"prompt_cache_key": "batch-1"},
        {"response_format": {"schema": {"properties": {"key": {"type": "string"}}, "required": ["key"]}}},
        {"stop_token_ids": [1, 2]},
    ],
)
def test_what_only_sounds_like_a_key_is_sent(extra: dict[str, JsonValue]) -> None:
    assert job(params={"extra": extra}).params == extra


def test_params_that_were_not_written_are_not_sent() -> None:
    assert job().params == {}


def test_a_budget_is_exact_and_has_a_currency() -> None:
    budget = job(budget={"max_cost": "5.10 USD"}).budget
    assert budget is not None
    assert (budget.max_cost, budget.currency) == (Decimal("5.10"), "USD")


@pytest.mark.parametrize(
    ("section", "value"),
    [
        ("params", {"temperature": float("nan")}),
        ("params", {"temperature": 2.1}),
        ("params", {"temperature": True}),
        ("params", {"top_p": 0}),
        ("params", {"max_tokens": 0}),
        ("params", {"max_tokens": 1.5}),
        ("params", {"max_tokens": "200"}),
        ("params", {"seed": 2**31}),
        ("params", {"presence_penalty": -2.5}),
        ("params", {"extra": {"stream": True}}),
        ("params", {"extra": {"max_tokens": 5}}),
        ("params", {"extra": {"Authorization": "x"}}),
        ("limits", {"concurrency": 10**9}),
        ("limits", {"concurrency": -1}),
        ("limits", {"requests_per_minute": 0}),
        ("retry", {"attempts": 0}),
        ("retry", {"max_elapsed": "31d"}),
        ("timeouts", {"silence": "0s"}),
        ("thinking", {"enabled": False, "budget": 5}),
        ("thinking", {"budget": 5}),
        ("budget", {"max_cost": "0 USD"}),
        ("budget", {"max_cost": "5 usd"}),
        ("budget", {"max_cost": "NaN USD"}),
        ("budget", {"max_cost": "-5 USD"}),
        ("output", {"sidecar": "../{{ stem }}.txt"}),
        ("output", {"sidecar": "all.txt"}),
        ("inputs", {}),
        ("inputs", {"images": "a", "rows": "b"}),
        ("inputs", {"items": []}),
        ("name", "a b"),
        ("name", "x" * 101),
        ("name", ""),
        ("name", "caption\n"),
        ("provider", "https://example.org"),
        ("model", "${MODEL}"),
        ("tags", ["a,b"]),
        ("tags", "spring"),
        ("priority", 1001),
    ],
)
def test_a_value_out_of_bounds_is_refused(section: str, value: JsonValue) -> None:
    with pytest.raises(ValidationError):
        job(**{section: value})


def test_a_snapshot_makes_an_equal_job() -> None:
    original = job(
        params={"stop": ["a"], "extra": {"x": 1}},
        budget={"max_cost": "5.00 USD"},
        retry={"max_elapsed": "1h30m"},
        thinking={"enabled": True, "budget": 100},
        tags=["spring"],
        inputs={"items": [{"id": "012", "n": None}]},
        prompt="{{ id }}",
    )
    assert JobSpec.model_validate(original.snapshot()) == original


def test_an_error_does_not_repeat_the_input() -> None:
    with pytest.raises(ValidationError) as caught:
        job(thinking="sk-canary-0123456789")
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"limits": {"concurrency": 3}},
        {"retry": {"attempts": 9}},
        {"timeouts": {"total": "2h"}},
        {"budget": {"max_cost": "1 USD"}},
        {"tags": ["x"]},
        {"priority": 5},
        {"stream": False},
        {"output": {"sidecar": "{{ stem }}.txt"}},
        {"inputs": {"images": "others"}},
        {"name": "other"},
    ],
)
def test_how_a_job_runs_is_not_its_identity(changes: Mapping[str, JsonValue]) -> None:
    assert job(**changes).identity() == job().identity()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model": "kimi-k2.5"}, [("model", "qwen3-vl-plus", "kimi-k2.5")]),
        ({"params": {"seed": 1}}, [("params.seed", None, 1)]),
        ({"thinking": {"enabled": True}}, [("thinking", None, {"enabled": True, "budget": None})]),
        ({"system": "Be brief."}, [("system", None, "Be brief.")]),
        ({"provider": "aceData"}, [("provider", "model-studio/singapore", "aceData")]),
        ({"prompt": "Hi"}, [("prompt", "Describe {{ filename }}.", "Hi")]),
    ],
)
def test_what_is_asked_is_its_identity(
    changes: Mapping[str, JsonValue], expected: list[tuple[str, object, object]]
) -> None:
    assert differences(job().identity(), job(**changes).identity()) == expected


def test_true_and_one_are_different() -> None:
    assert differences({"a": {"b": 1}}, {"a": {"b": True}}) == [("a.b", 1, True)]


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("1h30m", 5400), ("24h", 86400), ("2d", 172800)]
)
def test_a_duration(text: str, seconds: int) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "5", "m", "1m1h", "1.5h", "-1s", "1 h", "1h\n", "１h", None, True, []])
def test_what_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match="must be a duration"):
        parse_duration(text)


def test_a_plain_number_is_told_about_units() -> None:
    with pytest.raises(ValueError, match="24 has no unit"):
        parse_duration(24)


@given(st.integers(min_value=0, max_value=10**8))
def test_a_duration_survives_its_text(seconds: int) -> None:
    assert parse_duration(format_duration(timedelta(seconds=seconds))) == timedelta(seconds=seconds)


@given(st.decimals(min_value="0.000000000001", max_value=10**11, places=12))
def test_money_survives_its_text(amount: Decimal) -> None:
    assert parse_money(str(parse_money(f"{amount:f} CNY"))).amount == amount

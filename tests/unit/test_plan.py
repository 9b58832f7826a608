"""What the calls of a job share: their address, their key, and the most that one can cost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from pydantic import JsonValue

from batchrun.call import Live
from batchrun.catalogue import Catalogue, load_catalogue
from batchrun.errors import CatalogueError, TemplateError, UsageError
from batchrun.jobfile.spec import JobSpec
from batchrun.plan import ENVELOPE_TOKENS, Plan, prepare
from batchrun.settings import read_settings

KEY = "sk-0123456789abcdef"
SINGAPORE = "model-studio/singapore"

OWN = """
endpoints:
  own:
    dialect: compat
    base_url: http://127.0.0.1:8000/v1
    key_env: []
    open_models: true
    models:
      blind:
        images: false
      known:
        max_input: 1000
        max_output: 500
        prices:
          - currency: EUR
            tiers: [{input: 1, output: 2}]
"""


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    file = tmp_path_factory.mktemp("catalogue") / "own.yaml"
    file.write_text(OWN, encoding="utf-8")
    return load_catalogue(file)


def job(provider: str = SINGAPORE, model: str = "qwen3-vl-plus", **fields: JsonValue) -> JobSpec:
    fixed: dict[str, JsonValue] = {"name": "j", "prompt": "Describe {{ x }}.", "inputs": {"rows": "rows.csv"}}
    return JobSpec.model_validate({**fixed, "provider": provider, "model": model, **fields})


def plan(catalogue: Catalogue, spec: JobSpec, **environment: str) -> Plan:
    settings = read_settings(environment, Path("/work")) if environment else None
    return prepare(spec, catalogue, settings=settings)


# Addresses and keys


def test_the_key_of_the_region_comes_first(catalogue: Catalogue) -> None:
    both = plan(catalogue, job(), DASHSCOPE_API_KEY="sk-general-key", DASHSCOPE_API_KEY_SINGAPORE=KEY)
    assert both.headers["authorization"] == f"Bearer {KEY}"


def test_without_settings_there_is_no_key(catalogue: Catalogue) -> None:
    assert "authorization" not in plan(catalogue, job()).headers


def test_an_endpoint_without_keys_gets_none(catalogue: Catalogue) -> None:
    assert "authorization" not in plan(catalogue, job("own", "any"), DASHSCOPE_API_KEY=KEY).headers


def test_a_missing_key_is_named_with_what_to_do(catalogue: Catalogue) -> None:
    with pytest.raises(UsageError) as caught:
        plan(catalogue, job(), UNRELATED=KEY)
    assert caught.value.message == (
        "no key for model-studio/singapore: DASHSCOPE_API_KEY_SINGAPORE and DASHSCOPE_API_KEY are not set"
    )
    assert "export DASHSCOPE_API_KEY=" in caught.value.remedy


def test_the_key_is_among_the_texts_that_must_not_be_stored(catalogue: Catalogue) -> None:
    assert plan(catalogue, job(), DASHSCOPE_API_KEY=KEY).secrets == (KEY,)


def test_the_address_is_that_of_the_endpoint_and_the_dialect(catalogue: Catalogue) -> None:
    assert plan(catalogue, job("own", "any")).url == "http://127.0.0.1:8000/v1/chat/completions"


@pytest.mark.parametrize(("stream", "accepted"), [(True, "text/event-stream"), (False, "application/json")])
def test_the_answer_is_asked_for_in_the_form_of_the_job(catalogue: Catalogue, stream: bool, accepted: str) -> None:
    assert plan(catalogue, job(stream=stream)).headers["accept"] == accepted


def test_no_compressed_answer_is_asked_for(catalogue: Catalogue) -> None:
    """A cut gzip stream can't be told from a short one."""
    assert plan(catalogue, job()).headers["accept-encoding"] == "identity"


def test_the_clocks_and_tries_are_those_of_the_job(catalogue: Catalogue) -> None:
    made = plan(catalogue, job(timeouts={"silence": "9s"}, retry={"attempts": 2, "max_elapsed": "1h"}))
    assert made.timeouts.silence == timedelta(seconds=9)
    assert (made.policy.attempts, made.policy.max_elapsed) == (2, timedelta(hours=1))


def batch_chat(**fields: JsonValue) -> JobSpec:
    return job("model-studio/beijing", "qwen3-vl-plus", mode="batch-chat", **fields)


@pytest.mark.parametrize(("asked", "total"), [({}, 3_900), ({"total": "10m"}, 3_900), ({"total": "2h"}, 7_200)])
def test_batch_chat_is_waited_for_longer_than_it_may_take(catalogue: Catalogue, asked: JsonValue, total: int) -> None:
    made = plan(catalogue, batch_chat(timeouts=asked))
    live = Live(timeouts=made.timeouts, stream=made.stream, started=0)
    assert [live.overdue(3_899), bool(live.overdue(3_901))] == ["", True]
    assert made.timeouts.total == timedelta(seconds=total)


def test_the_most_that_a_call_can_cost_is_half_in_batch_chat(catalogue: Catalogue) -> None:
    ordinary, batch = (plan(catalogue, spec).most(1_000, 100) for spec in (job("model-studio/beijing"), batch_chat()))
    # 1,000 tokens that are written into a cache, 125 % of input, and 100 of output
    assert (ordinary, batch) == (Decimal("0.00032215"), Decimal("0.0001432"))


def test_batch_chat_says_what_it_means(catalogue: Catalogue) -> None:
    held, price = plan(catalogue, batch_chat()).notes
    assert held.startswith("`mode: batch-chat`: an answer may take up to 60 min, and `timeouts` don't end it sooner")
    assert price == "the vendor calls this price limited in time; it was last compared on 2026-11-22"


def test_files_are_not_uploaded_for_batch_chat(catalogue: Catalogue) -> None:
    with pytest.raises(UsageError, match="model-studio/beijing-batch has none"):
        plan(catalogue, batch_chat(media={"upload": "large"}))


# What is refused before any call


def test_an_unknown_model_is_refused(catalogue: Catalogue) -> None:
    with pytest.raises(CatalogueError, match="no model `qwen3-vl-plas`"):
        plan(catalogue, job(model="qwen3-vl-plas"))


@pytest.mark.parametrize("inputs", [{"images": "photos"}, {"urls": "list.txt"}])
def test_pictures_for_a_model_that_takes_none_are_refused(catalogue: Catalogue, inputs: dict[str, JsonValue]) -> None:
    with pytest.raises(UsageError, match="blind at own takes no pictures"):
        plan(catalogue, job("own", "blind", inputs=inputs, prompt="Describe."))


def test_a_parameter_that_the_model_forbids_is_refused(catalogue: Catalogue) -> None:
    with pytest.raises(UsageError) as caught:
        plan(catalogue, job("model-studio/beijing", "kimi-k2-thinking", params={"top_p": 0.5}))
    assert "top_p" in caught.value.message


# Texts


@pytest.mark.parametrize("provider", [SINGAPORE, "dashscope/beijing"])
def test_a_plain_answer_of_a_model_that_only_streams_is_refused(catalogue: Catalogue, provider: str) -> None:
    assert prepare(job(provider, "qvq-max"), catalogue).stream
    with pytest.raises(UsageError, match="qvq-max answers in streams only"):
        prepare(job(provider, "qvq-max", stream=False), catalogue)


@pytest.mark.parametrize(("provider", "place"), [("model-studio/beijing", ()), ("dashscope/beijing", ("parameters",))])
def test_a_web_search_stands_where_the_wire_form_wants_it(
    catalogue: Catalogue, provider: str, place: tuple[str, ...]
) -> None:
    plan = prepare(job(provider, "Moonshot-Kimi-K2-Instruct", params={"enable_search": True}), catalogue)
    body = plan.dialect.encode(plan.request({"x": "it"}, []), plan.model.rules)
    sent = json.loads(b"".join(piece for piece in body.pieces if isinstance(piece, bytes)))
    for name in place:
        sent = sent[name]
    assert sent["enable_search"] is True
    with pytest.raises(UsageError, match="doesn't take the parameter `enable_search`"):
        prepare(job(provider, "kimi-k2.5", params={"enable_search": True}), catalogue)


def test_the_system_message_comes_before_the_prompt(catalogue: Catalogue) -> None:
    made = plan(catalogue, job(system="You see {{ x }}."))
    assert made.texts({"x": "a"}) == ["You see a.", "Describe a."]


def test_a_missing_variable_is_an_error(catalogue: Catalogue) -> None:
    with pytest.raises(TemplateError, match="x"):
        plan(catalogue, job()).texts({})


# The most that a call can cost


def test_a_token_is_at_least_a_byte(catalogue: Catalogue) -> None:
    assert plan(catalogue, job()).input_bound(["写真"], 0) == 6 + 2 * ENVELOPE_TOKENS


def test_a_picture_counts_as_the_longest_one(catalogue: Catalogue) -> None:
    made = plan(catalogue, job())
    texts = made.input_bound(["x"], 0)
    assert texts is not None
    assert made.input_bound(["x"], 2) == texts + 2 * 16_386


def test_no_request_is_longer_than_the_model_takes(catalogue: Catalogue) -> None:
    assert plan(catalogue, job()).input_bound(["x"], 1_000) == 260_096


def test_a_thinking_model_takes_less(catalogue: Catalogue) -> None:
    assert plan(catalogue, job(thinking={"enabled": True})).input_bound(["x"], 1_000) == 258_048


def test_pictures_of_unknown_size_are_bound_by_the_model(catalogue: Catalogue) -> None:
    assert plan(catalogue, job("own", "known")).input_bound(["x"], 1) == 1_000


def test_pictures_of_unknown_size_at_an_unknown_model_have_no_bound(catalogue: Catalogue) -> None:
    assert plan(catalogue, job("own", "any")).input_bound(["x"], 1) is None


def test_text_has_a_bound_at_an_unknown_model_too(catalogue: Catalogue) -> None:
    assert plan(catalogue, job("own", "any")).input_bound(["x"], 0) == 1 + 2 * ENVELOPE_TOKENS


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, 500),
        ({"max_tokens": 20}, 20),
        ({"max_completion_tokens": 30}, 30),
        ({"max_tokens": 20, "max_completion_tokens": 30}, 30),
        ({"max_tokens": 30, "max_completion_tokens": 20}, 30),
    ],
)
def test_the_answer_is_bound_by_the_larger_limit(
    catalogue: Catalogue, params: Mapping[str, int], expected: int
) -> None:
    """A vendor may obey only one of the two."""
    assert plan(catalogue, job("own", "known", params=dict(params))).output_bound() == expected


def test_thinking_comes_on_top_of_the_answer(catalogue: Catalogue) -> None:
    made = plan(catalogue, job(params={"max_tokens": 100}, thinking={"enabled": True, "budget": 1_000}))
    assert made.output_bound() == 1_100


def test_the_most_that_a_call_can_cost(catalogue: Catalogue) -> None:
    assert plan(catalogue, job("own", "known")).most(1_000, 500) == Decimal("0.002")


def test_without_a_price_the_most_is_not_known(catalogue: Catalogue) -> None:
    assert plan(catalogue, job("own", "any", params={"max_tokens": 10})).most(1_000, 10) is None


def test_without_a_bound_the_most_is_not_known(catalogue: Catalogue) -> None:
    assert plan(catalogue, job("own", "known")).most(None, 500) is None


def test_the_currency_is_that_of_the_price(catalogue: Catalogue) -> None:
    assert [plan(catalogue, job("own", model)).currency for model in ("known", "any")] == ["EUR", None]

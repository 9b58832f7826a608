"""`KEY=VALUE` of `set` follows the rules of the job file."""

from __future__ import annotations

from decimal import Decimal

import pytest

from batchrun.errors import UsageError
from batchrun.jobfile.changes import JobChanges, ProfileChanges, checked, pairs
from batchrun.jobfile.quantities import Money


def problems(*texts: str) -> str:
    with pytest.raises(UsageError) as caught:
        checked(pairs(texts), JobChanges)
    return caught.value.message


def test_values_are_read() -> None:
    changes = pairs(["concurrency=8", "budget=5.00 USD", "priority=-3", "tokens_per_day=none"])
    assert checked(changes, JobChanges) == {
        "concurrency": 8,
        "budget": Money(amount=Decimal("5.00"), currency="USD"),
        "priority": -3,
        "tokens_per_day": None,
    }


def test_values_of_python_are_taken_as_they_are() -> None:
    assert checked({"concurrency": 8, "tokens_per_minute": None}, ProfileChanges) == {
        "concurrency": 8,
        "tokens_per_minute": None,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("concurrency=0", "concurrency: must be at least 1, not 0"),
        ("concurrency=1e3", "concurrency: must be a whole number, not the text `1e3`"),
        ("concurrency=1_000", "concurrency: must be a whole number, not the text `1_000`"),
        ("requests_per_minute=99999999999", "requests_per_minute: must be at most 10,000,000"),
        ("budget=5", "budget: 5 names no currency"),
        ("budget=five USD", "budget: must be an amount and a currency"),
        ("budget=0 USD", "budget: a cap of zero lets nothing run"),
        ("priority=none", "priority: must be a whole number"),
        ("concurency=3", "nothing called `concurency` can be set here; did you mean concurrency?"),
        ("model=x", "nothing called `model` can be set here; there are: concurrency, "),
        ("concurrency", "`concurrency` is not KEY=VALUE"),
        ("=3", "`=3` is not KEY=VALUE"),
    ],
)
def test_what_can_not_be_set_is_refused(text: str, message: str) -> None:
    assert problems(text).startswith(message)


def test_all_that_is_wrong_is_named() -> None:
    assert len(problems("concurrency=0", "budget=5", "priority=2").splitlines()) == 2


def test_a_key_stands_once() -> None:
    assert problems("priority=1", "priority=2") == "priority is given twice"


@pytest.mark.parametrize("text", ["budget=1 USD", "priority=1"])
def test_a_profile_has_only_limits(text: str) -> None:
    with pytest.raises(UsageError, match="can be set here"):
        checked(pairs([text]), ProfileChanges)

"""The grammar of fault specs, and which requests a clause hits."""

import hashlib

import pytest

from batchrun.simulator.faults import FAULTS, FaultMemory, FaultSpecError, parse_spec


def bodies(count: int) -> list[bytes]:
    return [hashlib.sha256(str(number).encode()).digest() for number in range(count)]


def hits(spec: str, requests: list[bytes]) -> list[bool]:
    memory = FaultMemory()
    clauses = parse_spec(spec)
    return [bool(memory.select("key", clauses, body).clauses) for body in requests]


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_of_the_table_can_be_named(name: str) -> None:
    kind = FAULTS[name]
    value = "" if kind.default is not None or kind.values is None else "=1"
    if isinstance(kind.values, tuple):
        value = f"={kind.values[0]}"
    assert [clause.name for clause in parse_spec(f"{name}{value}-first=3-once")] == [name]


def test_clauses_are_joined_by_plus() -> None:
    faults = FaultMemory().select("key", parse_spec("crlf+chunks=7+ttft=0.5"), b"")
    assert ("crlf" in faults, faults.whole("chunks"), faults.number("ttft")) == (True, 7, 0.5)


def test_a_negative_retry_after_can_be_told_from_a_modifier() -> None:
    (clause,) = parse_spec("429-retry-after=-1-once")
    assert (dict(clause.headers), clause.once) == ({"retry-after": "-1"}, True)


def test_a_word_on_trying_again_is_a_header() -> None:
    (clause,) = parse_spec("503-once-should-retry=false")
    assert (dict(clause.headers), clause.once) == ({"x-should-retry": "false"}, True)


def test_a_date_may_be_percent_encoded() -> None:
    (clause,) = parse_spec("429-retry-after=Wed%2C%2021%20Oct%202099%2007%3A28%3A00%20GMT")
    assert clause.headers["retry-after"] == "Wed, 21 Oct 2099 07:28:00 GMT"


@pytest.mark.parametrize(
    ("spec", "part"),
    [
        ("nonsense", "nonsense"),
        ("429-sometimes", "429-sometimes"),
        ("crlf=1", "takes no value"),
        ("chunks", "whole number"),
        ("chunks=many", "many"),
        ("usage=never", "missing, zero"),
        ("429-every=x", "'x'"),
        ("429-pct=-5", "'-5'"),
        ("429+", "''"),
        ("429-retry-after=1%0d%0ax: y", "printable"),
    ],
)
def test_a_wrong_spec_is_told_which_part_is_wrong(spec: str, part: str) -> None:
    with pytest.raises(FaultSpecError) as caught:
        parse_spec(spec)
    assert part in str(caught.value)


def test_every_hits_each_nth_request() -> None:
    assert hits("429-every=3", bodies(7)) == [False, False, True, False, False, True, False]


def test_first_hits_the_first_requests() -> None:
    assert hits("503-first=2", bodies(4)) == [True, True, False, False]


def test_once_hits_each_body_on_its_first_try() -> None:
    one, two = bodies(2)
    assert hits("reset-once", [one, one, two, one, two]) == [True, False, True, False, False]


def test_percent_picks_about_that_share() -> None:
    assert 35 <= sum(hits("reset-pct=5", bodies(1_000))) <= 65


def test_percent_picks_the_same_bodies_again() -> None:
    assert hits("reset-pct=50", bodies(50)) == hits("reset-pct=50", bodies(50))


def test_another_seed_picks_others() -> None:
    assert hits("reset-pct=50-seed=1", bodies(50)) != hits("reset-pct=50-seed=2", bodies(50))


def test_modifiers_must_all_hold() -> None:
    one, two = bodies(2)
    assert hits("500-every=2-once", [one, two, one, two]) == [False, True, False, False]

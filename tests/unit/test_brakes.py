"""What holds a job back, and what is wrong when nothing ends: facts in, words out."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from batchrun.pacing.alarms import Alarm, Sign, Standstill, alarm_of, is_patient, standstill_text
from batchrun.pacing.brakes import BrakeKind, Calls, JobFacts, Rate, brake_of, seconds_left, span_of
from batchrun.pacing.limits import Bucket
from batchrun.pacing.pace import Pace
from batchrun.pacing.windows import window_of
from batchrun.states import State

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
NEVER = datetime(1970, 1, 1, tzinfo=UTC)


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def bucket(**values: object) -> Bucket:
    limits = {"requests_per_minute": None, "tokens_per_minute": None, "tokens_per_day": None}
    state = {"next_slot_at": NEVER, "tokens_at": NEVER, "day": 0, "day_tokens": 0}
    return Bucket(**{**limits, **state, **values})  # type: ignore[arg-type]  # names of columns


def facts(**values: object) -> JobFacts:
    """A job with 90 items left that a live worker is free to work on."""
    counts = {State.DONE: 10, State.PENDING: 80, State.CLAIMED: 10}
    known = {"in_flight": 10, "profile_in_flight": 10, "workers": 1, "live_workers": 1, "profile_concurrency": 64}
    return JobFacts(**{"name": "captions", "now": NOON, "counts": counts, **known, **values})  # type: ignore[arg-type]


def waiting(count: int, *, first: float, last: float, **values: object) -> JobFacts:
    return facts(
        counts={State.WAITING: count},
        in_flight=0,
        next_at=NOON + seconds(first),
        last_at=NOON + seconds(last),
        **values,
    )


LIMITED = Rate(bucket=bucket(requests_per_minute=600, next_slot_at=NOON + seconds(0.3)))
BRAKES = {
    "a job that has ended": (facts(counts={State.DONE: 5}), None, None),
    "a pause": (facts(paused="budget", pause_message="all spent"), BrakeKind.PAUSE, "a pause (budget): all spent"),
    "an open breaker": (
        facts(breaker_until=NOON + seconds(10), breaker_step=1),
        BrakeKind.BREAKER,
        "an outage of the provider since about 11:59:40Z, tried again at 12:00:10Z",
    ),
    "a breaker that probes": (
        facts(breaker_until=NOON - seconds(1), breaker_step=1),
        BrakeKind.BREAKER,
        "an outage of the provider, which is being probed",
    ),
    "a closed window": (
        facts(window=window_of("22:00", "06:00", "Asia/Tokyo")),
        BrakeKind.WINDOW,
        "its window of 22:00 to 06:00 Asia/Tokyo, which opens at 13:00:00Z, in 60 min; 10 in flight finish",
    ),
    "an open window": (
        facts(window=window_of("20:00", "06:00", "Asia/Tokyo")),
        BrakeKind.PROVIDER,
        "nothing but the provider's own speed",
    ),
    "no worker": (facts(in_flight=0, live_workers=0), BrakeKind.NO_WORKER, "nobody working on it"),
    "a dead worker": (
        facts(in_flight=3, live_workers=0, held_by_dead=3),
        BrakeKind.NO_WORKER,
        "nobody working on it; 3 are held by a process that died",
    ),
    "one that waits": (
        waiting(1, first=30, last=30),
        BrakeKind.WAITING,
        "1 item that waits for another try until 12:00:30Z",
    ),
    "some that wait": (
        waiting(7, first=30, last=90),
        BrakeKind.WAITING,
        "7 items that wait for another try until 12:00:30Z to 12:01:30Z",
    ),
    "the last calls": (
        facts(counts={State.CLAIMED: 3}, in_flight=3),
        BrakeKind.PROVIDER,
        "nothing: the last calls are in flight",
    ),
    "the job's places": (
        facts(concurrency=10),
        BrakeKind.JOB_CONCURRENCY,
        "the job's limit of 10 calls at once",
    ),
    "the profile's places": (
        facts(profile_in_flight=64),
        BrakeKind.CONCURRENCY,
        "the provider's limit of 64 calls at once",
    ),
    "the budget": (
        facts(cap=Decimal(5), spent=Decimal("4.5"), reserved=Decimal("0.48"), currency="USD"),
        BrakeKind.CAP,
        "the budget of 5 USD: 4.5 spent, 0.48 reserved for calls in flight",
    ),
    "requests a minute": (facts(rates=(LIMITED,)), BrakeKind.RATE, "the provider's limit of 600 requests a minute"),
    "a rate that was cut": (
        facts(rates=(replace(LIMITED, bucket=replace(LIMITED.bucket, factor=0.7)),)),
        BrakeKind.RATE,
        "the provider's limit of 600 requests a minute, cut to 70% after refusals",
    ),
    "the job's own rate": (
        facts(rates=(Rate(bucket=bucket()), replace(LIMITED, of_job=True))),
        BrakeKind.RATE,
        "the job's limit of 600 requests a minute",
    ),
    "tokens a minute": (
        facts(rates=(Rate(bucket=bucket(tokens_per_minute=1_000_000, tokens_at=NOON + seconds(9))),)),
        BrakeKind.RATE,
        "the provider's limit of 1,000,000 tokens a minute",
    ),
    "tokens a day": (
        facts(rates=(Rate(bucket=bucket(tokens_per_day=500, day=20_779, day_tokens=500)),), expected_tokens=10),
        BrakeKind.RATE,
        "the provider's limit of 500 tokens a day, until 00:00:00Z",
    ),
    "workers of other jobs": (facts(in_flight=0), BrakeKind.NO_WORKER, "workers that are busy with other jobs"),
    "nothing": (facts(), BrakeKind.PROVIDER, "nothing but the provider's own speed"),
}


@pytest.mark.parametrize("name", BRAKES)
def test_a_brake_is_named(name: str) -> None:
    job, kind, text = BRAKES[name]
    brake = brake_of(job)
    assert (None if brake is None else brake.kind, None if brake is None else brake.text) == (kind, text)


def test_what_the_newest_claim_met_is_believed_before_the_rows() -> None:
    brake = brake_of(facts(rates=(LIMITED,), concurrency=20), claimed="job concurrency", calls=Calls())
    assert brake is not None
    assert brake.kind is BrakeKind.JOB_CONCURRENCY


def test_a_database_that_does_not_answer_comes_before_all_else() -> None:
    brake = brake_of(facts(paused="budget"), calls=Calls(trouble="the database doesn't answer: gone"))
    assert brake is not None
    assert brake.text == "the database: the database doesn't answer: gone"


def test_a_run_is_its_own_worker() -> None:
    assert brake_of(facts(live_workers=0), calls=Calls()) != brake_of(facts(live_workers=0))


@pytest.mark.parametrize(
    ("job", "calls", "reason"),
    [
        (
            facts(),
            Calls(silent=10, longest_silence=301),
            "all 10 calls wait for their first token, the oldest since 11:54:59Z",
        ),
        (
            facts(oldest_call=NOON - seconds(600)),
            Calls(silent=4, answering=6),
            "10 calls are in flight and none has ended, the oldest since 11:50:00Z",
        ),
        (facts(held_by_dead=10), None, "10 items are held by a process that died"),
        (
            facts(in_flight=0, rates=(LIMITED,)),
            None,
            "held back by the provider's limit of 600 requests a minute",
        ),
        (waiting(7, first=9, last=9), None, "held back by 7 items that wait for another try until 12:00:09Z"),
        (facts(paused="arrears", pause_message="overdue"), None, "held back by a pause (arrears): overdue"),
    ],
)
def test_an_alarm_gives_the_likely_reason(job: JobFacts, calls: Calls | None, reason: str) -> None:
    alarm = alarm_of(job, calls=calls)
    assert alarm is not None
    assert alarm.reason == reason
    assert alarm.remedy


@pytest.mark.parametrize(("minutes", "held_by_dead", "calm"), [(59, 0, True), (66, 0, False), (59, 10, False)])
def test_calls_of_batch_chat_may_take_an_hour(minutes: int, held_by_dead: int, calm: bool) -> None:
    job = facts(batch_chat=True, oldest_call=NOON - timedelta(minutes=minutes), held_by_dead=held_by_dead)
    assert (alarm_of(job) is None, is_patient(job)) == (calm, calm)


def test_a_job_that_has_ended_gives_no_alarm() -> None:
    assert alarm_of(facts(counts={State.FAILED: 3})) is None


def test_the_remedy_of_waiting_items_names_their_errors() -> None:
    alarm = alarm_of(waiting(7, first=9, last=9, waiting_kinds={"rate_limited": 7}))
    assert alarm is not None
    assert alarm.remedy == "their last errors: 7 rate_limited"


def test_one_line_tells_of_several_jobs_and_of_equal_reasons_once() -> None:
    same, other = Alarm(reason="one", remedy="do"), Alarm(reason="two", remedy="act")
    line = standstill_text({"a": same, "b": same, "c": other}, 300)
    assert line == "nothing has finished for 5 min: a: one → do; c: two → act"


# When an alarm is given


def signs(standstill: Standstill, *looks: tuple[float, int]) -> list[Sign]:
    return [standstill.look(at, ended, is_open=True) for at, ended in looks]


def test_an_alarm_comes_after_the_time_and_again_after_as_long() -> None:
    looks = [(float(at), 3) for at in range(0, 70, 10)]
    found = signs(Standstill(after=25, since=0), *looks)
    assert [at for (at, _), sign in zip(looks, found, strict=True) if sign is Sign.ALARM] == [30.0, 60.0]


def test_an_end_after_an_alarm_is_told_once_with_how_long_it_stood() -> None:
    standstill = Standstill(after=15, since=0)
    assert signs(standstill, (0, 3), (10, 3), (20, 3), (25, 4), (26, 5)) == [
        Sign.NOTHING,
        Sign.NOTHING,
        Sign.ALARM,
        Sign.GOES_ON,
        Sign.NOTHING,
    ]


def test_zero_is_never() -> None:
    assert set(signs(Standstill(after=0, since=0), *((float(at), 1) for at in range(0, 900, 10)))) == {Sign.NOTHING}


def test_without_work_there_is_no_alarm() -> None:
    standstill = Standstill(after=5, since=0)
    assert {standstill.look(float(at), 3, is_open=False) for at in range(0, 60, 5)} == {Sign.NOTHING}


def test_a_process_that_stood_still_itself_gives_no_alarm_for_it() -> None:
    assert signs(Standstill(after=60, since=0), (0, 3), (1, 3), (900, 3), (901, 3)) == [Sign.NOTHING] * 4


# How fast it goes, and how long it will take


def paced(*looks: tuple[float, int]) -> Pace:
    pace = Pace()
    for at, ended in looks:
        pace.look(at, ended)
    return pace


def test_nothing_is_told_of_the_time_left_at_the_beginning() -> None:
    assert paced((0, 0), (1, 2), (4, 9)).left(100) is None


def test_the_time_left_follows_the_rate_of_the_last_minutes() -> None:
    assert paced(*((float(at), 2 * at) for at in range(60))).left(100) == pytest.approx(50)


def test_without_an_end_nothing_is_told() -> None:
    assert paced(*((float(at), 7) for at in range(60))).left(100) is None


def test_a_rate_that_dropped_to_nothing_tells_nothing() -> None:
    assert paced(*((float(at), min(at, 20)) for at in range(120))).left(100) is None


def test_after_a_hole_the_window_begins_anew() -> None:
    pace = paced(*((float(at), at) for at in range(60)), (600, 60), (601, 61))
    assert (pace.left(10), pace.rates()[0]) == (None, 1.0)


def test_what_was_before_a_pause_is_forgotten() -> None:
    pace = paced(*((float(at), at) for at in range(60)))
    pace.forget()
    assert pace.left(10) is None


def test_a_rate_is_that_of_the_last_half_minute() -> None:
    assert paced(*((float(at), 0) for at in range(100)), *((100.0 + at, 3 * at) for at in range(1, 31))).rates()[0] == (
        pytest.approx(3)
    )


def test_waiting_items_end_no_earlier_than_their_last_try() -> None:
    pace, job = paced(*((float(at), at) for at in range(60))), facts(last_at=NOON + seconds(600))
    brake = brake_of(job)
    assert brake is not None
    assert seconds_left([job], [brake], pace, 10) == 600


@pytest.mark.parametrize("held", [{"paused": "budget"}, {"breaker_until": NOON + seconds(5)}, {"live_workers": 0}])
def test_under_a_standstill_no_time_is_told(held: dict[str, object]) -> None:
    pace, job = paced(*((float(at), at) for at in range(60))), facts(**held)
    brake = brake_of(job)
    assert brake is not None
    assert seconds_left([job], [brake], pace, 10) is None


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 s"), (99.4, "99 s"), (100, "2 min"), (5_990, "1 h 40 min"), (300_000, "3 d 11 h")]
)
def test_a_span_is_short(number: float, text: str) -> None:
    assert span_of(number) == text

"""Refusals that stop more than one item: keys, models, money, and jobs in which nothing succeeds."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from batchrun.tables import attempts, profiles, usage
from tests.integration.running import KEY, Bench, check_file, check_reservations, fresh, job

pytestmark = pytest.mark.usefixtures("nothing_left_behind")

WIDTH = 4
"""Calls in flight."""


def refused(bench: Bench, fault: str, items: int = 30) -> tuple[int, int, str | None, str | None]:
    """The exit code, the number of calls, and why the job is held, of a job whose calls all meet this fault."""
    bench.at(fault)
    ids = bench.load(job(f"refused-{fault}", items, fault=fault, limits={"concurrency": WIDTH}))
    end = bench.run(ids)
    check_reservations(bench)
    check_file(bench)
    return end.exit_code, len(bench.book()), end.jobs[0].paused, end.jobs[0].pause_message


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("401", "HTTP 401 invalid_api_key"),
        ("key-echo", "HTTP 401 invalid_api_key"),
        ("403", "HTTP 403 access_denied"),
        ("404", "HTTP 404 model_not_found"),
    ],
)
def test_three_refusals_of_a_key_or_a_model_hold_the_profile(sqlite_bench: Bench, fault: str, words: str) -> None:
    code, calls, paused, message = refused(sqlite_bench, fault)
    assert (code, paused) == (3, "refused")
    assert calls <= 3 + WIDTH
    assert message is not None
    assert words in message


@pytest.mark.parametrize(("fault", "words"), [("arrearage", "Arrearage"), ("429-billing", "PostpaidBillOverdue")])
def test_the_first_word_of_missing_money_holds_the_profile(bench: Bench, fault: str, words: str) -> None:
    code, calls, paused, message = refused(bench, fault)
    assert (code, paused) == (3, "arrears")
    assert calls <= WIDTH
    assert message is not None
    assert words in message


@pytest.mark.parametrize("fault", ["401", "arrearage"])
def test_a_held_profile_fails_no_item_and_uses_up_no_paid_try(sqlite_bench: Bench, fault: str) -> None:
    refused(sqlite_bench, fault)
    (profile,) = sqlite_bench.rows(profiles)
    found = {(item.state, item.paid_tries) for item in sqlite_bench.items_of(1)}
    assert profile.paused is not None
    assert found <= {("pending", 0), ("waiting", 0)}


@pytest.mark.parametrize("fault", ["401", "arrearage"])
def test_a_refusal_is_in_no_bill(sqlite_bench: Bench, fault: str) -> None:
    refused(sqlite_bench, fault)
    assert sqlite_bench.rows(usage) == []


def test_running_again_after_the_cause_was_mended_finishes_the_job(bench: Bench) -> None:
    fault = fresh("401-first=4")
    bench.at(fault)
    ids = bench.load(job("mended", 20, fault=fault, limits={"concurrency": 1}))
    assert [bench.run(ids).exit_code for _ in range(2)] == [3, 0]
    assert bench.states(ids[0]) == {"done": 20}


def test_a_refused_job_does_not_hold_another_models_job(sqlite_bench: Bench) -> None:
    sqlite_bench.at("401")
    ids = sqlite_bench.load(job("held", 10, fault="401"), job("free", 10))
    end = sqlite_bench.run(ids)
    assert [one.paused for one in end.jobs] == ["refused", None]
    assert end.jobs[1].states == {"done": 10}


def test_ten_equal_errors_before_any_success_hold_the_job(bench: Bench) -> None:
    code, calls, paused, message = refused(bench, "400")
    assert (code, paused) == (3, "errors")
    assert 10 <= calls <= 10 + 2 * WIDTH
    assert message is not None
    assert re.search(r"the first 1\d items all failed with the same error \(invalid\)", message)
    assert "Refused by a fault." in message


def test_errors_in_a_row_after_a_success_hold_nothing(sqlite_bench: Bench) -> None:
    """The first call succeeds, the next fifteen fail."""
    fault = fresh("+".join(f"400-every={prime}" for prime in (2, 3, 5, 7, 11, 13)))
    sqlite_bench.at(fault)
    ids = sqlite_bench.load(job("succeeded-once", 20, fault=fault, limits={"concurrency": 1}))
    end = sqlite_bench.run(ids)
    assert (end.exit_code, end.jobs[0].paused, end.jobs[0].states) == (1, None, {"done": 3, "failed": 17})


@pytest.mark.parametrize("status", [302, 307, 308])
def test_a_redirect_is_not_followed_and_no_other_host_sees_the_key(sqlite_bench: Bench, status: int) -> None:
    with listening() as (port, received):
        fault = f"{status}={port}"
        sqlite_bench.at(fault)
        ids = sqlite_bench.load(job("redirected", 3, fault=fault))
        sqlite_bench.run(ids)
        assert received == []
    assert KEY.encode() not in b"".join(received)
    (found,) = {attempt.error for attempt in sqlite_bench.rows(attempts)}
    assert found.startswith(f"HTTP {status}: the server redirects to localhost.")


@contextmanager
def listening() -> Iterator[tuple[int, list[bytes]]]:
    """A port that notes what is sent to it."""
    received: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    received.append(connection.recv(65_536))

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield server.getsockname()[1], received
        server.shutdown(socket.SHUT_RDWR)
    thread.join(5)

"""The bill book: its file, its rows, and who pays for calls that broke."""

import json
import threading
from decimal import Decimal
from pathlib import Path

import pytest

from batchrun.simulator import Bill, BookRow, Options, read_book, start

from .raw import Client, read_response

FAST = {"ttft": 0.0, "tokens_per_second": 0.0, "limits": False}


def test_the_file_holds_the_same_rows(tmp_path: Path) -> None:
    path = tmp_path / "book.jsonl"
    with start(Options(ttft=0, tokens_per_second=0, book=path), environment={}) as running:
        client = Client(running)
        for fault in ("", "503", "truncate=1"):
            client.ask(client.streamed(), fault=fault)
        rows = running.book()
    assert (len(rows), read_book(path)) == (3, rows)


def test_a_second_run_appends(tmp_path: Path) -> None:
    path = tmp_path / "book.jsonl"
    for _ in range(2):
        with start(Options(ttft=0, tokens_per_second=0, book=path), environment={}) as running:
            Client(running).ask(Client(running).body())
    assert len(read_book(path)) == 2


def test_a_last_line_cut_by_a_kill_is_left_out(tmp_path: Path, client: Client) -> None:
    row = client.row(client.ask(client.body()))
    path = tmp_path / "book.jsonl"
    path.write_text(row.to_json() + "\n" + row.to_json()[:40])
    assert read_book(path) == [row]


def test_amounts_are_exact_text_without_an_exponent(client: Client) -> None:
    row = client.row(client.ask(client.body(model="qwen3-vl-flash"), fault="chunks=1"))
    text = json.loads(row.to_json())["amount"]
    assert (Decimal(text), "E" in text) == (row.amount, False)


def test_a_model_without_a_price_has_tokens_and_no_amount(client: Client) -> None:
    row = client.row(client.ask(client.body(model="sim-unpriced")))
    assert (row.amount, row.billed.output > 0) == (None, True)


def billed(bill: Bill, fault: str) -> BookRow:
    options = Options(ttft=0, tokens_per_second=0, limits=False, bill=bill)
    with start(options, environment={}) as running:
        client = Client(running)
        client.ask(client.streamed(), fault=f"chunks=10+{fault}")
        return running.book()[0]


@pytest.mark.parametrize(
    ("bill", "fault", "has_input", "output"),
    [
        (Bill.DELIVERED, "truncate=2", True, 6),
        (Bill.FULL, "truncate=2", True, 30),
        (Bill.COMPLETE_ONLY, "truncate=2", False, 0),
        (Bill.PROMPT_ON_ERROR, "truncate=2", True, 6),
        (Bill.DELIVERED, "reset", False, 0),
        (Bill.FULL, "reset", True, 30),
        (Bill.FULL, "503", False, 0),
        (Bill.PROMPT_ON_ERROR, "503", True, 0),
        (Bill.PROMPT_ON_ERROR, "429", False, 0),
    ],
)
def test_who_pays_for_a_call_that_broke(bill: Bill, fault: str, has_input: bool, output: int) -> None:
    row = billed(bill, fault)
    assert (row.billed.input > 0, row.billed.output) == (has_input, output)


def test_a_client_that_leaves_pays_for_what_was_sent(client: Client) -> None:
    body = client.streamed()
    with client.connect() as connection:
        connection.sendall(client.request(body, fault="chunks=50+stall-after=4"))
        data = b""
        while data.count(b"\r\n\r\n") < 1 or data.count(b"data: ") < 5:
            data += connection.recv(65_536)
    row = client.simulator.book()[-1]
    assert (row.billed.output, row.complete) == (12, False)


def test_a_paced_stream_stops_when_its_client_leaves(client: Client) -> None:
    body = client.streamed()
    with client.connect() as connection:
        connection.sendall(client.request(body, fault="chunks=1000+ttft=0+tps=30"))
        connection.recv(10)
    row = client.simulator.book()[-1]
    assert row.billed.output < 300


def test_counts_of_requests(tmp_path: Path) -> None:
    with start(Options(ttft=0, tokens_per_second=0, limits=False), environment={}) as running:
        client = Client(running)
        threads = [
            threading.Thread(target=client.ask, args=(client.streamed(),), kwargs={"fault": "ttft=0.3"})
            for _ in range(5)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        client.ask(client.body(), fault="503")
        client.ask(client.body(), fault="close")
        stats = running.stats()
    assert (stats.requests, stats.by_status) == (7, {"200": 5, "503": 1, "none": 1})
    assert (stats.max_open, stats.open, stats.max_in_one_second >= 5) == (5, 0, True)


def test_several_requests_on_one_connection_have_a_row_each(client: Client) -> None:
    bodies = [client.body() for _ in range(3)]
    before = len(client.simulator.book())
    with client.connect() as connection:
        for body in bodies:
            connection.sendall(client.request(body))
            read_response(lambda: connection.recv(65_536))
    assert len(client.simulator.book()) - before == 3

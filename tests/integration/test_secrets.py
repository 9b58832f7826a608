"""The key of a provider: it is sent to its host, and stands nowhere else, whatever the server says back."""

from __future__ import annotations

import http.server
import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from batchrun.database import reading
from batchrun.tables import metadata
from tests.integration.running import KEY, KEY_VARIABLE, Bench, database_bytes, faulty, job, opened_bench

pytestmark = pytest.mark.usefixtures("nothing_left_behind")

STREAM_HEAD = "text/event-stream"


def chunk(text: str, finish: str | None = None) -> str:
    delta = {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}], "id": f"id-{KEY}"}
    return f"data: {json.dumps(delta)}\n\n"


def stream(*texts: str) -> str:
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "note": KEY}
    tail = f"data: {json.dumps({'choices': [], 'usage': usage})}\n\ndata: [DONE]\n\n"
    return "".join(chunk(text) for text in texts) + chunk("", "stop") + tail


ECHOES: dict[str, tuple[int, str, str]] = {
    "401 body": (401, "application/json", json.dumps({"error": {"message": f"Wrong key {KEY}.", "code": KEY}})),
    "400 body": (400, "application/json", json.dumps({"error": {"message": f"{KEY}?", "type": KEY, "param": KEY}})),
    "500 page": (500, "text/html", f"<html><title>{KEY}</title><p>{KEY}</html>"),
    "429 body": (429, "application/json", json.dumps({"error": {"message": f"slow down {KEY}"}, "request_id": KEY})),
    "cut long body": (500, "text/plain", "x" * 2_030 + KEY + "y" * 100),
    "cut long error": (400, "application/json", json.dumps({"error": {"message": "x" * 1_990 + KEY + "y" * 100}})),
    "200 page": (200, "text/html", f"<html>{KEY}</html>"),
    "200 error": (200, "application/json", json.dumps({"error": {"message": KEY, "code": "internal_error"}})),
    "answer": (200, STREAM_HEAD, stream("Your key is ", KEY, ".")),
    "answer in pieces": (200, STREAM_HEAD, stream("Your key is ", *KEY, ".")),
    "answer that breaks": (200, STREAM_HEAD, chunk(f"Your key is {KEY}.")),
    "answer that breaks in the key": (200, STREAM_HEAD, chunk(f"Your key is {KEY}") + "data: {broken\n\n"),
    "no chunk": (200, STREAM_HEAD, f"data: {KEY}\n\n"),
    "foreign finish": (200, STREAM_HEAD, chunk("a", KEY) + "data: [DONE]\n\n"),
    "error event": (200, STREAM_HEAD, f"event: error\ndata: {json.dumps({'message': KEY, 'code': KEY})}\n\n"),
}


@contextmanager
def echoing(status: int, kind: str, content: str) -> Iterator[str]:
    """A server that repeats the key in its headers and its body."""

    class Echo(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            assert self.headers["authorization"] == f"Bearer {KEY}"
            self.send_response(status, KEY)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(content.encode())))
            self.send_header("x-request-id", f"req-{KEY}")
            self.send_header("location", f"http://{KEY}.example/")
            self.end_headers()
            self.wfile.write(content.encode())

        def log_message(self, *_: object) -> None:
            """Be quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()


def run_against(bench: Bench, address: str, name: str) -> object:
    """Runs a job of three items there; gives back all that the run says."""
    endpoint = bench.catalogue.endpoints[faulty("")]
    endpoints = {**bench.catalogue.endpoints, endpoint.name: endpoint.at(address)}
    bench.catalogue = type(bench.catalogue)(endpoints=endpoints)
    slug = name.replace(" ", "-")
    return bench.go(job(slug, 3, retry={"attempts": 1, "max_elapsed": "1s"}))


def texts_of(bench: Bench) -> str:
    """Every value of every table, as text."""
    with reading(bench.engine) as connection:
        tables = [connection.execute(sa.select(table)).all() for table in metadata.sorted_tables]
    return repr(tables)


@pytest.mark.parametrize("name", ECHOES)
def test_a_key_that_comes_back_is_kept_nowhere(
    sqlite_bench: Bench, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    with caplog.at_level(logging.DEBUG), echoing(*ECHOES[name]) as address:
        end = run_against(sqlite_bench, address, name)
    # Half a key is a leak too: texts are cut to a length.
    for part in (KEY, KEY[:12]):
        assert part.encode() not in database_bytes(sqlite_bench)
        assert part not in texts_of(sqlite_bench)
        assert part not in caplog.text
        assert part not in repr(end)


@pytest.mark.parametrize("name", ["401 body", "answer", "error event"])
def test_nor_is_it_kept_by_postgresql(postgres_url: str, tmp_path: Path, sqlite_bench: Bench, name: str) -> None:
    with (
        echoing(*ECHOES[name]) as address,
        opened_bench(postgres_url, tmp_path, sqlite_bench.simulator) as bench,
    ):
        run_against(bench, address, name)
        assert KEY not in texts_of(bench)


def test_the_text_around_the_key_is_kept(sqlite_bench: Bench) -> None:
    with echoing(*ECHOES["answer"]) as address:
        run_against(sqlite_bench, address, "around")
    assert set(sqlite_bench.answers_of(1).values()) == {"Your key is ***."}


@pytest.mark.parametrize("fault", ["key-echo", "reset", "bad-http", "big-header"])
def test_the_simulators_own_echo_is_masked(sqlite_bench: Bench, caplog: pytest.LogCaptureFixture, fault: str) -> None:
    sqlite_bench.at(fault)
    with caplog.at_level(logging.DEBUG):
        end = sqlite_bench.go(job(f"masked-{fault}", 3, fault=fault, retry={"attempts": 1}))
    assert KEY.encode() not in database_bytes(sqlite_bench)
    assert KEY not in caplog.text + repr(end)


def test_settings_and_plans_do_not_show_the_key(sqlite_bench: Bench) -> None:
    secret = sqlite_bench.settings.key([KEY_VARIABLE])
    assert secret is not None
    assert KEY not in f"{secret} {secret!r} {sqlite_bench.settings!r}"

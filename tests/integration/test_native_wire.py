"""Jobs in the native form against a server that knows only bytes: what is sent, and what becomes of its answers."""

from __future__ import annotations

import json
import socketserver
import threading
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import Engine

from batchrun.catalogue import Catalogue, load_catalogue
from batchrun.database import connect, reading
from batchrun.jobfile.spec import JobFile, JobSpec
from batchrun.loading.loader import load
from batchrun.running import RunEnd, run
from batchrun.settings import Settings
from batchrun.tables import Record, answers, attempts, items, prices, profiles, usage

KEY = "canary-5b0d3c77a1e94f20"
STREAMS = Path(__file__).parents[1] / "streams" / "native"
PICTURE = Path(__file__).parents[2] / "batchrun" / "demo" / "pictures" / "signature.png"
SERVER = """
endpoints:
  here/native:
    dialect: native
    error_table: model-studio
    base_url: {url}/api/v1
    key_env: [NATIVE_KEY]
    models_of: model-studio/beijing
  here/compat:
    error_table: model-studio
    base_url: {url}/compatible-mode/v1
    key_env: [NATIVE_KEY]
    models_of: model-studio/beijing
"""
PLAIN = {
    "output": {
        "choices": [{"finish_reason": "stop", "message": {"role": "assistant", "content": [{"text": "A signature."}]}}]
    },
    "usage": {"input_tokens": 1271, "output_tokens": 55, "image_tokens": 1247},
    "request_id": "r-plain",
}


class Server(socketserver.ThreadingTCPServer):
    """Answers every request with the same bytes, closes the connection, and notes what was sent."""

    daemon_threads = True

    def __init__(self, answer: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer = answer
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        """Request line, headers with names in lower case, body."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(socketserver.StreamRequestHandler):
    server: Server

    def handle(self) -> None:
        line = self.rfile.readline().decode().strip()
        headers = {}
        while header := self.rfile.readline().decode("latin-1").strip():
            name, _, value = header.partition(":")
            headers[name.lower()] = value.strip()
        body = self.rfile.read(int(headers["content-length"]))
        self.server.requests.append((line, headers, body))
        self.wfile.write(self.server.answer)


def http(body: bytes, status: str = "200 OK", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {text}" for name, text in headers.items())]
    return "\r\n".join([*lines, f"content-length: {len(body)}", "connection: close", "", ""]).encode() + body


def stream(name: str) -> bytes:
    return http((STREAMS / f"{name}.sse").read_bytes(), content_type="text/event-stream;charset=UTF-8")


@contextmanager
def answering(answer: bytes) -> Iterator[Server]:
    with Server(answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class Desk:
    """A database and a folder; each run gets a server that answers in its own way."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder, self.engine = url, folder, connect(url)

    def catalogue(self, server: Server) -> Catalogue:
        file = self.folder / "catalogue.yaml"
        file.write_text(SERVER.format(url=server.url), encoding="utf-8")
        return load_catalogue(file)

    def go(self, answer: bytes, **job: object) -> tuple[RunEnd, Server]:
        """Run a job of one item against a server that answers so."""
        given = {"name": "j", "provider": "here/native", "model": "kimi-k2.5", "prompt": "Read {{ word }}."}
        spec = JobSpec.model_validate({**given, "inputs": {"items": [{"word": "it"}]}, **job})
        settings = Settings(database_url=self.url, catalogue=None, environment={"NATIVE_KEY": KEY})
        with answering(answer) as server:
            catalogue = self.catalogue(server)
            file = JobFile(version=1, jobs=(spec,), path=None)
            ids = [loaded.job_id for loaded in load(self.engine, file, catalogue, base=self.folder)]
            return run(self.engine, ids, catalogue, settings), server

    def only(self, table: object) -> Record:
        (row,) = rows(self.engine, table)
        return row


def rows(engine: Engine, table: object) -> list[Record]:
    with reading(engine) as connection:
        return list(connection.execute(table.select()))  # type: ignore[attr-defined]


@pytest.fixture
def desk(sqlite_url: str, tmp_path: Path) -> Iterator[Desk]:
    made = Desk(sqlite_url, tmp_path)
    yield made
    made.engine.dispose()


def sent(server: Server) -> tuple[str, dict[str, str], Mapping[str, object]]:
    ((line, headers, body),) = server.requests
    return line, headers, json.loads(body)


def test_a_streamed_call_on_the_wire(desk: Desk) -> None:
    _, server = desk.go(stream("thinking-about-a-picture"), thinking={"enabled": True}, params={"max_tokens": 9})
    line, headers, body = sent(server)
    assert line == "POST /api/v1/services/aigc/multimodal-generation/generation HTTP/1.1"
    wanted = ("x-dashscope-sse", "accept", "content-type", "authorization", "accept-encoding")
    assert [headers[name] for name in wanted] == [
        "enable",
        "text/event-stream",
        "application/json",
        f"Bearer {KEY}",
        "identity",
    ]
    assert body == {
        "model": "kimi-k2.5",
        "input": {"messages": [{"role": "user", "content": [{"text": "Read it."}]}]},
        "parameters": {"incremental_output": True, "enable_thinking": True, "max_tokens": 9},
    }


def test_a_plain_call_on_the_wire(desk: Desk) -> None:
    _, server = desk.go(http(json.dumps(PLAIN).encode()), stream=False)
    _, headers, body = sent(server)
    assert (headers["accept"], "x-dashscope-sse" in headers, "parameters" in body) == ("application/json", False, False)


def test_a_model_of_text_alone_has_an_address_of_its_own(desk: Desk) -> None:
    _, server = desk.go(stream("text-generation"), model="kimi-k2-thinking")
    line, _, body = sent(server)
    assert line == "POST /api/v1/services/aigc/text-generation/generation HTTP/1.1"
    assert body == {
        "model": "kimi-k2-thinking",
        "input": {"messages": [{"role": "user", "content": "Read it."}]},
        "parameters": {"result_format": "message", "incremental_output": True},
    }


def test_a_local_picture_is_sent_as_its_own_bytes(desk: Desk) -> None:
    (desk.folder / "a.png").write_bytes(PICTURE.read_bytes())
    _, server = desk.go(stream("thinking-about-a-picture"), inputs={"images": "a.png"}, prompt="Describe.")
    _, headers, body = server.requests[0]
    address = "data:image/png;base64," + b64encode(PICTURE.read_bytes()).decode()
    assert json.loads(body)["input"]["messages"][0]["content"] == [{"image": address}, {"text": "Describe."}]
    assert int(headers["content-length"]) == len(body)


def test_a_streamed_answer_is_stored_with_its_usage_and_its_exact_cost(database_url: str, tmp_path: Path) -> None:
    desk = Desk(database_url, tmp_path)
    end, _ = desk.go(stream("thinking-about-a-picture"), thinking={"enabled": True})
    answer, line, price = desk.only(answers), desk.only(usage), desk.only(prices)
    desk.engine.dispose()
    assert end.exit_code == 0
    assert (answer.text, answer.reasoning) == ("Ein Hafen bei Nacht — 漁船 🚢", "The picture shows a harbour.")
    assert (line.input_tokens, line.output_tokens, line.image_tokens, line.reasoning_tokens) == (544, 20, 520, 7)
    assert line.cost_low == line.cost_high == (544 * Decimal("0.574") + 20 * Decimal("3.011")) / 1_000_000
    assert (line.provider, line.region) == ("here", "native")
    assert (price.provider, price.region) == ("model-studio", "beijing")


def test_a_plain_answer_is_stored_with_the_vendors_name_for_the_request(desk: Desk) -> None:
    desk.go(http(json.dumps(PLAIN).encode()), stream=False)
    attempt, answer, line = desk.only(attempts), desk.only(answers), desk.only(usage)
    assert (attempt.outcome, attempt.request_id, answer.text) == ("complete", "r-plain", "A signature.")
    assert (line.input_tokens, line.image_tokens, line.cost_low) == (1271, 1247, line.cost_high)


def test_a_server_that_does_not_stream_is_understood(desk: Desk) -> None:
    desk.go(http(json.dumps(PLAIN).encode()))
    assert desk.only(answers).text == "A signature."


ONE_TRY = {"retry": {"attempts": 1}}


def test_a_stream_that_breaks_keeps_its_text_and_costs_an_interval(desk: Desk) -> None:
    desk.go(stream("ended-early"), **ONE_TRY)
    answer, line, attempt = desk.only(answers), desk.only(usage), desk.only(attempts)
    assert (answer.text, answer.complete, attempt.outcome) == ("Half a sentence", False, "failed")
    assert (line.input_tokens, line.output_tokens, line.cost_low) == (544, 4, 0)
    assert line.cost_high > 0


def test_a_last_frame_that_counts_nothing_is_a_whole_answer_of_unsure_cost(desk: Desk) -> None:
    desk.go(stream("finish-without-usage"))
    line = desk.only(usage)
    assert (desk.only(items).state, desk.only(answers).text, line.cost_low) == ("done", "Done.", 0)
    assert line.cost_high > 0


@pytest.mark.parametrize(
    ("answer", "kind", "code", "free"),
    [
        (stream("error-first"), "invalid", "InvalidParameter", False),
        (stream("moderated-after-content"), "moderated", "DataInspectionFailed", False),
        (http(b'{"code":"Arrearage","message":"Overdue","request_id":"r"}', "400 Bad Request"), "arrears", None, True),
        (http(STREAMS.joinpath("error-first.sse").read_bytes(), "400 Bad Request"), "invalid", None, True),
        (http(b'{"code":"InternalError","message":"No","request_id":"r"}'), "server", "InternalError", False),
        (http(json.dumps(PLAIN).encode(), x_dashscope_partialresponse="true"), "incomplete", None, False),
    ],
)
def test_an_error_is_stored_as_its_kind_and_billed_only_where_it_may_have_been(
    desk: Desk, answer: bytes, kind: str, code: str | None, free: bool
) -> None:
    desk.go(answer, **ONE_TRY)
    attempt = desk.only(attempts)
    assert (attempt.outcome, attempt.error_kind) == ("failed", kind)
    assert code in (None, attempt.vendor_code)
    assert (rows(desk.engine, usage) == []) is free


def test_both_forms_of_one_model_share_one_profile(desk: Desk) -> None:
    desk.go(stream("thinking-about-a-picture"))
    desk.go(http(b"{}", "400 Bad Request"), name="k", provider="here/compat")
    profile = desk.only(profiles)
    assert (profile.provider, profile.region, profile.requests_per_minute) == ("model-studio", "beijing", 500)


def test_the_key_is_stored_nowhere(desk: Desk) -> None:
    echo = json.dumps({"code": "Arrearage", "message": f"The key {KEY} owes money", "request_id": KEY}).encode()
    desk.go(http(echo, "400 Bad Request"))
    assert "owes money" in desk.only(attempts).error
    assert not [file for file in desk.folder.iterdir() if KEY.encode() in file.read_bytes()]

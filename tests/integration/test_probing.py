"""`models --probe` against a server on a socket: what it asks, what it shows, and what can go wrong."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

import batchrun
from batchrun.cli import carry_out
from batchrun.errors import ProviderError

KEY = "canary-2c9b7e51aa04"
OPENAI = {"object": "list", "data": [{"id": "b-model", "object": "model", "owned_by": "x"}, {"id": "a-model"}]}
SIZES = {
    "data": [{"id": "r", "context_length": 131072}, {"id": "v", "max_model_len": 32768}, {"id": "x", "created": 1}]
}


@dataclass
class Server:
    """Answers every request with the same page, and remembers what was asked."""

    status: int = 200
    body: bytes = json.dumps(OPENAI).encode()
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    """Method, path, and the authorization header."""
    url: str = ""


@pytest.fixture
def server() -> Iterator[Server]:
    given = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            given.asked.append((self.command, self.path, self.headers["authorization"]))
            self.send_response(given.status)
            self.send_header("content-length", str(len(given.body)))
            self.end_headers()
            self.wfile.write(given.body)

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        Thread(target=listening.serve_forever, args=(0.01,), daemon=True).start()
        given.url = f"http://127.0.0.1:{listening.server_port}/v1"
        yield given
        listening.shutdown()


@pytest.fixture
def folder(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    catalogue = {
        "open": {"base_url": server.url, "key_env": [], "open_models": True},
        "keyed": {"base_url": server.url, "key_env": ["MY_KEY"], "models": {"a-model": {}}},
        "nowhere": {"base_url": "http://127.0.0.1:9/v1", "open_models": True},
    }
    (tmp_path / "own.yaml").write_text(json.dumps({"endpoints": catalogue}), encoding="utf-8")
    monkeypatch.setenv("BATCHRUN_CATALOGUE", str(tmp_path / "own.yaml"))
    monkeypatch.setenv("MY_KEY", KEY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@dataclass(frozen=True)
class Printed:
    code: int
    out: str
    err: str


def probe(capfd: pytest.CaptureFixture[str], *words: str) -> Printed:
    code = carry_out(["models", "--probe", *words])
    written = capfd.readouterr()
    return Printed(code, written.out, written.err)


@pytest.mark.usefixtures("folder")
def test_the_models_are_shown_by_name(server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    printed = probe(capfd, "open")
    assert printed.code == 0
    assert [line.split() for line in printed.out.splitlines()[1:]] == [
        ["MODEL", "CONTEXT", "IN", "THE", "CATALOGUE"],
        ["a-model", "?", "no"],
        ["b-model", "?", "no"],
    ]
    assert server.asked == [("GET", "/v1/models", None)]


def test_a_real_process_prints_json(server: Server, folder: Path) -> None:
    server.body = json.dumps(SIZES).encode()
    words = [sys.executable, "-m", "batchrun", "models", "--probe", "open", "--json"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {
        "provider": "open",
        "url": f"{server.url}/models",
        "open_models": True,
        "models": [
            {"id": "r", "context": 131072, "listed": False},
            {"id": "v", "context": 32768, "listed": False},
            {"id": "x", "context": None, "listed": False},
        ],
    }


@pytest.mark.usefixtures("folder")
def test_the_key_is_sent_as_with_calls(server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    printed = probe(capfd, "keyed")
    assert server.asked == [("GET", "/v1/models", f"Bearer {KEY}")]
    assert "a-model" in printed.out
    assert "add it to a file of your own" in printed.err


@pytest.mark.usefixtures("folder")
def test_without_a_key_nothing_is_asked(
    server: Server, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MY_KEY")
    printed = probe(capfd, "keyed")
    assert (printed.code, "error[key-missing]: no key for keyed: MY_KEY is not set" in printed.err) == (2, True)
    assert server.asked == []


ECHO = json.dumps({"error": {"message": f"key {KEY} is wrong", "code": "invalid_api_key"}}).encode()


@pytest.mark.parametrize(
    ("status", "body", "code", "message"),
    [
        (401, ECHO, 3, "error[account]: HTTP 401 invalid_api_key: key *** is wrong"),
        (404, b"404 page not found", 2, "error[not_found]: keyed has no list of models at http://127.0.0.1:"),
        (405, b"", 2, "error[not_found]: keyed has no list of models at http://127.0.0.1:"),
        (500, b"broken", 4, "error[server]: HTTP 500: broken"),
        (503, b"", 4, "error[unavailable]: HTTP 503: no message"),
        (302, b"", 2, "error[invalid]: HTTP 302: the server redirects"),
        (200, b"<html>", 4, "error[incomplete]: What keyed answers at http://127.0.0.1:"),
        (200, b'{"data": 5}', 4, "error[incomplete]: What keyed answers at http://127.0.0.1:"),
        (200, b"[" * 9_000, 4, "error[incomplete]: What keyed answers at http://127.0.0.1:"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_what_goes_wrong_is_said(
    server: Server, capfd: pytest.CaptureFixture[str], status: int, body: bytes, code: int, message: str
) -> None:
    server.status, server.body = status, body
    printed = probe(capfd, "keyed")
    assert (printed.code, printed.out) == (code, "")
    assert printed.err.startswith(message)
    assert "\n  → " in printed.err
    assert KEY not in printed.err


@pytest.mark.usefixtures("folder")
def test_a_server_that_is_not_there(capfd: pytest.CaptureFixture[str]) -> None:
    printed = probe(capfd, "nowhere")
    assert (printed.code, printed.err.startswith("error[not_sent]: can't reach the server")) == (4, True)


@pytest.mark.usefixtures("folder")
def test_odd_entries_are_passed_over_and_hostile_names_are_harmless(
    server: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    entries = [None, 5, {}, {"id": ""}, {"id": 7}, "plain", {"id": f"\x1b[2J{KEY}", "context_length": -1}]
    server.body = json.dumps(entries).encode()
    printed = probe(capfd, "keyed", "--json")
    assert [model["id"] for model in json.loads(printed.out)["models"]] == ["\\x1b[2J***", "plain"]


@pytest.mark.usefixtures("folder")
def test_a_server_without_models_says_so(server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    server.body = b'{"object": "list", "data": []}'
    printed = probe(capfd, "open")
    assert (printed.code, "it has no models" in printed.err) == (0, True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "error[usage]: name the provider that is to be asked"),
        (("simulator/acedata",), "error[usage]: simulator/acedata has no address until a run starts it"),
        (("opne",), "error[unknown-provider]: no provider `opne` in the catalogue"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_what_cannot_be_asked(capfd: pytest.CaptureFixture[str], words: tuple[str, ...], message: str) -> None:
    printed = probe(capfd, *words)
    assert (printed.code, printed.err.startswith(message)) == (2, True)


@pytest.mark.usefixtures("folder")
def test_python_may_ask_while_a_loop_runs() -> None:
    async def inside() -> list[str]:
        return [model.id for model in batchrun.probe("open").models]

    assert asyncio.run(inside()) == ["a-model", "b-model"]


@pytest.mark.usefixtures("folder")
def test_python_gets_the_kind_of_the_error(server: Server) -> None:
    server.status = 401
    with pytest.raises(ProviderError) as caught:
        batchrun.probe("keyed")
    assert (caught.value.code, caught.value.http_status) == ("account", 401)

"""A server of pictures and videos for the tests, which answers by its path and remembers what it was asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import urlsplit


@dataclass(frozen=True, kw_only=True)
class Answer:
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, kw_only=True)
class Asked:
    method: str
    path: str
    headers: Mapping[str, str]
    """Names in lower case."""


@dataclass(kw_only=True)
class MediaServer:
    """`answers` are given in their order; the last one again and again. A key may be a path, or `HEAD` and a path."""

    answers: dict[str, list[Answer]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    host: str = "127.0.0.1"
    port: int = 0

    @property
    def place(self) -> str:
        return f"{self.host}:{self.port}"

    def url(self, path: str) -> str:
        return f"http://{self.place}{path}"

    def picture(self, path: str, size: int = 1_000, **headers: str) -> str:
        """A picture there; its address."""
        told = {"content-type": "image/png", "content-length": str(size)}
        told |= {name.replace("_", "-"): text for name, text in headers.items()}
        self.answers[path] = [Answer(headers={name: text for name, text in told.items() if text})]
        return self.url(path)

    def video(self, path: str, size: int = 1_000, **headers: str) -> str:
        """A video there; its address."""
        return self.picture(path, size, **{"content_type": "video/mp4", **headers})

    def redirect(self, path: str, location: str) -> str:
        self.answers[path] = [Answer(status=302, headers={"location": location})]
        return self.url(path)

    def methods(self, path: str) -> list[str]:
        return [asked.method for asked in self.asked if asked.path == path]

    def answer(self, method: str, path: str) -> Answer:
        queue = self.answers.get(f"{method} {path}") or self.answers.get(path) or [Answer(status=404)]
        return queue.pop(0) if len(queue) > 1 else queue[0]


@contextmanager
def media_server(host: str = "127.0.0.1", port: int = 0) -> Iterator[MediaServer]:
    made = MediaServer(host=host)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.reply()

        def do_GET(self) -> None:
            self.reply()

        def reply(self) -> None:
            path = urlsplit(self.path).path
            headers = {name.lower(): text for name, text in self.headers.items()}
            made.asked.append(Asked(method=self.command, path=path, headers=headers))
            answer = made.answer(self.command, path)
            self.send_response(answer.status)
            for name, text in answer.headers.items():
                self.send_header(name, text)
            self.send_header("connection", "close")
            self.end_headers()
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            """Nothing is printed."""

    server = ThreadingHTTPServer((host, port), Handler)
    made.port = server.server_address[1]
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

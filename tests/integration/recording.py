"""A server that keeps what it gets."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from pydantic import JsonValue

from tests.integration.running import Bench, faulty

Line = dict[str, JsonValue]


@contextmanager
def recording(bench: Bench, answer: str) -> Iterator[list[bytes]]:
    """The bodies of the requests that a server gets, which stands where the simulator stood; it answers the same."""
    bodies: list[bytes] = []

    class Recorder(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("content-length", str(len(answer.encode())))
            self.end_headers()
            self.wfile.write(answer.encode())

        def log_message(self, *_: object) -> None:
            """Be quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Recorder) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = bench.catalogue.endpoints[faulty("")].at(f"http://127.0.0.1:{server.server_address[1]}/v1")
        bench.catalogue = replace(bench.catalogue, endpoints={**bench.catalogue.endpoints, endpoint.name: endpoint})
        yield bodies
        server.shutdown()


def stream(*deltas: JsonValue, finish: str = "stop") -> str:
    choices: list[JsonValue] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": finish})
    usage: Line = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    chunks: list[Line] = [{"id": "chatcmpl-1", "choices": [choice]} for choice in choices]
    chunks.append({"choices": [], "usage": usage})
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"

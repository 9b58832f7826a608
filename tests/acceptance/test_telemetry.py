"""What leaves for a collector of OpenTelemetry: read from the wire, by a collector that the test is."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

SECRETS = ("canary-prompt", "sk-canary-9d2", "canary-id")
JOB = """
version: 1
jobs:
  - name: lines
    provider: simulator/model-studio-singapore
    model: qwen3-vl-plus
    inputs: {items: [{id: canary-id, text: canary-prompt}, {id: b, text: another}]}
    prompt: "Say something about {{ text }}."
    thinking: {enabled: true}
    params: {max_tokens: 60}
"""


@contextmanager
def collector() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """Its address, and what it is sent: path and body."""
    received: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            packed = self.headers.get("Content-Encoding") == "gzip"
            received.append((self.path, gzip.decompress(body) if packed else body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def run(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    (folder / "jobs.yaml").write_text(JOB, encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-m", "batchrun", "run", "jobs.yaml", "--json"],
        cwd=folder,
        env={**os.environ, "DASHSCOPE_API_KEY": "sk-canary-9d2-0123456789", **environment},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def values(attributes: Any) -> dict[str, object]:  # protobuf ships no types for its repeated fields
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in attributes}


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], list[tuple[str, bytes]]]:
    """The summary of a run, and what the collector was sent of it."""
    with collector() as (address, received):
        ended = run(tmp_path_factory.mktemp("traced"), OTEL_EXPORTER_OTLP_ENDPOINT=address)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)["jobs"][0]["cost"][0], received


def test_each_call_is_a_span_with_the_vendors_counts(sent: tuple[dict[str, Any], list[tuple[str, bytes]]]) -> None:
    summary, received = sent
    spans = []
    for path, body in received:
        if path == "/v1/traces":
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                assert values(resource.resource.attributes)["service.name"] == "batchrun"
                spans += [span for scope in resource.scope_spans for span in scope.spans]
    found = [values(span.attributes) for span in spans]
    assert [span.name for span in spans] == ["chat qwen3-vl-plus"] * 2
    assert {span["gen_ai.operation.name"] for span in found} == {"chat"}
    assert {(span["batchrun.job"], span["batchrun.outcome"]) for span in found} == {("lines", "complete")}
    assert sum(int(str(span["gen_ai.usage.input_tokens"])) for span in found) == summary["input_tokens"]
    assert sum(int(str(span["gen_ai.usage.output_tokens"])) for span in found) == summary["output_tokens"]
    assert all(int(str(span["gen_ai.usage.reasoning.output_tokens"])) > 0 for span in found)
    assert all(span.end_time_unix_nano > span.start_time_unix_nano for span in spans)


def test_tokens_and_seconds_are_measured(sent: tuple[dict[str, Any], list[tuple[str, bytes]]]) -> None:
    summary, received = sent
    totals: dict[tuple[str, object], float] = {}
    for path, body in received:
        if path != "/v1/metrics":
            continue
        for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics):
                for point in metric.histogram.data_points:
                    totals[metric.name, values(point.attributes).get("gen_ai.token.type")] = point.sum
    assert totals["gen_ai.client.token.usage", "input"] == summary["input_tokens"]
    assert totals["gen_ai.client.token.usage", "output"] == summary["output_tokens"]
    assert totals["gen_ai.client.operation.duration", None] > 0


def test_no_prompt_key_or_id_of_an_item_leaves(sent: tuple[dict[str, Any], list[tuple[str, bytes]]]) -> None:
    assert sent[1]
    for _, body in sent[1]:
        assert not [secret for secret in SECRETS if secret.encode() in body]


def test_a_collector_that_is_not_there_costs_nothing_but_its_spans(tmp_path: Path) -> None:
    ended = run(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9", OTEL_EXPORTER_OTLP_TIMEOUT="1")
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["jobs"][0]["states"] == {"done": 2}

"""A span and two measurements of each call, for OpenTelemetry, in the names of its conventions for generative AI.

Only where the environment names a collector (OTEL_EXPORTER_OTLP_ENDPOINT) and the extra `otel` is installed. Ids,
counts, times and kinds of errors leave; no prompt, answer, key, path or vendor's message does.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlsplit

from batchrun import __version__
from batchrun.answer import Usage

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from batchrun.plan import Plan
    from batchrun.store.finish import Result

Value: TypeAlias = str | int | float | bool

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT")
PACKAGES = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
FLUSH_MS = 5_000
"""Milliseconds that what wasn't sent yet may hold up the end."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def is_asked_for(environment: Mapping[str, str]) -> bool:
    disabled = environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    return not disabled and any(environment.get(name, "").strip() for name in ENDPOINTS)


def is_installed() -> bool:
    try:
        return all(importlib.util.find_spec(name) for name in PACKAGES)
    except ModuleNotFoundError:  # not even the package above it
        return False


class Telemetry:
    """Hears of every call that has ended. `record` is called on the event loop and only puts into queues."""

    def __init__(self, traces: TracerProvider, metrics: MeterProvider) -> None:
        self._tracer = traces.get_tracer("batchrun", __version__)
        meter = metrics.get_meter("batchrun", __version__)
        self._seconds = meter.create_histogram("gen_ai.client.operation.duration", unit="s")
        self._tokens = meter.create_histogram("gen_ai.client.token.usage", unit="{token}")

    def record(self, plan: Plan, result: Result) -> None:
        """A call that was never sent leaves nothing."""
        if result.sent_at is None:
            return
        from opentelemetry.trace import SpanKind, Status, StatusCode

        shared = shared_attributes(plan, result)
        span = self._tracer.start_span(
            f"chat {plan.model.id}",
            kind=SpanKind.CLIENT,
            start_time=nanoseconds(result.sent_at),
            attributes={**shared, **span_attributes(plan, result)},
        )
        if result.error_kind is not None:
            span.set_status(Status(StatusCode.ERROR))
        span.end(end_time=nanoseconds(result.ended_at))
        self._seconds.record((result.ended_at - result.sent_at).total_seconds(), shared)
        usage = usage_of(result)
        for kind, tokens in (("input", usage.input_tokens), ("output", usage.output_tokens)):
            if tokens is not None:
                self._tokens.record(tokens, {**shared, "gen_ai.token.type": kind})


def shared_attributes(plan: Plan, result: Result) -> dict[str, Value]:
    """Of spans and measurements: few values each, as a collector keeps a series for every combination."""
    address = urlsplit(plan.url)
    known: dict[str, Value | None] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": plan.provider,
        "gen_ai.request.model": plan.model.id,
        "server.address": address.hostname,
        "server.port": address.port or (443 if address.scheme == "https" else 80),
        "error.type": None if result.error_kind is None else result.error_kind.value,
    }
    return {name: value for name, value in known.items() if value is not None}


def usage_of(result: Result) -> Usage:
    unknown = Usage(input_tokens=None, output_tokens=None)
    return unknown if result.charge is None else result.charge.usage or unknown


def span_attributes(plan: Plan, result: Result) -> dict[str, Value]:
    usage = usage_of(result)
    known: dict[str, Value | None] = {
        "batchrun.job": plan.name,
        "batchrun.attempt": result.call.attempt_id,
        "batchrun.outcome": result.outcome,
        "batchrun.item.state": result.state.value,
        "gen_ai.request.stream": plan.stream,
        "gen_ai.response.id": result.request_id,
        "http.response.status_code": result.http_status,
        "gen_ai.usage.input_tokens": usage.input_tokens,
        "gen_ai.usage.output_tokens": usage.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
        "gen_ai.usage.cache_creation.input_tokens": usage.cache_write_tokens,
        "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens,
    }
    if result.first_token_at is not None and result.sent_at is not None:
        known["gen_ai.response.time_to_first_chunk"] = (result.first_token_at - result.sent_at).total_seconds()
    return {name: value for name, value in known.items() if value is not None}


def nanoseconds(moment: datetime) -> int:
    """Since 1970, as OpenTelemetry counts."""
    return (moment - EPOCH) // timedelta(microseconds=1) * 1_000


@contextmanager
def telemetry(environment: Mapping[str, str]) -> Iterator[Callable[[Plan, Result], None]]:
    """What hears of every call that has ended. It does nothing where the environment names no collector, or the extra
    is missing, of which `doctor` tells. What is left is sent at the end of the block."""
    if not (is_asked_for(environment) and is_installed()):
        yield lambda _plan, _result: None
        return
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = environment.get("OTEL_SERVICE_NAME") or "service.name=" in environment.get("OTEL_RESOURCE_ATTRIBUTES", "")
    resource = Resource.create({"service.version": __version__} | ({} if named else {"service.name": "batchrun"}))
    traces = TracerProvider(resource=resource, shutdown_on_exit=False)
    traces.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    metrics = MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())], resource, shutdown_on_exit=False)
    try:
        yield Telemetry(traces, metrics).record
    finally:
        traces.force_flush(FLUSH_MS)
        traces.shutdown()
        metrics.shutdown(FLUSH_MS)

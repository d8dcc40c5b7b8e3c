"""Sends one trace per job by OTLP over HTTP: opened by the API, carried in the job, continued by the worker.

This is the only module that imports OpenTelemetry, the extra `tracing`; without settings.otlp_endpoint nothing of it is
loaded. A span has ids, numbers and words; never a prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from app.errors import CommandError
from app.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span

__all__ = ["Tracing", "TracingError", "Value"]

SEND_S = 5  # spans are lost if the collector takes longer
Value = str | int | float | bool


class TracingError(CommandError):
    """NAG_OTLP_ENDPOINT is set and traces cannot be sent."""


class Tracing:
    """The tracer of a process. A thread of its own sends the spans; if the collector is away, they are lost."""

    def __init__(self, endpoint: str, part: str) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            raise TracingError(f"NAG_OTLP_ENDPOINT needs the extra tracing, nag-server[tracing]: {error}") from error
        self._provider = TracerProvider(resource=Resource({"service.name": f"nag-{part}"}), shutdown_on_exit=False)
        self._provider.add_span_processor(
            BatchSpanProcessor(OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=SEND_S))
        )
        self._tracer = self._provider.get_tracer("nag-server")

    @classmethod
    def open(cls, settings: Settings, part: str) -> Tracing | None:
        """Opens the tracer; returns None if settings.otlp_endpoint is not set. Raises TracingError."""
        return None if settings.otlp_endpoint is None else cls(settings.otlp_endpoint, part)

    def close(self) -> None:
        """Sends the remaining spans, for at most the time of one export."""
        self._provider.shutdown()

    @contextmanager
    def request(self, name: str, traceparent: str) -> Iterator[tuple[Span, str]]:
        """Opens the span of an HTTP request, a child of its caller's if there is one; yields it and its traceparent."""
        from opentelemetry.trace import SpanKind

        span = self._tracer.start_span(name, self._context(traceparent), kind=SpanKind.SERVER)
        try:
            yield span, self.traceparent(span)
        finally:
            span.end()

    def span(
        self,
        name: str,
        parent: str,
        begun_at: float,
        ended_at: float,
        attributes: Mapping[str, Value] | None = None,
        error: str | None = None,
    ) -> str:
        """Records a span that has ended, in Unix seconds, and returns its traceparent; `parent` is one."""
        from opentelemetry.trace import SpanKind, StatusCode

        context, about = self._context(parent), dict(attributes or {})
        span = self._tracer.start_span(name, context, SpanKind.CONSUMER, about, start_time=round(begun_at * 1e9))
        if error is not None:
            span.set_status(StatusCode.ERROR, error)
        span.end(round(max(begun_at, ended_at) * 1e9))
        return self.traceparent(span)

    @staticmethod
    def traceparent(span: Span) -> str:
        """Returns W3C's traceparent of the span."""
        context = span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"

    @staticmethod
    def _context(traceparent: str) -> Context:
        from opentelemetry.context import Context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        # From an empty context: the current span of this thread is not the parent.
        return TraceContextTextMapPropagator().extract({"traceparent": traceparent} if traceparent else {}, Context())

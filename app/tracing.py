"""One trace a job, sent by OTLP over HTTP: opened by the API, carried in the job, continued by the worker.

The only importer of OpenTelemetry, which is the extra `tracing`: without settings.otlp_endpoint nothing of it is
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

SEND_S = 5  # a collector that takes longer loses what was sent
Value = str | int | float | bool


class TracingError(CommandError):
    """NAG_OTLP_ENDPOINT is set and traces cannot be sent."""


class Tracing:
    """One a process. Spans are sent from a thread of their own; a collector that is away costs them alone."""

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
        """None where settings.otlp_endpoint is not set. Raises TracingError."""
        return None if settings.otlp_endpoint is None else cls(settings.otlp_endpoint, part)

    def close(self) -> None:
        """Send what is left, for as long as the exporter takes at most."""
        self._provider.shutdown()

    @contextmanager
    def request(self, name: str, traceparent: str) -> Iterator[tuple[Span, str]]:
        """The span of an HTTP request, a child of its caller's if it has one, and the traceparent to hand on."""
        from opentelemetry.trace import SpanKind

        span = self._tracer.start_span(name, self._context(traceparent), kind=SpanKind.SERVER)
        try:
            yield span, self.carried(span)
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
        """One that is over, in Unix seconds; `parent` is a traceparent. Returns its own."""
        from opentelemetry.trace import SpanKind, StatusCode

        context, about = self._context(parent), dict(attributes or {})
        span = self._tracer.start_span(name, context, SpanKind.CONSUMER, about, start_time=round(begun_at * 1e9))
        if error is not None:
            span.set_status(StatusCode.ERROR, error)
        span.end(round(max(begun_at, ended_at) * 1e9))
        return self.carried(span)

    @staticmethod
    def carried(span: Span) -> str:
        """W3C's traceparent."""
        context = span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"

    @staticmethod
    def _context(traceparent: str) -> Context:
        from opentelemetry.context import Context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        # An empty one to begin with: what this thread is at is nobody's parent.
        return TraceContextTextMapPropagator().extract({"traceparent": traceparent} if traceparent else {}, Context())

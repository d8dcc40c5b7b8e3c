"""What does a trace show? One job's, across API, queue and worker, received by a collector here and printed.

python -m benchmarks.tracing
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from app.cli.client import Client
from app.cli.local_service import running

__all__ = ["Collector", "Span", "collecting", "tree"]

SPANS_S = 60.0  # to arrive: an exporter sends what it has every few seconds
TRACES = ("work", "queue", "encode", "denoise", "decode", "store", "POST /v1/jobs")


@dataclass(frozen=True)
class Span:
    """One that was received; times are Unix nanoseconds."""

    name: str
    part: str
    trace: str
    id: str
    parent: str
    begun_ns: int
    ended_ns: int
    attributes: dict[str, Any]
    error: str


class Collector:
    """Takes OTLP over HTTP, as any collector does."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._spans: list[Span] = []
        self._lock = threading.Lock()

    @property
    def spans(self) -> Sequence[Span]:
        with self._lock:
            return list(self._spans)

    def take(self, body: bytes) -> None:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            part = _attributes(resource.resource.attributes).get("service.name", "")
            found = [_span(span, part) for scope in resource.scope_spans for span in scope.spans]
            with self._lock:
                self._spans += found

    def of_job(self, job_id: str) -> list[Span]:
        """Returns the spans of its trace."""
        traces = {span.trace for span in self.spans if span.attributes.get("job") == job_id}
        return [span for span in self.spans if span.trace in traces]


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector on a free loopback port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            collector.take(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector = Collector(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def tree(spans: Sequence[Span]) -> str:
    """Returns one line per span, indented under its parent, in milliseconds since the first began."""
    zero_ns = min((span.begun_ns for span in spans), default=0)
    ids = {span.id for span in spans}
    lines = []

    def add(parent: str, depth: int) -> None:
        for span in sorted(spans, key=lambda span: span.begun_ns):
            if span.parent == parent or (not depth and span.parent not in ids):
                at_ms, took_ms = (span.begun_ns - zero_ns) / 1e6, (span.ended_ns - span.begun_ns) / 1e6
                said = " ".join(f"{key}={value}" for key, value in sorted(span.attributes.items()))
                said += f" error={span.error}" if span.error else ""
                name = "  " * depth + span.name
                lines.append(f"{name:24}{span.part:12}{at_ms:9.1f} +{took_ms:9.1f} ms  {span.id} {said}".rstrip())
                add(span.id, depth + 1)

    add("", 0)
    return "\n".join(lines)


def main() -> int:
    """Traces two jobs that run at once."""
    with tempfile.TemporaryDirectory() as folder, collecting() as collector:
        os.environ |= {"NAG_OTLP_ENDPOINT": collector.url}
        with running(Path(folder)) as url, Client(url) as client, ThreadPoolExecutor(2) as pool:
            bodies = [{"prompt": "a shape", "negative_prompt": "a red shape", "seed": seed} for seed in (1, 2)]
            jobs = list(pool.map(client.generate, bodies))
            deadline = time.monotonic() + SPANS_S
            while len({span.name for span in collector.of_job(jobs[-1]["id"])}) < len(TRACES):
                if time.monotonic() > deadline:
                    break
                time.sleep(0.2)
        for job in jobs:
            print(f"{job['id']}:\n{tree(collector.of_job(job['id']))}\n")
        missing = set(TRACES) - {span.name for span in collector.of_job(jobs[-1]["id"])}
    return 1 if missing else 0


def _span(span: Any, part: str) -> Span:
    return Span(
        span.name, part, span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex(),
        span.start_time_unix_nano, span.end_time_unix_nano, _attributes(span.attributes), span.status.message,
    )  # fmt: skip


def _attributes(attributes: Any) -> dict[str, Any]:
    return {attribute.key: getattr(attribute.value, attribute.value.WhichOneof("value")) for attribute in attributes}


if __name__ == "__main__":
    sys.exit(main())

"""Serves a worker's metrics on a port of its own, so that several workers can run on one host."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server

from app.settings import ANY_ADDRESS, Settings

__all__ = ["serve_metrics"]


@contextmanager
def serve_metrics(registry: CollectorRegistry, settings: Settings) -> Iterator[str]:
    """Yields the host:port that Prometheus reaches. Raises OSError if settings.metrics_port is taken."""
    server, thread = start_http_server(settings.metrics_port, settings.metrics_host, registry)
    # Bound to every address, it is reached by this host's name.
    host = socket.gethostname() if settings.metrics_host in ANY_ADDRESS else settings.metrics_host
    try:
        yield f"[{host}]:{server.server_port}" if ":" in host else f"{host}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

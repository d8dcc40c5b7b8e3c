"""Where a worker shows its metrics: a port of its own, so that several workers may stand on one host."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server

from app.settings import ANY_ADDRESS, Settings

__all__ = ["exposed"]


@contextmanager
def exposed(registry: CollectorRegistry, settings: Settings) -> Iterator[str]:
    """host:port as others reach it. Raises OSError where settings.metrics_port is taken."""
    server, thread = start_http_server(settings.metrics_port, settings.metrics_host, registry)
    # Bound to every address, it is reached by this host's name.
    host = socket.gethostname() if settings.metrics_host in ANY_ADDRESS else settings.metrics_host
    try:
        yield f"[{host}]:{server.server_port}" if ":" in host else f"{host}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

"""The HTTP front end: holds no job and no model, so that any number of these may stand side by side."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI

from app import logs
from app.api import errors
from app.api.middleware import BoundedBody, RequestId
from app.api.routes import health, images, jobs, models, queue
from app.api.service import Service
from app.artifacts import Artifacts
from app.catalog import Catalog
from app.metrics import Metrics
from app.queue.queue import Queue
from app.settings import Settings

__all__ = ["create_app", "serve"]

#: Requests still running this long after the signal to stop are cut off.
SHUTDOWN_S = 3


def create_app(settings: Settings, stopping: Callable[[], bool] = lambda: False) -> FastAPI:
    """The app; it connects when it is started. Once `stopping()` holds, no request waits for its job any longer.

    Raises CatalogError.
    """
    catalog = Catalog.load(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        queue = Queue.connect(settings)
        app.state.service = Service(
            settings, catalog, queue, Artifacts.open(settings), Metrics(), int(time.time()), stopping
        )
        try:
            yield
        finally:
            await queue.close()

    app = FastAPI(
        title="NAG Server",
        description="Diffusion pipelines with Normalized Attention Guidance.",
        lifespan=lifespan,
        redoc_url=None,
        responses={"4XX": {"model": errors.ErrorBody}, "5XX": {"model": errors.ErrorBody}},
    )
    errors.install(app)
    app.add_middleware(BoundedBody, limit_bytes=settings.body_max_bytes)
    app.add_middleware(RequestId)  # added last, so outermost
    for each in (jobs, images, models, queue, health):
        app.include_router(each.router)
    return app


def serve(settings: Settings) -> None:
    """Serves until SIGINT or SIGTERM. Raises OSError when the address is taken, CatalogError."""
    logs.configure(settings.log_level)
    server: uvicorn.Server | None = None
    app = create_app(settings, stopping=lambda: server is not None and server.should_exit)
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.create_server((settings.host, settings.port), family=family, backlog=2048) as listener:
        host, port = listener.getsockname()[:2]
        print(f"nag-server: http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
        config = uvicorn.Config(
            app, log_config=None, log_level="warning", access_log=False, timeout_graceful_shutdown=SHUTDOWN_S
        )
        server = uvicorn.Server(config)
        for number in (signal.SIGINT, signal.SIGTERM):
            # uvicorn raises the signal again when it has ended in order; this end is no failure.
            signal.signal(number, lambda *_: setattr(server, "should_exit", True))
        server.run(sockets=[listener])

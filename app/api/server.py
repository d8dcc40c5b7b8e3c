"""The HTTP front end: holds no job and no model, so that any number of these may stand side by side."""

from __future__ import annotations

import asyncio
import math
import socket
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from types import FrameType

import uvicorn
from fastapi import Depends, FastAPI

from app import bind_guard, logs
from app.api import docs, openapi
from app.api.http_framing import BoundedHead
from app.api.middleware.auth import AuthMiddleware
from app.api.middleware.body_limit import JSON, BodyLimitMiddleware
from app.api.middleware.browser_security import BrowserSecurityMiddleware, cors
from app.api.middleware.head import HeadMiddleware
from app.api.middleware.metrics import MetricsMiddleware
from app.api.middleware.public_address import PublicAddressMiddleware
from app.api.middleware.rate_limit import RateLimitMiddleware
from app.api.middleware.request_id import RequestIdMiddleware
from app.api.middleware.tracing import TracingMiddleware
from app.api.orphaned_jobs import OrphanedJobs
from app.api.requests.forms import FORM
from app.api.requests.query import check_query
from app.api.responses import errors
from app.api.routes import artifacts, files, health, images, jobs, loras, metrics, models, playground, queue, videos
from app.api.sdapi import routes as sdapi
from app.api.service import Service
from app.api.webhooks.deliveries import Deliveries
from app.artifacts import Artifacts
from app.artifacts.signed_urls import Links
from app.artifacts.store_factory import artifacts_folder
from app.auth.keyring import Keyring
from app.catalog import Catalog
from app.metrics import Metrics
from app.process_exit import exit_at_once
from app.queue.queue import Queue
from app.settings import Settings
from app.tracing import Tracing

__all__ = ["create_app", "serve", "uvicorn_config"]

#: On top of settings.drain_s, to answer those that are no longer held; after this a request is cut off.
SHUTDOWN_S = 3
#: A connection that its other end still means to use must not be closed under it; load balancers keep theirs for 60 s.
KEEP_ALIVE_S = 75
#: Paths whose bodies can hold files, and how many of the largest size: base64 makes them a third longer.
WITH_FILES = ("/v1/jobs", "/v1/videos", "/v1/images/generations", images.EDITS, *sdapi.WITH_FILES)
FILES_IN_A_BODY = 3


def create_app(settings: Settings, stopping: Callable[[], bool] = lambda: False) -> FastAPI:
    """Returns the app, which connects when it is started. Once `stopping()` holds, no request waits for its job any
    longer.

    Raises CatalogError, KeysError, TracingError.
    """
    catalog = Catalog.load(settings)
    keyring = Keyring(settings)
    folders = {"data": settings.data_folder, "artifacts": artifacts_folder(settings)}
    measured = Metrics({name: path for name, path in folders.items() if path is not None}, settings.queue_limit)
    tracing = Tracing.open(settings, "api")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        queue = Queue.connect(settings)
        artifacts = Artifacts.open(settings)
        links = Links.open(settings, artifacts)
        decoder = ThreadPoolExecutor(1, "decoder")
        orphans = OrphanedJobs(queue, settings.rejoin_s)
        app.state.service = Service(
            settings, catalog, queue, artifacts, measured, int(time.time()), links, stopping, orphans, decoder
        )
        deliveries = Deliveries(queue, settings, links) if settings.webhook_secret is not None else None
        try:
            yield
        finally:
            if deliveries is not None:
                await deliveries.close()
            await orphans.close()
            decoder.shutdown(wait=False, cancel_futures=True)
            await queue.close()
            if tracing is not None:
                await asyncio.to_thread(tracing.close)

    app = FastAPI(
        title="NAG Server",
        description="Diffusion pipelines with Normalized Attention Guidance.",
        lifespan=lifespan,
        openapi_url=None,  # app.api.openapi serves it
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # to an address of the caller's making: Host is whatever it says
        generate_unique_id_function=lambda route: route.name,
        dependencies=[Depends(check_query)],
    )
    errors.install(app)
    docs.install(app)
    app.add_middleware(HeadMiddleware)
    app.add_middleware(
        BodyLimitMiddleware,
        limit_bytes=settings.body_max_bytes,
        timeout_s=settings.read_timeout_s,
        kinds={"/v1/videos": (JSON, FORM), images.EDITS: (FORM, JSON), loras.LORAS: (FORM,), files.PATH: (FORM,)},
        larger=dict.fromkeys(WITH_FILES, settings.body_max_bytes + FILES_IN_A_BODY * settings.input_max_bytes)
        | {
            loras.LORAS: settings.body_max_bytes + settings.lora_max_bytes,
            files.PATH: settings.body_max_bytes + max(settings.input_max_bytes, settings.video_max_bytes),
        },
        uploads=(loras.LORAS, files.PATH),
    )
    app.add_middleware(RateLimitMiddleware)
    app.add_middleware(AuthMiddleware, keyring=keyring)
    app.add_middleware(BrowserSecurityMiddleware, origins=settings.cors_origins)
    if settings.cors_origins:
        app.add_middleware(cors, origins=settings.cors_origins)
    app.add_middleware(PublicAddressMiddleware, public_url=settings.public_url, proxies=settings.trusted_proxies)
    app.add_middleware(RequestIdMiddleware)
    if tracing is not None:
        app.add_middleware(TracingMiddleware, tracing=tracing)
    app.add_middleware(MetricsMiddleware, metrics=measured)  # added last, so outermost: a 500 counts too
    for part in (jobs, images, videos, files, artifacts, models, loras, queue, health, metrics, playground):
        app.include_router(part.router)
    if settings.sdapi:
        app.include_router(sdapi.router)
        app.include_router(sdapi.files)
    app.include_router(files.forms)
    app.include_router(jobs.files)
    app.include_router(videos.files)
    app.include_router(loras.forms)
    openapi.install(app, asks=keyring.is_required)
    return app


def serve(settings: Settings, *, insecure: bool = False) -> None:
    """Serves until SIGINT or SIGTERM, then until what it holds is answered: for settings.drain_s at the most, and no
    longer once it is told again. Raises OSError when the address is taken, CatalogError, KeysError, RequirementError.

    Raises ArtifactsError and FolderError if the artifacts cannot be opened; InsecureBindError if everyone could
    call it and `insecure` does not allow that.
    """
    if not insecure:
        bind_guard.check_bind_address(settings)
    logs.configure(settings.log_level)
    Links.open(settings, Artifacts.open(settings))  # as the app will: the server would show a failure as a traceback
    server: _Server | None = None
    app = create_app(settings, stopping=lambda: server is not None and time.monotonic() >= server.held_until_s)
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.create_server((settings.host, settings.port), family=family, backlog=2048) as listener:
        asyncio.run(Queue.check(settings))
        host, port = listener.getsockname()[:2]
        print(f"nag-server: http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
        server = _Server(app, settings)
        server.run(sockets=[listener])
    if server.started and app.state.service.artifacts.is_busy:  # a request was cut off while its bucket was silent
        exit_at_once(0)


def uvicorn_config(app: FastAPI, settings: Settings, shutdown_s: int) -> uvicorn.Config:
    protocol = partial(BoundedHead, settings.head_max_bytes, settings.read_timeout_s)
    return uvicorn.Config(
        app,
        http=protocol,  # type: ignore[arg-type]  # it is only ever called
        ws="none",  # there is none, and its protocol would read requests by other rules
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # see app.api.middleware.public_address
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=shutdown_s,
    )


class _Server(uvicorn.Server):
    """Told to end, it takes no more requests; those that wait for their job go on until `held_until_s`, monotonic."""

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        shutdown_s = math.ceil(settings.drain_s) + SHUTDOWN_S
        super().__init__(uvicorn_config(app, settings, shutdown_s))
        self.held_until_s = math.inf
        self._drain_s = settings.drain_s

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # In uvicorn's place, which raises the signal again when it has ended in order; this end is no failure.
        del sig, frame
        self.held_until_s = time.monotonic() + (0.0 if self.should_exit else self._drain_s)
        self.should_exit = True

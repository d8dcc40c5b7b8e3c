"""Fixtures shared by all tests: one real embedded Valkey a session, emptied for each test that uses it."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # small tensors; before torch is loaded

import pytest
from redis import Redis

from app.jobs import Generation, Job
from app.queue import embedded
from app.queue.queue import Queue
from app.settings import Settings
from tests import catalogs
from tests.event_loop import CheckedEventLoop

#: Fixtures of a whole service or a browser. To start one takes longer than most tests.
SLOW_FIXTURES = {"service", "files_service", "embedded_service", "browser", "page"}


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collects garbage less often, and never what is there by then: the models' libraries make millions of objects."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(50_000)
        gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Takes what a file of tests leaves behind, such as more modules, out of all later collections of garbage."""
    if nextitem is not None and nextitem.path != item.path:
        gc.collect()
        gc.freeze()


@pytest.hookimpl(tryfirst=True)  # before pytest selects by marker
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests that use a whole service or a browser as slow."""
    for item in items:
        if isinstance(item, pytest.Function) and SLOW_FIXTURES.intersection(item.fixturenames):
            item.add_marker(pytest.mark.slow)


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"checked": CheckedEventLoop}


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in list(os.environ):
        if variable.upper().startswith("NAG_"):  # also what is none, of which every command warns
            monkeypatch.delenv(variable)


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    """Removes the handler of a command that ran in this process: it writes to a stream that is closed by then."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(autouse=True)
def _gradients_stay_on() -> Iterator[None]:
    """Fails a test that leaves gradients off, by which a later test that trains would fail."""
    yield
    torch = sys.modules.get("torch")  # many tests do without
    if torch is not None and not torch.is_grad_enabled():
        torch.set_grad_enabled(True)
        pytest.fail(
            "the test has left gradients off; run pipeline calls within torch.no_grad(), from their start to their end"
        )


@pytest.fixture(autouse=True)
def _attention_backend_stays() -> Iterator[None]:
    """Fails a test that leaves another attention backend active: diffusers' set_attention_backend is process-wide."""
    yield
    dispatch = sys.modules.get("diffusers.models.attention_dispatch")
    if dispatch is not None:
        registry, native = dispatch._AttentionBackendRegistry, dispatch.AttentionBackendName.NATIVE
        left = registry._active_backend
        if left != native:
            registry.set_active_backend(native)
            pytest.fail(
                f"the test has left {left} as the active attention backend; set it in diffusers.attention_backend()"
            )


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running embedded server's address."""
    settings = Settings(data_dir=tmp_path_factory.mktemp("valkey"))
    server = embedded.start(settings)
    yield embedded.url(settings)
    server.stop()


@pytest.fixture
def settings(tmp_path: Path, valkey_url: str) -> Settings:
    """Settings with a data folder of the test's own, on an emptied server; a job whose client leaves ends at once."""
    with Redis.from_url(valkey_url) as redis:
        redis.flushall()
    return Settings(data_dir=tmp_path / "data", redis_url=valkey_url, rejoin_s=0)


@pytest.fixture
async def connect() -> AsyncIterator[Callable[..., Queue]]:
    """`connect(settings, url)`: a queue that is closed after the test, also if the test fails."""
    async with AsyncExitStack() as stack:

        def connect(settings: Settings, url: str | None = None, kind: type[Queue] = Queue) -> Queue:
            queue = kind.connect(settings, url)
            stack.push_async_callback(queue.close)
            return queue

        yield connect


@pytest.fixture
def queue(settings: Settings, connect: Callable[..., Queue]) -> Queue:
    return connect(settings)


@pytest.fixture
def make_job() -> Callable[..., Job]:
    """`make_job("id", width=128, …)`: a queued job of the embedded model; keywords change its request."""

    def make(job_id: str, **changes: Any) -> Job:
        request: dict[str, Any] = {
            "model": "shapes-flux",
            "prompt": "a red circle",
            "negative_prompt": None,
            "seed": 7,
            "num_inference_steps": 2,
            "guidance_scale": 1.0,
            "width": 64,
            "height": 64,
            "n": 1,
            "output_format": "png",
            "output_compression": 100,
            "nag": None,
        }
        return Job(id=job_id, request=Generation(**{**request, **changes}))

    return make


@pytest.fixture(scope="session")
def video_entry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalog file whose default makes videos, for tests without a real worker: there is no model behind it."""
    return catalogs.write(tmp_path_factory.mktemp("entry"))


@pytest.fixture(scope="session")
def video_catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalog file whose default is a small random Wan."""
    from tests.tiny.served import wan_catalog  # slow to import, and few tests are of videos

    return wan_catalog(tmp_path_factory.mktemp("catalog"))


@pytest.fixture(scope="session")
def service_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("service")


@pytest.fixture(scope="session")
def service(service_folder: Path, video_catalog: Path) -> Iterator[str]:
    """The URL of a whole service with a real worker: the embedded model for pictures, a small random Wan for videos.
    Wan is the default. Its queue is a test's own to fill, but not to count.
    """
    from app.cli.local_service import running

    with running(service_folder, video_catalog) as url:
        yield url


@pytest.fixture(scope="session")
def files_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a whole service with a real worker, whose models `told`, `film` and `changing` start from files."""
    from app.cli.local_service import running
    from tests.tiny.served import files_catalog

    with running(tmp_path_factory.mktemp("service"), files_catalog(tmp_path_factory.mktemp("catalog"))) as url:
        yield url

"""The worker: claim → run → store → finish, on one asyncio loop with one torch thread.

What a caller can rely on: a job is never dropped. A worker told to stop leaves its batch between two steps and hands
the jobs back; one that dies lets their leases end, and another worker takes them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from secrets import token_hex
from time import monotonic
from typing import Any, TypeVar, cast

from redis.exceptions import RedisError

from app import logs
from app.artifacts import Artifacts
from app.catalog import Catalog
from app.queue.cancel import end
from app.queue.queue import Queue
from app.settings import Settings
from app.worker.batch import Batch
from app.worker.claim import claim, rules
from app.worker.work import Engine

__all__ = ["Worker", "main"]

CLAIM_S = 1.0  # a claim is never cut short, so this is how long an idle worker takes to stop
REDIS_RETRY_S = 1.0
SWEEP_S = 600.0
T = TypeVar("T")
_log = logs.Log("worker")


class Worker:
    """One device's worker. `make_engine` is called in the torch thread, since it imports torch."""

    def __init__(
        self, settings: Settings, queue: Queue, models: Sequence[str], make_engine: Callable[[], Engine]
    ) -> None:
        self.name = f"w-{token_hex(4)}"
        self.loading = False  # the torch thread is at work that cannot be left
        self._settings = settings
        self._queue = queue
        self._artifacts = Artifacts.open(settings)
        self._models = models
        self._make_engine = make_engine
        self._warm: list[str] = []
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="torch")
        self._stopping = asyncio.Event()
        self._warmed = asyncio.Event()
        self._batch: Batch | None = None

    def stop(self) -> None:
        """Claim no more, leave the running batch at its next step."""
        self._stopping.set()
        if self._batch is not None:
            self._batch.stop()

    async def run(self) -> int:
        """Work until told to stop; the exit code: 0, or 1 where nothing could be loaded."""
        _log.info("worker_started", worker=self.name, pid=os.getpid(), host=socket.gethostname())
        tasks = [asyncio.create_task(self._keep()), asyncio.create_task(self._work())]
        try:
            # The work ends when told to; the keeper ends by failing alone, and then so does the worker.
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return ended.pop().result()
        finally:
            for task in tasks:
                if not task.done():
                    await end(task)
            self._thread.shutdown(wait=False, cancel_futures=True)
            with contextlib.suppress(RedisError):  # its announcement ends by itself
                await self._queue.retire(self.name)

    async def _work(self) -> int:
        engine = await self._load()
        if engine is None:
            return 0 if self._stopping.is_set() else 1
        while not self._stopping.is_set():
            budgets = {model: engine.budget(model) for model in self._warm}
            try:
                claimed = await claim(self._queue, self.name, budgets, rules(self._settings), CLAIM_S)
            except RedisError as error:
                _log.warning("redis_away", error=type(error).__name__)
                await asyncio.sleep(REDIS_RETRY_S)
                continue
            if claimed is not None:
                self._batch = Batch(
                    self.name, claimed.jobs, self._settings.lease_s, self._queue, self._artifacts, engine, self._thread
                )
                if self._stopping.is_set():
                    self._batch.stop()
                await self._batch.run()
                self._batch = None
                self._warm.append(self._warm.pop(0))  # no model's queue starves another's
        return 0

    async def _load(self) -> Engine | None:
        """Every model that can be is warm; None when none is, or when told to stop."""
        try:
            engine = await self._unless_stopped(self._make_engine)
        except Exception as error:  # a device that is not there, a library that does not load
            _log.error("engine_failed", error=type(error).__name__, message=error)
            return None
        if engine is None:
            return None
        for model in self._models:
            try:
                await self._unless_stopped(lambda model=model: engine.load(model))  # type: ignore[misc]
            except Exception as error:  # a model that cannot be loaded leaves the others their worker
                _log.error("model_failed", model=model, error=type(error).__name__, message=error)
                continue
            if self._stopping.is_set():
                return None
            self._warm.append(model)
            self._warmed.set()
        return engine if self._warm else None

    async def _unless_stopped(self, call: Callable[[], T]) -> T | None:
        """What the call returns in the torch thread; None as soon as the worker is told to stop."""
        self.loading = True
        running: asyncio.Future[Any] = asyncio.get_running_loop().run_in_executor(self._thread, call)
        stopped: asyncio.Future[Any] = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({running, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            return None
        stopped.cancel()
        self.loading = False
        return cast(T, running.result())

    async def _keep(self) -> int:
        """Stay in the registry, reap the leases of workers that died, end what is late, sweep old artifacts."""
        swept_s = -SWEEP_S
        while True:
            try:
                await self._queue.announce(self.name, self._warm, self._settings.lease_s)
                await self._queue.reap()
                await self._queue.expire()
            except RedisError as error:
                _log.warning("redis_away", error=type(error).__name__)
            if monotonic() - swept_s > SWEEP_S:
                swept_s = monotonic()
                try:
                    await self._artifacts.sweep()
                except OSError as error:
                    _log.warning("sweep_failed", error=error.strerror)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.lease_s / 3):
                    await self._warmed.wait()
            self._warmed.clear()


async def _serve(settings: Settings) -> tuple[int, bool]:
    """The exit code, and whether the torch thread was left loading a model."""
    catalog = Catalog.load(settings)

    def make_engine() -> Engine:
        from app.worker.engine import TorchEngine  # here, so that a signal is heard while torch is imported

        return TorchEngine(catalog, settings.device, settings.batch_size)

    queue = Queue.connect(settings)
    others = [model for model in catalog.models if model != catalog.default]
    worker = Worker(settings, queue, [catalog.default, *others], make_engine)
    for each in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(each, worker.stop)
    try:
        return await worker.run(), worker.loading
    finally:
        await queue.close()


def main(settings: Settings) -> int:
    """Serve every model of the catalog until SIGTERM or SIGINT. Raises CatalogError."""
    logs.configure(settings.log_level)
    code, loading = asyncio.run(_serve(settings))
    if loading:
        # The interpreter would wait for the thread; a model half loaded holds nothing that needs an orderly end.
        logging.shutdown()
        sys.stdout.flush()
        os._exit(code)
    return code

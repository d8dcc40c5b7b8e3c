"""The worker: claim → run → store → finish, on one asyncio loop with two torch threads, one per stage.

What a caller can rely on: a job is never dropped. A worker told to stop finishes what ends within the time it has,
leaves the rest between two steps and hands the jobs back; one that dies lets their leases end, and another worker
takes them.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from secrets import token_hex
from time import monotonic
from typing import Any, TypeVar, cast

from redis.exceptions import RedisError

from app.artifacts import Artifacts, ArtifactsError
from app.logs import Log
from app.queue.cancel import end
from app.queue.queue import Queue
from app.settings import Settings
from app.worker.batch import Batch
from app.worker.claim import Claimed, claim, rules
from app.worker.model_turns import ModelTurns
from app.worker.models import Models
from app.worker.recorder import Recorder
from app.worker.work import Engine

__all__ = ["Worker"]

CLAIM_S = 1.0  # a claim is never cut short, so this is how long an idle worker takes to stop
IDLE_S = 0.05  # without a job for so long, beyond the window of a batch, a worker loads the next model
LEAVE_S = 5.0  # to reach the end of a step; after that the jobs are handed back while the thread is still at it
STAGES = 2
LOOK_S = 1.0  # between two looks at the queues of models that are not on this machine
REDIS_RETRY_S = 1.0
#: Leases that ended while Redis took no writes are reaped only after their workers had time to renew or to report.
GRACE_S = 3 * REDIS_RETRY_S
STORE_PATIENCE_S = 300.0  # what a bucket may be away for; a finished picture is worth the wait
SWEEP_S = 600.0
T = TypeVar("T")
_log = Log("worker")


class Worker:
    """One device's worker. `make_engine` is called in a torch thread, since it imports torch."""

    def __init__(
        self,
        settings: Settings,
        queue: Queue,
        models: Models,
        make_engine: Callable[[Recorder], Engine],
    ) -> None:
        self.name = f"w-{token_hex(4)}"
        self.busy = False  # a torch thread is at work that cannot be left; at the end also a call to the store
        self.recorder = Recorder()
        self.metrics_at = ""  # host:port where they are shown
        self._settings = settings
        self._queue = queue
        self._artifacts = Artifacts.open(settings, STORE_PATIENCE_S)
        self._models = models
        self._make_engine = make_engine
        self._engine: Engine | None = None
        self._serving: tuple[str, ...] = ()
        self._cold: list[str] = []  # to be made warm yet
        self._awaited: list[str] = []  # to be made warm once they are downloaded
        self._looked_s = 0.0
        self._failed: set[str] = set()  # could not be made warm at the start
        self._threads = ThreadPoolExecutor(max_workers=STAGES, thread_name_prefix="torch")
        self._stopping = asyncio.Event()
        self._hurrying = asyncio.Event()
        self._changed = asyncio.Event()  # something to announce
        self._batches: dict[asyncio.Task[None], Batch] = {}

    def stop(self) -> None:
        """Claim no more and finish within settings.drain_s; told again, leave the batches at their next step."""
        if self._stopping.is_set():
            self._hurrying.set()
        self._stopping.set()

    async def run(self) -> int:
        """Work until told to stop; the exit code: 0, or 1 where nothing could be loaded."""
        _log.info("worker_started", worker=self.name, pid=os.getpid(), host=socket.gethostname())
        tasks = [asyncio.create_task(work) for work in (self._work(), self._keep(), self._sweep())]
        try:
            # The work ends when told to; the others end by failing alone, and then so does the worker.
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return ended.pop().result()
        finally:
            for task in (*tasks, *self._batches):
                if not task.done():
                    await end(task)
            self._threads.shutdown(wait=False, cancel_futures=True)
            self.busy = self.busy or self._artifacts.is_busy
            if self._engine is not None:
                self.busy = self.busy or self._engine.is_downloading
                self._engine.states.on_change = lambda: None  # this loop is about to be closed
            _log.info(
                "worker_counted", **{f"{event}:{model}": n for (event, model), n in self.recorder.counts().items()}
            )
            with contextlib.suppress(RedisError):  # its announcement ends by itself
                await self._queue.registry.retire(self.name)

    async def _work(self) -> int:
        engine = await self._start()
        if engine is None:
            return 0 if self._stopping.is_set() else 1
        turns = ModelTurns(self._serving)
        while not self._stopping.is_set():
            if self._failed >= set(self._serving) and not engine.warm:
                return 1
            warm = {*engine.warm, *self._cold}  # what is yet to be made warm evicts nobody
            budgets = {model: engine.budget(model) for model in turns.order(warm) if engine.takes_jobs(model)}
            wait_s = IDLE_S + self._settings.batch_window_ms / 1000 if self._cold else CLAIM_S
            try:
                await self._download_wanted(engine)
                claimed = await claim(self._queue, self.name, budgets, rules(self._settings), wait_s)
            except RedisError as error:
                _log.warning("redis_away", error=type(error).__name__)
                await asyncio.sleep(REDIS_RETRY_S)
                continue
            if claimed is not None:
                model = claimed.jobs[0].request.model
                self.recorder.batch(model, claimed.stop, sum(job.request.n for job in claimed.jobs))
                await self._begin(claimed, engine)
                turns.served(model, warm)
                if model in engine.warm and not engine.is_measured(model):
                    await self._unless_stopped(partial(engine.measure, model))
            elif self._cold:
                await self._warm_next(engine)
        await self._drain()
        return 0

    async def _download_wanted(self, engine: Engine) -> None:
        """Begin the download of models that jobs wait for; what was downloaded to be warm is loaded next."""
        ready = [model for model in self._awaited if engine.takes_jobs(model)]
        self._awaited = [model for model in self._awaited if model not in ready]
        self._cold += ready
        absent = {model for model in self._serving if not engine.takes_jobs(model)}
        if absent and monotonic() >= self._looked_s + LOOK_S:
            self._looked_s = monotonic()
            for load in await self._queue.loads():
                if load.queued and load.model in absent:
                    engine.download(load.model)

    async def _begin(self, claimed: Claimed, engine: Engine) -> None:
        """Run a batch until the next may begin: to its end, or to where it is being decoded and no other is."""
        batch = Batch(
            self.name, claimed.jobs, self._settings.lease_s, self._queue, self._artifacts, engine, self._threads,
            self.recorder,
        )  # fmt: skip
        if self._stopping.is_set():
            batch.stop()
        task = asyncio.create_task(batch.run())
        self._batches[task] = batch
        denoised = asyncio.create_task(batch.denoised.wait())
        try:
            await self._ended_or_told({task, denoised})
            while len(self._batches) >= STAGES and not self._stopping.is_set():
                await self._ended_or_told(set(self._batches))
        finally:
            denoised.cancel()

    async def _ended_or_told(self, tasks: set[asyncio.Task[Any]]) -> None:
        """Until one of the tasks or any batch has ended, or until told to stop, when draining takes over."""
        stopped = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({*tasks, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        self._forget_ended()

    def _forget_ended(self) -> None:
        """Raises what a batch raised: the device has failed for good."""
        for task in [task for task in self._batches if task.done()]:
            del self._batches[task]
            task.result()

    async def _drain(self) -> None:
        """Finish the running batches within the time there is; then leave them, and hand back their jobs."""
        if not self._batches:
            return
        _log.info("draining", worker=self.name, batches=len(self._batches), drain_s=self._settings.drain_s)
        hurried: asyncio.Future[Any] = asyncio.create_task(self._hurrying.wait())
        finished: asyncio.Future[Any] = asyncio.gather(*self._batches, return_exceptions=True)
        await asyncio.wait({finished, hurried}, timeout=self._settings.drain_s, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        for batch in self._batches.values():
            batch.stop()
        await asyncio.wait({finished}, timeout=LEAVE_S)
        if not finished.done():
            self.busy = True
            for batch in self._batches.values():
                await batch.abandon()
        self._forget_ended()

    async def _start(self) -> Engine | None:
        """The engine, with the first model that can be kept warm; None if it cannot be made, or when told to stop."""
        try:
            engine = await self._unless_stopped(lambda: self._make_engine(self.recorder))
        except Exception as error:  # a device that is not there, a library that does not load
            _log.error("engine_failed", error=type(error).__name__, message=error)
            return None
        if engine is None:
            return None
        self._engine = engine
        engine.states.on_change = partial(asyncio.get_running_loop().call_soon_threadsafe, self._changed.set)
        self._changed.set()
        for model in self._models.warm:
            if engine.takes_jobs(model):
                self._cold.append(model)
            elif model in self._models.required:
                self._awaited.append(model)
                engine.download(model)
            else:
                _log.info("model_left_cold", model=model, reason="its files are not on this machine")
        while self._cold and not engine.warm and not self._stopping.is_set():
            await self._warm_next(engine)
        if self._stopping.is_set():
            return None
        self._serving = self._models.served
        self._changed.set()
        return engine

    async def _warm_next(self, engine: Engine) -> None:
        """Load the next of the models to be kept warm, if it fits."""
        model = self._cold.pop(0)
        if model not in self._models.required and not engine.fits(model):
            _log.info("model_left_cold", model=model, reason="no room for it")
            return
        count = len(self._models.warm)
        _log.info("model_loading", model=model, number=count - len(self._cold) - len(self._awaited), of=count)
        try:
            await self._unless_stopped(partial(engine.load, model))
        except Exception as error:  # a model that cannot be loaded leaves the others their worker
            _log.error("model_failed", model=model, error=type(error).__name__, message=error)
            self._failed.add(model)

    async def _unless_stopped(self, call: Callable[[], T]) -> T | None:
        """What the call returns in the torch thread; None as soon as the worker is told to stop."""
        self.busy = True
        running: asyncio.Future[Any] = asyncio.get_running_loop().run_in_executor(self._threads, call)
        stopped: asyncio.Future[Any] = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({running, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            return None
        stopped.cancel()
        self.busy = False
        return cast(T, running.result())

    async def _keep(self) -> int:
        """Stay in the registry, reap the leases of workers that died, end what is late."""
        writable_since_s = -math.inf
        while True:
            try:
                await self._announce()
                writable_since_s = min(writable_since_s, monotonic())
                if monotonic() - writable_since_s >= GRACE_S:
                    await self._queue.upkeep.reap()
                await self._queue.upkeep.expire()
                await self._queue.upkeep.mend()
                await self._queue.upkeep.forget()
            except RedisError as error:
                _log.warning("redis_away", error=type(error).__name__, message=error)
                writable_since_s = math.inf
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.lease_s / 3):
                    await self._changed.wait()
            self._changed.clear()

    async def _announce(self) -> None:
        engine = self._engine
        warm, states = ((), {}) if engine is None else (engine.warm, engine.states.snapshot())
        await self._queue.registry.announce(
            self.name, warm, self._settings.lease_s, serves=self._serving, metrics=self.metrics_at, states=states
        )

    async def _sweep(self) -> int:
        """Remove old artifacts, beside all else: a bucket may take its time."""
        while True:
            try:
                await self._artifacts.sweep()
            except (ArtifactsError, OSError) as error:
                _log.warning("sweep_failed", error=error)
            await asyncio.sleep(SWEEP_S)

"""The worker: claims jobs while its engine has room and runs each of them, on one asyncio loop.

A job is never dropped. A worker told to stop finishes what ends within the time it has, leaves the rest before its next
denoiser call and hands those jobs back; if a worker dies, the leases of its jobs end and another worker takes them.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import socket
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from secrets import token_hex
from time import monotonic
from typing import Any, TypeVar, cast

from redis.exceptions import RedisError

from app.artifacts import Artifacts, ArtifactsError, lora_name
from app.asyncio_utils import Signal, cancel_and_wait
from app.jobs import Job
from app.logs import Log
from app.queue.queue import Queue
from app.settings import Settings
from app.worker.jobs.claim import claim
from app.worker.jobs.job_run import JobRun
from app.worker.jobs.leases import Leases
from app.worker.jobs.model_rotation import ModelRotation
from app.worker.jobs.planner import Rules
from app.worker.models.served_models import ServedModels
from app.worker.protocol import Engine, Room
from app.worker.recorder import Recorder

__all__ = ["Worker"]

CLAIM_S = 1.0  # between two looks at the queue if no job comes in and none ends
IDLE_S = 0.05  # after so long without a job, a worker loads the next model
LEAVE_S = 5.0  # to reach the next denoiser call; after that the jobs are handed back while the engine is still at it
LOOK_S = 1.0  # between two looks at the queues of models that are not on this machine
REDIS_RETRY_S = 1.0
#: After Redis took no writes, which a worker that starts assumes, the others have this long to renew their leases or to
#: report before those that ended are reaped.
GRACE_S = 3 * REDIS_RETRY_S
STORE_PATIENCE_S = 300.0  # a bucket may be away for so long; a finished image is worth the wait
UNSTORED_MAX = 2  # rooms full of a model's results that may wait for the store before no more is claimed
SWEEP_S = 600.0
#: After which the file of a LoRA that is not registered is left over. No upload takes as long.
LEFTOVER_S = 86_400.0
T = TypeVar("T")
_log = Log("worker")


class Worker:
    """Serves models on one device. `make_engine` is called in a thread, since it imports torch."""

    def __init__(
        self,
        settings: Settings,
        queue: Queue,
        models: ServedModels,
        make_engine: Callable[[Recorder], Engine],
    ) -> None:
        self.name = f"w-{token_hex(4)}"
        self.recorder = Recorder()
        self.metrics_at = ""  # host:port at which they are shown
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
        self._stopping = asyncio.Event()
        self._hurrying = asyncio.Event()
        self._changed = asyncio.Event()  # something to announce
        self._wake = Signal()  # a job came in or ended
        self._leases = Leases(self.name, settings.lease_s, queue)
        self._runs: dict[asyncio.Task[None], JobRun] = {}
        self._device_failed: asyncio.Future[int] | None = None  # raises what a job raised

    def stop(self) -> None:
        """Claims no more and finishes within settings.drain_s; told again, leaves the jobs at their next step."""
        if self._stopping.is_set():
            self._hurrying.set()
        self._stopping.set()
        self._wake.set()

    async def run(self) -> int:
        """Works until told to stop; the exit code: 0, or 1 if nothing could be loaded or the engine is stuck."""
        _log.info("worker_started", worker=self.name, pid=os.getpid(), host=socket.gethostname())
        self._device_failed = asyncio.get_running_loop().create_future()
        works = (self._serve(), self._keep_leases(), self._maintain(), self._sweep())
        tasks = [asyncio.create_task(work) for work in works]
        try:
            # Serving ends when told to; the others end only by failing, and then so does the worker.
            ended, _ = await asyncio.wait([*tasks, self._device_failed], return_when=asyncio.FIRST_COMPLETED)
            return max(task.result() for task in ended)
        finally:
            self._device_failed.cancel()
            for task in (*tasks, *self._runs):
                if not task.done():
                    await cancel_and_wait(task)
            if self._engine is not None:
                self._engine.states.on_change = self._engine.on_room = lambda: None  # this loop is about to be closed
                self._engine.close()
            _log.info(
                "worker_counted", **{f"{event}:{model}": n for (event, model), n in self.recorder.counts().items()}
            )
            with contextlib.suppress(RedisError):  # its announcement ends by itself
                await self._queue.registry.retire(self.name)

    async def _serve(self) -> int:
        engine = await self._start_engine()
        if engine is None:
            return 0 if self._stopping.is_set() else 1
        rotation = ModelRotation(self._serving)
        async with self._queue.watch_arrivals(self._serving, self._wake):
            while not self._stopping.is_set():
                if self._failed >= set(self._serving) and not engine.warm:
                    return 1
                self._wake.clear()
                try:
                    await self._download_requested_models(engine)
                    has_claimed = await self._claim(engine, rotation)
                except RedisError as error:
                    _log.warning("redis_away", error=type(error).__name__)
                    await asyncio.sleep(REDIS_RETRY_S)
                    continue
                if has_claimed:
                    continue
                if not self._cold or self._runs:
                    await self._wake.within(CLAIM_S)
                elif not await self._wake.within(IDLE_S):
                    await self._load_next_model(engine)
        await self._drain()
        return 0

    async def _claim(self, engine: Engine, rotation: ModelRotation) -> bool:
        """Claims jobs of the first model that has some and room for them, and starts them."""
        if any(run.job.attempts > 1 for run in self._runs.values()):
            return False  # a job that another worker died with runs alone
        ready = [model for model in self._serving if engine.takes_jobs(model)]
        fitting = {model for model in ready if engine.fits(model)}
        warm = {*engine.warm, *fitting.intersection(self._cold)}  # a model that is yet to be made warm evicts none
        loadable = fitting if self._runs else ready
        rooms = {model: self._room(engine, model) for model in rotation.order(warm, loadable) if model in ready}
        rules = Rules(oldest_wait_ms=round(self._settings.oldest_wait_s * 1000))
        jobs = await claim(self._queue, self.name, rooms, rules)
        if jobs:
            model = jobs[0].request.model
            rotation.note_claim(model, warm, sum(job.request.cost for job in jobs) / rooms[model].whole)
        for job in jobs:
            self._start_job(job, engine)
        return bool(jobs)

    def _room(self, engine: Engine, model: str) -> Room:
        """Returns the engine's room less what it does not know yet; none while too many results wait for the store."""
        free, whole, _ = engine.room(model)
        runs = [run for run in self._runs.values() if run.job.request.model == model]
        free -= sum(run.job.request.cost for run in runs if not run.is_submitted)
        if sum(run.job.request.cost for run in runs if run.is_generated) > UNSTORED_MAX * whole:
            free = 0
        return Room(free, whole, len(self._runs))

    def _start_job(self, job: Job, engine: Engine) -> None:
        run = JobRun(self.name, job, self._leases, self._queue, self._artifacts, engine, self.recorder)
        run.control.is_cancelled = self._stopping.is_set()
        task = asyncio.create_task(run.run())
        self._runs[task] = run
        task.add_done_callback(self._forget_job)

    def _forget_job(self, task: asyncio.Task[None]) -> None:
        del self._runs[task]
        self._wake.set()
        if task.cancelled() or (error := task.exception()) is None:
            return
        if self._device_failed is not None and not self._device_failed.done():
            self._device_failed.set_exception(error)

    async def _drain(self) -> None:
        """Finishes the running jobs within the time there is; then leaves the rest and hands them back."""
        if not self._runs:
            return
        _log.info("draining", worker=self.name, jobs=len(self._runs), drain_s=self._settings.drain_s)
        hurried: asyncio.Future[Any] = asyncio.create_task(self._hurrying.wait())
        finished: asyncio.Future[Any] = asyncio.gather(*self._runs, return_exceptions=True)
        await asyncio.wait({finished, hurried}, timeout=self._settings.drain_s, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        for run in self._runs.values():
            run.control.is_cancelled = True
        await asyncio.wait({finished}, timeout=LEAVE_S)
        if self._runs:
            await self._leases.release(*(run.job.id for run in self._runs.values()))

    async def _start_engine(self) -> Engine | None:
        """Returns the engine, with the first model that can be kept warm; None if it cannot be made, or when told to
        stop.
        """
        thread = ThreadPoolExecutor(1, thread_name_prefix="engine start")
        try:
            engine = await self._wait_unless_stopped(thread.submit(self._make_engine, self.recorder))
        except Exception as error:  # a device that is not there, a library that does not load
            _log.error("engine_failed", error=type(error).__name__, message=error)
            return None
        finally:
            thread.shutdown(wait=False)
        if engine is None:
            return None
        self._engine = engine
        loop = asyncio.get_running_loop()
        engine.states.on_change = partial(loop.call_soon_threadsafe, self._changed.set)
        engine.on_room = partial(loop.call_soon_threadsafe, self._wake.set)
        engine.start()
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
            await self._load_next_model(engine)
        if self._stopping.is_set():
            return None
        self._serving = self._models.served
        self._changed.set()
        return engine

    async def _load_next_model(self, engine: Engine) -> None:
        """Loads the next of the models to be kept warm, if it fits."""
        model = self._cold.pop(0)
        if model not in self._models.required and not engine.fits(model):
            _log.info("model_left_cold", model=model, reason="no room for it")
            return
        count = len(self._models.warm)
        _log.info("model_loading", model=model, number=count - len(self._cold) - len(self._awaited), of=count)
        try:
            await self._wait_unless_stopped(engine.load(model))
        except Exception as error:  # a model that cannot be loaded leaves the others their worker
            _log.error("model_failed", model=model, error=type(error).__name__, message=error)
            self._failed.add(model)

    async def _wait_unless_stopped(self, future: Future[T]) -> T | None:
        """Waits for a thread's result; returns None as soon as the worker is told to stop."""
        result: asyncio.Future[Any] = asyncio.wrap_future(future)
        stopped: asyncio.Future[Any] = asyncio.create_task(self._stopping.wait())
        await asyncio.wait([result, stopped], return_when=asyncio.FIRST_COMPLETED)
        if not result.done():
            return None
        stopped.cancel()
        return cast(T, result.result())

    async def _download_requested_models(self, engine: Engine) -> None:
        """Begins the download of models that jobs wait for; a required model is loaded after its download."""
        ready = [model for model in self._awaited if engine.takes_jobs(model)]
        self._awaited = [model for model in self._awaited if model not in ready]
        self._cold += ready
        absent = {model for model in self._serving if not engine.takes_jobs(model)}
        if absent and monotonic() >= self._looked_s + LOOK_S:
            self._looked_s = monotonic()
            for load in await self._queue.loads():
                if load.queued and load.model in absent:
                    engine.download(load.model)

    async def _keep_leases(self) -> int:
        """Renews the leases until the engine is stuck.

        Then the worker ends and hands nothing back: the attempt counts, so a job that always hangs is a dead letter.
        """
        limit_s = self._settings.stuck_s
        await self._leases.keep(lambda: self._engine is not None and self._engine.stuck_s > limit_s)
        _log.error("engine_stuck", worker=self.name, stuck_s=limit_s, jobs=len(self._runs))
        return 1

    async def _maintain(self) -> int:
        """Stays in the registry, reaps the leases of workers that died, ends jobs that are late."""
        writable_since_s = math.inf
        while True:
            try:
                await self._announce()
                writable_since_s = min(writable_since_s, monotonic())
                if monotonic() - writable_since_s >= GRACE_S:
                    await self._queue.maintenance.reap([run.job.id for run in self._runs.values()])
                await self._queue.maintenance.expire()
                await self._queue.maintenance.repair_indexes()
                await self._queue.maintenance.forget()
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
        """Removes old artifacts and remains of LoRAs during all other work: a bucket may take long."""
        while True:
            try:
                await self._artifacts.sweep()
                await self._remove_leftovers()
            except (ArtifactsError, OSError, RedisError) as error:
                _log.warning("sweep_failed", error=error)
            await asyncio.sleep(SWEEP_S)

    async def _remove_leftovers(self) -> None:
        """Removes the files of LoRAs whose upload or removal was cut off."""
        while versions := await self._queue.loras.leftovers(LEFTOVER_S):
            for version in versions:
                await self._artifacts.delete(lora_name(version))
                await self._queue.loras.forget_file(version)
                _log.info("lora_leftover_removed", version=version)

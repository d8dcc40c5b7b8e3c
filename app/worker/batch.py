"""The jobs of one claim, from the lease to the result."""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from time import monotonic, time
from typing import TypeVar

from PIL import Image
from redis.exceptions import RedisError

from app.artifacts import Artifacts, ArtifactsError
from app.formats import MEDIA_TYPES
from app.jobs import Job, JobError, Result, Timings
from app.logs import Log
from app.queue.cancel import end
from app.queue.queue import Queue
from app.worker.encode import encode
from app.worker.leases import Leases
from app.worker.recorder import Event, Recorder
from app.worker.spans import Ended
from app.worker.storing import Storing
from app.worker.work import Control, Engine, Made, Preview, Stopped

__all__ = ["Batch"]

PREVIEW_QUALITY = 80  # of a jpeg
REDIS_RETRY_S = 1.0
T = TypeVar("T")
_log = Log("worker")


class Batch:
    """One claim at work. While it runs, its leases are kept; what it is told to leave, it hands back."""

    def __init__(
        self, worker: str, jobs: Sequence[Job], lease_s: float,
        queue: Queue, artifacts: Artifacts, engine: Engine, thread: Executor, recorder: Recorder,
    ) -> None:  # fmt: skip
        self._worker = worker
        self._jobs = jobs
        self._queue = queue
        self._artifacts = artifacts
        self._engine = engine
        self._thread = thread
        self._recorder = recorder
        self.denoised = asyncio.Event()  # only decoding is left: the next batch may begin
        loop = asyncio.get_running_loop()
        self._control = Control(
            on_denoised=partial(loop.call_soon_threadsafe, self.denoised.set),
            on_preview=lambda preview: loop.call_soon_threadsafe(self._show, preview),
        )
        self._shown: dict[asyncio.Task[None], str] = {}  # previews, by their job
        self._telling: defaultdict[tuple[str, int], asyncio.Lock] = defaultdict(asyncio.Lock)  # by picture
        self._leases = Leases(worker, jobs, lease_s, queue, self._control)
        self._storing = Storing(worker, queue, artifacts, recorder)
        self._claimed_s, self._claimed_at = monotonic(), time()
        self._ended: list[Ended] = []

    def stop(self) -> None:
        """Leave the work at its next step."""
        self._control.stopping = True

    async def abandon(self) -> None:
        """Hand back what is held, whatever the torch thread is at."""
        self.stop()
        await self._leases.release()

    async def run(self) -> None:
        """Run, store, finish. Raises only where the device has failed for good: then the leases end by themselves,
        and count.
        """
        try:
            async with self._leases.kept():
                await self._attempt(await self._fetched(self._jobs))
        finally:
            for task in self._shown:
                await end(task)
        await self._leases.release()
        self._recorder.ended(self._worker, self._claimed_at, self._ended)

    async def _fetched(self, jobs: Sequence[Job]) -> list[Job]:
        """The jobs whose pictures to start from are at hand now; the others have failed."""
        ready: list[Job] = []
        for job in jobs:
            names = () if job.request.edit is None else job.request.edit.names
            try:
                self._control.files.update({name: await self._artifacts.read(name) for name in names})
                ready.append(job)
            except FileNotFoundError:
                await self._end(job, JobError("input_gone", "the picture to start from is no longer kept"))
            except ArtifactsError as error:
                _log.error("input_not_read", job=job.id, error=error)
                await self._end(job, JobError("input_not_read", "the picture to start from could not be read"))
        return ready

    async def _attempt(self, jobs: Sequence[Job]) -> None:
        """Run jobs together; where that raises, each half of them, so that a job the model cannot take fails alone."""
        if not jobs:
            return
        failure = ""
        try:
            outcomes = await self._in_thread(lambda: self._engine.run(jobs, self._control))
        except Stopped:
            return
        except Exception as error:  # whatever a model raises is that job's outcome, never the loop's end
            failure = type(error).__name__
            _log.error("batch_raised", jobs=len(jobs), error=failure, **_described(error, jobs))
        if not failure:
            # Where this process stood still, others may have taken the jobs, and made the files.
            await self._leases.renew()
            await asyncio.gather(*self._shown)  # nothing is told of a job that has ended
            try:
                for job in jobs:
                    if job.id in self._leases:  # not taken from us meanwhile
                        await self._end(job, outcomes[job.id])
            finally:
                for each in outcomes.values():
                    if isinstance(each, Made):
                        each.close()
            return
        # Only here is the exception gone, and with its frames the tensors they held.
        await self._in_thread(self._engine.recover)
        if len(jobs) == 1:
            await self._end(jobs[0], JobError("generation_failed", f"the model could not generate this ({failure})"))
            return
        self._recorder.add(Event.BATCH_BISECTED, jobs[0].request.model)
        for half in (jobs[: len(jobs) // 2], jobs[len(jobs) // 2 :]):
            if held := [job for job in half if job.id in self._leases]:
                await self._attempt(held)

    def _show(self, preview: Preview) -> None:
        if self._control.stopping:
            return
        self._shown[asyncio.create_task(self._tell(preview), name="preview")] = preview.job_id

    async def _tell(self, preview: Preview) -> None:
        async with self._telling[preview.job_id, preview.index]:  # fair, so an earlier step is never told after a later
            picture = await asyncio.to_thread(encode, Image.fromarray(preview.pixels), "jpeg", PREVIEW_QUALITY)
            with contextlib.suppress(RedisError):  # there will be others, and the picture itself
                await self._queue.preview(
                    self._worker, preview.job_id, preview.step, preview.index, picture, MEDIA_TYPES["jpeg"]
                )

    async def _end(self, job: Job, outcome: Made | JobError) -> None:
        # Without the files: what is noted stays until the whole batch is over.
        made = replace(outcome, files=(), thumbnails=()) if isinstance(outcome, Made) else None
        storing_at = time()
        end = await self._result(job, outcome) if isinstance(outcome, Made) else outcome
        stored_at = time()
        async with self._leases.ending(job.id):
            if isinstance(end, Result):
                if not await self._insist(lambda: self._queue.finish(self._worker, job.id, end)):
                    await self._storing.take_back(job.id, end)
            else:
                await self._insist(lambda: self._queue.fail(self._worker, job.id, end))
        error = end.code if isinstance(end, JobError) else None
        self._ended.append(Ended(job, made, error, storing_at, stored_at, time()))

    async def _result(self, job: Job, made: Made) -> Result | JobError:
        """Its files are stored by then: a completed job's artifacts can be fetched."""
        try:
            artifacts = await self._storing.store(job, made)
        except ArtifactsError as error:
            _log.error("artifact_not_stored", job=job.id, error=error)
            return JobError("artifact_not_stored", "the result could not be stored")
        queue_ms = ((job.started_at or job.created_at) - job.created_at) * 1000
        timings = Timings(
            queue_ms=queue_ms,
            encode_ms=made.encode_ms,
            denoise_ms=made.denoise_ms,
            decode_ms=made.decode_ms,
            total_ms=queue_ms + (monotonic() - self._claimed_s) * 1000,
        )
        warnings = job.warnings + made.warnings
        if job.request.previews and job.id not in self._shown.values():
            warnings += ("previews: none could be made",)
        return Result(artifacts, made.applied, made.batch_size, timings, warnings)

    async def _insist(self, call: Callable[[], Awaitable[bool]]) -> bool:
        """Through a Redis that is away for a while: the work is done, so only its report is tried again."""
        while True:
            try:
                return await call()
            except RedisError as error:
                _log.warning("redis_away", error=type(error).__name__)
                if self._control.stopping:
                    return False
                await asyncio.sleep(REDIS_RETRY_S)

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)


def _described(error: Exception, jobs: Sequence[Job]) -> dict[str, str]:
    """An exception for the log: where it was raised and its message, with every prompt struck out."""
    message = str(error)
    for job in jobs:
        nag = job.request.nag
        for text in (job.request.prompt, job.request.negative_prompt, nag.negative_prompt if nag else None):
            message = message.replace(text, "…") if text else message
    frames = traceback.extract_tb(error.__traceback__)
    return {"at": f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "", "message": message}

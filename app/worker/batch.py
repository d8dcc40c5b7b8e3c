"""The jobs of one claim, from the lease to the result."""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from time import monotonic, time
from typing import TypeVar

from PIL import Image
from redis.exceptions import RedisError

from app.artifacts import Artifacts, ArtifactsError, artifact_name
from app.formats import MEDIA_TYPES
from app.jobs import Artifact, Job, JobError, Result, Timings
from app.logs import Log
from app.queue.cancel import end
from app.queue.queue import Queue
from app.worker.encode import encode
from app.worker.recorder import Event, Recorder, Stage
from app.worker.spans import Ended
from app.worker.work import Control, Engine, Made, Preview, Stopped

__all__ = ["Batch"]

BEAT_S = 1.0  # between two heartbeats where no step is done; the lease may ask for more
PREVIEW_QUALITY = 80  # of a jpeg
STEP_S = 0.1  # between two heartbeats where steps are quicker
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
        self._beat_s = min(BEAT_S, lease_s / 3)
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
        self._held = {job.id for job in jobs}
        self._lease = asyncio.Lock()  # a heartbeat never crosses the end of a job, which it would take for a loss
        self._claimed_s, self._claimed_at = monotonic(), time()
        self._ended: list[Ended] = []

    def stop(self) -> None:
        """Leave the work at its next step."""
        self._control.stopping = True

    async def abandon(self) -> None:
        """Hand back what is held, whatever the torch thread is at."""
        self.stop()
        await self._release(list(self._held))

    async def run(self) -> None:
        """Run, store, finish. Raises only where the device has failed for good: then the leases end by themselves,
        and count.
        """
        try:
            async with self._leases_kept():
                await self._attempt(await self._fetched(self._jobs))
        finally:
            for task in self._shown:
                await end(task)
        await self._release(self._held)
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
            async with self._lease:
                await self._heartbeat()
            await asyncio.gather(*self._shown)  # nothing is told of a job that has ended
            try:
                for job in jobs:
                    if job.id in self._held:  # not taken from us meanwhile
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
            if held := [job for job in half if job.id in self._held]:
                await self._attempt(held)

    def _show(self, preview: Preview) -> None:
        if self._control.stopping:
            return
        self._shown[asyncio.create_task(self._tell(preview), name="preview")] = preview.job_id

    async def _tell(self, preview: Preview) -> None:
        picture = await asyncio.to_thread(encode, Image.fromarray(preview.pixels), "jpeg", PREVIEW_QUALITY)
        with contextlib.suppress(RedisError):  # there will be others, and the picture itself
            await self._queue.preview(
                self._worker, preview.job_id, preview.step, preview.index, picture, MEDIA_TYPES["jpeg"]
            )

    async def _end(self, job: Job, outcome: Made | JobError) -> None:
        # Without the files: what is noted stays until the whole batch is over.
        made = replace(outcome, files=(), thumbnails=()) if isinstance(outcome, Made) else None
        storing_at = time()
        end = await self._stored(job, outcome) if isinstance(outcome, Made) else outcome
        stored_at = time()
        async with self._lease:
            self._held.discard(job.id)
            if isinstance(end, Result):
                if not await self._insist(lambda: self._queue.finish(self._worker, job.id, end)):
                    await self._unstore(job.id, end)
            else:
                await self._insist(lambda: self._queue.fail(self._worker, job.id, end))
        error = end.code if isinstance(end, JobError) else None
        self._ended.append(Ended(job, made, error, storing_at, stored_at, time()))

    async def _stored(self, job: Job, made: Made) -> Result | JobError:
        """The result, its files saved first: a completed job's artifacts can be fetched."""
        artifacts: list[Artifact] = []
        for index, (data, seed) in enumerate(zip(made.files, made.seeds, strict=True)):
            name = artifact_name(job.id, index, job.request.output_format)
            beside = artifact_name(job.id, index, "jpeg") if made.thumbnails else None
            try:
                with self._recorder.timed(Stage.STORE, job.request.model):
                    size_bytes = await self._artifacts.save(name, data)
                    artifacts.append(Artifact(name, made.media_type, size_bytes, seed, beside))
                    if beside is not None:
                        await self._artifacts.save(beside, made.thumbnails[index])
            except ArtifactsError as error:
                _log.error("artifact_not_stored", job=job.id, error=error)
                await self._delete(name for each in artifacts for name in each.names)
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
        return Result(tuple(artifacts), made.applied, made.batch_size, timings, warnings)

    async def _unstore(self, job_id: str, result: Result) -> None:
        """Files of a job that did not end with them; its own are another worker's, under other names."""
        try:
            job = await self._queue.get(job_id)
        except RedisError:
            return  # what is left is swept
        if job is not None and not job.status.terminal and job.worker == self._worker:
            return  # nobody knows whether Redis heard of them before it went away
        kept = _names(job.result) if job is not None and job.result is not None else set()
        await self._delete(_names(result) - kept)

    async def _delete(self, names: Iterable[str]) -> None:
        with contextlib.suppress(ArtifactsError):  # what is left is swept
            await self._artifacts.delete(*names)

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

    @contextlib.asynccontextmanager
    async def _leases_kept(self) -> AsyncIterator[None]:
        beating = asyncio.create_task(self._beat(), name="heartbeat")
        try:
            yield
        finally:
            await end(beating)

    async def _beat(self) -> None:
        gap_s = min(STEP_S, self._beat_s)
        async with self._queue.revocations(job.id for job in self._jobs) as changed:
            self._control.on_step = partial(asyncio.get_running_loop().call_soon_threadsafe, changed.set)
            while True:  # at once: what was revoked before the watch began is found out here
                async with self._lease:
                    await self._heartbeat()
                await asyncio.sleep(gap_s)
                await changed.within(self._beat_s - gap_s)

    async def _heartbeat(self) -> None:
        if not self._held:
            return
        try:
            lost = await self._queue.heartbeat(self._worker, sorted(self._held), self._control.step)
        except RedisError as error:
            _log.warning("redis_away", error=type(error).__name__)
            return
        self._held.difference_update(lost)
        if not self._held:  # nobody wants this batch any more
            self.stop()

    async def _release(self, job_ids: Iterable[str]) -> None:
        ids = list(job_ids)
        if not ids:
            return
        async with self._lease:
            self._held.difference_update(ids)
            try:
                await self._queue.release(self._worker, ids)
            except RedisError as error:  # their leases end by themselves
                _log.warning("redis_away", error=type(error).__name__)

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)


def _names(result: Result) -> set[str]:
    return {name for each in result.artifacts for name in each.names}


def _described(error: Exception, jobs: Sequence[Job]) -> dict[str, str]:
    """An exception for the log: where it was raised and its message, with every prompt struck out."""
    message = str(error)
    for job in jobs:
        nag = job.request.nag
        for text in (job.request.prompt, job.request.negative_prompt, nag.negative_prompt if nag else None):
            message = message.replace(text, "…") if text else message
    frames = traceback.extract_tb(error.__traceback__)
    return {"at": f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "", "message": message}

"""One claimed job, from its lease to its result."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Awaitable, Callable
from time import monotonic, time
from typing import BinaryIO

from PIL import Image
from redis.exceptions import RedisError

from app.artifacts import Artifacts, ArtifactsError
from app.asyncio_utils import cancel_and_wait
from app.formats import MEDIA_TYPES
from app.jobs import InputFiles, InputRole, Job, JobError, Result, Timings
from app.logs import Log
from app.queue.queue import Queue
from app.worker.jobs.artifact_writer import ArtifactWriter
from app.worker.jobs.leases import Leases
from app.worker.jobs.spans import trace
from app.worker.outputs.encode import encode
from app.worker.protocol import Engine, JobCancelled, JobControl, JobOutput, Preview
from app.worker.recorder import Recorder

__all__ = ["JobRun"]

PREVIEW_QUALITY = 80  # of a JPEG
REDIS_RETRY_S = 1.0
_log = Log("worker")


class JobRun:
    """Runs one job in the engine and reports its progress and its end. It shares nothing with other jobs."""

    def __init__(
        self, worker: str, job: Job, leases: Leases, queue: Queue, artifacts: Artifacts, engine: Engine,
        recorder: Recorder,
    ) -> None:  # fmt: skip
        loop = asyncio.get_running_loop()
        self.job = job
        self.control = JobControl(on_preview=lambda preview: loop.call_soon_threadsafe(self._on_preview, preview))
        self.is_submitted = False  # the engine knows of it
        self.is_generated = False  # the engine is done with it
        self._worker = worker
        self._leases = leases
        self._queue = queue
        self._artifacts = artifacts
        self._writer = ArtifactWriter(worker, queue, artifacts, recorder)
        self._engine = engine
        self._recorder = recorder
        self._previews: set[asyncio.Task[None]] = set()
        self._preview_locks: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)  # by image
        self._claimed_s, self._claimed_at = monotonic(), time()

    async def run(self) -> None:
        """Generates and stores the job's files and reports its end; a job that was cancelled is handed back if held.

        Raises only if the device has failed for good: then the lease ends by itself, and the attempt counts.
        """
        try:
            async with self._leases.hold(self.job.id, self.control):
                outcome = await self._generate()
                if outcome is None:
                    await self._leases.release(self.job.id)
                    return
                try:
                    await self._finish(outcome)
                finally:
                    if isinstance(outcome, JobOutput):
                        outcome.close()
        finally:
            for task in self._previews:
                await cancel_and_wait(task)

    async def _generate(self) -> JobOutput | JobError | None:
        """Returns what the engine made; None if the job was cancelled or taken away."""
        files = await self._load_inputs()
        if isinstance(files, JobError):
            return files
        if self.control.is_cancelled:
            return None
        future = self._engine.submit(self.job, files, self.control)
        self.is_submitted = True
        try:
            outcome = await asyncio.shield(asyncio.wrap_future(future))
        except JobCancelled:
            return None
        finally:
            self.is_generated = True
        # If this process stood still, another worker may have taken the job and made its files.
        await self._leases.renew(self.job.id)
        await asyncio.gather(*self._previews)  # none is published after the job's end
        if self.job.id in self._leases:
            return outcome
        if isinstance(outcome, JobOutput):
            outcome.close()
        return None

    async def _load_inputs(self) -> InputFiles | JobError:
        """Reads the files that the job starts from; a video stays on the disk."""
        files: dict[str, bytes | BinaryIO] = {}
        try:
            for file in self.job.request.inputs:
                is_video = file.role is InputRole.VIDEO
                files[file.name] = await (self._artifacts.open_file if is_video else self._artifacts.read)(file.name)
        except FileNotFoundError:
            return JobError("input_gone", "a file that the job starts from is no longer kept")
        except ArtifactsError as error:
            _log.error("input_not_read", job=self.job.id, error=error)
            return JobError("input_not_read", "a file that the job starts from could not be read")
        return files

    def _on_preview(self, preview: Preview) -> None:
        if not self.control.is_cancelled:
            self._previews.add(asyncio.create_task(self._publish_preview(preview), name="preview"))

    async def _publish_preview(self, preview: Preview) -> None:
        async with self._preview_locks[preview.index]:  # fair, so an earlier step is never published after a later one
            image = await asyncio.to_thread(encode, Image.fromarray(preview.pixels), "jpeg", PREVIEW_QUALITY)
            with contextlib.suppress(RedisError):  # there will be others, and the image itself
                await self._queue.publish_preview(
                    self._worker, preview.job_id, preview.step, preview.index, image, MEDIA_TYPES["jpeg"]
                )

    async def _finish(self, outcome: JobOutput | JobError) -> None:
        storing_at = time()
        result = await self._store(outcome) if isinstance(outcome, JobOutput) else outcome
        stored_at = time()
        await self._leases.drop(self.job.id)
        if isinstance(result, JobError):
            await self._retry_until_redis_back(lambda: self._queue.fail(self._worker, self.job.id, result))
        elif not await self._retry_until_redis_back(lambda: self._queue.finish(self._worker, self.job.id, result)):
            await self._writer.discard(self.job.id, result)
        if self._recorder.tracing is not None:
            output = outcome if isinstance(outcome, JobOutput) else None
            error = result.code if isinstance(result, JobError) else None
            trace(
                self._recorder.tracing, self._worker, self.job, output, error, self._claimed_at, storing_at, stored_at
            )  # fmt: skip

    async def _store(self, output: JobOutput) -> Result | JobError:
        """Stores the files first: the artifacts of a completed job can be fetched."""
        job = self.job
        try:
            artifacts = await self._writer.store(job, output)
        except ArtifactsError as error:
            _log.error("artifact_not_stored", job=job.id, error=error)
            return JobError("artifact_not_stored", "the result could not be stored")
        queue_ms = ((job.started_at or job.created_at) - job.created_at) * 1000
        timings = Timings(
            queue_ms=queue_ms,
            encode_ms=output.encode_ms,
            denoise_ms=output.denoise_ms,
            decode_ms=output.decode_ms,
            total_ms=queue_ms + (monotonic() - self._claimed_s) * 1000,
        )
        warnings = job.warnings + output.warnings
        if job.request.previews and not self._previews:
            warnings += ("previews: none could be made",)
        return Result(artifacts, output.applied, output.batch_size, timings, warnings)

    async def _retry_until_redis_back(self, call: Callable[[], Awaitable[bool]]) -> bool:
        """Repeats the report alone: the work is done. Returns False if the worker must end before Redis is back."""
        while True:
            try:
                return await call()
            except RedisError as error:
                _log.warning("redis_away", error=type(error).__name__)
                if self.control.is_cancelled:
                    return False
                await asyncio.sleep(REDIS_RETRY_S)

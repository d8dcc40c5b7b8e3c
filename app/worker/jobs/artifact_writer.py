"""Stores the files of a job before it is completed, and removes them if the job ended without them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from redis.exceptions import RedisError

from app.artifacts import Artifacts, ArtifactsError, artifact_name
from app.jobs import Artifact, Job, Result
from app.queue.queue import Queue
from app.worker.protocol import JobOutput
from app.worker.recorder import Recorder, Stage

__all__ = ["ArtifactWriter"]


class ArtifactWriter:
    def __init__(self, worker: str, queue: Queue, artifacts: Artifacts, recorder: Recorder) -> None:
        self._worker = worker
        self._queue = queue
        self._artifacts = artifacts
        self._recorder = recorder

    async def store(self, job: Job, output: JobOutput) -> tuple[Artifact, ...]:
        """Raises ArtifactsError; then none is left."""
        artifacts: list[Artifact] = []
        for index, (data, seed) in enumerate(zip(output.files, output.seeds, strict=True)):
            name = artifact_name(job.id, index, job.request.output_format)
            beside = artifact_name(job.id, index, "jpeg") if output.thumbnails else None
            try:
                with self._recorder.timed(Stage.STORE, job.request.model):
                    size_bytes = await self._artifacts.save(name, data)
                    artifacts.append(Artifact(name, output.media_type, size_bytes, seed, beside))
                    if beside is not None:
                        await self._artifacts.save(beside, output.thumbnails[index])
            except ArtifactsError:
                await self._delete(_names(artifacts))
                raise
        return tuple(artifacts)

    async def discard(self, job_id: str, result: Result) -> None:
        """Removes files of a job that ended without them. Files of another worker's try have other names, and stay."""
        try:
            job = await self._queue.get(job_id)
        except RedisError:
            return  # what is left is swept
        if job is not None and not job.status.is_terminal and job.worker == self._worker:
            return  # nobody knows whether Redis heard of them before it went away
        kept = _names(job.result.artifacts) if job is not None and job.result is not None else set()
        await self._delete(_names(result.artifacts) - kept)

    async def _delete(self, names: set[str]) -> None:
        with contextlib.suppress(ArtifactsError):  # what is left is swept
            await self._artifacts.delete(*names)


def _names(artifacts: Iterable[Artifact]) -> set[str]:
    return {name for each in artifacts for name in each.names}

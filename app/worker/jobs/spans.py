"""Spans of a job's wait and work: added to its trace when it has ended, from the times that were noted."""

from __future__ import annotations

from time import time

from app.jobs import Job
from app.tracing import Tracing, Value
from app.worker.protocol import JobOutput

__all__ = ["trace"]


def trace(
    tracing: Tracing, worker: str, job: Job, output: JobOutput | None, error: str | None, claimed_at: float,
    storing_at: float, stored_at: float,
) -> None:  # fmt: skip
    """Adds the wait and the work, by stage, of a job that has just ended to its trace.

    `error` is its error's code; times are Unix seconds.
    """
    if not job.trace:
        return
    about: dict[str, Value] = {"job": job.id, "model": job.request.model, "attempts": job.attempts, "worker": worker}
    tracing.span("queue", job.trace, job.created_at, job.started_at or claimed_at, {"job": job.id})
    work = tracing.span("work", job.trace, claimed_at, time(), about, error=error)
    if output is None:
        return
    denoising: dict[str, Value] = {
        "steps": job.request.steps,
        "batch_size": output.batch_size,  # most images that shared a denoiser call
        "first_step_wait_ms": round((output.first_step_at - claimed_at) * 1000, 1),
    }
    # One after the other; for a job of several pipeline calls, each stage as if it were one.
    at = output.begun_at
    for name, took_ms in (("encode", output.encode_ms), ("denoise", output.denoise_ms), ("decode", output.decode_ms)):
        tracing.span(name, work, at, at + took_ms / 1000, denoising if name == "denoise" else {})
        at += took_ms / 1000
    tracing.span("store", work, storing_at, stored_at, {"files": len(output.seeds)})

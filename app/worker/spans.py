"""What a worker's batch was to its jobs, as spans: made when it is over, from the times that were noted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.jobs import Job
from app.tracing import Tracing, Value
from app.worker.work import Made

__all__ = ["Ended", "trace"]


@dataclass(frozen=True)
class Ended:
    """A job of the batch; times are Unix seconds."""

    job: Job
    made: Made | None  # without its files
    error: str | None  # its code
    storing_at: float
    stored_at: float
    ended_at: float


def trace(tracing: Tracing, worker: str, claimed_at: float, ended: Sequence[Ended]) -> None:
    """In each job's own trace its wait and its work, by stage; the batch in one of its own, linked both ways."""
    traced = [each for each in ended if each.job.trace]
    if not traced:
        return
    jobs: dict[str, Value] = {"jobs": len(ended), "model": ended[0].job.request.model, "worker": worker}
    links = [each.job.trace for each in traced]
    batch = tracing.span("batch", "", claimed_at, max(each.ended_at for each in ended), jobs, links)
    for each in traced:
        _trace_job(tracing, worker, claimed_at, each, batch)


def _trace_job(tracing: Tracing, worker: str, claimed_at: float, ended: Ended, batch: str) -> None:
    job, made = ended.job, ended.made
    about: dict[str, Value] = {"job": job.id, "model": job.request.model, "attempts": job.attempts, "worker": worker}
    tracing.span("queue", job.trace, job.created_at, job.started_at or claimed_at, {"job": job.id})
    work = tracing.span("work", job.trace, claimed_at, ended.ended_at, about, [batch], ended.error)
    if made is None:
        return
    # One after the other; of a job in several pipeline calls, each stage as if it were one.
    at = made.begun_at
    for name, took_ms in (("encode", made.encode_ms), ("denoise", made.denoise_ms), ("decode", made.decode_ms)):
        about = {"steps": job.request.steps, "batch_size": made.batch_size} if name == "denoise" else {}
        tracing.span(name, work, at, at + took_ms / 1000, about)
        at += took_ms / 1000
    tracing.span("store", work, ended.storing_at, ended.stored_at, {"files": len(made.seeds)})

"""The parts of a response that describe the result of a job, common to all routes."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from app.errors import Conflict, Gone, InvalidParameter, ServiceError
from app.jobs import PROMPT_TOO_LONG, Job, JobError, JobStatus, Result

__all__ = ["BATCH_SIZE", "OMITTED_IF_NONE", "completed_result", "echo", "time_headers"]

BATCH_SIZE = Field(description="most images or videos, its own included, that shared a denoiser call")


def _drop_default(schema: dict[str, Any]) -> None:
    schema.pop("default", None)


#: Of keys that OpenAI leaves out: strict clients refuse a null in their place.
OMITTED_IF_NONE = Field(exclude_if=lambda value: value is None, json_schema_extra=_drop_default)


def completed_result(job: Job) -> Result:
    """Returns the result, or the error that stands in its place."""
    match job.status:
        case JobStatus.QUEUED | JobStatus.IN_PROGRESS:
            raise Conflict(f"job {job.id} is {job.status}", code="not_ready", retry_after_s=1)
        case JobStatus.CANCELLED:
            raise Conflict(f"job {job.id} was cancelled", code="cancelled")
        case JobStatus.EXPIRED:
            raise Gone(f"job {job.id} has expired")
    if job.result is None:
        error = job.error or JobError("internal_error", "the job failed without saying why")
        if error.code == PROMPT_TOO_LONG:
            raise InvalidParameter(error.message, param=error.message.partition(":")[0], code=error.code)
        raise ServiceError(error.message, code=error.code)
    return job.result


def echo(job: Job) -> dict[str, Any]:
    """Returns what was really used, by the names of a view's fields; None for a result that does not exist."""
    result = job.result
    return {
        "seed": job.request.seed,
        "nag": result.nag if result else None,
        "loras": job.request.loras,
        "batch_size": result.batch_size if result else None,
        "attempts": job.attempts,
        "worker": job.worker,
        "timings": result.timings if result else None,
        # What the API left out, then what the worker did; each once.
        "warnings": tuple(dict.fromkeys(job.warnings + (result.warnings if result else ()))),
    }


def time_headers(result: Result) -> dict[str, str]:
    """Milliseconds in the queue and at work."""
    times = result.timings
    inference_ms = times.encode_ms + times.denoise_ms + times.decode_ms
    return {"x-queue-time": f"{times.queue_ms:.1f}", "x-inference-time": f"{inference_ms:.1f}"}

"""What an exception of a pipeline call means to its job."""

from __future__ import annotations

import traceback

from app.jobs import PROMPT_TOO_LONG, Job, JobError
from app.logs import Log
from app.worker.devices import memory
from app.worker.engine.module_runner import OutOfMemory
from app.worker.prompts.prompt_checks import PromptTooLong

__all__ = ["OUT_OF_MEMORY", "UNWRITABLE", "job_error"]

UNWRITABLE = JobError("codec_unavailable", "video_codec: this worker's FFmpeg cannot write it; h264 is always there")
OUT_OF_MEMORY = JobError("out_of_memory", "one image of this size does not fit into the worker's memory")
ADVICE = '; shorten it, or send "strict": false'
_log = Log("worker")


def job_error(error: Exception, job: Job) -> JobError:
    """Makes of an exception the error that the job's answer shows, and logs one of the model."""
    if isinstance(error, PromptTooLong):
        return JobError(PROMPT_TOO_LONG, f"{error}{ADVICE}")
    if isinstance(error, OutOfMemory) or memory.is_out_of_memory(error):
        return OUT_OF_MEMORY
    name = type(error).__name__
    _log.error("generation_failed", job=job.id, error=name, **_described(error, job))
    return JobError("generation_failed", f"the model could not generate this ({name})")


def _described(error: Exception, job: Job) -> dict[str, str]:
    """Returns an exception for the log: where it was raised and its message, with every prompt struck out."""
    message, request = str(error), job.request
    for text in (request.prompt, request.negative_prompt, request.nag.negative_prompt if request.nag else None):
        message = message.replace(text, "…") if text else message
    frames = traceback.extract_tb(error.__traceback__)
    return {"at": f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "", "message": message}

"""Runs jobs through pipeline calls, without an engine or with one, and compares what they made."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image

from app.jobs import Job, JobError
from app.worker.engine.pipeline_call import CallResult, PipelineCall, run_calls
from app.worker.engine.shared_model import SharedModel
from app.worker.engine.torch_engine import TorchEngine
from app.worker.outputs.previews import Sketch
from app.worker.prompts.encoder_memo import EncoderMemo
from app.worker.protocol import JobControl, JobOutput
from app.worker.recorder import Recorder
from tests.limits import HANG_S

__all__ = ["CPU", "difference", "generate", "levels", "make_calls", "run_jobs"]

CPU = torch.device("cpu")
Pixels = np.ndarray[Any, np.dtype[Any]]


def make_calls(
    model: SharedModel, *jobs: Job, files: Mapping[str, bytes] | None = None, control: JobControl | None = None,
    memo: EncoderMemo | None = None, sketch: Sketch | None = None, recorder: Recorder | None = None,
) -> list[PipelineCall]:  # fmt: skip
    """Returns a pipeline call for each image of each job, in order. What is not given is new, and shared by them."""
    control, recorder = control or JobControl(), recorder or Recorder()
    memo = EncoderMemo(2**24) if memo is None else memo
    images = [(job, index) for job in jobs for index in range(job.request.n)]
    return [
        PipelineCall(number, model, job, index, files or {}, control, CPU, memo, sketch, recorder)
        for number, (job, index) in enumerate(images)
    ]


def generate(
    model: SharedModel, *jobs: Job, files: Mapping[str, bytes] | None = None, control: JobControl | None = None,
    memo: EncoderMemo | None = None, sketch: Sketch | None = None, recorder: Recorder | None = None,
) -> list[CallResult]:  # fmt: skip
    """Runs the jobs joined, without an engine. Returns what each image's call made; raises the first error of any."""
    calls = make_calls(model, *jobs, files=files, control=control, memo=memo, sketch=sketch, recorder=recorder)
    run_calls(calls)
    return [call.made for call in calls]


def run_jobs(
    engine: TorchEngine, *jobs: Job, files: Mapping[str, bytes] | None = None, control: JobControl | None = None
) -> list[JobOutput | JobError]:
    """Submits the jobs to a started engine, all at once, and waits for their ends."""
    futures = [engine.submit(job, files or {}, control or JobControl()) for job in jobs]
    return [future.result(HANG_S) for future in futures]


def levels(output: CallResult | JobOutput | JobError, index: int = 0) -> Pixels:
    """Returns the values 0 to 255 of what a call made, or of the image file `index` of a job, as signed integers."""
    if isinstance(output, CallResult):
        return (output.pixels * 255).round().astype(np.int16)
    assert isinstance(output, JobOutput), output
    file = output.files[index]
    assert isinstance(file, bytes), "a video"
    return np.asarray(Image.open(io.BytesIO(file)), dtype=np.int16)


def difference(one: CallResult | JobOutput | JobError, other: CallResult | JobOutput | JobError) -> int:
    """Returns the largest difference of two images or videos, of 255. One that equals its solo run has at most 1."""
    return int(np.abs(levels(one) - levels(other)).max())

"""What passes between the worker's asyncio loop and the engine's thread. No torch here, so the loop starts at once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple, Protocol

import numpy as np

from app.jobs import AppliedGuidance, InputFiles, Job, JobError
from app.worker.models.model_states import ModelStates

__all__ = ["Engine", "JobCancelled", "JobControl", "JobOutput", "Preview", "Room"]


class JobCancelled(Exception):
    """The job's pipeline calls were left before their next denoiser call."""


@dataclass(frozen=True)
class Preview:
    """Image `index` of a job, as predicted after a step: pixels (h, w, 3)."""

    job_id: str
    index: int
    step: int
    pixels: np.ndarray[Any, np.dtype[np.uint8]]


@dataclass
class JobControl:
    """State of one running job that both threads share; each field is written by one of them, so it needs no lock."""

    is_cancelled: bool = False  # by the loop: leave the job before its next denoiser call
    step: int = 0  # by the engine: denoising steps done, of request.steps
    on_step: Callable[[], object] = lambda: None  # called in the engine's thread after each step
    on_preview: Callable[[Preview], object] = lambda _: None  # called in the engine's thread


@dataclass(frozen=True)
class JobOutput:
    """The encoded images or videos of one job, with their seeds and what was applied.

    A video is an open file on the disk, without a name there.
    """

    files: tuple[bytes | BinaryIO, ...]
    seeds: tuple[int, ...]
    media_type: str
    applied: AppliedGuidance
    batch_size: int  # most images or videos, its own included, that shared a denoiser call
    encode_ms: float
    denoise_ms: float
    decode_ms: float
    thumbnails: tuple[bytes, ...] = ()  # one for each video
    warnings: tuple[str, ...] = ()
    begun_at: float = 0.0  # Unix seconds: the first pipeline call began
    first_step_at: float = 0.0  # Unix seconds: the first denoiser call began

    def close(self) -> None:
        """Closes the files, once they are stored or no longer wanted."""
        for file in self.files:
            if not isinstance(file, bytes):
                file.close()


class Room(NamedTuple):
    """What may be claimed of one model now, in units of Generation.cost.

    A job fits if its cost is at most `free`, or if nothing of the model is in flight (`free` is `whole`).
    """

    free: int
    whole: int
    jobs: int  # jobs in flight of all models: a job that was lost by another worker before is taken only at 0


class Engine(Protocol):
    """Runs jobs in a thread of its own; nothing else touches the device. Every method returns at once, in any thread.

    Jobs in flight share denoiser calls wherever they can; each begins, reports progress and ends on its own.
    """

    on_room: Callable[[], object]  # called in the engine's thread after a job has ended

    @property
    def warm(self) -> tuple[str, ...]:
        """The models that are loaded and warmed up."""

    @property
    def states(self) -> ModelStates:
        """The state of every model."""

    @property
    def stuck_s(self) -> float:
        """Seconds since the module call or load that is under way began; 0 between two of them."""

    def start(self) -> None:
        """Starts the engine's thread."""

    def close(self) -> None:
        """Ends the thread after the module call under way, in 2 s at most; jobs in flight get JobCancelled."""

    def takes_jobs(self, model: str) -> bool:
        """Whether jobs of the model can be run or failed now; otherwise they wait for a download."""

    def download(self, model: str) -> None:
        """Begins to fetch a model's files in the background, unless that is under way."""

    def fits(self, model: str) -> bool:
        """Whether a model can be made warm in addition to those that are."""

    def load(self, model: str) -> Future[None]:
        """Loads a model, warms it up and measures its batch size. The future raises whatever its loading raises."""

    def room(self, model: str) -> Room:
        """Returns what may be claimed of this model now."""

    def submit(self, job: Job, files: InputFiles, control: JobControl) -> Future[JobOutput | JobError]:
        """Runs a job: `files` are what it starts from.

        The future raises JobCancelled if the job was left, and whatever it was if the device has failed for good; an
        exception of the model is a JobError.
        """

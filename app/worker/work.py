"""What passes between the asyncio loop and the torch thread. No torch here, so the loop starts at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Protocol

import numpy as np

from app.jobs import Applied, Job, JobError
from app.worker.states import ModelStates

__all__ = ["Control", "Engine", "Made", "Preview", "Stopped"]


class Stopped(Exception):
    """The running batch was left between two steps."""


@dataclass(frozen=True)
class Preview:
    """Picture `index` of a job as it is about to become, seen after a step: pixels (h, w, 3)."""

    job_id: str
    index: int
    step: int
    pixels: np.ndarray[Any, np.dtype[np.uint8]]


@dataclass
class Control:
    """Shared by both threads; each field is written by one of them and a single word, so needs no lock."""

    stopping: bool = False  # by the loop: leave the batch at its next step
    step: int = 0  # by the torch thread: denoising steps done of the jobs' request.steps
    files: dict[str, bytes] = field(default_factory=dict)  # by the loop, before the batch: what its jobs start from
    on_step: Callable[[], object] = lambda: None  # called in the torch thread, after each step
    on_preview: Callable[[Preview], object] = lambda _: None  # called in the torch thread
    on_denoised: Callable[[], object] = lambda: None  # called in the torch thread: only decoding is left

    def check(self) -> None:
        """Raises Stopped when the loop asked for it."""
        if self.stopping:
            raise Stopped


@dataclass(frozen=True)
class Made:
    """One job's pictures or videos, encoded, with the seeds they came from and what was done to make them.

    A video is an open file on the disk, without a name there.
    """

    files: tuple[bytes | BinaryIO, ...]
    seeds: tuple[int, ...]
    media_type: str
    applied: Applied
    batch_size: int
    encode_ms: float
    denoise_ms: float
    decode_ms: float
    thumbnails: tuple[bytes, ...] = ()  # one for each video
    warnings: tuple[str, ...] = ()
    begun_at: float = 0.0  # Unix seconds, when the first of its calls began

    def close(self) -> None:
        """The files are stored, or nobody wants them."""
        for each in self.files:
            if not isinstance(each, bytes):
                each.close()


class Engine(Protocol):
    """What runs in the torch threads; nothing else touches the device."""

    @property
    def warm(self) -> tuple[str, ...]:
        """The models at hand now; read from any thread."""

    @property
    def states(self) -> ModelStates:
        """Of every model; read from any thread."""

    @property
    def is_downloading(self) -> bool:
        """Whether a thread that cannot be interrupted is at work."""

    def takes_jobs(self, model: str) -> bool:
        """Whether jobs of the model can be run or failed now; else they wait for a download. From any thread."""

    def download(self, model: str) -> None:
        """Begin to fetch a model's files in the background, unless that is under way. From any thread."""

    def fits(self, model: str) -> bool:
        """Whether a model can be made warm beside those that are."""

    def load(self, model: str) -> None:
        """Make a model warm and find its budget. Raises whatever its loading raises."""

    def is_measured(self, model: str) -> bool:
        """Whether the model's budget was found, or is a setting."""

    def measure(self, model: str) -> None:
        """Find the budget of a warm model. Does not raise what the model raises."""

    def budget(self, model: str) -> int:
        """What a batch of this model may hold, in units of Generation.cost; read from any thread."""

    def run(self, jobs: Sequence[Job], control: Control) -> dict[str, Made | JobError]:
        """Denoise jobs of one batch_key together; an outcome for each id. Raises Stopped, or what the model raises."""

    def recover(self) -> None:
        """After `run` raised: free what it held. Raises where the device itself has failed for good."""

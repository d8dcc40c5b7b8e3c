"""The nouns of the service: what crosses a process, as frozen dataclasses with no I/O.

A job is kept in Redis as JSON, never as a pickle. Times are Unix seconds, durations carry their unit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

TENANT = "default"  # of a caller who has not said who it is


class JobStatus(StrEnum):
    """Where a job stands. The last four are terminal."""

    QUEUED = "queued"  # accepted and stored; no worker has it
    IN_PROGRESS = "in_progress"  # a worker holds its lease
    COMPLETED = "completed"  # its artifacts can be fetched
    FAILED = "failed"  # `error` says why
    CANCELLED = "cancelled"  # stopped at the caller's wish
    EXPIRED = "expired"  # its deadline or its retention has passed

    @property
    def terminal(self) -> bool:
        return self not in (JobStatus.QUEUED, JobStatus.IN_PROGRESS)


class EventType(StrEnum):
    """What becomes of a job, one word an event. The last four end it, and are the status that it then has."""

    QUEUED = "queued"  # accepted, or handed back
    STARTED = "started"  # by a worker; once an attempt
    PROGRESS = "progress"  # a step further
    PREVIEW = "preview"  # a small picture of what it is about to become, where it was asked for
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def terminal(self) -> bool:
        return self in (EventType.COMPLETED, EventType.FAILED, EventType.CANCELLED, EventType.EXPIRED)


class Priority(StrEnum):
    """What goes first among the jobs of one tenant."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"

    @property
    def rank(self) -> int:
        """0 goes first."""
        return list(Priority).index(self)


@dataclass(frozen=True)
class Guidance:
    """NAG as asked for, every number resolved (nag.NAGParams holds the ranges). scale 1 means unguided."""

    scale: float
    tau: float
    alpha: float
    end: float
    negative_prompt: str
    scale_decay: float = 0.0
    start: float = 0.0
    method: str = "nag"


class InputRole(StrEnum):
    """What a file that a request starts from is to the model."""

    IMAGE = "image"  # changed as far as the request's strength goes
    MASK = "mask"  # white where the image is regenerated
    REFERENCE = "reference"  # the prompt says what becomes of it
    FIRST_FRAME = "first_frame"
    LAST_FRAME = "last_frame"
    VIDEO = "video"  # changed as far as the request's strength goes


#: How a model is used, by the first of these roles that a request has a file of.
TASKS = {
    InputRole.MASK: "inpaint",
    InputRole.IMAGE: "img2img",
    InputRole.VIDEO: "video_to_video",
    InputRole.FIRST_FRAME: "image_to_video",
    InputRole.REFERENCE: "edit",
}


@dataclass(frozen=True)
class InputFile:
    """A file that a job starts from, stored as an artifact that belongs to the job.

    A mask is a PNG in mode L of the image's size; any other image is a PNG in RGB. `sha256` is the digest of the file
    that the client sent.
    """

    role: InputRole
    name: str
    sha256: str = ""


@dataclass(frozen=True)
class LoraUse:
    """A registered LoRA that a request uses, and its weight."""

    id: str
    scale: float


@dataclass(frozen=True)
class Generation:
    """One request with nothing left open: the API has filled in every default, the seed included.

    A video has num_frames, is shown at fps frames a second and has a codec; of an image all three are None.
    """

    model: str
    prompt: str
    negative_prompt: str | None
    seed: int
    num_inference_steps: int
    guidance_scale: float
    width: int
    height: int
    n: int
    output_format: str
    output_compression: int
    nag: Guidance | None
    num_frames: int | None = None
    fps: int | None = None
    video_codec: str | None = None
    embed_metadata: bool = True  # the file says what made it
    previews: int = 0  # a picture, at the most
    inputs: tuple[InputFile, ...] = ()
    strength: float | None = None  # share of the steps that is run, above 0 to 1; None: all
    remix_of: str | None = None  # the job of the video that this one starts from, where that is one of this service
    strict: bool = False  # a prompt longer than the model reads fails the job
    loras: tuple[LoraUse, ...] = ()
    alias: str | None = None  # the name of the model that the request used, where that is not its id

    @property
    def named_model(self) -> str:
        """The model by the name that the request used."""
        return self.alias or self.model

    @property
    def used_negative_prompt(self) -> str | None:
        """What NAG or CFG steers away from; None for nothing."""
        return (self.nag.negative_prompt if self.nag is not None else self.negative_prompt) or None

    @property
    def cfg(self) -> bool:
        """Whether the denoiser is called for a second, unconditional row a picture."""
        return self.guidance_scale > 1

    @property
    def steps(self) -> int:
        """Denoising steps that are run: with a strength a part of the schedule, one at least."""
        if self.strength is None:
            return self.num_inference_steps
        return max(1, math.floor(self.num_inference_steps * self.strength + 0.5))

    @property
    def task(self) -> str:
        """How the model is used."""
        roles = {file.role for file in self.inputs}
        return next((task for role, task in TASKS.items() if role in roles), "generate")

    @property
    def cost(self) -> int:
        """Units of a batch's budget, the room it takes in one: pixels of every row that the denoiser is given."""
        return self.n * self.width * self.height * (self.num_frames or 1) * (2 if self.cfg else 1)

    @property
    def work(self) -> int:
        """Units of computing time: the cost at every step."""
        return self.cost * self.steps


#: The reason where an edit starts at a timestep that guidance does not reach.
ENDED_BEFORE_FIRST_STEP = "ended_before_first_step"
#: The reason where guidance starts later than at the first step, and no step has its timestep between start and end.
NO_STEP_WITHIN = "no_step_within_start_and_end"


@dataclass(frozen=True)
class Applied:
    """What was really done about guidance; `reason` is set when it was not applied."""

    applied: bool
    reason: str | None = None
    scale: float | None = None
    tau: float | None = None
    alpha: float | None = None
    end: float | None = None
    scale_decay: float | None = None
    start: float | None = None
    method: str | None = None


@dataclass(frozen=True)
class Timings:
    """Milliseconds a stage; total runs from acceptance to the stored result."""

    queue_ms: float
    encode_ms: float
    denoise_ms: float
    decode_ms: float
    total_ms: float


@dataclass(frozen=True)
class Artifact:
    """One produced file, by its name in the artifact store, and of a video the JPEG that stands for it."""

    name: str
    media_type: str
    size_bytes: int
    seed: int
    thumbnail: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Everything that is stored for it."""
        return (self.name,) if self.thumbnail is None else (self.name, self.thumbnail)


@dataclass(frozen=True)
class Result:
    """What a worker hands back, with the echo of what was really used."""

    artifacts: tuple[Artifact, ...]
    nag: Applied
    batch_size: int  # most images or videos, its own included, that shared a denoiser call
    timings: Timings
    warnings: tuple[str, ...] = ()


#: The code of a job's error that is the fault of its request: a part of a prompt would have no effect.
PROMPT_TOO_LONG = "prompt_too_long"


@dataclass(frozen=True)
class JobError:
    code: str
    message: str


@dataclass(frozen=True)
class Webhook:
    """Where the caller wants to be told of these events."""

    url: str
    events: tuple[EventType, ...]


@dataclass(frozen=True)
class Job:
    """A generation and its life."""

    id: str
    request: Generation
    status: JobStatus = JobStatus.QUEUED
    created_at: float = 0.0
    started_at: float | None = None
    completed_at: float | None = None
    attempts: int = 0
    worker: str | None = None
    step: int = 0  # denoising steps done, of request.steps
    result: Result | None = None
    error: JobError | None = None
    warnings: tuple[str, ...] = field(default=())
    tenant: str = TENANT  # whose share of the workers it takes
    priority: Priority = Priority.NORMAL
    deadline_at: float | None = None  # not done by then, it expires
    webhook: Webhook | None = None
    trace: str = ""  # W3C's traceparent of the request that asked for it


@dataclass(frozen=True)
class JobEvent:
    """One thing that became of a job. Ids rise; `id` is `<Unix milliseconds>-<number>`.

    `data` of `started`: attempt, worker; of `progress`: step; of `preview`: step, index, media_type,
    b64_json; of the others nothing.
    """

    id: str
    type: EventType
    data: Mapping[str, Any]

    @property
    def at(self) -> float:
        return int(self.id.partition("-")[0]) / 1000


#: Numbers of the guidance by the names that former versions wrote and clients may still send.
FORMER_NAMES = {"anneal": "scale_decay"}


def with_present_names(guidance: dict[str, Any]) -> dict[str, Any]:
    """The guidance of a former version, or of a catalog written for one, under the names it has now.

    Raises ValueError for a number given under both names with different values.
    """
    for former, name in FORMER_NAMES.items():
        if former in guidance:
            value = guidance[former]
            if guidance.get(name, value) != value:
                raise ValueError(f"{former} is a former name of {name}; got {value} and {guidance[name]}, give one")
            guidance = {key: number for key, number in guidance.items() if key != former} | {name: value}
    return guidance

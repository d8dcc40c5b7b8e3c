"""The data types of a job that processes exchange, as frozen dataclasses without I/O.

A job is kept in Redis as JSON, never as a pickle. Times are Unix seconds, durations carry their unit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, BinaryIO

TENANT = "default"  # of a caller without an API key


class JobStatus(StrEnum):
    """The status of a job. The last four are terminal."""

    QUEUED = "queued"  # accepted and stored; no worker has claimed it
    IN_PROGRESS = "in_progress"  # a worker holds its lease
    COMPLETED = "completed"  # its artifacts can be fetched
    FAILED = "failed"  # `error` says why
    CANCELLED = "cancelled"  # stopped by the caller
    EXPIRED = "expired"  # its deadline or its retention has passed

    @property
    def is_terminal(self) -> bool:
        return self not in (JobStatus.QUEUED, JobStatus.IN_PROGRESS)


class EventType(StrEnum):
    """The events of a job. The last four end it, and are the status that it then has."""

    QUEUED = "queued"  # accepted, or handed back
    STARTED = "started"  # by a worker; once per attempt
    PROGRESS = "progress"  # a step was completed
    PREVIEW = "preview"  # a small image of the state after a step, if the request wants previews
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def is_terminal(self) -> bool:
        return self in (EventType.COMPLETED, EventType.FAILED, EventType.CANCELLED, EventType.EXPIRED)


class Priority(StrEnum):
    """The order among the jobs of one tenant."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"

    @property
    def rank(self) -> int:
        """The position in that order; 0 goes first."""
        return list(Priority).index(self)


@dataclass(frozen=True)
class Guidance:
    """The parameters of NAG of a request, all resolved (nag.NAGParams has the ranges). scale 1 means unguided."""

    scale: float
    tau: float
    alpha: float
    end: float
    negative_prompt: str
    scale_decay: float = 0.0
    start: float = 0.0
    method: str = "nag"


class InputRole(StrEnum):
    """The role of an input file of a request."""

    IMAGE = "image"  # changed by the request's strength
    MASK = "mask"  # white where the image is regenerated
    REFERENCE = "reference"  # used as the prompt says
    FIRST_FRAME = "first_frame"
    LAST_FRAME = "last_frame"
    VIDEO = "video"  # changed by the request's strength


#: The task of a request, by the first of these roles that it has a file for.
TASKS = {
    InputRole.MASK: "inpaint",
    InputRole.IMAGE: "img2img",
    InputRole.VIDEO: "video_to_video",
    InputRole.FIRST_FRAME: "image_to_video",
    InputRole.REFERENCE: "edit",
}


@dataclass(frozen=True)
class InputFile:
    """An input file of a job, stored as an artifact that belongs to the job.

    A mask is a PNG in mode L of the image's size; any other image is a PNG in RGB. `sha256` is the digest of the file
    that the client sent.
    """

    role: InputRole
    name: str
    sha256: str = ""


#: The contents of a job's input files, by artifact name: bytes, or open files on the disk.
InputFiles = Mapping[str, bytes | BinaryIO]


@dataclass(frozen=True)
class LoraUse:
    """A registered LoRA that a request uses, and its weight."""

    id: str
    scale: float


@dataclass(frozen=True)
class Generation:
    """One request with every default filled in by the API, the seed included.

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
    embed_metadata: bool = True  # the file has the parameters in its metadata
    previews: int = 0  # at most, per image
    inputs: tuple[InputFile, ...] = ()
    strength: float | None = None  # share of the steps that is run, above 0 to 1; None: all
    remix_of: str | None = None  # the job whose video this one starts from, if it is one of this service
    strict: bool = False  # a prompt longer than the model reads fails the job
    loras: tuple[LoraUse, ...] = ()
    alias: str | None = None  # the model's name in the request, if that is not its id

    @property
    def named_model(self) -> str:
        """The model's name in the request."""
        return self.alias or self.model

    @property
    def used_negative_prompt(self) -> str | None:
        """The negative prompt that NAG or CFG uses; None without one."""
        return (self.nag.negative_prompt if self.nag is not None else self.negative_prompt) or None

    @property
    def cfg(self) -> bool:
        """Whether the denoiser computes a second, unconditional row per image."""
        return self.guidance_scale > 1

    @property
    def steps(self) -> int:
        """The number of denoising steps that are run: with a strength a part of the schedule, at least one."""
        if self.strength is None:
            return self.num_inference_steps
        return max(1, math.floor(self.num_inference_steps * self.strength + 0.5))

    @property
    def task(self) -> str:
        """The task, by the input files."""
        roles = {file.role for file in self.inputs}
        return next((task for role, task in TASKS.items() if role in roles), "generate")

    @property
    def cost(self) -> int:
        """The pixels of all rows of a denoiser call, which are the units of a batch's budget."""
        return self.n * self.width * self.height * (self.num_frames or 1) * (2 if self.cfg else 1)

    @property
    def work(self) -> int:
        """The cost of all steps, which are the units of computing time."""
        return self.cost * self.steps


#: The reason if an edit starts at a timestep that guidance does not reach.
ENDED_BEFORE_FIRST_STEP = "ended_before_first_step"
#: The reason if guidance starts later than at the first step, and no step has its timestep between start and end.
NO_STEP_WITHIN = "no_step_within_start_and_end"


@dataclass(frozen=True)
class AppliedGuidance:
    """Whether NAG was applied, and its parameters; `reason` is set if it was not."""

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
    """The milliseconds of each stage; total is from acceptance to the stored result."""

    queue_ms: float
    encode_ms: float
    denoise_ms: float
    decode_ms: float
    total_ms: float


@dataclass(frozen=True)
class Artifact:
    """One produced file, by its name in the artifact store; a video has a JPEG thumbnail."""

    name: str
    media_type: str
    size_bytes: int
    seed: int
    thumbnail: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all files that are stored for it."""
        return (self.name,) if self.thumbnail is None else (self.name, self.thumbnail)


@dataclass(frozen=True)
class Result:
    """The result of a job, with the parameters that were used."""

    artifacts: tuple[Artifact, ...]
    nag: AppliedGuidance
    batch_size: int  # most images or videos, its own included, that shared a denoiser call
    timings: Timings
    warnings: tuple[str, ...] = ()


#: The code of the error if a prompt is longer than the model reads and the request is strict.
PROMPT_TOO_LONG = "prompt_too_long"


@dataclass(frozen=True)
class JobError:
    code: str
    message: str


@dataclass(frozen=True)
class Webhook:
    """The URL that these events are sent to."""

    url: str
    events: tuple[EventType, ...]


@dataclass(frozen=True)
class Job:
    """A generation request and its state in the queue."""

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
    tenant: str = TENANT  # whose share of the workers it uses
    priority: Priority = Priority.NORMAL
    deadline_at: float | None = None  # it expires if it is not completed by then
    webhook: Webhook | None = None
    trace: str = ""  # W3C's traceparent of its request
    is_deleted: bool = False  # was cancelled in order to be deleted, and is gone soon


@dataclass(frozen=True)
class JobEvent:
    """One event of a job. Ids rise; `id` is `<Unix milliseconds>-<number>`.

    `data` of `started`: attempt, worker; of `progress`: step; of `preview`: step, index, media_type,
    b64_json; the others have none.
    """

    id: str
    type: EventType
    data: Mapping[str, Any]

    @property
    def at(self) -> float:
        return int(self.id.partition("-")[0]) / 1000


#: Former names of parameters of NAG, which stored jobs may have and clients may still send.
FORMER_NAMES = {"anneal": "scale_decay"}


def with_present_names(guidance: dict[str, Any]) -> dict[str, Any]:
    """Renames the parameters of NAG from a former version, or from a catalog written for one.

    Raises ValueError for a parameter given under both names with different values.
    """
    for former, name in FORMER_NAMES.items():
        if former in guidance:
            value = guidance[former]
            if guidance.get(name, value) != value:
                raise ValueError(f"{former} is a former name of {name}; got {value} and {guidance[name]}, give one")
            guidance = {key: number for key, number in guidance.items() if key != former} | {name: value}
    return guidance

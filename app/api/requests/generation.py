"""The fields of every request for images or videos. resolver.py decides whether a value suits the model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from app.api.requests.body import BY_ITS_NAME, SEED_MAX, SEED_MAX_DOUBLE, Body, OptionalText
from app.catalog import Method
from app.catalog.inputs import FILES_MAX
from app.jobs import Priority

__all__ = [
    "LORAS_MAX", "N_MAX", "PREVIEWS_MAX", "STRENGTH", "GenerationBody", "JobBody", "LoraUseBody", "NAGBody",
    "WebhookBody",
]  # fmt: skip

STRENGTH = 0.75
N_MAX = 10
LORAS_MAX = 8
PREVIEWS_MAX = 3
#: The events that end a job.
ENDS: list[Literal["queued", "started", "progress", "completed", "failed", "cancelled", "expired"]]
ENDS = ["completed", "failed", "cancelled", "expired"]


class NAGBody(Body):
    """Normalized Attention Guidance. An empty object asks for the model's defaults."""

    scale: float | None = None
    """How far to go from the negative prompt. 1 is off."""

    tau: float | None = None
    """Largest growth of the guided attention, as a ratio of norms."""

    alpha: float | None = None
    """Share of the guided attention in the result, 0 to 1."""

    end: float | None = None
    """Share of the noise schedule that is guided, 0 to 1: steps whose timestep is at least 1 − end of the largest. If a
    model shifts its timesteps, as Flux does, 0.5 guides more than half of the steps.
    """

    scale_decay: float | None = None
    """Share of scale − 1 that is lost on the way to the end, 0 to 1."""

    start: float | None = None
    """Share of the noise schedule before guidance begins, 0 to 1 and below end: steps are guided whose timestep is at
    most 1 − start of the largest.
    """

    method: Method | None = None
    """`nag`; `orthogonal`, which removes only what is orthogonal to the prompt's attention; or `vsf`, value sign flip,
    which uses scale, end, start and scale_decay alone.
    """

    anneal: Annotated[float | None, Field(json_schema_extra={"deprecated": True})] = None
    """Former name of scale_decay."""

    negative_prompt: OptionalText = None
    """What to steer away from. Default: the negative_prompt of the request, otherwise an empty text."""


class LoraUseBody(Body):
    """A LoRA that the request uses."""

    id: Annotated[str, Field(min_length=1, max_length=128)]
    """An id of GET /v1/loras."""

    scale: Annotated[float | None, Field(allow_inf_nan=False)] = None
    """Its weight, within its range. Default: the LoRA's own."""


class WebhookBody(Body):
    """A POST for each of these events, signed by the rules of Standard Webhooks."""

    url: Annotated[str, Field(max_length=2048)]
    """An http or https URL with a public address."""

    events: Annotated[
        list[Literal["queued", "started", "progress", "completed", "failed", "cancelled", "expired"]],
        Field(min_length=1, max_length=16),
    ] = ENDS
    """Default: the events that end a job. Only these are sent again after a failure."""


class GenerationBody(Body):
    """The fields that all requests for images have."""

    model: OptionalText = None
    """An id or an alias of GET /v1/models."""

    prompt: str
    negative_prompt: OptionalText = None
    """The negative of CFG if guidance_scale is above 1; otherwise that of NAG with the model's defaults."""

    seed: Annotated[int | None, Field(ge=0, le=SEED_MAX, json_schema_extra={"maximum": SEED_MAX_DOUBLE})] = None
    """Seed of the first image; the next one has seed + 1. Default: a random one."""

    num_inference_steps: int | None = None
    steps: int | None = None
    """Another name of num_inference_steps."""

    guidance_scale: float | None = None
    """Scale of true classifier-free guidance. 1 is off."""

    width: int | None = None
    """Width in pixels."""

    height: int | None = None
    """Height in pixels."""

    num_frames: int | None = None
    """Number of frames of a video."""

    fps: int | None = None
    """Frames per second at which a video is shown."""

    n: Annotated[int | None, Field(ge=1, le=N_MAX)] = None
    """Number of images or videos."""

    output_format: Annotated[Literal["png", "jpeg", "jpg", "webp", "mp4"] | None, BY_ITS_NAME] = None
    """Format of the files. `jpg` is `jpeg`; a video is always an mp4. Default: png for images."""

    output_compression: Annotated[int | None, Field(ge=0, le=100)] = None
    """Quality of a jpeg or webp. Other formats take 100 only."""

    video_codec: Literal["h264", "av1"] | None = None
    """Codec of a video. Default: h264, which plays everywhere."""

    embed_metadata: bool = True
    """Whether the file holds the prompt, the seed and the other parameters that it was made with."""

    nag: NAGBody | None = None
    loras: Annotated[list[LoraUseBody] | None, Field(max_length=LORAS_MAX)] = None
    """LoRAs of the model, which are added up. Each id may be named once."""

    image: OptionalText = None
    """The image to change, by as much as strength says: a data URL, the id of an uploaded file, or an http(s) URL of an
    allowed host.
    """

    mask: OptionalText = None
    """A file with an alpha channel, as large as the image. Where it is transparent, the image is regenerated."""

    references: Annotated[list[str] | None, Field(max_length=FILES_MAX)] = None
    """Images that the prompt is about, given as `image` is."""

    first_frame: OptionalText = None
    """Image that a video begins with, given as `image` is."""

    last_frame: OptionalText = None
    """Image that a video ends with. It needs first_frame."""

    video: OptionalText = None
    """The MP4 to change, by as much as strength says."""

    strength: Annotated[float | None, Field(gt=0, le=1)] = None
    """Share of the steps that is run on an image or a video, rounded, at least one step. 1 keeps least of it.
    Default: 0.75.
    """

    priority: Annotated[Priority | None, Field(strict=False)] = None
    """Order among the caller's own jobs. Default: normal."""

    deadline_s: Annotated[float | None, Field(gt=0, allow_inf_nan=False)] = None
    """Seconds from acceptance after which a job that is not done expires."""

    previews: Annotated[int | None, Field(ge=0, le=PREVIEWS_MAX)] = None
    """Number of previews of each image, which are sent as events."""

    webhook: WebhookBody | None = None
    strict: bool = True
    """Whether a request that asks for what its model cannot do is refused. `false`: that part is left out, and
    `warnings` names it. Default: true, but false under an alias of a model, and if the service or the API key says so.
    """


class JobBody(GenerationBody):
    """POST /v1/jobs."""

"""The shapes of requests. Whether a value suits the model is decided in resolver.py, where the catalog is known.

A field that is absent or null takes the model's default, and so does an optional text without characters. An unknown
field is refused, never ignored.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from app.catalog import Method
from app.catalog.inputs import FILES_MAX
from app.jobs import Priority

__all__ = [
    "SEED_MAX",
    "STRENGTH",
    "EditBody",
    "FileReference",
    "GenerationBody",
    "ImageBody",
    "JobBody",
    "LoraBody",
    "LoraUseBody",
    "NAGBody",
    "OpenAIBody",
    "VideoBody",
    "WebhookBody",
]

SEED_MAX = 2**63 - 1
STRENGTH = 0.75
A_FILE = "a data URL, the id of an uploaded file, or an http(s) URL of an allowed host"
#: What the schema says of it: the next lower number that a reader of doubles takes as it stands.
SEED_MAX_DOUBLE = 2**63 - 1024
N_MAX = 10
SIZE = r"^(auto|[0-9]{1,6}x[0-9]{1,6})?$"
SECONDS = r"^[0-9]{1,4}(\.[0-9]{1,4})?$"
LORAS_MAX = 8
PREVIEWS_MAX = 3


def _none_if_blank(value: Any) -> Any:
    return None if isinstance(value, str) and not value.strip() else value


#: Clients with a form fill in every field of it, so a blank text asks for nothing.
BLANK_IS_ABSENT = BeforeValidator(_none_if_blank)
OptionalText = Annotated[str | None, BLANK_IS_ABSENT]


#: By another name of a value, its name here.
OTHER_NAMES = {"jpg": "jpeg", "base64": "b64_json"}
BY_ITS_NAME = AfterValidator(lambda value: OTHER_NAMES.get(value, value))


def _written_as(pattern: str, form: str) -> AfterValidator:
    """As a field's pattern, with an error that says the form in words."""

    def check(value: str | None) -> str | None:
        if value is not None and re.fullmatch(pattern, value) is None:
            raise ValueError(f"must be {form}")
        return value

    return AfterValidator(check)


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)

    @field_validator("*")
    @classmethod
    def _is_unicode(cls, value: Any) -> Any:
        """JSON can carry half of a surrogate pair, which no tokenizer and no UTF-8 can."""
        if isinstance(value, str):
            try:
                value.encode()
            except UnicodeEncodeError:
                raise ValueError("must be valid Unicode text") from None
        return value


class NAGBody(_Body):
    """Normalized Attention Guidance. An empty object asks for the model's defaults."""

    scale: Annotated[float | None, Field(description="how far from the negative prompt; 1 is off")] = None
    tau: Annotated[float | None, Field(description="most that the guided attention may grow, as a ratio of norms")] = (
        None
    )
    alpha: Annotated[float | None, Field(description="share of the guided attention in the result, 0 to 1")] = None
    end: Annotated[
        float | None,
        Field(
            description="share of the noise schedule that is guided, 0 to 1: steps whose timestep is at least 1 − end "
            "of the largest. Where timesteps are shifted, as in Flux, 0.5 guides more than half of the steps"
        ),
    ] = None
    scale_decay: Annotated[
        float | None, Field(description="share of scale − 1 that is lost on the way to the end, 0 to 1")
    ] = None
    start: Annotated[
        float | None,
        Field(
            description="share of the noise schedule that goes by before guidance begins, 0 to 1 and below end: steps "
            "are guided whose timestep is at most 1 − start of the largest"
        ),
    ] = None
    method: Annotated[
        Method | None,
        Field(
            description="nag; orthogonal, which takes away only what is orthogonal to the prompt's attention; or vsf, "
            "value sign flip, which reads scale alone of the numbers above but end, start and scale_decay"
        ),
    ] = None
    anneal: Annotated[
        float | None, Field(description="former name of scale_decay", json_schema_extra={"deprecated": True})
    ] = None
    negative_prompt: Annotated[
        OptionalText, Field(description="what to steer away from; absent, the request's negative_prompt, else nothing")
    ] = None


class LoraUseBody(_Body):
    """A LoRA that the request uses."""

    id: Annotated[str, Field(min_length=1, max_length=128, description="an id of GET /v1/loras")]
    scale: Annotated[
        float | None, Field(allow_inf_nan=False, description="its weight, within its range; absent: its default")
    ] = None


class WebhookBody(_Body):
    """A POST, signed by the rules of Standard Webhooks, for each of these events."""

    url: Annotated[str, Field(max_length=2048, description="http or https, and no private address")]
    events: Annotated[
        list[Literal["queued", "started", "progress", "completed", "failed", "cancelled", "expired"]],
        Field(min_length=1, max_length=16, description="absent: those that end a job, which alone are tried again"),
    ] = ["completed", "failed", "cancelled", "expired"]


class GenerationBody(_Body):
    """The fields that all requests for images have."""

    model: Annotated[OptionalText, Field(description="an id or an alias of GET /v1/models")] = None
    prompt: str
    negative_prompt: Annotated[
        OptionalText,
        Field(description="with guidance_scale above 1 the negative of CFG; otherwise NAG with the model's defaults"),
    ] = None
    seed: Annotated[
        int | None,
        Field(
            ge=0,
            le=SEED_MAX,
            json_schema_extra={"maximum": SEED_MAX_DOUBLE},
            description="of the first image; the next one has seed + 1; absent: drawn at random",
        ),
    ] = None
    num_inference_steps: int | None = None
    steps: Annotated[int | None, Field(description="another name of num_inference_steps")] = None
    guidance_scale: Annotated[float | None, Field(description="true classifier-free guidance; 1 is off")] = None
    width: Annotated[int | None, Field(description="pixels")] = None
    height: Annotated[int | None, Field(description="pixels")] = None
    num_frames: Annotated[int | None, Field(description="of a video")] = None
    fps: Annotated[int | None, Field(description="frames of a video shown a second")] = None
    n: Annotated[int | None, Field(ge=1, le=N_MAX, description="images, or videos")] = None
    output_format: Annotated[
        Literal["png", "jpeg", "jpg", "webp", "mp4"] | None,
        Field(description="a video is an mp4; absent, an image is a png; jpg is jpeg"),
        BY_ITS_NAME,
    ] = None
    output_compression: Annotated[
        int | None, Field(ge=0, le=100, description="quality of a jpeg or webp; any other format takes 100 alone")
    ] = None
    video_codec: Annotated[
        Literal["h264", "av1"] | None, Field(description="of a video; absent: h264, which plays everywhere")
    ] = None
    embed_metadata: Annotated[
        bool, Field(description="false: the file does not hold prompt, seed and the other parameters that made it")
    ] = True
    nag: NAGBody | None = None
    loras: Annotated[
        list[LoraUseBody] | None,
        Field(max_length=LORAS_MAX, description="LoRAs that the model takes, added up; each id once"),
    ] = None
    image: Annotated[OptionalText, Field(description=f"to change, as far as strength goes: {A_FILE}")] = None
    mask: Annotated[
        OptionalText,
        Field(
            description="where the image is regenerated: a file with an alpha channel, as large as the image, and "
            "transparent there"
        ),
    ] = None
    references: Annotated[
        list[str] | None, Field(max_length=FILES_MAX, description="images that the prompt is about, of the same form")
    ] = None
    first_frame: Annotated[OptionalText, Field(description="image that a video begins with, of the same form")] = None
    last_frame: Annotated[OptionalText, Field(description="image that a video ends with; with first_frame")] = None
    video: Annotated[OptionalText, Field(description="MP4 to change, as far as strength goes")] = None
    strength: Annotated[
        float | None,
        Field(
            gt=0,
            le=1,
            description="share of the steps that is run on an image or a video, rounded, one at least; 1 keeps "
            "least of it; absent: 0.75",
        ),
    ] = None
    priority: Annotated[
        Priority | None, Field(strict=False, description="what goes first among the caller's own jobs; absent: normal")
    ] = None
    deadline_s: Annotated[
        float | None,
        Field(gt=0, allow_inf_nan=False, description="seconds from acceptance; not done by then, the job expires"),
    ] = None
    previews: Annotated[
        int | None, Field(ge=0, le=PREVIEWS_MAX, description="number of previews of each image, sent as events")
    ] = None
    webhook: WebhookBody | None = None
    strict: Annotated[
        bool,
        Field(
            description="false: what the model cannot honour is left out and said in `warnings`, not refused. Absent: "
            "true; under an alias of a model, and where the service or the API key says so, false"
        ),
    ] = True


class JobBody(GenerationBody):
    """POST /v1/jobs."""


class OpenAIBody(GenerationBody):
    """What OpenAI's SDKs send on either route; our own fields come by their `extra_body`, the guidance also flat."""

    size: Annotated[
        str | None,
        _written_as(SIZE, "auto or WIDTHxHEIGHT, such as 1024x1024"),
        Field(
            json_schema_extra={"pattern": SIZE},
            description="auto, or WxH; auto of an edit has the image's proportions and about the model's default area",
        ),
        BLANK_IS_ABSENT,
    ] = None
    user: Annotated[OptionalText, Field(description="accepted for the SDKs' sake and not kept; `warnings` says so")] = (
        None
    )
    safety_identifier: Annotated[OptionalText, Field(description="likewise")] = None
    nag_scale: Annotated[float | None, Field(description="nag.scale")] = None
    nag_tau: Annotated[float | None, Field(description="nag.tau")] = None
    nag_alpha: Annotated[float | None, Field(description="nag.alpha")] = None
    nag_end: Annotated[float | None, Field(description="nag.end")] = None
    nag_scale_decay: Annotated[float | None, Field(description="nag.scale_decay")] = None
    nag_start: Annotated[float | None, Field(description="nag.start")] = None
    nag_method: Annotated[Method | None, Field(description="nag.method")] = None
    nag_anneal: Annotated[
        float | None, Field(description="former name of nag_scale_decay", json_schema_extra={"deprecated": True})
    ] = None
    nag_negative_prompt: Annotated[OptionalText, Field(description="nag.negative_prompt")] = None


class ImageBody(OpenAIBody):
    """POST /v1/images/generations: OpenAI's fields, and ours beside them."""

    response_format: Annotated[
        Literal["b64_json", "base64", "url"] | None,
        Field(
            description="base64 is b64_json; absent: url under dall-e-*, b64_json under gpt-image-*, else as the "
            "service is set"
        ),
        BY_ITS_NAME,
    ] = None
    stream: Annotated[bool | None, Field(description="answer with server-sent events")] = None
    partial_images: Annotated[
        int | None, Field(ge=0, le=3, description="greatest number of previews of each image; only with stream")
    ] = None
    quality: Annotated[OptionalText, Field(description="auto or standard; ask for num_inference_steps instead")] = None
    style: Annotated[OptionalText, Field(description="refused: say it in the prompt")] = None
    background: Annotated[OptionalText, Field(description="auto or opaque")] = None
    moderation: Annotated[OptionalText, Field(description="auto or low: nothing is moderated")] = None
    complexity: Annotated[OptionalText, Field(description="refused: nothing is planned")] = None


class FileReference(_Body):
    """A file by its id, or by a data URL or the URL of an allowed host."""

    file_id: str | None = None
    image_url: str | None = None

    @property
    def text(self) -> str:
        return self.file_id or self.image_url or ""


class EditBody(ImageBody):
    """POST /v1/images/edits, a form or JSON: OpenAI's fields, and ours beside them."""

    image: Annotated[
        str | Annotated[list[str], Field(max_length=FILES_MAX)] | None,
        Field(
            description="one or several files: PNG, JPEG, WebP, GIF, BMP, TIFF, AVIF or HEIC. A model that is told by "
            "the prompt what to change takes them whole; else its middle, scaled to the size that is made, is changed. "
            "Where it is transparent it is regenerated by a model that takes masks, unless a mask says where",
        ),
    ] = None  # type: ignore[assignment]
    images: Annotated[
        list[FileReference] | None, Field(max_length=FILES_MAX, description="the same by reference, in JSON")
    ] = None
    mask: str | FileReference | None = None  # type: ignore[assignment]
    input_fidelity: Annotated[
        OptionalText,
        Field(description="low; or high, of a model that is told by the prompt; of the others ask for less strength"),
    ] = None


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


class VideoBody(OpenAIBody):
    """POST /v1/videos: OpenAI's fields, and ours beside them."""

    seconds: Annotated[
        str | None,
        _written_as(SECONDS, "a number of at most 9999 seconds, such as 4 or 2.5"),
        BLANK_IS_ABSENT,
        BeforeValidator(_as_text),
        Field(
            json_schema_extra={"pattern": SECONDS},
            description="length; the number of frames of the model's grid that comes nearest is made",
        ),
    ] = None
    input_reference: Annotated[
        str | FileReference | None,
        Field(description="the first frame, or a video to change: by the kind of the file, if the model takes it"),
    ] = None


class LoraBody(_Body):
    """POST /v1/loras, a form."""

    file: Annotated[Any, Field(description="a safetensors file of float32, float16 or bfloat16")] = None
    id: Annotated[
        OptionalText,
        Field(description="what requests name it by; absent, the name of the file without .safetensors"),
    ] = None
    base: Annotated[str, Field(description="the id of the model that it was trained for")]
    trigger_words: Annotated[OptionalText, Field(description="what a prompt says to bring it out, with commas")] = None
    scale_default: Annotated[float | None, Field(description="its weight where a request says none; absent: 1")] = None
    scale_min: Annotated[float | None, Field(description="least weight that a request may say; absent: 0")] = None
    scale_max: Annotated[float | None, Field(description="largest weight that a request may say; absent: 2")] = None
    description: OptionalText = None
    licence: OptionalText = None
    shared: Annotated[
        bool, Field(description="true: for all tenants, which needs the scope admin; else for the caller's alone")
    ] = False

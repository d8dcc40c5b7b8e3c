"""The shapes of requests, with the names of AUTOMATIC1111's API. What each field means here is decided in translate.py.

An absent or null field takes the default of the model, not that of the web UI: 512 pixels, 50 steps and a cfg_scale of
7 are wrong for most models of today. Fields that are not declared here are left out; a warning names them.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field

from app.api.requests.body import SEED_MAX, SEED_MAX_DOUBLE, Body
from app.api.requests.generation import NAGBody

__all__ = ["Img2ImgBody", "OptionsBody", "PngInfoBody", "SdapiBody", "Txt2ImgBody"]

#: Of pixels, steps and images; above the limits of every model, which are checked later.
COUNT_MAX = 1_000_000
INIT_IMAGES_MAX = 16


def _integral(value: Any) -> Any:
    """JavaScript's numbers: 20.0 is an integer."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Integer = Annotated[int, BeforeValidator(_integral)]
Count = Annotated[int, Field(ge=1, le=COUNT_MAX), BeforeValidator(_integral)]
Seed = Annotated[int, Field(le=SEED_MAX), BeforeValidator(_integral)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class SdapiBody(Body):
    """The fields of both routes that generate images."""

    model_config = ConfigDict(extra="allow")

    prompt: str | None = ""
    """May name LoRAs, as <lora:id:weight>. Weights of words are read as plain text."""

    negative_prompt: str | None = ""
    """What to steer away from: by NAG, or by CFG if that is the model's default."""

    seed: Annotated[Seed | None, Field(json_schema_extra={"maximum": SEED_MAX_DOUBLE})] = -1
    """Seed of the first image; the next one has seed + 1. A negative one asks for a random seed."""

    steps: Count | None = None
    """Number of steps. The nearest number that the model supports is used."""

    cfg_scale: Number | None = None
    """Scale of CFG, of models whose default is CFG or that have no NAG. Other models leave it out."""

    width: Count | None = None
    """Width in pixels. With height, the nearest size that the model supports is used."""

    height: Count | None = None
    """See width."""

    batch_size: Count | None = 1
    """Number of images, multiplied by n_iter; 10 at most."""

    n_iter: Count | None = 1
    """See batch_size."""

    override_settings: dict[str, Any] | None = None
    """sd_model_checkpoint is the model; live_previews_enable asks for previews."""

    nag: NAGBody | None = None
    """The numbers of NAG. This field is an addition of this service."""

    send_images: bool | None = True
    """false: the answer has no images."""

    save_images: bool | None = False
    """Without effect: images are kept like those of every job."""

    sampler_name: str | None = None
    """Left out: each model has its own scheduler."""

    scheduler: str | None = None
    """Left out: each model has its own scheduler."""

    styles: list[str] | None = None
    """Left out: there are no stored styles."""

    restore_faces: bool | None = None
    """Left out: there is no face restoration."""

    tiling: bool | None = None
    """Left out: images do not tile."""

    disable_extra_networks: bool | None = False
    """true: <lora:…> in the prompt is read as plain text."""

    script_name: str | None = None
    """Refused: there are no scripts."""

    alwayson_scripts: dict[str, Any] | None = None
    """Refused, except for scripts that only refine an image, which are left out."""


class Txt2ImgBody(SdapiBody):
    """POST /sdapi/v1/txt2img."""

    enable_hr: bool | None = False
    """Left out: there is no second pass."""


class Img2ImgBody(SdapiBody):
    """POST /sdapi/v1/img2img."""

    init_images: Annotated[list[str] | None, Field(max_length=INIT_IMAGES_MAX)] = None
    """The image to change; for a model that takes instructions in the prompt, one or several references. Each is
    base64, a data URL, the id of an uploaded file, or an http(s) URL of an allowed host.
    """

    denoising_strength: Annotated[Number | None, Field(ge=0, le=1)] = None
    """Share of the steps that is run on the image. Default: 0.75."""

    mask: str | None = None
    """The image is regenerated where the mask is white, or, in a file with transparent parts, opaque."""

    inpainting_mask_invert: Annotated[int | bool | None, BeforeValidator(_integral)] = 0
    """1: the other parts are regenerated."""


class OptionsBody(Body):
    """POST /sdapi/v1/options."""

    model_config = ConfigDict(extra="allow")

    sd_model_checkpoint: str | None = None
    """The model of the caller's later requests that name none."""


class PngInfoBody(Body):
    """POST /sdapi/v1/png-info."""

    image: str
    """PNG, JPEG or WebP, as base64 or a data URL."""

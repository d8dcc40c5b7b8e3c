"""The shapes of requests, with the names of AUTOMATIC1111's API. What each field means here is decided in translate.py.

An absent or null field takes the default of the model, not that of the web UI: 512 pixels, 50 steps and a cfg_scale of
7 are wrong for most models of today. Fields that are not declared here are left out; a warning names them.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field

from app.api.requests.schemas import SEED_MAX, SEED_MAX_DOUBLE, NAGBody, _Body

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


class SdapiBody(_Body):
    """What both ways of asking for images have in common."""

    model_config = ConfigDict(extra="allow")

    prompt: Annotated[
        str | None, Field(description="may name LoRAs, as <lora:id:weight>; weights of words are read as plain text")
    ] = ""
    negative_prompt: Annotated[
        str | None, Field(description="what to steer away from: by NAG, or by CFG where that is the model's default")
    ] = ""
    seed: Annotated[
        Seed | None,
        Field(
            json_schema_extra={"maximum": SEED_MAX_DOUBLE},
            description="of the first image; the next takes seed + 1; negative: drawn",
        ),
    ] = -1
    steps: Annotated[Count | None, Field(description="the nearest number that the model makes")] = None
    cfg_scale: Annotated[
        Number | None, Field(description="of models whose default is CFG, or that have no NAG; the others leave it out")
    ] = None
    width: Annotated[Count | None, Field(description="with height: the nearest size that the model makes")] = None
    height: Annotated[Count | None, Field(description="see width")] = None
    batch_size: Annotated[Count | None, Field(description="images, times n_iter; 10 at the most")] = 1
    n_iter: Annotated[Count | None, Field(description="see batch_size")] = 1
    override_settings: Annotated[
        dict[str, Any] | None,
        Field(description="sd_model_checkpoint is the model; live_previews_enable asks for previews"),
    ] = None
    nag: Annotated[NAGBody | None, Field(description="the numbers of NAG; a field of this service")] = None
    send_images: Annotated[bool | None, Field(description="false: the answer has no images")] = True
    save_images: Annotated[bool | None, Field(description="means nothing: images are kept as every job's are")] = False
    sampler_name: Annotated[str | None, Field(description="left out: each model has its own scheduler")] = None
    scheduler: Annotated[str | None, Field(description="left out: likewise")] = None
    styles: Annotated[list[str] | None, Field(description="left out: there are no stored styles")] = None
    restore_faces: Annotated[bool | None, Field(description="left out: there is no face restoration")] = None
    tiling: Annotated[bool | None, Field(description="left out: images do not tile")] = None
    disable_extra_networks: Annotated[
        bool | None, Field(description="true: <lora:…> in the prompt is read as plain text")
    ] = False
    script_name: Annotated[str | None, Field(description="refused: there are no scripts")] = None
    alwayson_scripts: Annotated[
        dict[str, Any] | None,
        Field(description="refused, but for those that only refine an image, which are left out"),
    ] = None


class Txt2ImgBody(SdapiBody):
    """POST /sdapi/v1/txt2img."""

    enable_hr: Annotated[bool | None, Field(description="left out: there is no second pass")] = False


class Img2ImgBody(SdapiBody):
    """POST /sdapi/v1/img2img."""

    init_images: Annotated[
        list[str] | None,
        Field(
            max_length=INIT_IMAGES_MAX,
            description="the image to change; or references, of a model that is told by the prompt what to change: "
            "base64, a data URL, the id of an uploaded file, or an http(s) URL of an allowed host",
        ),
    ] = None
    denoising_strength: Annotated[
        Number | None, Field(ge=0, le=1, description="share of the steps that is run on the image; absent: 0.75")
    ] = None
    mask: Annotated[
        str | None,
        Field(description="white where the image is regenerated; of a file with transparent parts, opaque there"),
    ] = None
    inpainting_mask_invert: Annotated[
        int | bool | None, BeforeValidator(_integral), Field(description="1: the other parts are regenerated")
    ] = 0


class OptionsBody(_Body):
    """POST /sdapi/v1/options."""

    model_config = ConfigDict(extra="allow")

    sd_model_checkpoint: Annotated[
        str | None, Field(description="the model of the caller's later requests that name none")
    ] = None


class PngInfoBody(_Body):
    """POST /sdapi/v1/png-info."""

    image: Annotated[str, Field(description="PNG, JPEG or WebP: base64, or a data URL")]

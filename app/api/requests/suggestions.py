"""Which field a caller means who sends a name that the API does not have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import Request
from pydantic import BaseModel

from app.api.requests.generation import JobBody, NAGBody
from app.jobs import FORMER_NAMES
from app.suggestions import did_you_mean

__all__ = ["advice", "fields_of", "fields_within"]

#: Names that other NAG ports, web UIs and inference APIs use. A value of several words is advice, not a field.
ELSEWHERE = {
    "sigma_end": "nag.end, a share of the noise schedule from its start",  # ComfyUI-NAG's nag_sigma_end
    "phi": "nag.scale, which is phi + 1",
    "theta": "nag.end",
    "sigma_start": "nag.start, a share of the noise schedule",
    **{former: f"nag.{name}" for former, name in FORMER_NAMES.items()},
    "negative": "negative_prompt",
    "guidance": "guidance_scale",
    "cfg": "guidance_scale",
    "cfg_scale": "guidance_scale",
    "true_cfg_scale": "guidance_scale",
    "steps": "num_inference_steps",
    "num_steps": "num_inference_steps",
    "sampling_steps": "num_inference_steps",
    "num_images": "n",
    "num_images_per_prompt": "n",
    "num_outputs": "n",
    "batch_size": "n",
    "n_iter": "n",
    "size": "width and height",
    "image_size": "width and height",
    "resolution": "width and height",
    "frames": "num_frames",
    "video_length": "num_frames",
    "frame_rate": "fps",
    "format": "output_format",
    "image_format": "output_format",
    "denoising_strength": "strength",
    "denoise": "strength",
    "init_image": "image",
    "mask_image": "mask",
    "lora": "loras, a list of {id, scale}",
    "adapters": "loras, a list of {id, scale}",
    "lora_weights": "loras, a list of {id, scale}",
    "webhook_url": "webhook.url",
    "callback_url": "webhook.url",
    "timeout": "deadline_s",
    "idempotency_key": "the header Idempotency-Key",
}


def fields_of(request: Request) -> set[str]:
    """Returns the names of the fields that the request's route takes, as `fields_within` does."""
    body = getattr(request.scope.get("route"), "body_field", None)
    shape: Any = JobBody if body is None else body.field_info.annotation
    return fields_within(shape) if isinstance(shape, type) and issubclass(shape, BaseModel) else set()


def fields_within(shape: type[BaseModel]) -> set[str]:
    """Returns the names of a body's fields; those inside `nag` begin with `nag.`."""
    fields = set(shape.model_fields)
    return fields | (
        {f"nag.{name}" for name in NAGBody.model_fields if name not in FORMER_NAMES} if "nag" in fields else set()
    )


def advice(loc: Sequence[str], fields: set[str]) -> str:
    """Names the field that is likely meant by the unknown one at `loc`, as the end of a sentence; else nothing."""
    path = ".".join(loc).lower()
    bare = path.replace("nag.", "nag_").removeprefix("nag_").removeprefix("nag_")
    if f"nag.{bare}" in fields and f"nag.{bare}" != path:
        meant = f"nag.{bare}"
    elif bare in ELSEWHERE and (len(loc) == 1 or "nag" in ELSEWHERE[bare]):
        meant = ELSEWHERE[bare]
    else:
        return did_you_mean(path, fields - {path})
    return f"; did you mean {meant}?"

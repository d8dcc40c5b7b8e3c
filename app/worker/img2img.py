"""Edits: the same loaded models under diffusers' own pipelines for img2img and inpainting."""

from __future__ import annotations

import copy
import inspect
import io
import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from app.jobs import Generation
from app.worker.pipelines import signature_of

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of one of the many pipelines in these tables
    import diffusers
    from diffusers import AutoPipelineForImage2Image, AutoPipelineForInpainting
    from diffusers.pipelines import auto_pipeline

__all__ = ["Edit", "strength_of", "task_class", "task_pipeline"]

Pixels = np.ndarray[Any, np.dtype[np.float32]]

#: By task: what makes the pipeline of a warm one, and its table of classes.
TASKS: dict[str, tuple[Any, Mapping[str, Any]]] = {
    "img2img": (AutoPipelineForImage2Image, auto_pipeline.AUTO_IMAGE2IMAGE_PIPELINES_MAPPING),
    "inpaint": (AutoPipelineForInpainting, auto_pipeline.AUTO_INPAINT_PIPELINES_MAPPING),
}
#: Pipelines that diffusers 0.42 has without an entry in its tables. ChromaInpaintPipeline is left out: in 0.42.1 it
#: reads a value that its transformer's config has not.
for _table, _model, _name in (
    (auto_pipeline.AUTO_TEXT2IMAGE_PIPELINES_MAPPING, "sana-sprint", "SanaSprintPipeline"),
    (auto_pipeline.AUTO_IMAGE2IMAGE_PIPELINES_MAPPING, "sana-sprint", "SanaSprintImg2ImgPipeline"),
    (auto_pipeline.AUTO_IMAGE2IMAGE_PIPELINES_MAPPING, "chroma", "ChromaImg2ImgPipeline"),
    (auto_pipeline.AUTO_INPAINT_PIPELINES_MAPPING, "flux2-klein", "Flux2KleinInpaintPipeline"),
):
    _table.setdefault(_model, getattr(diffusers, _name))
CHANNELS = 3  # of an image
#: diffusers' inpainting of Stable Diffusion tells a UNet for noise alone by this number, whatever its VAE's.
USUAL_CHANNELS = 4
NEEDED = {"img2img": ("image", "strength"), "inpaint": ("image", "strength", "mask_image")}


def task_class(kind: Any, task: str) -> Any:
    """The class that does this task with the parts of pipeline `kind`; None where diffusers has none that takes a
    strength.
    """
    try:
        found = auto_pipeline._get_task_class(TASKS[task][1], kind.__name__, throw_error_if_not_exist=False)
    except ValueError:
        return None
    if found is None or not set(NEEDED[task]) <= inspect.signature(found.__call__).parameters.keys():
        return None
    return found


def task_pipeline(pipe: Any, task: str) -> Any:
    """Returns the task's pipeline with the parts of `pipe`; for "generate" that is `pipe` itself."""
    if task == "generate":
        return pipe
    made = TASKS[task][0].from_pipe(pipe)
    made.set_progress_bar_config(disable=True)
    if getattr(made, "latent_channels", None) == CHANNELS:
        made.latent_channels = None  # it tells latents from an image by how many channels they have
    if task == "inpaint" and hasattr(made, "unet"):
        made.unet = _with_usual_channels(made.unet, made.vae.config.latent_channels)
    return made


class Edit:
    """The images that one edit starts from. `files` has them by artifact name."""

    def __init__(self, request: Generation, files: Mapping[str, bytes]) -> None:
        assert request.edit is not None
        self._request = request
        self._image = _opened(files[request.edit.image], "RGB")
        self._mask = None if request.edit.mask is None else _opened(files[request.edit.mask], "L")

    def arguments(self, pipe: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of the call, from those of a generation: a pipeline without a size takes that of its image."""
        takes = signature_of(type(pipe), "__call__").parameters
        sized = {name: value for name, value in arguments.items() if name in takes or name not in ("width", "height")}
        masks = {} if self._mask is None else {"mask_image": [self._mask]}
        strength = strength_of(self._request.steps, self._request.num_inference_steps)
        return {**sized, "image": [self._image], "strength": strength, **masks}

    def blend(self, pixels: Pixels) -> Pixels:
        """Blends the source image back in by its mask: an autoencoder gives nothing back exactly."""
        if self._mask is None:
            return pixels
        share = _values(self._mask)[..., None]
        # In two terms, so that a share of 0 and of 1 gives one of them to the bit.
        blended: Pixels = _values(self._image) * (1 - share) + pixels * share
        return blended


def strength_of(part: int, whole: int) -> float:
    """The strength of an edit that runs `part` of `whole` steps.

    Pipelines multiply it by `whole` and round, some up and some down, so the product should be `part` exactly. Where no
    float has that product, it is a little above, and a pipeline that rounds up runs one step more.
    """
    near = part / whole
    floats = (near, math.nextafter(near, 0), math.nextafter(near, 2))
    return next((strength for strength in floats if whole * strength == part), max(floats))


def _with_usual_channels(unet: Any, latent_channels: int) -> Any:
    """Returns the same UNet, weights and hooks included, under a config with the channels that diffusers expects.

    Only of one that takes the latents and nothing else; the one for inpainting takes mask and image as well.
    """
    if unet.config.in_channels != latent_channels:
        return unet
    own = copy.copy(unet)
    own.register_to_config(in_channels=USUAL_CHANNELS)
    own._compiled_call_impl = unet._compiled_call_impl  # which torch leaves out of a copy
    return own


def _values(image: Image.Image) -> Pixels:
    """Returns values of 0 to 1."""
    values: Pixels = np.asarray(image, dtype=np.float32) / np.float32(255)
    return values


def _opened(data: bytes, mode: str) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert(mode)

"""The pipelines of diffusers that edit images with the parts of another pipeline."""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Mapping
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of one of the many pipelines in these tables
    import diffusers
    from diffusers import AutoPipelineForImage2Image, AutoPipelineForInpainting
    from diffusers.pipelines import auto_pipeline

__all__ = ["task_class", "task_pipeline"]

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

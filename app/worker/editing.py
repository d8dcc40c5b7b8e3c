"""Pictures that start from others: the same warm models under diffusers' own pipelines for it."""

from __future__ import annotations

import copy
import inspect
import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from app.jobs import Generation

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of one of the many pipelines in these tables
    import diffusers
    from diffusers import AutoPipelineForImage2Image, AutoPipelineForInpainting
    from diffusers.pipelines import auto_pipeline

__all__ = ["Editing", "Share", "task_class"]

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


class Editing:
    """Of one pipeline call, whose rows are all of one task and of as many steps."""

    def __init__(self, requests: Sequence[Generation], files: Mapping[str, bytes]) -> None:
        self._request = requests[0]
        edits = [each.edit for each in requests if each.edit is not None]
        self._images = [_opened(files[each.image], "RGB") for each in edits]
        self._masks = [_opened(files[each.mask], "L") for each in edits if each.mask is not None]

    def pipeline(self, pipe: Any) -> Any:
        """Returns the task's pipeline with the parts of `pipe`, its scheduler among them."""
        made = TASKS[self._request.task][0].from_pipe(pipe)
        made.set_progress_bar_config(disable=True)
        if getattr(made, "latent_channels", None) == CHANNELS:
            made.latent_channels = None  # it tells latents from an image by how many channels they have
        if self._request.task == "inpaint" and hasattr(made, "unet"):
            made.unet = _with_usual_channels(made.unet, made.vae.config.latent_channels)
        return made

    def arguments(self, pipe: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Of the call, from those of a generation: a pipeline that takes no size makes that of its pictures."""
        takes = inspect.signature(type(pipe).__call__).parameters
        sized = {name: value for name, value in arguments.items() if name in takes or name not in ("width", "height")}
        masks = {"mask_image": self._masks} if self._masks else {}
        strength = Share(self._request.steps, self._request.num_inference_steps)
        return {**sized, "image": self._images, "strength": strength, **masks}

    def kept(self, pixels: Pixels) -> Pixels:
        """Blends the source images back in by their masks: an autoencoder gives nothing back exactly."""
        if not self._masks:
            return pixels
        before = np.stack([_values(image) for image in self._images])
        share = np.stack([_values(mask) for mask in self._masks])[..., None]
        # In two terms, so that a share of 0 and of 1 gives one of them to the bit.
        blended: Pixels = before * (1 - share) + pixels * share
        return blended


class Share(float):
    """A strength as so many of all steps. A pipeline multiplies it with all of them and rounds, one up, another down:
    from this number they get the very count.
    """

    part: int
    whole: int

    def __new__(cls, part: int, whole: int) -> Share:
        self = super().__new__(cls, part / whole)
        self.part, self.whole = part, whole
        return self

    def __rmul__(self, steps: float) -> float:
        return steps * self.part / self.whole

    __mul__ = __rmul__


def _with_usual_channels(unet: Any, latent_channels: int) -> Any:
    """Returns the same UNet, weights and hooks included, under a config with the channels that diffusers expects.

    Only of one that takes the latents and nothing else; the one for inpainting takes mask and image as well.
    """
    if unet.config.in_channels != latent_channels:
        return unet
    own = copy.copy(unet)
    own.register_to_config(in_channels=USUAL_CHANNELS)
    return own


def _values(image: Image.Image) -> Pixels:
    """Returns values of 0 to 1."""
    values: Pixels = np.asarray(image, dtype=np.float32) / np.float32(255)
    return values


def _opened(data: bytes, mode: str) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert(mode)

"""The pipelines of diffusers that start from files with the parts of another pipeline."""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Container, Mapping
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of one of the many pipelines in these tables
    import diffusers
    from diffusers.pipelines import auto_pipeline
    from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition
    from diffusers.pipelines.ltx2.pipeline_ltx2_condition import LTX2VideoCondition

from app.jobs import InputRole

__all__ = ["argument_of", "frame_condition", "task_class", "task_pipeline"]

#: By task, diffusers' tables of pipeline classes for it.
TABLES: dict[str, Mapping[str, Any]] = {
    "img2img": auto_pipeline.AUTO_IMAGE2IMAGE_PIPELINES_MAPPING,
    "inpaint": auto_pipeline.AUTO_INPAINT_PIPELINES_MAPPING,
    "video_to_video": auto_pipeline.AUTO_VIDEO2VIDEO_PIPELINES_MAPPING,
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
#: By task and the name of a text pipeline, the pipeline that does the task with the same parts, if a checkpoint can
#: be for both. Pipelines that do the task themselves need no line.
SAME_PARTS: dict[str, dict[str, str]] = {
    "edit": {"FluxPipeline": "FluxKontextPipeline"},
    "image_to_video": {
        "WanPipeline": "WanImageToVideoPipeline",
        "LTXPipeline": "LTXImageToVideoPipeline",
        "LTX2Pipeline": "LTX2ConditionPipeline",
    },
}
CHANNELS = 3  # of an image
#: diffusers' inpainting of Stable Diffusion recognizes a UNet for noise alone by this number, whatever its VAE's.
USUAL_CHANNELS = 4
#: By role of a file, the names that pipelines have for its argument; the first that a pipeline takes is used.
ARGUMENTS: dict[InputRole, tuple[str, ...]] = {
    InputRole.IMAGE: ("image",),
    InputRole.MASK: ("mask_image",),
    InputRole.REFERENCE: ("reference_images", "image"),
    InputRole.FIRST_FRAME: ("conditions", "image"),
    InputRole.LAST_FRAME: ("conditions", "last_image"),
    InputRole.VIDEO: ("video",),
}
#: By task, the roles of the files that it starts from, and whether their pipelines take a strength.
NEEDED: dict[str, tuple[tuple[InputRole, ...], bool]] = {
    "img2img": ((InputRole.IMAGE,), True),
    "inpaint": ((InputRole.IMAGE, InputRole.MASK), True),
    "video_to_video": ((InputRole.VIDEO,), True),
    "image_to_video": ((InputRole.FIRST_FRAME,), False),
    "edit": ((InputRole.REFERENCE,), False),
}


def argument_of(takes: Container[str], role: InputRole) -> str | None:
    """Returns the name of the argument by which a pipeline takes files of a role, or None; it `takes` these names."""
    return next((name for name in ARGUMENTS[role] if name in takes), None)


def frame_condition(kind: Any, role: InputRole, image: Any, num_frames: int | None) -> Any:
    """Returns an image as the first or the last frame of a video, in the form that pipelines of LTX take."""
    is_last = role is InputRole.LAST_FRAME
    if issubclass(kind, diffusers.LTX2ConditionPipeline):
        return LTX2VideoCondition(frames=image, index=-1 if is_last else 0)
    assert num_frames is not None
    return LTXVideoCondition(image=image, frame_index=num_frames - 1 if is_last else 0)


def task_class(kind: Any, task: str) -> Any:
    """Returns the class that does a task with the parts of pipeline class `kind`; None if diffusers has none."""
    candidates = [kind]
    if task in TABLES:
        candidates = [_in_table(kind, TABLES[task])]
    elif (name := SAME_PARTS[task].get(kind.__name__)) is not None:
        candidates.append(getattr(diffusers, name))
    return next((candidate for candidate in candidates if candidate is not None and _does(candidate, task)), None)


def task_pipeline(pipe: Any, task: str) -> Any:
    """Returns the task's pipeline with the parts of `pipe`; that may be `pipe` itself."""
    if task == "generate":
        return pipe
    kind = task_class(type(pipe), task)
    if kind is None:
        raise ValueError(f"diffusers has no {task} with the parts of {type(pipe).__name__}")
    if isinstance(pipe, kind):
        return pipe
    pipeline = _with_parts_of(kind, pipe)
    pipeline.set_progress_bar_config(disable=True)
    if getattr(pipeline, "latent_channels", None) == CHANNELS:
        pipeline.latent_channels = None  # it distinguishes latents from an image by their channels
    if task == "inpaint" and hasattr(pipeline, "unet"):
        pipeline.unet = _with_usual_channels(pipeline.unet, pipeline.vae.config.latent_channels)
    return pipeline


def _in_table(kind: Any, table: Mapping[str, Any]) -> Any:
    try:
        return auto_pipeline._get_task_class(table, kind.__name__, throw_error_if_not_exist=False)
    except ValueError:
        return None


def _does(kind: Any, task: str) -> bool:
    roles, takes_strength = NEEDED[task]
    takes = inspect.signature(kind.__call__).parameters
    if task == "edit" and "num_frames" in takes and "reference_images" not in takes:
        return False  # the image that it takes is a video's first frame
    if task == "image_to_video" and "num_frames" not in takes:
        return False
    if takes_strength != ("strength" in takes) and "conditions" not in takes:
        return False
    return all(argument_of(takes, role) is not None for role in roles)


def _with_parts_of(kind: Any, pipe: Any) -> Any:
    """Returns a pipeline of class `kind` with the parts and the config of `pipe`, as far as it has them."""
    names = inspect.signature(kind.__init__).parameters
    parts = {name: part for name, part in pipe.components.items() if name in names}
    config = {name: value for name, value in pipe.config.items() if name in names and name not in parts}
    return kind(**parts, **config)


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

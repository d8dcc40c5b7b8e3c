"""PRX: the image attends to masked Gemma tokens and to itself in one softmax; the text attends to nothing."""

from __future__ import annotations

from nag.families.family import Family
from nag.processors.image_query import ImageQueryProcessor

__all__ = ["PRX"]


class PRX(Family):
    name = "PRX"
    models = "PRX, PRXPixel"
    attention = "joint"
    denoiser_types = ("PRXTransformer2DModel",)
    attention_modules = ("blocks.*.attention",)
    processor_class = ImageQueryProcessor
    processors = ("PRXAttnProcessor2_0",)
    denoiser_mask_arg = "attention_mask"
    negative_mask_arg = "negative_prompt_attention_mask"
    timestep_unit = 1000.0
    cfg = "batched"

"""NucleusMoE-Image: the image attends to itself and to masked text in one softmax; the text attends to nothing.

Its pipeline and the rotary positions of its text are Qwen-Image's. Experts work on the image alone.
"""

from __future__ import annotations

from nag.families.qwen_image import QwenImage
from nag.processors.image_query import ImageQueryProcessor

__all__ = ["NucleusImage"]


class NucleusImage(QwenImage):
    name = "NucleusMoE-Image"
    models = "NucleusMoE-Image"
    denoiser_types = ("NucleusMoEImageTransformer2DModel",)
    processor_class = ImageQueryProcessor
    processors = ("NucleusMoEAttnProcessor2_0",)
    text_last = True

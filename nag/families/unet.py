"""Stable Diffusion 1.5/2 and SDXL: cross attention in a UNet; the negative prompt is a second set of keys, values."""

from __future__ import annotations

from typing import Any, ClassVar

from diffusers.models.attention_processor import Attention

from nag.errors import UnsupportedPipeline
from nag.families.plain import PlainCrossAttention
from nag.families.swapping import original
from nag.params import NAGParams

__all__ = ["SDXL", "StableDiffusion"]


class StableDiffusion(PlainCrossAttention):
    name = "Stable Diffusion 1.5/2"
    models = "SD1.5, SD2, LCM"
    defaults = NAGParams(scale=3.0, tau=2.5, alpha=0.375)
    source = "arXiv 2505.21179, table 5"
    denoiser_types: ClassVar[tuple[str, ...]] = ("UNet2DConditionModel",)
    processors = (*PlainCrossAttention.processors, "IPAdapterAttnProcessor2_0")
    cfg = "batched"

    def check(self, pipe: Any) -> None:
        unet = original(pipe.unet)
        if any(isinstance(m, Attention) and m.added_kv_proj_dim is not None for m in unet.modules()):
            raise UnsupportedPipeline("this UNet adds text keys to its self attention, which guidance does not enter")
        if unet.config.addition_embed_type == "text":
            raise UnsupportedPipeline("this UNet pools its text into the time embedding, where both prompts would mix")
        if not hasattr(type(pipe), "do_classifier_free_guidance"):
            raise UnsupportedPipeline(f"{type(pipe).__name__} does not tell which rows of its batch are conditional")


class SDXL(StableDiffusion):
    name = "SDXL"
    models = "SDXL and its few-step forms: DMD2, Lightning, Hyper, Turbo"
    defaults = NAGParams(scale=3.0, tau=2.5, alpha=0.5)

    def matches(self, pipe: Any) -> bool:
        return super().matches(pipe) and original(pipe.unet).config.addition_embed_type == "text_time"

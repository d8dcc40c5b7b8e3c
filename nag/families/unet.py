"""Stable Diffusion 1.5/2 and SDXL: cross attention in a UNet; the negative prompt is a second set of keys, values."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from diffusers.models.attention_processor import Attention
from diffusers.modular_pipelines import ModularPipeline

from nag.errors import UnsupportedPipeline
from nag.families.plain_cross import PlainCrossAttention
from nag.params import NAGParams
from nag.processor_swap import original

__all__ = ["SDXL", "StableDiffusion", "unet_form"]


class StableDiffusion(PlainCrossAttention):
    name = "Stable Diffusion 1.5/2"
    models = "SD1.5, SD2, LCM"
    defaults = NAGParams(scale=3.0, tau=2.5, alpha=0.375)
    source = "arXiv 2505.21179, table 5"
    denoiser_types: ClassVar[tuple[str, ...]] = ("UNet2DConditionModel",)
    processors = (*PlainCrossAttention.processors, "IPAdapterAttnProcessor2_0")
    cfg = "batched"
    encoded: ClassVar[tuple[str, ...]] = ("embeds",)
    prompt_arguments: ClassVar[dict[str, str]] = {"prompt_embeds": "embeds"}

    def fits(self, denoiser: Any) -> bool:
        return unet_form(original(denoiser)) == "sd"

    def check_denoiser(self, denoiser: Any) -> None:
        if any(isinstance(m, Attention) and m.added_kv_proj_dim is not None for m in denoiser.modules()):
            raise UnsupportedPipeline("this UNet adds text keys to its self attention, which guidance does not enter")
        if denoiser.config.addition_embed_type == "text":
            raise UnsupportedPipeline("this UNet pools its text into the time embedding, where both prompts would mix")

    def check(self, pipe: Any) -> None:
        super().check(pipe)
        if not isinstance(pipe, ModularPipeline) and not hasattr(type(pipe), "do_classifier_free_guidance"):
            raise UnsupportedPipeline(f"{type(pipe).__name__} does not tell which rows of its batch are conditional")


class SDXL(StableDiffusion):
    name = "SDXL"
    models = "SDXL and its few-step forms: DMD2, Lightning, Hyper, Turbo"
    defaults = NAGParams(scale=3.0, tau=2.5, alpha=0.5)

    def fits(self, denoiser: Any) -> bool:
        return unet_form(original(denoiser)) == "sdxl"


def unet_form(unet: Any) -> Literal["sd", "sdxl", "kolors"]:
    """Whose form of the one UNet class this is."""
    if unet.config.addition_embed_type != "text_time":
        return "sd"
    # An image adapter takes the place of Kolors' text projection and keeps it beside its own.
    is_projected = getattr(unet, "text_encoder_hid_proj", None) is not None
    return "kolors" if is_projected or unet.config.encoder_hid_dim_type == "text_proj" else "sdxl"

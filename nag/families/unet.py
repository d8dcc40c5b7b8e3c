"""Cross attention in Stable Diffusion's UNet and its forms; the negative prompt is a second set of keys and values.

Kolors projects ChatGLM's text token by token on its way into SDXL's UNet. In AnimateDiff every frame of a video is a
row of its own; in ModelScope's text-to-video it is one within the UNet.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Literal

from diffusers.models.attention_processor import Attention
from diffusers.modular_pipelines import ModularPipeline

from nag.errors import UnsupportedPipeline
from nag.families.plain_cross import PlainCrossAttention
from nag.guided_step import GuidedStep
from nag.params import NAGParams
from nag.processor_swap import original

__all__ = ["SDXL", "AnimateDiff", "Kolors", "StableDiffusion", "TextToVideo", "unet_form"]


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
            raise UnsupportedPipeline(f"{type(pipe).__name__} does not say which rows of its batch are conditional")


class SDXL(StableDiffusion):
    name = "SDXL"
    models = "SDXL and its few-step forms: DMD2, Lightning, Hyper, Turbo"
    defaults = NAGParams(scale=3.0, tau=2.5, alpha=0.5)

    def fits(self, denoiser: Any) -> bool:
        return unet_form(original(denoiser)) == "sdxl"


def unet_form(unet: Any) -> Literal["sd", "sdxl", "kolors"]:
    """Returns the model family whose form of the UNet class this is."""
    if unet.config.addition_embed_type != "text_time":
        return "sd"
    # An image adapter takes the place of Kolors' text projection and keeps it in addition to its own.
    is_projected = getattr(unet, "text_encoder_hid_proj", None) is not None
    return "kolors" if is_projected or unet.config.encoder_hid_dim_type == "text_proj" else "sdxl"


class Kolors(SDXL):
    name = "Kolors"
    models = "Kolors, with ControlNet or PAG"
    source = "as SDXL, not tuned"

    def fits(self, denoiser: Any) -> bool:
        return unet_form(original(denoiser)) == "kolors"


class AnimateDiff(StableDiffusion):
    name = "AnimateDiff"
    models = "SD1.5 and SDXL with motion adapters, PIA, SparseCtrl, ControlNet"
    source = "as Stable Diffusion 1.5, not tuned"
    denoiser_types = ("UNetMotionModel",)

    def fits(self, denoiser: Any) -> bool:  # noqa: ARG002 (of either form)
        return True

    def check(self, pipe: Any) -> None:
        super().check(pipe)
        if getattr(pipe, "free_noise_enabled", False):
            raise UnsupportedPipeline("FreeNoise gives each frame a prompt of its own; disable it first")

    def frames(self, call: dict[str, Any]) -> int:
        return int(call["sample"].shape[2])


class TextToVideo(PlainCrossAttention):
    name = "ModelScope text-to-video"
    models = "ModelScope, ZeroScope; text or video to video"
    defaults = NAGParams(scale=3.0, tau=2.5, alpha=0.375)
    source = "as Stable Diffusion 1.5, not tuned"
    denoiser_types = ("UNet3DConditionModel",)
    cfg = "batched"

    def adapt_step(self, step: GuidedStep | None, call: dict[str, Any]) -> GuidedStep | None:
        return None if step is None else replace(step, rows_per_sample=call["sample"].shape[2])

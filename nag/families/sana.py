"""SANA and SANA-Sprint: cross attention to masked Gemma tokens, which are the same at every step.

The pipelines put a long instruction ahead of the prompt and none ahead of a negative one; neither does guidance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nag.encoding import Arguments
from nag.families.family import Family
from nag.negative import NegativeEmbeds
from nag.params import NAGParams
from nag.processor_swap import original

__all__ = ["Sana", "SanaVideo"]


class Sana(Family):
    name = "SANA"
    models = "SANA, SANA-Sprint, with ControlNet or PAG"
    defaults = NAGParams(scale=5.0, tau=2.5, alpha=0.375)
    source = "arXiv 2505.21179, table 5"
    attention = "cross"
    denoiser_types = ("SanaTransformer2DModel",)
    attention_modules = ("transformer_blocks.*.attn2",)
    processors = ("SanaAttnProcessor2_0",)
    denoiser_mask_arg = "encoder_attention_mask"
    negative_mask_arg = "negative_prompt_attention_mask"
    caches_text_kv = True
    cfg = "batched"

    def encode(self, encode_prompt: Callable[..., Any], prompts: Sequence[str], arguments: Arguments) -> NegativeEmbeds:
        return super().encode(encode_prompt, prompts, arguments | {"complex_human_instruction": None})

    def timestep(self, pipe: Any, call: dict[str, Any]) -> float:
        timestep = self.scheduler_timestep(pipe, call)
        # Sprint's scheduler counts an angle, of which its denoiser gets the share of noise.
        if pipe.scheduler.config.get("prediction_type") == "trigflow":
            return timestep * 1000
        return timestep / float(original(pipe.transformer).config.get("timestep_scale", 1.0))


class SanaVideo(Sana):
    name = "SANA-Video"
    models = "SANA-Video, text or image to video"
    source = "as SANA, not tuned"
    denoiser_types = ("SanaVideoTransformer3DModel",)

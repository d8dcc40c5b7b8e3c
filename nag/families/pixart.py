"""PixArt-α and PixArt-Σ: cross attention to masked T5 tokens, which are the same at every step.

The pipelines keep to themselves whether they run CFG: they tell it to `encode_prompt` alone.
"""

from __future__ import annotations

from nag.families.plain_cross import PlainCrossAttention
from nag.params import NAGParams

__all__ = ["PixArt"]


class PixArt(PlainCrossAttention):
    name = "PixArt"
    models = "PixArt-α, PixArt-Σ"
    defaults = NAGParams(scale=5.0, tau=2.5, alpha=0.375)
    source = "arXiv 2505.21179, table 5"
    denoiser_types = ("PixArtTransformer2DModel",)
    denoiser_mask_arg = "encoder_attention_mask"
    negative_mask_arg = "negative_prompt_attention_mask"
    cfg = "batched"

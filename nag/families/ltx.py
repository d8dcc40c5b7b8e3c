"""LTX-Video: cross attention to T5's tokens under a mask; both stay the same at every step."""

from __future__ import annotations

from nag.families.family import Family
from nag.params import NAGParams

__all__ = ["LTXVideo"]


class LTXVideo(Family):
    name = "LTX-Video"
    models = "0.9: T2V, I2V, conditions, long with many prompts"
    defaults = NAGParams(scale=5.0, tau=2.5, alpha=0.375)
    source = "as SANA, PixArt, not tuned"
    attention = "cross"
    denoiser_types = ("LTXVideoTransformer3DModel",)
    attention_modules = ("transformer_blocks.*.attn2",)
    processors = ("LTXVideoAttnProcessor", "LTXVideoAttentionProcessor2_0")
    denoiser_mask_arg = "encoder_attention_mask"
    negative_mask_arg = "negative_prompt_attention_mask"
    caches_text_kv = True
    cfg = "batched"

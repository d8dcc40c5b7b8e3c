"""Motif-Video: joint attention, text last under a mask, and in the same blocks cross attention to the same text.

The last blocks attend to the features of earlier ones in place of the text. In image-to-video an image's tokens stand
ahead of the text; they count as part of the image.
"""

from __future__ import annotations

from typing import Any

from nag.current_step import CurrentStep
from nag.families.family import Family
from nag.processor_swap import class_names
from nag.processors import CrossAttentionProcessor, GuidedProcessor, JointAttentionProcessor

__all__ = ["MotifVideo"]


class MotifVideo(Family):
    name = "Motif-Video"
    models = "T2V, I2V"
    attention = "joint"
    denoiser_types = ("MotifVideoTransformer3DModel",)
    processors = ("MotifVideoAttnProcessor2_0", "MotifVideoCrossAttnProcessor2_0")
    denoiser_mask_arg = "encoder_attention_mask"
    negative_mask_arg = "negative_prompt_attention_mask"
    text_last = True
    cfg = "separate"
    encoded = ("embeds", "", "mask")

    def attentions(self, denoiser: Any) -> list[Any]:
        single = denoiser.single_transformer_blocks
        blocks = (*denoiser.transformer_blocks, *single[: len(single) - denoiser.num_decoder_layers])
        return [attn for block in blocks for attn in (block.attn, block.cross_attn) if attn is not None]

    def processor(self, current: CurrentStep, plain: Any) -> GuidedProcessor:
        crosses = "MotifVideoCrossAttnProcessor2_0" in class_names(plain)
        return (CrossAttentionProcessor if crosses else JointAttentionProcessor)(current, plain)

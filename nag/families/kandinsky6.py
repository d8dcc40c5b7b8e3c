"""Kandinsky 6: video and sound attend across to the same Qwen tokens, which blocks of either refine at every timestep.

As in Kandinsky 5 each prompt's tokens meet their own prompt alone and are counted from zero; here they are masked. The
pooled CLIP prompt stays the positive one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nag.families.family import Family
from nag.families.kandinsky5 import Kandinsky5
from nag.guided_step import GuidedStep
from nag.negative import NegativeEmbeds
from nag.step_hooks import StepHooks

__all__ = ["Kandinsky6"]


class Kandinsky6(Kandinsky5):
    name = "Kandinsky 6"
    models = "TI2VA, distilled; video with sound or without"
    denoiser_types = ("Kandinsky6Transformer3DModel",)
    attention_modules = (
        "video_text_transformer_blocks.*.attn",
        "audio_text_transformer_blocks.*.attn",
        "visual_transformer_blocks.*.video_dec_block.cross_attention",
        "visual_transformer_blocks.*.audio_dec_block.cross_attention",
    )
    processors = ("Kandinsky6AttnProcessor",)
    denoiser_mask_arg = "encoder_attention_mask"
    notes = "equation 7, the positive's pooled prompt"
    encoded = ("embeds", "pooled", "mask")
    encodes_one_by_one = False

    def pack(self, call: dict[str, Any], negative: NegativeEmbeds) -> dict[str, Any]:
        packed = Family.pack(self, call, negative)
        mask = packed.get("encoder_attention_mask")
        return packed if mask is None else packed | {"encoder_attention_mask": mask.bool()}

    def hooks(self, denoiser: Any, hooks: StepHooks) -> None:
        def restart(step: GuidedStep, args: tuple[Tensor], kwargs: Any) -> Any:
            places, layout = args[0], step.token_layout
            return (torch.cat([places[: layout.positive], places[: layout.negative]]),), kwargs

        for rope in (denoiser.video_text_rope_embeddings, denoiser.audio_text_rope_embeddings):
            hooks.before(rope, restart)

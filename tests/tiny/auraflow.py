"""AuraFlow."""

from __future__ import annotations

import torch
from diffusers import AuraFlowPipeline, AuraFlowTransformer2DModel, FlowMatchEulerDiscreteScheduler

from tests.tiny.common import WIDTH, Case, strengthen, vae
from tests.tiny.video import umt5


def auraflow(seed: int = 0) -> AuraFlowPipeline:
    torch.manual_seed(seed)
    transformer = AuraFlowTransformer2DModel(
        sample_size=8,
        num_mmdit_layers=2,
        num_single_dit_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        caption_projection_dim=WIDTH,
        pos_embed_max_size=64,
    )
    strengthen(transformer)
    transformer.register_tokens.data.mul_(25)
    for name, parameter in transformer.named_parameters():  # gates nearly shut, as initialised
        if "norm1" in name and "linear" in name:
            parameter.data.mul_(10)
    return AuraFlowPipeline(
        **umt5(),
        vae=vae(),
        transformer=transformer.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(),
    )


CASES = (
    Case(
        "auraflow",
        auraflow,
        options={"guidance_scale": 1.0, "height": 16, "width": 16, "max_sequence_length": 15},
        cfg={"guidance_scale": 3.0},
        text_tokens=8 + 15,  # with the registers
        attention="text_first",
    ),
)

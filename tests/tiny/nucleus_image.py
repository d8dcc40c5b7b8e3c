"""NucleusMoE-Image."""

from __future__ import annotations

import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    NucleusMoEImagePipeline,
    NucleusMoEImageTransformer2DModel,
)
from torch import nn
from transformers import Qwen3VLForConditionalGeneration

from tests.tiny.chat import chat_tokenizer
from tests.tiny.common import SEPARATE, WIDTH, Case, far_apart, strengthen
from tests.tiny.qwen3_vl import qwen3_vl_config
from tests.tiny.qwen_image import VISION, qwen_vae


def nucleus_image(seed: int = 0) -> NucleusMoEImagePipeline:
    torch.manual_seed(seed)
    tokenizer = chat_tokenizer(extra=VISION)
    transformer = NucleusMoEImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        num_key_value_heads=1,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(4, 4, 8),
        mlp_ratio=6.0,
        dense_moe_strategy="leave_first_block_dense",
        num_experts=2,
        moe_intermediate_dim=16,
        capacity_factors=1.0,
    )
    for name, parameter in transformer.named_parameters():  # experts are not initialised as made
        if "experts" in name:
            nn.init.normal_(parameter, std=0.2)
        if "img_mod" in name and parameter.ndim == 2:
            parameter.data.mul_(5)
    strengthen(transformer)
    encoder = far_apart(Qwen3VLForConditionalGeneration(qwen3_vl_config(tokenizer)))
    return NucleusMoEImagePipeline(
        transformer=transformer.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=qwen_vae(),
        text_encoder=encoder,
        processor=tokenizer,
    )


CASES = (
    Case(
        "nucleus-image",
        nucleus_image,
        options={"height": 16, "width": 24, "guidance_scale": 1.0, "return_index": -1},
        cfg={"guidance_scale": 3.0},
        conditional_rows=SEPARATE,
        text=("encoder_hidden_states", "encoder_hidden_states_mask"),
        attention="beside",
    ),
)

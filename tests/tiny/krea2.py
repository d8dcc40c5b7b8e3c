"""Krea 2."""

from __future__ import annotations

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, Krea2Pipeline, Krea2Transformer2DModel
from torch import nn
from transformers import Qwen3VLModel

from tests.tiny.chat import chat_tokenizer
from tests.tiny.common import SEPARATE, WIDTH, Case, far_apart, strengthen
from tests.tiny.qwen3_vl import qwen3_vl_config
from tests.tiny.qwen_image import VISION, qwen_vae


def krea2(seed: int = 0) -> Krea2Pipeline:
    torch.manual_seed(seed)
    tokenizer = chat_tokenizer(extra=VISION)
    transformer = Krea2Transformer2DModel(
        in_channels=16,
        num_layers=3,
        attention_head_dim=16,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=2 * WIDTH,
        timestep_embed_dim=16,
        text_hidden_dim=WIDTH,
        num_text_layers=2,
        text_num_attention_heads=2,
        text_num_key_value_heads=2,
        text_intermediate_size=2 * WIDTH,
        num_layerwise_text_blocks=1,
        num_refiner_text_blocks=1,
        axes_dims_rope=(4, 4, 8),
    )
    strengthen(transformer)
    for block in transformer.transformer_blocks:  # gates nearly shut, as initialised
        nn.init.normal_(block.scale_shift_table, std=0.5)
    pipe = Krea2Pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=qwen_vae(),
        text_encoder=far_apart(Qwen3VLModel(qwen3_vl_config(tokenizer, patch_size=8))),
        tokenizer=tokenizer,
        transformer=transformer.eval(),
        text_encoder_select_layers=(1, 2),
    )
    pipe.prompt_template_encode_prefix = "<|im_start|>user "
    pipe.prompt_template_encode_suffix = "<|im_end|><|im_start|>assistant"
    pipe.prompt_template_encode_start_idx = 2
    pipe.prompt_template_encode_num_suffix_tokens = 3
    return pipe


CASES = (
    Case(
        "krea2",
        krea2,
        options={"guidance_scale": 0.0, "height": 16, "width": 16, "max_sequence_length": 20},
        cfg={"guidance_scale": 3.0},
        conditional_rows=SEPARATE,
        text=("encoder_hidden_states", "encoder_attention_mask"),
        attention="text_first",
    ),
)

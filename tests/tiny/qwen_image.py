"""Qwen-Image, and its Edit forms for tests of their own."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
)
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from tests.tiny.chat import chat_tokenizer
from tests.tiny.common import SEPARATE, WIDTH, Case, far_apart, strengthen

VISION = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>")


def qwen_vl_encoder(tokenizer: Any, width: int = WIDTH) -> Qwen2_5_VLForConditionalGeneration:
    start, end, image = tokenizer.convert_tokens_to_ids(list(VISION))
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": width,
            "intermediate_size": 2 * width,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "max_position_embeddings": 128,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 2, 4]},
        },
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": width,
            "patch_size": 8,
            "window_size": 16,
            "fullatt_block_indexes": [0],
        },
        image_token_id=image,
        vision_start_token_id=start,
        vision_end_token_id=end,
    )
    return far_apart(Qwen2_5_VLForConditionalGeneration(config))


def qwen_vae() -> AutoencoderKLQwenImage:
    return AutoencoderKLQwenImage(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 2],
        num_res_blocks=1,
        temperal_downsample=[False],
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    ).eval()


def qwen_image(
    seed: int = 0,
    kind: Any = QwenImagePipeline,
    config: dict[str, Any] | None = None,
    parts: Any = lambda tokenizer: {},
) -> Any:
    torch.manual_seed(seed)
    tokenizer = chat_tokenizer(extra=VISION)
    transformer = QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=3,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(4, 4, 8),
        **(config or {}),
    )
    strengthen(transformer)
    for block in transformer.transformer_blocks:  # gates nearly shut, as initialised
        block.img_mod[1].weight.data.mul_(10)
        block.txt_mod[1].weight.data.mul_(10)
    pipe = kind(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=qwen_vae(),
        text_encoder=qwen_vl_encoder(tokenizer),
        tokenizer=tokenizer,
        transformer=transformer.eval(),
        **parts(tokenizer),
    )
    pipe.prompt_template_encode = "<|im_start|>user {}<|im_end|><|im_start|>assistant"
    pipe.prompt_template_encode_start_idx = 2
    return pipe


CASES = (
    Case(
        "qwen-image",
        qwen_image,
        options={"height": 16, "width": 24, "true_cfg_scale": 1.0},
        cfg={"true_cfg_scale": 3.0, "negative_prompt": "a triangle"},
        conditional_rows=SEPARATE,
        text=("encoder_hidden_states", "encoder_hidden_states_mask"),
        attention="text_first",
    ),
)

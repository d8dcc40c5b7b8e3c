"""EasyAnimate, text to video; its last block shares its projections between text and video."""

from __future__ import annotations

import torch
from diffusers import (
    AutoencoderKLMagvit,
    EasyAnimatePipeline,
    EasyAnimateTransformer3DModel,
    FlowMatchEulerDiscreteScheduler,
)
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

from tests.tiny.chat import chat_tokenizer
from tests.tiny.common import WIDTH, Case, far_apart, strengthen


def easyanimate(seed: int = 0) -> EasyAnimatePipeline:
    torch.manual_seed(seed)
    tokenizer = chat_tokenizer()
    transformer = EasyAnimateTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        patch_size=2,
        num_layers=2,
        mmdit_layers=1,
        time_embed_dim=8,
        text_embed_dim=WIDTH,
    )
    strengthen(transformer, 4.0)
    transformer.text_proj.weight.data.mul_(2.0)
    encoder = far_apart(
        Qwen2VLForConditionalGeneration(
            Qwen2VLConfig(
                text_config={
                    "vocab_size": len(tokenizer),
                    "hidden_size": WIDTH,
                    "intermediate_size": 2 * WIDTH,
                    "num_hidden_layers": 2,
                    "num_attention_heads": 2,
                    "num_key_value_heads": 1,
                    "rope_parameters": {"rope_type": "default", "mrope_section": [2, 2, 4], "rope_theta": 10000.0},
                },
                vision_config={"depth": 1, "embed_dim": 16, "num_heads": 2, "hidden_size": WIDTH},
            )
        )
    )
    sizes = {"block_out_channels": (8,) * 4, "layers_per_block": 1, "norm_num_groups": 4}
    return EasyAnimatePipeline(
        vae=AutoencoderKLMagvit(latent_channels=4, **sizes),
        text_encoder=encoder,
        tokenizer=tokenizer,
        transformer=transformer.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(),
    )


CASES = (
    Case(
        "easyanimate",
        easyanimate,
        options={"guidance_scale": 1.0, "height": 64, "width": 64, "num_frames": 5},
        cfg={"guidance_scale": 4.0, "negative_prompt": ["a triangle", "a square"]},
        attention="text_first",
        output="frames",
    ),
)

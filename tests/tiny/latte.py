"""Latte."""

from __future__ import annotations

import torch
from diffusers import DDIMScheduler, LattePipeline, LatteTransformer3DModel

from tests.tiny.common import WIDTH, Case, far_apart, strengthen, vae
from training import text
from training.shapes.world import WORDS


def latte(seed: int = 0) -> LattePipeline:
    torch.manual_seed(seed)
    tokenizer = text.t5_tokenizer(WORDS)
    transformer = LatteTransformer3DModel(
        in_channels=4,
        out_channels=8,
        num_layers=2,
        num_attention_heads=2,
        attention_head_dim=16,
        cross_attention_dim=32,
        caption_channels=WIDTH,
        sample_size=8,
        patch_size=2,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        video_length=3,
    )
    strengthen(transformer, 4.0)
    t5 = far_apart(text.t5_encoder(tokenizer, WIDTH))
    return LattePipeline(
        tokenizer=tokenizer,
        text_encoder=t5,
        vae=vae(),
        transformer=transformer.eval(),
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1),
    )


CASES = (
    Case(
        "latte",
        latte,
        # With the mask, a prompt of a batch would read zeros where it reads nothing alone.
        options={
            "guidance_scale": 1.0,
            "height": 16,
            "width": 16,
            "video_length": 3,
            "clean_caption": False,
            "mask_feature": False,
        },
        cfg={"guidance_scale": 4.0},
        output="frames",
    ),
)

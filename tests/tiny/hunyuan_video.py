"""HunyuanVideo 1.0."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    AutoencoderKLHunyuanVideo,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
)
from transformers import LlamaModel

from tests.tiny.common import SEPARATE, WIDTH, Case, strengthen
from tests.tiny.words import llama_config, word_tokenizer
from training import text
from training.shapes.world import WORDS


def parts(denoiser: Any, **sizes: Any) -> dict[str, Any]:
    """What pipelines of HunyuanVideo and Framepack are made of."""
    tokenizer, clip_tokenizer = word_tokenizer(), text.clip_tokenizer(WORDS)
    transformer = denoiser(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=2,
        num_single_layers=2,
        num_refiner_layers=1,
        text_embed_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        rope_axes_dim=(4, 6, 6),
        **sizes,
    )
    strengthen(transformer)
    vae = AutoencoderKLHunyuanVideo(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        down_block_types=("HunyuanVideoDownBlock3D",) * 4,
        up_block_types=("HunyuanVideoUpBlock3D",) * 4,
        block_out_channels=(4, 4, 4, 4),
        layers_per_block=1,
        norm_num_groups=2,
    )
    return {
        "scheduler": FlowMatchEulerDiscreteScheduler(),
        "vae": vae.eval(),
        "text_encoder": LlamaModel(llama_config(tokenizer, WIDTH)).eval(),
        "tokenizer": tokenizer,
        "text_encoder_2": text.clip_encoder(clip_tokenizer, WIDTH).eval(),
        "tokenizer_2": clip_tokenizer,
        "transformer": transformer.eval(),
    }


def hunyuan_video(seed: int = 0) -> HunyuanVideoPipeline:
    torch.manual_seed(seed)
    return HunyuanVideoPipeline(**parts(HunyuanVideoTransformer3DModel, patch_size=1))


CASES = (
    Case(
        "hunyuan-video",
        hunyuan_video,
        options={
            "height": 16,
            "width": 16,
            "num_frames": 9,
            "max_sequence_length": 14,
            "prompt_template": {"template": "{}", "crop_start": 0},
        },
        cfg={"true_cfg_scale": 3.0, "negative_prompt": "a triangle"},
        conditional_rows=SEPARATE,
        text=("encoder_hidden_states", "encoder_attention_mask"),
        attention="text_last",
        output="frames",
    ),
)

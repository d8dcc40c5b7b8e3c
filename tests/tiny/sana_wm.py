"""SANA-WM: an image and a camera's path to video; its second stage, which refines that video."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    SanaWMLTX2Refiner,
    SanaWMLTX2RefinerTransformer3DModel,
    SanaWMPipeline,
    SanaWMTransformer3DModel,
)
from torch import Tensor

from nag import NegativeEmbeds
from tests.tiny.calls import DenoiserCall
from tests.tiny.common import WIDTH, Case
from tests.tiny.gemma import gemma2, gemma_tokenizer
from tests.tiny.ltx2 import connectors, gemma3, transformer, video_vae
from tests.tiny.video import IMAGE

CHANNELS = 8
FRAMES, SIDE = 2, 2


def denoiser(seed: int = 0) -> SanaWMTransformer3DModel:
    torch.manual_seed(seed)
    model = SanaWMTransformer3DModel(
        in_channels=CHANNELS,
        num_layers=2,
        hidden_size=32,
        num_attention_heads=2,
        softmax_every_n=2,
        linear_head_dim=16,
        chunk_plucker_channels=6 * 8,
        chunk_plucker_post_attn_blocks=2,
        caption_channels=WIDTH,
    )
    for block in model.blocks:
        block.cross_attn.kv_linear.weight.data.mul_(4.0)
        block.cross_attn.proj.weight.data.mul_(4.0)
    return model.eval()


def pipeline(seed: int = 0) -> SanaWMPipeline:
    model = denoiser(seed)
    tokenizer = gemma_tokenizer()
    return SanaWMPipeline(
        tokenizer=tokenizer,
        text_encoder=gemma2(tokenizer),
        vae=video_vae(),
        transformer=model,
        scheduler=FlowMatchEulerDiscreteScheduler(),
    )


def refiner(seed: int = 0) -> SanaWMLTX2RefinerTransformer3DModel:
    torch.manual_seed(seed)
    return transformer(SanaWMLTX2RefinerTransformer3DModel)


def refiner_pipeline(seed: int = 0) -> SanaWMLTX2Refiner:
    model = refiner(seed)
    tokenizer = gemma_tokenizer()
    return SanaWMLTX2Refiner(
        transformer=model,
        connectors=connectors(
            video_connector_num_learnable_registers=None, audio_connector_num_learnable_registers=None
        ),
        tokenizer=tokenizer,
        text_encoder=gemma3(len(tokenizer)),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        text_max_sequence_length=15,
    )


def last_is_padding(text: Tensor) -> Tensor:
    mask = torch.ones(text.shape[:2], dtype=torch.long)
    mask[:, -1] = 0
    return mask


def arguments(text: Tensor, places: int) -> dict[str, Any]:
    rows, tokens = len(text), FRAMES * SIDE**2
    angles = torch.rand(rows, tokens, WIDTH, generator=torch.Generator().manual_seed(2))
    return {
        "hidden_states": torch.randn(rows, tokens, CHANNELS, generator=torch.Generator().manual_seed(1)),
        "encoder_hidden_states": text,
        "timestep": torch.full((rows, tokens), 725.0),
        "video_rotary_emb": (angles.cos(), angles.sin()),
        "encoder_attention_mask": last_is_padding(text),
    }


def negative(text: Tensor) -> NegativeEmbeds:
    return NegativeEmbeds(text, mask=last_is_padding(text))


CALLS = (DenoiserCall("sanawm-refiner", refiner, arguments, "cross", negative=negative),)

CASES = (
    Case(
        "sanawm",
        pipeline,
        options={
            "image": IMAGE,
            "c2w": np.eye(4)[None].repeat(9, axis=0),
            "intrinsics": [40.0, 40.0, 32.0, 32.0],
            "height": 64,
            "width": 64,
            "num_frames": 9,
            "guidance_scale": 1.0,
            "max_sequence_length": 15,
            "chi_prompt": [""],
        },
        cfg={"guidance_scale": 4.0},
        conditional_rows=(False, True),
        text=("encoder_hidden_states", "mask"),
        text_tokens=15,
        output="frames",
        takes="one prompt",
    ),
)

REFINER = Case(
    "sanawm-refiner",
    refiner_pipeline,
    options={"fps": 16.0, "block_size": 2},
    text=("encoder_hidden_states", "encoder_attention_mask"),
    is_plain=lambda call: call["kv_cache_mode"] != "inject",
    takes="one prompt",
)

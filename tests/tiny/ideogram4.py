"""Ideogram 4."""

from __future__ import annotations

import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    Ideogram4Pipeline,
    Ideogram4Transformer2DModel,
)
from torch import nn
from transformers import Qwen3VLModel

from tests.tiny.chat import chat_tokenizer
from tests.tiny.common import WIDTH, Case, far_apart, flux2_vae, strengthen
from tests.tiny.qwen3_vl import qwen3_vl_config
from tests.tiny.qwen_image import VISION

#: Layers of the text encoder, and how many of them the pipeline reads.
LAYERS, READ = 36, 13


def _transformer() -> Ideogram4Transformer2DModel:
    transformer = Ideogram4Transformer2DModel(
        in_channels=16,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        intermediate_size=64,
        adaln_dim=16,
        llm_features_dim=READ * WIDTH,
        mrope_section=(4, 2, 2),
    )
    strengthen(transformer)
    for name, parameter in transformer.named_parameters():  # gates nearly shut, as initialised
        if "adaln_modulation" in name:
            nn.init.normal_(parameter, std=0.5)
    return transformer.eval()


def ideogram4(seed: int = 0) -> Ideogram4Pipeline:
    torch.manual_seed(seed)
    tokenizer = chat_tokenizer(extra=VISION)
    config = qwen3_vl_config(tokenizer)
    config.text_config.num_hidden_layers = LAYERS
    config.text_config.layer_types = ["full_attention"] * LAYERS
    encoder = far_apart(Qwen3VLModel(config))
    return Ideogram4Pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=flux2_vae(),
        text_encoder=encoder,
        tokenizer=tokenizer,
        transformer=_transformer(),
        unconditional_transformer=_transformer(),
    )


CASES = (
    Case(
        "ideogram4",
        ideogram4,
        options={
            "guidance_scale": 1.0,
            "guidance_schedule": None,
            "height": 16,
            "width": 24,
            "max_sequence_length": 20,
        },
        text=("encoder_hidden_states", "position_ids", "segment_ids", "indicator"),
        text_tokens=20,
        attention="text_first",
    ),
)

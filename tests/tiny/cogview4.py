"""CogView3-Plus and CogView4."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    CogVideoXDDIMScheduler,
    CogView3PlusPipeline,
    CogView3PlusTransformer2DModel,
    CogView4Pipeline,
    CogView4Transformer2DModel,
    FlowMatchEulerDiscreteScheduler,
)
from torch import nn
from transformers import GlmConfig, GlmModel

from tests.tiny.chat import chat_tokenizer, language_model
from tests.tiny.common import SEPARATE, WIDTH, Case, far_apart, strengthen, vae
from training import text
from training.shapes.world import WORDS


def _transformer(kind: Any, **positions: Any) -> Any:
    transformer = kind(
        in_channels=4,
        out_channels=4,
        num_layers=3,
        attention_head_dim=16,
        num_attention_heads=2,
        text_embed_dim=WIDTH,
        time_embed_dim=16,
        condition_dim=4,
        sample_size=8,
        **positions,
    )
    strengthen(transformer)
    for block in transformer.transformer_blocks:  # gates nearly shut, as initialised
        nn.init.normal_(block.norm1.linear.bias, std=0.5)
    return transformer.eval()


def cogview3(seed: int = 0) -> CogView3PlusPipeline:
    torch.manual_seed(seed)
    tokenizer = text.t5_tokenizer(WORDS)
    return CogView3PlusPipeline(
        tokenizer=tokenizer,
        transformer=_transformer(CogView3PlusTransformer2DModel, pos_embed_max_size=16),
        text_encoder=far_apart(text.t5_encoder(tokenizer, WIDTH)),
        vae=vae(),
        scheduler=CogVideoXDDIMScheduler(),
    )


def cogview4(seed: int = 0) -> CogView4Pipeline:
    torch.manual_seed(seed)
    tokenizer = chat_tokenizer(padding_side="left", start="<|im_start|>")
    tokens = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    return CogView4Pipeline(
        tokenizer=tokenizer,
        transformer=_transformer(CogView4Transformer2DModel, rope_axes_dim=(8, 8)),
        text_encoder=language_model(GlmModel, GlmConfig, tokenizer, **tokens),
        vae=vae(),
        scheduler=FlowMatchEulerDiscreteScheduler(),
    )


CASES = (
    Case(
        "cogview3",
        cogview3,
        options={"guidance_scale": 1.0, "height": 16, "width": 32, "max_sequence_length": 15},
        cfg={"guidance_scale": 4.0},
        attention="text_first",
    ),
    Case(
        "cogview4",
        cogview4,
        options={"guidance_scale": 1.0, "height": 16, "width": 32},
        cfg={"guidance_scale": 3.0},
        conditional_rows=SEPARATE,
        attention="text_first",
        timestep=lambda sigma: sigma * 1000,
    ),
)

"""Chroma."""

from __future__ import annotations

import warnings

import torch
from diffusers import ChromaPipeline, ChromaTransformer2DModel, FlowMatchEulerDiscreteScheduler
from torch import nn

from tests.tiny.common import SEPARATE, WIDTH, Case, far_apart, strengthen, vae
from training import text
from training.shapes.world import WORDS


def chroma(seed: int = 0) -> ChromaPipeline:
    torch.manual_seed(seed)
    tokenizer = text.t5_tokenizer(WORDS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the model builds a class that diffusers deprecates
        transformer = ChromaTransformer2DModel(
            in_channels=16,
            num_layers=2,
            num_single_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=WIDTH,
            axes_dims_rope=(4, 4, 8),
            approximator_num_channels=64,
            approximator_hidden_dim=WIDTH,
            approximator_layers=1,
        )
    strengthen(transformer)
    # The approximator makes every gate; as initialised they are nearly shut.
    nn.init.normal_(transformer.distilled_guidance_layer.out_proj.bias, std=0.5)
    encoder = far_apart(text.t5_encoder(tokenizer, WIDTH))
    return ChromaPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae(),
        text_encoder=encoder,
        tokenizer=tokenizer,
        transformer=transformer.eval(),
    )


CASES = (
    Case(
        "chroma",
        chroma,
        options={"guidance_scale": 0.0, "height": 16, "width": 16, "max_sequence_length": 15},
        cfg={"guidance_scale": 3.0, "negative_prompt": ["a triangle"] * 2},
        conditional_rows=SEPARATE,
        text=("encoder_hidden_states", "attention_mask"),
        attention="text_first",
    ),
)

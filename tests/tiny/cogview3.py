"""CogView3-Plus."""

from __future__ import annotations

import torch
from diffusers import CogVideoXDDIMScheduler, CogView3PlusPipeline, CogView3PlusTransformer2DModel
from torch import nn

from tests.tiny.common import WIDTH, Case, strengthen, vae
from training import text
from training.shapes.world import WORDS


def cogview3(seed: int = 0) -> CogView3PlusPipeline:
    torch.manual_seed(seed)
    tokenizer = text.t5_tokenizer(WORDS)
    transformer = CogView3PlusTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=3,
        attention_head_dim=16,
        num_attention_heads=2,
        text_embed_dim=WIDTH,
        time_embed_dim=16,
        condition_dim=4,
        pos_embed_max_size=16,
        sample_size=8,
    )
    strengthen(transformer)
    for block in transformer.transformer_blocks:  # gates nearly shut, as initialised
        nn.init.normal_(block.norm1.linear.bias, std=0.5)
    t5 = text.t5_encoder(tokenizer, WIDTH)
    nn.init.normal_(t5.shared.weight, std=1.0)
    return CogView3PlusPipeline(
        tokenizer=tokenizer,
        text_encoder=t5.eval(),
        vae=vae(),
        transformer=transformer.eval(),
        scheduler=CogVideoXDDIMScheduler(),
    )


CASES = (
    Case(
        "cogview3",
        cogview3,
        options={"guidance_scale": 1.0, "height": 16, "width": 32, "max_sequence_length": 15},
        cfg={"guidance_scale": 4.0},
        attention="text_first",
    ),
)

"""Allegro."""

from __future__ import annotations

import torch
from diffusers import AllegroPipeline, AllegroTransformer3DModel, AutoencoderKLAllegro, DDIMScheduler

from tests.tiny.common import WIDTH, Case, far_apart, strengthen
from training import text
from training.shapes.world import WORDS


def allegro(seed: int = 0) -> AllegroPipeline:
    torch.manual_seed(seed)
    transformer = AllegroTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=24,
        num_layers=2,
        cross_attention_dim=48,
        caption_channels=WIDTH,
        sample_height=4,
        sample_width=4,
        sample_frames=3,
    )
    strengthen(transformer, 4.0)
    tokenizer = text.t5_tokenizer(WORDS)
    t5 = far_apart(text.t5_encoder(tokenizer, WIDTH))
    return AllegroPipeline(
        tokenizer=tokenizer,
        text_encoder=t5,
        vae=AutoencoderKLAllegro(block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4).eval(),
        transformer=transformer.eval(),
        scheduler=DDIMScheduler(clip_sample=False),
    )


CASES = (
    Case(
        "allegro",
        allegro,
        options={
            "guidance_scale": 1.0,
            "height": 32,
            "width": 32,
            "num_frames": 12,
            "max_sequence_length": 15,
            "clean_caption": False,
        },
        cfg={"guidance_scale": 4.0},
        text=("encoder_hidden_states", "encoder_attention_mask"),
        text_tokens=15,
        output="frames",
        takes="without copies",
    ),
)

"""CogVideoX: 2B with positions added to the patches, 5B with rotary ones, and 5B-I2V's learned ones."""

from __future__ import annotations

import functools

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler, CogVideoXPipeline, CogVideoXTransformer3DModel
from torch import nn

from tests.tiny.common import WIDTH, Case, strengthen
from training import text
from training.shapes.world import WORDS


def cogvideox(seed: int = 0, rotary: bool = False, learned: bool = False) -> CogVideoXPipeline:
    torch.manual_seed(seed)
    tokenizer = text.t5_tokenizer(WORDS)
    transformer = CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        time_embed_dim=8,
        text_embed_dim=WIDTH,
        num_layers=3,
        sample_width=2,
        sample_height=2,
        sample_frames=9,
        patch_size=1,
        max_text_seq_length=15,
        use_rotary_positional_embeddings=rotary,
        use_learned_positional_embeddings=learned,
    )
    strengthen(transformer, 3.0)
    if learned:
        nn.init.normal_(transformer.patch_embed.pos_embedding)
    t5 = text.t5_encoder(tokenizer, WIDTH)
    nn.init.normal_(t5.shared.weight, std=1.0)
    return CogVideoXPipeline(
        tokenizer=tokenizer,
        text_encoder=t5.eval(),
        vae=AutoencoderKLCogVideoX(
            down_block_types=("CogVideoXDownBlock3D",) * 4,
            up_block_types=("CogVideoXUpBlock3D",) * 4,
            block_out_channels=(4, 4, 4, 4),
            latent_channels=4,
            layers_per_block=1,
            norm_num_groups=2,
        ).eval(),
        transformer=transformer.eval(),
        scheduler=CogVideoXDDIMScheduler(),
    )


def _case(name: str, **more: bool) -> Case:
    return Case(
        name,
        functools.partial(cogvideox, **more),
        options={"guidance_scale": 1.0, "height": 16, "width": 16, "num_frames": 9, "max_sequence_length": 15},
        cfg={"guidance_scale": 4.0},
        attention="text_first",
        output="frames",
        takes="without copies",
    )


CASES = (
    _case("cogvideox"),
    _case("cogvideox-rotary", rotary=True),
    _case("cogvideox-learned", rotary=True, learned=True),
)

"""CogVideoX: 2B with positions added to the patches, 5B with rotary ones, 5B-I2V's learned ones; ConsisID."""

from __future__ import annotations

import functools
from typing import Any

import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    CogVideoXDDIMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    ConsisIDTransformer3DModel,
)
from diffusers.pipelines.consisid.pipeline_consisid import ConsisIDPipeline  # diffusers exports it beside OpenCV alone
from torch import nn

from tests.tiny.common import WIDTH, Case, far_apart, strengthen
from tests.tiny.video import IMAGE
from training import text
from training.shapes.world import WORDS

#: Of ConsisID's face, and at how many scales it is read.
FACE, SCALES = 16, 5


def _pipeline(kind: Any, denoiser: Any, rotary: bool, learned: bool, **sizes: Any) -> Any:
    tokenizer = text.t5_tokenizer(WORDS)
    transformer = denoiser(
        **{"num_attention_heads": 2, "in_channels": 4} | sizes,
        attention_head_dim=16,
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
    return kind(
        tokenizer=tokenizer,
        text_encoder=far_apart(text.t5_encoder(tokenizer, WIDTH)),
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


def cogvideox(seed: int = 0, rotary: bool = False, learned: bool = False) -> CogVideoXPipeline:
    torch.manual_seed(seed)
    return _pipeline(CogVideoXPipeline, CogVideoXTransformer3DModel, rotary, learned)


def consisid(seed: int = 0) -> ConsisIDPipeline:
    torch.manual_seed(seed)
    return _pipeline(
        ConsisIDPipeline,
        ConsisIDTransformer3DModel,
        rotary=True,
        learned=True,
        num_attention_heads=3,
        in_channels=8,
        is_train_face=True,
        cross_attn_interval=1,
        cross_attn_dim_head=16,
        cross_attn_num_heads=2,
        LFE_id_dim=FACE,
        LFE_vit_dim=FACE,
        LFE_depth=SCALES,
        LFE_dim_head=8,
        LFE_num_heads=2,
        LFE_num_id_token=2,
        LFE_num_querie=4,
        LFE_output_dim=WIDTH,
        LFE_num_scale=SCALES,
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
    Case(
        "consisid",
        consisid,
        options={
            "guidance_scale": 1.0,
            "height": 16,
            "width": 16,
            "num_frames": 9,
            "max_sequence_length": 15,
            "image": IMAGE,
            "id_cond": torch.linspace(-1, 1, FACE).view(1, FACE),
            "id_vit_hidden": [torch.linspace(-1, 1, 3 * FACE).sin().view(1, 3, FACE)] * SCALES,
        },
        cfg={"guidance_scale": 4.0},
        conditional_rows=(False, True),
        attention="text_first",
        output="frames",
        takes="one prompt",
    ),
)

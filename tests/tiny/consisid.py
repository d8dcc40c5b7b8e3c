"""ConsisID: CogVideoX with a face to keep."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler, ConsisIDTransformer3DModel
from diffusers.pipelines.consisid.pipeline_consisid import ConsisIDPipeline  # diffusers exports it beside OpenCV alone
from torch import nn

from tests.tiny.common import WIDTH, Case, strengthen
from tests.tiny.video import IMAGE
from training import text
from training.shapes.world import WORDS

FACE, SCALES = 16, 5


def consisid(seed: int = 0) -> ConsisIDPipeline:
    torch.manual_seed(seed)
    tokenizer = text.t5_tokenizer(WORDS)
    transformer = ConsisIDTransformer3DModel(
        num_attention_heads=3,
        attention_head_dim=16,
        in_channels=8,
        out_channels=4,
        time_embed_dim=8,
        text_embed_dim=WIDTH,
        num_layers=3,
        sample_width=2,
        sample_height=2,
        sample_frames=9,
        patch_size=1,
        max_text_seq_length=15,
        use_rotary_positional_embeddings=True,
        use_learned_positional_embeddings=True,
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
    strengthen(transformer, 3.0)
    nn.init.normal_(transformer.patch_embed.pos_embedding)
    t5 = text.t5_encoder(tokenizer, WIDTH)
    nn.init.normal_(t5.shared.weight, std=1.0)
    return ConsisIDPipeline(
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


CASES = (
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

"""AnimateDiff."""

from __future__ import annotations

import torch
from diffusers import AnimateDiffPipeline, DDIMScheduler, MotionAdapter
from transformers import CLIPTextModel

from tests.tiny.common import WIDTH, Case, clip_config, strengthen, vae
from tests.tiny.unet import small_unet
from training import text
from training.shapes.world import WORDS


def animatediff(seed: int = 0) -> AnimateDiffPipeline:
    torch.manual_seed(seed)
    tokenizer = text.clip_tokenizer(WORDS)
    adapter = MotionAdapter(
        block_out_channels=(16, 32),
        motion_layers_per_block=1,
        motion_norm_num_groups=4,
        motion_num_attention_heads=2,
        motion_max_seq_length=8,
    )
    strengthen(adapter)
    return AnimateDiffPipeline(
        vae=vae(),
        text_encoder=CLIPTextModel(clip_config(tokenizer)).eval(),
        tokenizer=tokenizer,
        unet=small_unet(WIDTH),
        motion_adapter=adapter.eval(),
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1),
    )


CASES = (
    Case(
        "animatediff",
        animatediff,
        options={"guidance_scale": 0.0, "height": 16, "width": 16, "num_frames": 3},
        cfg={"guidance_scale": 4.0},
        frames=3,
        takes="without copies",
        output="frames",
    ),
)

"""ModelScope's text-to-video."""

from __future__ import annotations

import torch
from diffusers import DDIMScheduler, TextToVideoSDPipeline, UNet3DConditionModel
from transformers import CLIPTextModel

from tests.tiny.common import WIDTH, Case, clip_config, strengthen, vae
from training import text
from training.shapes.world import WORDS


def text_to_video(seed: int = 0) -> TextToVideoSDPipeline:
    torch.manual_seed(seed)
    tokenizer = text.clip_tokenizer(WORDS)
    unet = UNet3DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=8,
    )
    strengthen(unet, 5.0)
    return TextToVideoSDPipeline(
        vae=vae(),
        text_encoder=CLIPTextModel(clip_config(tokenizer)).eval(),
        tokenizer=tokenizer,
        unet=unet.eval(),
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1),
    )


CASES = (
    Case(
        "text-to-video",
        text_to_video,
        options={"guidance_scale": 0.0, "height": 16, "width": 16, "num_frames": 3},
        cfg={"guidance_scale": 4.0},
        takes="without copies",
        output="frames",
    ),
)

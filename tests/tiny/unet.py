"""Stable Diffusion and SDXL."""

from __future__ import annotations

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from tests.tiny.common import WIDTH, Case, clip_config, strengthen, vae
from training import text
from training.shapes.world import WORDS


def small_unet(cross_width: int, **more: object) -> UNet2DConditionModel:
    sizes = {
        "sample_size": 8,
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": 2,
    }
    unet = UNet2DConditionModel(cross_attention_dim=cross_width, **(sizes | more))
    strengthen(unet, 3.0)
    return unet.eval()


def smallest_unet() -> UNet2DConditionModel:
    """The UNet of Stable Diffusion with one block each way."""
    torch.manual_seed(0)
    return small_unet(
        WIDTH,
        block_out_channels=(16,),
        down_block_types=("CrossAttnDownBlock2D",),
        mid_block_type=None,
        up_block_types=("CrossAttnUpBlock2D",),
    )


def sd(seed: int = 0) -> StableDiffusionPipeline:
    torch.manual_seed(seed)
    tokenizer = text.clip_tokenizer(WORDS)
    return StableDiffusionPipeline(
        vae=vae(),
        text_encoder=CLIPTextModel(clip_config(tokenizer)).eval(),
        tokenizer=tokenizer,
        unet=small_unet(WIDTH),
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sdxl(seed: int = 0) -> StableDiffusionXLPipeline:
    torch.manual_seed(seed)
    tokenizer = text.clip_tokenizer(WORDS)
    return StableDiffusionXLPipeline(
        vae=vae(),
        text_encoder=CLIPTextModel(clip_config(tokenizer)).eval(),
        text_encoder_2=CLIPTextModelWithProjection(clip_config(tokenizer)).eval(),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=small_unet(
            2 * WIDTH,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=WIDTH + 6 * 8,
            use_linear_projection=True,
        ),
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1),
        force_zeros_for_empty_prompt=False,
        add_watermarker=False,
    )


_OPTIONS = {"guidance_scale": 0.0, "height": 16, "width": 16}

CASES = (
    Case("sd", sd, options=_OPTIONS, cfg={"guidance_scale": 4.0}),
    Case("sdxl", sdxl, options=_OPTIONS, cfg={"guidance_scale": 4.0}),
)

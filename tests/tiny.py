"""Small random pipelines in the real layouts, with weights strong enough that the prompt changes the picture."""

from __future__ import annotations

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from training import text
from training.shapes.world import WORDS

WIDTH = 32


def strengthen(model: nn.Module, gain: float = 2.0) -> None:
    """Scales attention values and outputs up: a freshly made network hardly hears its prompt."""
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 and any(part in name for part in ("to_v", "add_v", "to_out", "to_add_out", "proj_out")):
            parameter.data.mul_(gain)


def vae(scale: int = 2) -> AutoencoderKL:
    blocks = 2 if scale == 2 else 3
    return AutoencoderKL(
        block_out_channels=(8, 16, 16)[:blocks],
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=32,
    )


def flux(seed: int = 0, double_blocks: int = 2, single_blocks: int = 2) -> FluxPipeline:
    torch.manual_seed(seed)
    clip_tokenizer, t5_tokenizer = text.clip_tokenizer(WORDS), text.t5_tokenizer(WORDS)
    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=double_blocks,
        num_single_layers=single_blocks,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        axes_dims_rope=(4, 4, 8),
    )
    strengthen(transformer)
    t5 = text.t5_encoder(t5_tokenizer, WIDTH)
    nn.init.normal_(t5.shared.weight, std=1.0)
    autoencoder = vae()
    autoencoder.register_to_config(shift_factor=0.0)
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=autoencoder,
        text_encoder=text.clip_encoder(clip_tokenizer, WIDTH).eval(),
        tokenizer=clip_tokenizer,
        text_encoder_2=t5.eval(),
        tokenizer_2=t5_tokenizer,
        transformer=transformer.eval(),
    )


def _unet(cross_width: int, **more: object) -> UNet2DConditionModel:
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=cross_width,
        attention_head_dim=2,
        **more,
    )
    strengthen(unet, 3.0)
    return unet.eval()


def _clip_config(tokenizer: CLIPTokenizer, **more: object) -> CLIPTextConfig:
    config = text.clip_encoder(tokenizer, WIDTH).config
    for name, value in more.items():
        setattr(config, name, value)
    return config


def sd(seed: int = 0) -> StableDiffusionPipeline:
    torch.manual_seed(seed)
    tokenizer = text.clip_tokenizer(WORDS)
    return StableDiffusionPipeline(
        vae=vae(),
        text_encoder=CLIPTextModel(_clip_config(tokenizer)).eval(),
        tokenizer=tokenizer,
        unet=_unet(WIDTH),
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
        text_encoder=CLIPTextModel(_clip_config(tokenizer)).eval(),
        text_encoder_2=CLIPTextModelWithProjection(_clip_config(tokenizer)).eval(),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=_unet(
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

"""The autoencoders: trained alone first, then frozen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, AutoencoderKLWan
from tqdm import tqdm

from training.shapes.world import World

#: Deviation of the noise added to latents (of deviation near 0.7) while the decoder learns: it snaps to clean shapes.
DECODER_NOISE = 0.2
#: Where the encoder's log-variance is held: a deviation of e⁻⁴, almost deterministic.
LOG_VARIANCE = -8.0
#: Frames to a latent frame, after the first, which has one of its own.
FRAMES_A_LATENT = 4
#: Frames of a clip that the autoencoder learns from: three latents, all that its causal convolutions see at once.
LEARNT_FRAMES = 9


def build_image() -> AutoencoderKL:
    """Shrinks each side by four into three channels."""
    blocks = 3
    return AutoencoderKL(
        block_out_channels=(16, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        latent_channels=3,
        layers_per_block=1,
        norm_num_groups=8,
        sample_size=64,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def build_video() -> AutoencoderKLWan:
    """Shrinks each side by four, and time by four after the first frame, into six channels."""
    return AutoencoderKLWan(
        base_dim=16,
        z_dim=6,
        dim_mult=[1, 2, 4],
        num_res_blocks=1,
        temperal_downsample=[True, True],
        latents_mean=[0.0] * 6,
        latents_std=[1.0] * 6,
        scale_factor_spatial=4,
        scale_factor_temporal=FRAMES_A_LATENT,
    )


def loss(vae: Any, world: type[World], batch: int, device: torch.device) -> Callable[[torch.Generator], torch.Tensor]:
    """Reconstruction from noisy latents; the latents are held near the shrunk picture.

    A flow learns smooth latents fastest. A shrunk picture is as smooth as they come, and its edges keep, by how far
    each pixel is covered, what the decoder needs to draw them sharp (the aim of arXiv 2502.09509, by simpler means).
    """

    def value(generator: torch.Generator) -> torch.Tensor:
        pictures = world.sample(batch, generator).render().to(device)
        if pictures.ndim == 5:
            pictures = pictures[:, :, :LEARNT_FRAMES]
        posterior = vae.encode(pictures).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(device)
        level = DECODER_NOISE * torch.rand(batch, *[1] * (noise.ndim - 1), generator=generator).to(device)
        rebuilt = vae.decode(posterior.mean + level * noise).sample
        aligned = F.mse_loss(posterior.mean, _shrunk(pictures))
        steady = (posterior.logvar - LOG_VARIANCE).square().mean()
        error: torch.Tensor = (rebuilt - pictures).abs().mean() + F.mse_loss(rebuilt, pictures)
        total: torch.Tensor = error + 4 * aligned + 1e-3 * steady
        return total

    return value


def _shrunk(pictures: torch.Tensor) -> torch.Tensor:
    """(B, 3, H, W) a quarter the size; of a clip (B, 3, F, H, W) the first and the last frame that a latent covers."""
    if pictures.ndim == 4:
        return F.avg_pool2d(pictures, 4)
    first, last = pictures[:, :, 1::FRAMES_A_LATENT], pictures[:, :, ::FRAMES_A_LATENT]
    ends = torch.cat([torch.cat([pictures[:, :, :1], first], dim=2), last], dim=1)
    return F.avg_pool3d(ends, (1, 4, 4))


@torch.no_grad()
def latent_bank(
    vae: Any, world: type[World], count: int, seed: int, device: torch.device, batch: int
) -> tuple[torch.Tensor, World]:
    """Latent means (count, C, …), not yet scaled, of `count` scenes, and the scenes."""
    generator = torch.Generator().manual_seed(seed)
    scenes = world.sample(count, generator)
    latents = [
        vae.encode(scenes.take(slice(i, i + batch)).render().to(device)).latent_dist.mean
        for i in tqdm(range(0, count, batch), desc="latents", unit="batch")
    ]
    return torch.cat(latents), scenes


def scaled(vae: AutoencoderKL | AutoencoderKLWan, latents: torch.Tensor) -> torch.Tensor:
    """Brought to deviation 1; the pipeline undoes it by what is written into the VAE's config here. A clip's channels
    are brought to mean 0 as well; a picture's mean is near it, and Stable Diffusion's pipeline knows no shift."""
    if isinstance(vae, AutoencoderKLWan):
        over = [0, *range(2, latents.ndim)]
        mean, deviation = latents.mean(over), latents.std(over)
        vae.register_to_config(latents_mean=mean.tolist(), latents_std=deviation.tolist())
        shape = (1, -1, *[1] * (latents.ndim - 2))
        return (latents - mean.view(shape)) / deviation.view(shape)
    scale = 1.0 / float(latents.std())
    vae.register_to_config(shift_factor=0.0, scaling_factor=scale)
    return latents * scale

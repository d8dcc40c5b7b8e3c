"""The autoencoders: trained alone first, then frozen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, AutoencoderKLWan
from tqdm import tqdm

from training.shapes.world import World
from training.stages import Data

#: Deviation of the noise added to latents (of deviation near 0.7) while the decoder learns: it snaps to clean shapes.
DECODER_NOISE = 0.2
#: Where the encoder's log-variance is held: a deviation of e⁻⁴, almost deterministic.
LOG_VARIANCE = -8.0
#: Frames to a latent frame, after the first, which has one of its own.
FRAMES_A_LATENT = 4
#: Frames of a clip that the autoencoder learns from: three latents, all that its causal convolutions see at once.
LEARNT_FRAMES = 9


def build_image(latent_channels: int = 3) -> AutoencoderKL:
    """Shrinks each side by four into three channels, or into four if latents must not be mistaken for an image."""
    blocks = 3
    return AutoencoderKL(
        block_out_channels=(16, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        latent_channels=latent_channels,
        layers_per_block=1,
        norm_num_groups=8,
        sample_size=64,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def build_video() -> AutoencoderKLWan:
    """Shrinks each side by eight, half of that by folding pixels into channels as Wan 2.2's does, and time by four
    after the first frame, into 24 channels."""
    return AutoencoderKLWan(
        base_dim=16,
        z_dim=24,
        dim_mult=[1, 2, 4],
        num_res_blocks=1,
        temperal_downsample=[True, True],
        in_channels=12,
        out_channels=12,
        patch_size=2,
        latents_mean=[0.0] * 24,
        latents_std=[1.0] * 24,
        scale_factor_spatial=8,
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
        aligned = F.mse_loss(posterior.mean, _shrunk(pictures, channels=posterior.mean.shape[1]))
        steady = (posterior.logvar - LOG_VARIANCE).square().mean()
        error: torch.Tensor = (rebuilt - pictures).abs().mean() + F.mse_loss(rebuilt, pictures)
        total: torch.Tensor = error + 4 * aligned + 1e-3 * steady
        return total

    return value


def _shrunk(pictures: torch.Tensor, channels: int) -> torch.Tensor:
    """Shrinks images (B, 3, H, W) to a quarter of each side; a fourth channel is their brightness. Of clips
    (B, 3, F, H, W), keeps the first and the last frame of each latent, and folds them into channels once more."""
    if pictures.ndim == 4:
        small = F.avg_pool2d(pictures, 4)
        return torch.cat([small, small.mean(1, keepdim=True)], dim=1)[:, :channels]
    first, last = pictures[:, :, 1::FRAMES_A_LATENT], pictures[:, :, ::FRAMES_A_LATENT]
    ends = torch.cat([torch.cat([pictures[:, :, :1], first], dim=2), last], dim=1)
    small = F.avg_pool3d(ends, (1, 4, 4)).transpose(1, 2)
    return F.pixel_unshuffle(small, 2).transpose(1, 2)


@torch.no_grad()
def encode_world(
    vae: Any,
    world: type[World],
    count: int,
    seed: int,
    device: torch.device,
    batch: int,
    *,
    known: torch.Tensor | None = None,
    cache: Path | None = None,
) -> Data:
    """Draws `count` rows of the world and encodes them, `batch` at a time: latent means, not yet normalized.

    If their latents are `known`, only the references are encoded. Everything is stored in the file `cache`, and read
    from it if it is there."""
    scenes = world.sample(count, torch.Generator().manual_seed(seed))
    if cache is not None and cache.exists():
        return Data(**torch.load(cache, map_location=device, weights_only=True), scenes=scenes)
    latents, references = list[torch.Tensor](), list[torch.Tensor]()
    for i in tqdm(range(0, count, batch), desc="latents", unit="batch"):
        part = scenes.take(slice(i, i + batch))
        if known is None:
            latents.append(vae.encode(part.render().to(device)).latent_dist.mean)
        images = part.references()
        if images is not None:
            # A video's autoencoder takes an image as a clip of one frame.
            images = images[:, :, None] if isinstance(vae, AutoencoderKLWan) else images
            references.append(vae.encode(images.to(device)).latent_dist.mean)
    data = Data(torch.cat(latents) if known is None else known, torch.cat(references) if references else None, scenes)
    if cache is not None:
        cache.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"latents": data.latents, "references": data.references}, cache)
    return data


def register_scale(vae: AutoencoderKL | AutoencoderKLWan, latents: torch.Tensor) -> None:
    """Writes into the VAE's config what brings these latents to deviation 1. A clip's channels are brought to mean 0 as
    well; an image's mean is near it, and Stable Diffusion's pipeline knows no shift."""
    if isinstance(vae, AutoencoderKLWan):
        over = [0, *range(2, latents.ndim)]
        vae.register_to_config(latents_mean=latents.mean(over).tolist(), latents_std=latents.std(over).tolist())
    else:
        vae.register_to_config(shift_factor=0.0, scaling_factor=1.0 / float(latents.std()))


def normalized(vae: AutoencoderKL | AutoencoderKLWan, latents: torch.Tensor) -> torch.Tensor:
    """Returns the latents as the pipelines normalize them, by the VAE's config."""
    if isinstance(vae, AutoencoderKLWan):
        shape = (1, -1, *[1] * (latents.ndim - 2))
        mean, deviation = (
            latents.new_tensor(values).view(shape) for values in (vae.config.latents_mean, vae.config.latents_std)
        )
        return (latents - mean) / deviation
    scaled: torch.Tensor = (latents - (vae.config.shift_factor or 0.0)) * vae.config.scaling_factor
    return scaled

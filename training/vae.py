"""The autoencoder of an image model: trained alone first, then frozen."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from training.shapes.world import Scenes

#: Deviation of the noise added to latents (of deviation near 0.7) while the decoder learns: it snaps to clean shapes.
DECODER_NOISE = 0.2
#: Where the encoder's log-variance is held: a deviation of e⁻⁴, almost deterministic.
LOG_VARIANCE = -8.0


def build() -> AutoencoderKL:
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


def loss(vae: AutoencoderKL, batch: int, device: torch.device) -> Callable[[torch.Generator], torch.Tensor]:
    """Reconstruction from noisy latents; the latents are held near the shrunk picture.

    A flow learns smooth latents fastest. A shrunk picture is as smooth as they come, and its edges keep, by how far
    each pixel is covered, what the decoder needs to draw them sharp (the aim of arXiv 2502.09509, by simpler means).
    """

    def value(generator: torch.Generator) -> torch.Tensor:
        pictures = Scenes.sample(batch, generator).render().to(device)
        posterior = vae.encode(pictures).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(device)
        level = DECODER_NOISE * torch.rand(batch, 1, 1, 1, generator=generator).to(device)
        rebuilt = vae.decode(posterior.mean + level * noise).sample
        aligned = F.mse_loss(posterior.mean, F.avg_pool2d(pictures, 4))
        steady = (posterior.logvar - LOG_VARIANCE).square().mean()
        error: torch.Tensor = (rebuilt - pictures).abs().mean() + F.mse_loss(rebuilt, pictures)
        total: torch.Tensor = error + 4 * aligned + 1e-3 * steady
        return total

    return value


@torch.no_grad()
def latent_bank(
    vae: AutoencoderKL, count: int, seed: int, device: torch.device, batch: int = 256
) -> tuple[torch.Tensor, Scenes]:
    """Latent means (count, 3, h, w), not yet scaled, of `count` scenes, and the scenes."""
    generator = torch.Generator().manual_seed(seed)
    scenes = Scenes.sample(count, generator)
    latents = [
        vae.encode(
            Scenes(scenes.attributes[i : i + batch], scenes.place[i : i + batch]).render().to(device)
        ).latent_dist.mean
        for i in range(0, count, batch)
    ]
    return torch.cat(latents), scenes

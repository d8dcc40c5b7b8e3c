"""The autoencoder of an image model: trained alone first, then frozen."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from training.shapes.world import Scenes

KL_WEIGHT = 1e-4


def build() -> AutoencoderKL:
    """Shrinks each side by four into four channels."""
    blocks = 3
    return AutoencoderKL(
        block_out_channels=(16, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=8,
        sample_size=64,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def loss(vae: AutoencoderKL, batch: int, device: torch.device) -> Callable[[torch.Generator], torch.Tensor]:
    """Mean absolute error + a light pull of the latents towards a standard normal."""

    def value(generator: torch.Generator) -> torch.Tensor:
        pictures = Scenes.sample(batch, generator).render().to(device)
        posterior = vae.encode(pictures).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(device)
        rebuilt = vae.decode(posterior.mean + posterior.std * noise).sample
        difference = rebuilt - pictures
        return (
            difference.abs().mean()
            + F.mse_loss(rebuilt, pictures)
            + KL_WEIGHT * posterior.kl().mean() / pictures.shape[-1]
        )

    return value


@torch.no_grad()
def latent_bank(
    vae: AutoencoderKL, count: int, seed: int, device: torch.device, batch: int = 256
) -> tuple[torch.Tensor, Scenes]:
    """Latent means (count, 4, h, w), not yet scaled, of `count` scenes, and the scenes."""
    generator = torch.Generator().manual_seed(seed)
    scenes = Scenes.sample(count, generator)
    latents = [
        vae.encode(
            Scenes(scenes.attributes[i : i + batch], scenes.place[i : i + batch]).render().to(device)
        ).latent_dist.mean
        for i in range(0, count, batch)
    ]
    return torch.cat(latents), scenes

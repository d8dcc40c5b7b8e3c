"""What a stage of training asks of a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from diffusers import DiffusionPipeline
from torch import nn

__all__ = ["Bundle", "bfloat16_products", "dropped", "encode_unique"]


class Bundle(Protocol):
    """A denoiser and its text encoders: everything a caption and a noisy latent pass through."""

    @property
    def denoiser(self) -> Any: ...

    @property
    def modules(self) -> nn.ModuleDict:
        """All that learns: the denoiser and the text encoders."""

    def prepare(
        self, latents: torch.Tensor, references: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Brings scaled latents (B, C, …), and those of the reference images, into the denoiser's own layout."""

    def encode(self, captions: Sequence[str], generator: torch.Generator | None = None) -> tuple[torch.Tensor, ...]:
        """Returns what the denoiser reads of each caption, a row for each. With a generator it varies as training needs
        it.
        """

    def predict(
        self,
        x: torch.Tensor,
        timestep: torch.Tensor,
        text: tuple[torch.Tensor, ...],
        reference: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Returns the path's v, float32, of x alone. Matrix products run in bfloat16 if the device has them; norms,
        sums and weights stay float32.
        """

    def grid(self, x: torch.Tensor, reference: torch.Tensor | None) -> torch.Tensor:
        """Returns what a critic sees (B, C, H, W): x and its reference image, of the same shape in either case."""

    def pipeline(self, vae: Any) -> DiffusionPipeline:
        """Returns the diffusers pipeline of these parts."""


def bfloat16_products(device: torch.device) -> torch.autocast:
    """Autocast to bfloat16 if the device computes it; other processors would emulate it, 40 times slower."""
    capabilities = torch.cpu.get_capabilities()
    has_bfloat16 = device.type != "cpu" or any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return torch.autocast(device.type, torch.bfloat16, enabled=has_bfloat16)


def dropped(captions: Sequence[str], share: float, generator: torch.Generator) -> list[str]:
    """Returns the captions, about `share` of them empty."""
    keep = torch.rand(len(captions), generator=generator) >= share
    return [caption if kept else "" for caption, kept in zip(captions, keep.tolist(), strict=True)]


def encode_unique(
    captions: Sequence[str], encode: Callable[[list[str]], torch.Tensor], device: torch.device
) -> torch.Tensor:
    """`encode` of each caption (B, …); equal captions are encoded once."""
    unique = sorted(set(captions))
    place = {caption: i for i, caption in enumerate(unique)}
    back = torch.tensor([place[caption] for caption in captions], device=device)
    return encode(unique)[back]

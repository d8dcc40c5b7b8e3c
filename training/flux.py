"""A small Flux and its text encoders as one trainable bundle, with the velocity it predicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers import FluxPipeline, FluxTransformer2DModel
from torch import nn
from transformers import CLIPTokenizer, T5Tokenizer

from training import text
from training.shapes.world import WORDS

TEXT_WIDTH = 96


@dataclass
class Flux:
    """Everything a caption and a noisy latent pass through on the way to a velocity."""

    transformer: FluxTransformer2DModel
    clip: nn.Module
    t5: nn.Module
    clip_tokenizer: CLIPTokenizer
    t5_tokenizer: T5Tokenizer

    @classmethod
    def build(cls, latent_channels: int = 3) -> Flux:
        clip_tokenizer, t5_tokenizer = text.clip_tokenizer(WORDS), text.t5_tokenizer(WORDS)
        transformer = FluxTransformer2DModel(
            in_channels=latent_channels * 4,
            num_layers=2,
            num_single_layers=4,
            attention_head_dim=32,
            num_attention_heads=6,
            joint_attention_dim=TEXT_WIDTH,
            pooled_projection_dim=TEXT_WIDTH,
            axes_dims_rope=(4, 14, 14),
        )
        _zero_modulations(transformer)
        return cls(
            transformer,
            text.clip_encoder(clip_tokenizer, TEXT_WIDTH),
            text.t5_encoder(t5_tokenizer, TEXT_WIDTH),
            clip_tokenizer,
            t5_tokenizer,
        )

    @property
    def modules(self) -> nn.ModuleDict:
        return nn.ModuleDict({"transformer": self.transformer, "clip": self.clip, "t5": self.t5})

    def encode(self, captions: Sequence[str], pooled: Sequence[str], length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """T5 states (B, length, width) of `captions` and pooled CLIP states (B, width) of `pooled`.

        Equal captions are encoded once.
        """
        device = self.transformer.device
        unique, back = _unique(captions)
        ids = self.t5_tokenizer(
            unique, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        ).input_ids
        states = self.t5(ids.to(device))[0][back.to(device)]
        unique, back = _unique(pooled)
        ids = self.clip_tokenizer(
            unique, padding="max_length", max_length=text.CLIP_MAX_LENGTH, truncation=True, return_tensors="pt"
        ).input_ids
        return states, self.clip(ids.to(device)).pooler_output[back.to(device)]

    def velocity(
        self, packed: torch.Tensor, sigma: torch.Tensor, states: torch.Tensor, pooled: torch.Tensor
    ) -> torch.Tensor:
        """d(latents)/d(sigma) of packed latents (B, tokens, channels) at noise level sigma (B,) in [0, 1]."""
        side = int(packed.shape[1] ** 0.5)
        image_ids = FluxPipeline._prepare_latent_image_ids(packed.shape[0], side, side, packed.device, packed.dtype)
        text_ids = torch.zeros(states.shape[1], 3, device=packed.device, dtype=packed.dtype)
        # Matrix products in bfloat16; norms, sums and weights stay float32.
        with torch.autocast(packed.device.type, torch.bfloat16):
            out: torch.Tensor = self.transformer(
                hidden_states=packed,
                timestep=sigma,
                pooled_projections=pooled,
                encoder_hidden_states=states,
                txt_ids=text_ids,
                img_ids=image_ids,
                return_dict=False,
            )[0]
        return out.float()


def pack(latents: torch.Tensor) -> torch.Tensor:
    """(B, C, H, W) → (B, H·W/4, 4C), as the pipeline does."""
    packed: torch.Tensor = FluxPipeline._pack_latents(latents, *latents.shape)
    return packed


def _unique(captions: Sequence[str]) -> tuple[list[str], torch.Tensor]:
    unique = sorted(set(captions))
    place = {caption: i for i, caption in enumerate(unique)}
    return unique, torch.tensor([place[caption] for caption in captions])


def _zero_modulations(transformer: FluxTransformer2DModel) -> None:
    """Starts every block as the identity (adaLN-zero, Peebles & Xie 2023): a small model learns faster from there."""
    for name, module in transformer.named_modules():
        if isinstance(module, nn.Linear) and (name.endswith(".linear") or name == "proj_out"):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)

"""A small Stable Diffusion."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from torch import nn

from training import text
from training.models.bundle import bfloat16_products, encode_unique
from training.path import ddim
from training.shapes.world import WORDS

TEXT_WIDTH = 96
#: Far below CLIP's 77: attention that starts out even over mostly padding hears too little of a caption to learn by.
TEXT_LENGTH = 16


class StableDiffusion:
    """A UNet over 16×16 latents; of its three levels the lower two attend, as in SDXL: the first would cost most."""

    def __init__(self, latent_channels: int = 3) -> None:
        self.tokenizer = text.clip_tokenizer(WORDS)
        self.tokenizer.model_max_length = TEXT_LENGTH
        self.clip = text.clip_encoder(self.tokenizer, TEXT_WIDTH)
        nn.init.normal_(self.clip.get_input_embeddings().weight)  # words differ from the first step on
        nn.init.constant_(self.clip.final_layer_norm.weight, text.HEARD)
        self.denoiser = UNet2DConditionModel(
            sample_size=16,
            in_channels=latent_channels,
            out_channels=latent_channels,
            block_out_channels=(64, 96, 128),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=TEXT_WIDTH,
            attention_head_dim=4,  # heads, in the layout of Stable Diffusion 1
            norm_num_groups=8,
        )
        nn.init.zeros_(self.denoiser.conv_out.weight)

    @property
    def modules(self) -> nn.ModuleDict:
        return nn.ModuleDict({"unet": self.denoiser, "clip": self.clip})

    def prepare(
        self, latents: torch.Tensor, references: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        return latents, references

    def encode(
        self,
        captions: Sequence[str],
        generator: torch.Generator | None = None,  # noqa: ARG002 - the bundles' one signature; nothing varies here
    ) -> tuple[torch.Tensor, ...]:
        """CLIP states (B, length, width)."""
        device = self.denoiser.device

        def states(unique: list[str]) -> torch.Tensor:
            tokens = text.tokens(self.tokenizer, unique, TEXT_LENGTH, device)
            out: torch.Tensor = self.clip(tokens.input_ids).last_hidden_state
            return out

        return (encode_unique(captions, states, device),)

    def predict(
        self,
        x: torch.Tensor,
        timestep: torch.Tensor,
        text: tuple[torch.Tensor, ...],
        reference: torch.Tensor | None = None,
    ) -> torch.Tensor:
        assert reference is None, "Stable Diffusion's UNet takes no reference image"
        with bfloat16_products(x.device):
            out: torch.Tensor = self.denoiser(x, timestep, encoder_hidden_states=text[0], return_dict=False)[0]
        return out.float()

    def grid(self, x: torch.Tensor, reference: torch.Tensor | None) -> torch.Tensor:
        assert reference is None, "Stable Diffusion's UNet takes no reference image"
        return x

    def pipeline(self, vae: AutoencoderKL) -> StableDiffusionPipeline:
        return StableDiffusionPipeline(
            vae=vae,
            text_encoder=self.clip,
            tokenizer=self.tokenizer,
            unet=self.denoiser,
            scheduler=ddim(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )

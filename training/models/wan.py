"""A small Wan 2.2 TI2V: text to video, and image to video by a given first frame."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import AutoencoderKLWan, WanPipeline, WanTransformer3DModel
from torch import nn

from training import text
from training.models.bundle import bfloat16_products, encode_unique
from training.path import flow_steps
from training.shapes.world import CLIP_WORDS

TEXT_WIDTH = 96
TEXT_LENGTH = 16
#: Side of a patch; the pipelines take it for 2 where they tell each token its timestep.
PATCH = 2


class Wan:
    """Six blocks of width 192 over latents of 5×8×8, in patches of 1×2×2."""

    def __init__(self, latent_channels: int = 24) -> None:
        self.tokenizer = text.t5_tokenizer(CLIP_WORDS)
        self.umt5 = text.umt5_encoder(self.tokenizer, TEXT_WIDTH)
        nn.init.constant_(self.umt5.encoder.final_layer_norm.weight, text.HEARD)
        self.denoiser = WanTransformer3DModel(
            patch_size=(1, PATCH, PATCH),
            num_attention_heads=6,
            attention_head_dim=32,
            in_channels=latent_channels,
            out_channels=latent_channels,
            text_dim=TEXT_WIDTH,
            freq_dim=128,
            ffn_dim=576,
            num_layers=6,
            rope_max_seq_len=64,
        )
        nn.init.zeros_(self.denoiser.proj_out.weight)

    @property
    def modules(self) -> nn.ModuleDict:
        return nn.ModuleDict({"transformer": self.denoiser, "umt5": self.umt5})

    def prepare(
        self, latents: torch.Tensor, references: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Leaves the first latent frame out of clips (B, C, F, H, W) whose first frame (B, C, 1, H, W) is given."""
        return latents if references is None else latents[:, :, 1:], references

    def encode(
        self,
        captions: Sequence[str],
        generator: torch.Generator | None = None,  # noqa: ARG002 - the bundles' one signature; nothing varies here
    ) -> tuple[torch.Tensor, ...]:
        """UMT5 states (B, length, width), zero where the caption has ended, as the pipeline gives them."""
        device = self.denoiser.device

        def states(unique: list[str]) -> torch.Tensor:
            tokens = text.tokens(self.tokenizer, unique, TEXT_LENGTH, device)
            out: torch.Tensor = self.umt5(tokens.input_ids, tokens.attention_mask).last_hidden_state
            return torch.where(tokens.attention_mask[..., None] > 0, out, 0.0)

        return (encode_unique(captions, states, device),)

    def predict(
        self,
        x: torch.Tensor,
        timestep: torch.Tensor,
        text: tuple[torch.Tensor, ...],
        reference: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Tells each token its timestep, as Wan 2.2's TI2V does: a given first frame is at 0."""
        given = 0 if reference is None else reference.shape[2]
        frames = x if reference is None else torch.cat([reference, x], dim=2)
        a_frame = frames.shape[3] * frames.shape[4] // (PATCH * PATCH)
        told = timestep[:, None].expand(-1, x.shape[2] * a_frame)
        with bfloat16_products(x.device):
            out: torch.Tensor = self.denoiser(
                frames, nn.functional.pad(told, (given * a_frame, 0)), text[0], return_dict=False
            )[0]
        return out[:, :, given:].float()

    def grid(self, x: torch.Tensor, reference: torch.Tensor | None) -> torch.Tensor:
        """Channels are those of all frames, the first of which is the reference if there is one."""
        frames = x if reference is None else torch.cat([reference, x], dim=2)
        return frames.flatten(1, 2)

    def pipeline(self, vae: AutoencoderKLWan) -> WanPipeline:
        return WanPipeline(
            tokenizer=self.tokenizer,
            text_encoder=self.umt5,
            vae=vae,
            scheduler=flow_steps(),
            transformer=self.denoiser,
            expand_timesteps=True,
        )

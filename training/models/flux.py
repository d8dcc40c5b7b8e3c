"""A small Flux.1."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from torch import nn

from training import text
from training.models.bundle import bfloat16_products, dropped, encode_unique
from training.path import SHIFT
from training.shapes.edits import INSTRUCTION_WORDS

TEXT_WIDTH = 96
#: FluxKontextPipeline takes an image with as many channels as the latents for latents, so there must not be three.
LATENT_CHANNELS = 4
#: Text lengths seen in training: prompts are padded without a mask, so a model knows only the lengths it has met.
TEXT_LENGTHS = (12, 16, 16, 24)
TEXT_LENGTH = 16
#: Share of pooled prompts dropped so that, as in Flux, attention to the T5 tokens carries the caption.
NO_POOLED = 0.5


class Flux:
    """Two double and four single blocks of width 192."""

    def __init__(self, latent_channels: int = LATENT_CHANNELS) -> None:
        self.clip_tokenizer, self.t5_tokenizer = (
            text.clip_tokenizer(INSTRUCTION_WORDS),
            text.t5_tokenizer(INSTRUCTION_WORDS),
        )
        self.denoiser = FluxTransformer2DModel(
            in_channels=latent_channels * 4,
            num_layers=2,
            num_single_layers=4,
            attention_head_dim=32,
            num_attention_heads=6,
            joint_attention_dim=TEXT_WIDTH,
            pooled_projection_dim=TEXT_WIDTH,
            axes_dims_rope=(4, 14, 14),
        )
        _zero_modulations(self.denoiser)
        self.clip = text.clip_encoder(self.clip_tokenizer, TEXT_WIDTH)
        self.t5 = text.t5_encoder(self.t5_tokenizer, TEXT_WIDTH)

    @classmethod
    def of(cls, pipe: FluxPipeline) -> Flux:
        """Returns the bundle of a pipeline's own parts."""
        bundle = cls.__new__(cls)
        bundle.denoiser, bundle.clip, bundle.t5 = pipe.transformer, pipe.text_encoder, pipe.text_encoder_2
        bundle.clip_tokenizer, bundle.t5_tokenizer = pipe.tokenizer, pipe.tokenizer_2
        return bundle

    @property
    def modules(self) -> nn.ModuleDict:
        return nn.ModuleDict({"transformer": self.denoiser, "clip": self.clip, "t5": self.t5})

    def prepare(
        self, latents: torch.Tensor, references: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Packs (B, C, H, W) into tokens (B, H·W/4, 4C), as the pipelines do."""
        return _pack(latents), None if references is None else _pack(references)

    def encode(self, captions: Sequence[str], generator: torch.Generator | None = None) -> tuple[torch.Tensor, ...]:
        """T5 states (B, length, width) and pooled CLIP states (B, width)."""
        pooled, length = list(captions), TEXT_LENGTH
        if generator is not None:
            length = TEXT_LENGTHS[int(torch.randint(len(TEXT_LENGTHS), (), generator=generator))]
            pooled = dropped(captions, NO_POOLED, generator)
        device = self.denoiser.device

        def t5_states(unique: list[str]) -> torch.Tensor:
            tokens = text.tokens(self.t5_tokenizer, unique, length, device)
            states: torch.Tensor = self.t5(tokens.input_ids)[0]
            return states

        def clip_pooled(unique: list[str]) -> torch.Tensor:
            tokens = text.tokens(self.clip_tokenizer, unique, text.CLIP_MAX_LENGTH, device)
            pooled: torch.Tensor = self.clip(tokens.input_ids).pooler_output
            return pooled

        return encode_unique(captions, t5_states, device), encode_unique(pooled, clip_pooled, device)

    def predict(
        self,
        x: torch.Tensor,
        timestep: torch.Tensor,
        text: tuple[torch.Tensor, ...],
        reference: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Appends the reference's tokens, whose first coordinate is 1, as FluxKontextPipeline does."""
        states, pooled = text
        parts = [x] if reference is None else [x, reference]
        places = []
        for image, part in enumerate(parts):
            side = int(part.shape[1] ** 0.5)
            ids = FluxPipeline._prepare_latent_image_ids(len(part), side, side, x.device, x.dtype)
            ids[:, 0] = image
            places.append(ids)
        with bfloat16_products(x.device):
            out: torch.Tensor = self.denoiser(
                hidden_states=torch.cat(parts, dim=1),
                timestep=timestep,
                pooled_projections=pooled,
                encoder_hidden_states=states,
                txt_ids=torch.zeros(states.shape[1], 3, device=x.device, dtype=x.dtype),
                img_ids=torch.cat(places),
                return_dict=False,
            )[0]
        return out[:, : x.shape[1]].float()

    def grid(self, x: torch.Tensor, reference: torch.Tensor | None) -> torch.Tensor:
        """Channels are those of x, then of the reference or zeros."""
        side = int(x.shape[1] ** 0.5)
        both = torch.cat([x, torch.zeros_like(x) if reference is None else reference], dim=2)
        return both.transpose(1, 2).reshape(len(x), -1, side, side)

    def pipeline(self, vae: AutoencoderKL) -> FluxPipeline:
        return FluxPipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(shift=SHIFT),
            vae=vae,
            text_encoder=self.clip,
            tokenizer=self.clip_tokenizer,
            text_encoder_2=self.t5,
            tokenizer_2=self.t5_tokenizer,
            transformer=self.denoiser,
        )


def _pack(latents: torch.Tensor) -> torch.Tensor:
    packed: torch.Tensor = FluxPipeline._pack_latents(latents, *latents.shape)
    return packed


def _zero_modulations(transformer: FluxTransformer2DModel) -> None:
    """Starts every block as the identity (adaLN-zero, Peebles & Xie 2023): a small model learns faster from there."""
    for name, module in transformer.named_modules():
        if isinstance(module, nn.Linear) and (name.endswith(".linear") or name == "proj_out"):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)

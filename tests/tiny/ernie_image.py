"""ERNIE-Image."""

from __future__ import annotations

import torch
from diffusers import (
    ErnieImagePipeline,
    ErnieImageTransformer2DModel,
    FlowMatchEulerDiscreteScheduler,
)
from torch import nn
from transformers import MistralConfig, MistralModel

from tests.tiny.chat import chat_tokenizer, language_model
from tests.tiny.common import WIDTH, Case, flux2_vae, strengthen


class Scheduler(FlowMatchEulerDiscreteScheduler):
    """Takes sigmas as the pipeline gives them, a tensor, of which numpy warns."""

    def set_timesteps(self, *, sigmas: torch.Tensor, device: torch.device) -> None:
        super().set_timesteps(sigmas=sigmas.numpy(), device=device)


def ernie_image(seed: int = 0) -> ErnieImagePipeline:
    torch.manual_seed(seed)
    tokenizer = chat_tokenizer(start="<|im_start|>")
    transformer = ErnieImageTransformer2DModel(
        hidden_size=32,
        num_attention_heads=2,
        num_layers=2,
        ffn_hidden_size=64,
        in_channels=16,
        out_channels=16,
        text_in_dim=WIDTH,
        rope_axes_dim=(4, 4, 8),
    )
    strengthen(transformer)
    for layer in (transformer.adaLN_modulation[-1], transformer.final_linear):  # zero as made
        nn.init.normal_(layer.weight, std=0.3)
    return ErnieImagePipeline(
        transformer=transformer.eval(),
        vae=flux2_vae(),
        text_encoder=language_model(MistralModel, MistralConfig, tokenizer),
        tokenizer=tokenizer,
        scheduler=Scheduler(),
    )


CASES = (
    Case(
        "ernie-image",
        ernie_image,
        options={"guidance_scale": 1.0, "height": 16, "width": 24},
        cfg={"guidance_scale": 3.0},
        text=("text_bth", "text_lens"),
        attention="text_last",
        one_length=True,
    ),
)

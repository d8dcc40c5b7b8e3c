"""Kandinsky 3."""

from __future__ import annotations

import torch
from diffusers import DDPMScheduler, Kandinsky3Pipeline, Kandinsky3UNet, VQModel
from torch import nn

from tests.tiny.common import WIDTH, Case, far_apart, strengthen
from tests.tiny.fixed_length_tokenizers import EvenTokens
from training import text
from training.shapes.world import WORDS


def kandinsky3(seed: int = 0) -> Kandinsky3Pipeline:
    torch.manual_seed(seed)
    tokenizer = text.t5_tokenizer(WORDS)
    unet = Kandinsky3UNet(
        time_embedding_dim=16,
        groups=4,
        attention_head_dim=8,
        layers_per_block=2,
        block_out_channels=(16, 16, 16, 16),
        cross_attention_dim=16,
        encoder_hid_dim=WIDTH,
    )
    strengthen(unet, 4.0)
    for name, parameter in unet.named_parameters():
        if "context_mlp.1.weight" in name:
            nn.init.normal_(parameter, std=0.05)  # zero as made, and the modulation with it
    t5 = far_apart(text.t5_encoder(tokenizer, WIDTH))
    return Kandinsky3Pipeline(
        # Padding to the longest prompt of a batch enters the mean that modulates each of them.
        tokenizer=EvenTokens(tokenizer, 14, "▁on"),
        text_encoder=t5,
        unet=unet.eval(),
        scheduler=DDPMScheduler(clip_sample=False),
        movq=VQModel(block_out_channels=(8,), norm_num_groups=4, latent_channels=4),
    )


CASES = (
    Case(
        "kandinsky3",
        kandinsky3,
        options={"guidance_scale": 1.0, "height": 128, "width": 128},
        cfg={"guidance_scale": 4.0},
        text=("encoder_hidden_states", "encoder_attention_mask"),
        modulation="add_time_condition",
    ),
)

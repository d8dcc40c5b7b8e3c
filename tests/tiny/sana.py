"""SANA, alone, with a ControlNet and under perturbed attention guidance, and SANA-Sprint."""

from __future__ import annotations

import math
from typing import Any

import torch
from diffusers import (
    AutoencoderDC,
    FlowMatchEulerDiscreteScheduler,
    SanaControlNetModel,
    SanaControlNetPipeline,
    SanaPAGPipeline,
    SanaPipeline,
    SanaSprintPipeline,
    SanaTransformer2DModel,
    SCMScheduler,
)
from torch import nn

from tests.tiny.common import WIDTH, Case, strengthen
from tests.tiny.gemma import gemma2, gemma_tokenizer

_MODEL: dict[str, Any] = {
    "in_channels": 4,
    "out_channels": 4,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "num_cross_attention_heads": 2,
    "cross_attention_head_dim": 16,
    "cross_attention_dim": 32,
    "caption_channels": WIDTH,
    "sample_size": 32,
}


def _parts(seed: int, **more: Any) -> dict[str, Any]:
    torch.manual_seed(seed)
    tokenizer = gemma_tokenizer()
    transformer = SanaTransformer2DModel(num_layers=2, **(_MODEL | more))
    strengthen(transformer, 3.0)
    blocks = {"block_types": "ResBlock", "block_out_channels": (4,) * 4, "layers_per_block": (1,) * 4}
    return {
        "tokenizer": tokenizer,
        "text_encoder": gemma2(tokenizer),
        "vae": AutoencoderDC(
            latent_channels=4,
            encoder_qkv_multiscales=((),) * 4,
            decoder_qkv_multiscales=((),) * 4,
            **{f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in blocks.items()},
        ),
        "transformer": transformer.eval(),
        "scheduler": FlowMatchEulerDiscreteScheduler(),
    }


def sana(seed: int = 0) -> SanaPipeline:
    return SanaPipeline(**_parts(seed, timestep_scale=0.5))


def sana_pag(seed: int = 0) -> SanaPAGPipeline:
    return SanaPAGPipeline(**_parts(seed), pag_applied_layers="blocks.1")


def sana_controlnet(seed: int = 0) -> SanaControlNetPipeline:
    parts = _parts(seed)
    controlnet = SanaControlNetModel(num_layers=1, **_MODEL)
    for block in (controlnet.input_block, *controlnet.controlnet_blocks):
        nn.init.normal_(block.weight, std=0.1)
    return SanaControlNetPipeline(**parts, controlnet=controlnet.eval())


def sana_sprint(seed: int = 0) -> SanaSprintPipeline:
    parts = _parts(seed, guidance_embeds=True, qk_norm="rms_norm_across_heads")
    return SanaSprintPipeline(**(parts | {"scheduler": SCMScheduler()}))


def _from_angle(angle: float) -> float:
    return 1000 * math.sin(angle) / (math.sin(angle) + math.cos(angle))


_OPTIONS = {
    "height": 32,
    "width": 32,
    "max_sequence_length": 15,
    "use_resolution_binning": False,
    "complex_human_instruction": None,
}
_PLAIN = _OPTIONS | {"guidance_scale": 1.0}
_CFG = {"guidance_scale": 4.0}
_TEXT = ("encoder_hidden_states", "encoder_attention_mask")

CASES = (
    Case("sana", sana, options=_PLAIN, cfg=_CFG, text=_TEXT),
    Case(
        "sana-sprint",
        sana_sprint,
        options=_OPTIONS | {"intermediate_timesteps": None},
        text=_TEXT,
        timestep=_from_angle,
    ),
    Case(
        "sana-pag",
        sana_pag,
        options=_PLAIN | {"pag_scale": 0.0},
        cfg=_CFG | {"pag_scale": 2.0},
        conditional_rows=(False, False, True, True, False, False),
        text=_TEXT,
    ),
    Case(
        "sana-controlnet",
        sana_controlnet,
        options=_PLAIN | {"control_image": torch.linspace(-1, 1, 3 * 32 * 32).view(1, 3, 32, 32)},
        cfg=_CFG,
        text=_TEXT,
    ),
)

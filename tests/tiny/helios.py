"""Helios."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    HeliosDMDScheduler,
    HeliosPipeline,
    HeliosPyramidPipeline,
    HeliosScheduler,
    HeliosTransformer3DModel,
)

from tests.tiny.common import WIDTH, Case, strengthen
from tests.tiny.video import spare_ftfy, umt5
from tests.tiny.wan import FRAMES, LATENTS, OPTIONS, wan_vae

spare_ftfy(HeliosPipeline, HeliosPyramidPipeline)


def _transformer(**more: Any) -> HeliosTransformer3DModel:
    transformer = HeliosTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=LATENTS,
        out_channels=LATENTS,
        text_dim=WIDTH,
        freq_dim=16,
        ffn_dim=32,
        num_layers=2,
        rope_dim=(4, 4, 4),
        **more,
    )
    strengthen(transformer, 4.0)
    # The plan names each of the 40 blocks of the released models.
    blocks = ("*", *map(str, range(len(transformer.blocks))))
    transformer._cp_plan = {name: part for name, part in transformer._cp_plan.items() if name.split(".")[1] in blocks}
    return transformer.eval()


def helios(seed: int = 0, **more: Any) -> HeliosPipeline:
    torch.manual_seed(seed)
    return HeliosPipeline(
        transformer=_transformer(**more), vae=wan_vae(), scheduler=FlowMatchEulerDiscreteScheduler(), **umt5()
    )


#: Of the noise within a block; by diffusers' 1/3 its covariance has no Cholesky factor on every CPU.
GAMMA = 0.3


def helios_pyramid(seed: int = 0) -> HeliosPyramidPipeline:
    torch.manual_seed(seed)
    scheduler = HeliosScheduler(stages=2, stage_range=[0, 0.5, 1], gamma=GAMMA)
    return HeliosPyramidPipeline(transformer=_transformer(), vae=wan_vae(), scheduler=scheduler, **umt5())


def helios_pyramid_distilled(seed: int = 0) -> HeliosPyramidPipeline:
    torch.manual_seed(seed)
    scheduler = HeliosDMDScheduler(stages=2, stage_range=[0, 0.5, 1], gamma=GAMMA)
    return HeliosPyramidPipeline(
        transformer=_transformer(), vae=wan_vae(), scheduler=scheduler, is_distilled=True, **umt5()
    )


_OPTIONS = OPTIONS | {"history_sizes": [4, 2, 1], "num_latent_frames_per_chunk": 2}

CASES = (
    Case(
        "helios",
        helios,
        options=_OPTIONS,
        takes="without copies",
        **FRAMES,
    ),
)
_PYRAMID = _OPTIONS | {
    "height": 64,
    "width": 64,
    "pyramid_num_inference_steps_list": [1, 1],
    "is_amplify_first_chunk": False,
}
#: Split over devices wrongly.
AMPLIFYING = replace(CASES[0], name="helios-amplifying", make=functools.partial(helios, is_amplify_history=True))
#: Compared with their modular pipelines alone; a step at each of two sizes.
PYRAMID = Case("helios-pyramid", helios_pyramid, options=_PYRAMID, **FRAMES)
PYRAMID_DISTILLED = Case("helios-pyramid-distilled", helios_pyramid_distilled, options=_PYRAMID, **FRAMES)

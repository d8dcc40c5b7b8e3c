"""AnyFlow: whole videos, and chunk by chunk (FAR)."""

from __future__ import annotations

import functools
from typing import Any

import torch
from diffusers import (
    AnyFlowFARPipeline,
    AnyFlowFARTransformer3DModel,
    AnyFlowPipeline,
    AnyFlowTransformer3DModel,
    FlowMapEulerDiscreteScheduler,
)

from tests.tiny.common import Case
from tests.tiny.video import spare_ftfy, umt5
from tests.tiny.wan import OPTIONS, denoiser, wan_vae

spare_ftfy(AnyFlowPipeline, AnyFlowFARPipeline)


def _pipeline(kind: Any, transformer: Any, seed: int = 0, **more: Any) -> Any:
    torch.manual_seed(seed)
    return kind(
        transformer=denoiser(transformer, **more),
        vae=wan_vae(),
        scheduler=FlowMapEulerDiscreteScheduler(),
        **umt5(),
    )


anyflow = functools.partial(_pipeline, AnyFlowPipeline, AnyFlowTransformer3DModel)
far = functools.partial(
    _pipeline, AnyFlowFARPipeline, AnyFlowFARTransformer3DModel, chunk_partition=(1, 1), full_chunk_limit=2
)

CASES = (
    Case("anyflow", anyflow, options=OPTIONS, cfg={"guidance_scale": 4.0}, output="frames"),
    Case(
        "anyflow-far",
        far,
        options=OPTIONS,
        cfg={"guidance_scale": 4.0, "num_frames": 1, "chunk_partition": [1]},
        output="frames",
        sections=2,
        is_plain=lambda call: (call.get("kv_cache_flag") or {}).get("is_cache_step", False),
    ),
)

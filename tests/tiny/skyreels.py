"""SkyReels-V2."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    SkyReelsV2DiffusionForcingPipeline,
    SkyReelsV2ImageToVideoPipeline,
    SkyReelsV2Pipeline,
    SkyReelsV2Transformer3DModel,
    UniPCMultistepScheduler,
)

from tests.tiny.common import WIDTH, Case
from tests.tiny.video import clip_vision, spare_ftfy, umt5
from tests.tiny.wan import FRAMES, LATENTS, OF_IMAGE, OPTIONS, denoiser, wan_vae

spare_ftfy(SkyReelsV2Pipeline, SkyReelsV2ImageToVideoPipeline, SkyReelsV2DiffusionForcingPipeline)


def _common(**more: Any) -> dict[str, Any]:
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True)
    model = denoiser(SkyReelsV2Transformer3DModel, **more)
    return {"vae": wan_vae(), "scheduler": scheduler, "transformer": model, **umt5()}


def skyreels(seed: int = 0) -> SkyReelsV2Pipeline:
    torch.manual_seed(seed)
    return SkyReelsV2Pipeline(**_common())


def skyreels_i2v(seed: int = 0) -> SkyReelsV2ImageToVideoPipeline:
    torch.manual_seed(seed)
    more = _common(in_channels=2 * LATENTS + 4, image_dim=WIDTH, added_kv_proj_dim=24)
    return SkyReelsV2ImageToVideoPipeline(**more, **clip_vision())


def skyreels_forcing(seed: int = 0) -> SkyReelsV2DiffusionForcingPipeline:
    torch.manual_seed(seed)
    return SkyReelsV2DiffusionForcingPipeline(**_common())


CASES = (
    Case("skyreels", skyreels, options=OPTIONS, **FRAMES),
    Case("skyreels-i2v", skyreels_i2v, options=OF_IMAGE, takes="without copies", **FRAMES),
    Case("skyreels-forcing", skyreels_forcing, options=OPTIONS, **FRAMES),
)

"""Wan: text, image and control to video, one denoiser or two."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    AutoencoderKLWan,
    ChronoEditPipeline,
    ChronoEditTransformer3DModel,
    FlowMatchEulerDiscreteScheduler,
    WanAnimatePipeline,
    WanAnimateTransformer3DModel,
    WanImageToVideoPipeline,
    WanPipeline,
    WanTransformer3DModel,
    WanVACEPipeline,
    WanVACETransformer3DModel,
)
from torch import nn

from tests.tiny.common import SEPARATE, WIDTH, Case, strengthen
from tests.tiny.video import IMAGE, clip_vision, spare_ftfy, umt5

LATENTS = 4

spare_ftfy(WanImageToVideoPipeline, WanVACEPipeline, WanAnimatePipeline, ChronoEditPipeline)


def wan_vae() -> AutoencoderKLWan:
    return AutoencoderKLWan(
        base_dim=4,
        z_dim=LATENTS,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        latents_mean=[0.0] * LATENTS,
        latents_std=[1.0] * LATENTS,
    ).eval()


def denoiser(kind: type[nn.Module] = WanTransformer3DModel, **more: Any) -> Any:
    sizes: dict[str, Any] = {
        "num_attention_heads": 2,
        "attention_head_dim": 12,
        "in_channels": LATENTS,
        "out_channels": LATENTS,
        "text_dim": WIDTH,
        "freq_dim": 16,
        "ffn_dim": 32,
        "num_layers": 2,
        "rope_max_seq_len": 32,
    }
    model: Any = kind(**(sizes | more))
    strengthen(model, 4.0)
    for block in (*model.blocks, *getattr(model, "vace_blocks", ())):
        block.attn2.norm_q.weight.data.mul_(8.0)  # few of the tokens are words, the rest padding
    return model.eval()


def _common() -> dict[str, Any]:
    return {"vae": wan_vae(), "scheduler": FlowMatchEulerDiscreteScheduler(), **umt5()}


def wan(seed: int = 0) -> WanPipeline:
    torch.manual_seed(seed)
    return WanPipeline(transformer=denoiser(), **_common())


def wan_two(seed: int = 0) -> WanPipeline:
    torch.manual_seed(seed)
    return WanPipeline(transformer=denoiser(), transformer_2=denoiser(), boundary_ratio=0.6, **_common())


def wan_late(seed: int = 0) -> WanPipeline:
    """Wan 2.2 with the second denoiser alone, as a workflow of two pipelines has it."""
    torch.manual_seed(seed)
    return WanPipeline(transformer_2=denoiser(), boundary_ratio=1.1, **_common())


def wan_5b(seed: int = 0) -> WanPipeline:
    torch.manual_seed(seed)
    return WanPipeline(transformer=denoiser(), expand_timesteps=True, **_common())


def wan_i2v(seed: int = 0) -> WanImageToVideoPipeline:
    torch.manual_seed(seed)
    model = denoiser(in_channels=2 * LATENTS + 4, image_dim=WIDTH, added_kv_proj_dim=24)
    return WanImageToVideoPipeline(transformer=model, **_common(), **clip_vision())


def wan_two_i2v(seed: int = 0) -> WanImageToVideoPipeline:
    """Wan 2.2, whose denoisers get the image as latents alone."""
    torch.manual_seed(seed)
    models = (denoiser(in_channels=2 * LATENTS + 4) for _ in range(2))
    parts = dict(zip(("transformer", "transformer_2"), models, strict=True))
    return WanImageToVideoPipeline(**parts, boundary_ratio=0.6, **_common())


def wan_animate(seed: int = 0) -> WanAnimatePipeline:
    torch.manual_seed(seed)
    model = denoiser(
        WanAnimateTransformer3DModel,
        in_channels=2 * LATENTS + 4,
        latent_channels=LATENTS,
        image_dim=WIDTH,
        added_kv_proj_dim=24,
        motion_encoder_channel_sizes={"4": 8, "8": 8, "16": 8},
        motion_encoder_size=16,
        motion_style_dim=8,
        motion_dim=4,
        motion_encoder_dim=16,
        face_encoder_hidden_dim=16,
        face_encoder_num_heads=2,
        inject_face_latents_blocks=2,
    )
    return WanAnimatePipeline(transformer=model, **_common(), **clip_vision())


def chrono_edit(seed: int = 0) -> ChronoEditPipeline:
    torch.manual_seed(seed)
    model = denoiser(ChronoEditTransformer3DModel, in_channels=2 * LATENTS + 4, image_dim=WIDTH, added_kv_proj_dim=24)
    return ChronoEditPipeline(transformer=model, **_common(), **clip_vision())


def _vace_denoiser() -> WanVACETransformer3DModel:
    return denoiser(WanVACETransformer3DModel, vace_layers=[0, 1], vace_in_channels=2 * LATENTS + 64)


def wan_vace(seed: int = 0) -> WanVACEPipeline:
    torch.manual_seed(seed)
    return WanVACEPipeline(transformer=_vace_denoiser(), **_common())


def wan_two_vace(seed: int = 0) -> WanVACEPipeline:
    torch.manual_seed(seed)
    models = {"transformer": _vace_denoiser(), "transformer_2": _vace_denoiser()}
    return WanVACEPipeline(**models, boundary_ratio=0.6, **_common())


OPTIONS = {"guidance_scale": 1.0, "height": 32, "width": 32, "num_frames": 5, "max_sequence_length": 15}
FRAMES: dict[str, Any] = {"output": "frames", "conditional_rows": SEPARATE, "cfg": {"guidance_scale": 4.0}}

OF_IMAGE = OPTIONS | {"max_sequence_length": 512, "image": IMAGE}
_POSES = {name: value for name, value in OF_IMAGE.items() if name != "num_frames"} | {
    "segment_frame_length": 5,
    "pose_video": [IMAGE] * 5,
    "face_video": [IMAGE] * 5,
}

CASES = (
    Case("wan", wan, options=OPTIONS, **FRAMES),
    Case("wan-two", wan_two, options=OPTIONS, **FRAMES),
    Case("wan-late", wan_late, options=OPTIONS, **FRAMES),
    Case("wan-5b", wan_5b, options=OPTIONS, **FRAMES),
    Case("wan-i2v", wan_i2v, options=OF_IMAGE, takes="without copies", **FRAMES),
    Case("wan-animate", wan_animate, options=_POSES, **FRAMES),
    Case("chrono-edit", chrono_edit, options=OF_IMAGE, takes="without copies", **FRAMES),
    Case(
        "wan-vace",
        wan_vace,
        options=OPTIONS,
        takes="one prompt",
        **(FRAMES | {"conditional_rows": (True, False)}),
    ),
)
#: Compared with their modular pipelines alone.
WAN22_I2V = Case("wan-two-i2v", wan_two_i2v, options=OF_IMAGE, **FRAMES)
WAN22_VACE = Case("wan-two-vace", wan_two_vace, options=OPTIONS, **FRAMES)

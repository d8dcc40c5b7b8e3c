"""Denoisers at their true widths and token counts with few blocks and random weights, and one step of each.

Real pipeline classes hold them, without encoders: what is timed is the denoiser's own `forward` and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from torch import Tensor

#: Builds a pipeline around few blocks (cpu) or all of them (full), and its arguments for a prompt of the given shapes.
Maker = Callable[["Draw", bool], "Denoiser"]


#: Divides height, width and frames of a small image or video.
SMALL = 8


@dataclass(frozen=True)
class Draw:
    """Random tensors and modules on one device, in one dtype.

    Attributes:
        shrink: divides an image's height and width and a video's frames.

    """

    device: str
    dtype: torch.dtype
    shrink: int = 1

    def __call__(self, *shape: int) -> Tensor:
        return torch.randn(*shape, device=self.device).to(self.dtype)

    def build(self, kind: Any, **config: Any) -> Any:
        """Returns a denoiser made where it stays: nothing is copied."""
        before = torch.get_default_dtype()
        torch.set_default_dtype(self.dtype)
        try:
            with torch.device(self.device):
                return kind(**config).eval().requires_grad_(False)
        finally:
            torch.set_default_dtype(before)


@dataclass
class Denoiser:
    """A pipeline around one denoiser, and the arguments of a step for the positive (0) and the negative (1) prompt."""

    pipe: Any
    what: str
    inputs: Callable[[int], dict[str, Any]]  # makes what both prompts share, given `Draw.shrink`
    shrink: int
    prompts: tuple[dict[str, Any], dict[str, Any]]
    negative: dict[str, Tensor]  # of prompt 1, as `nag.guide` takes it
    timestep_unit: float = 1.0  # what the denoiser calls the scheduler's timestep 1

    def __post_init__(self) -> None:
        self.shared, self.small = self.inputs(self.shrink), self.inputs(SMALL)

    @property
    def module(self) -> Any:
        return getattr(self.pipe, "transformer", None) or self.pipe.unet

    def step(self, prompt: int = 0, timestep: float = 1000.0, *, is_small: bool = False) -> Tensor:
        """Returns a step; a small one is of a small image, for what does not depend on its size."""
        shared = self.small if is_small else self.shared
        like = next(value for value in shared.values() if isinstance(value, Tensor) and value.is_floating_point())
        at = torch.full((1,), timestep * self.timestep_unit, device=like.device, dtype=like.dtype)
        out: Tensor = self.module(timestep=at, **shared, **self.prompts[prompt], return_dict=False)[0]
        return out


def _pipeline(kind: Any, scheduler: Any, **denoiser: Any) -> Any:
    import inspect

    names = inspect.signature(kind.__init__).parameters
    required = [name for name, parameter in names.items() if parameter.default is inspect.Parameter.empty]
    empty = dict.fromkeys(name for name in required if name != "self")
    return kind(**(empty | {"scheduler": scheduler} | denoiser))


def flux(draw: Draw, full: bool) -> Denoiser:
    double, single = (19, 38) if full else (1, 2)
    transformer = draw.build(diffusers.FluxTransformer2DModel, num_layers=double, num_single_layers=single)
    pooled, embeds = (draw(1, 768), draw(1, 768)), (draw(1, 512, 4096), draw(1, 512, 4096))
    prompts = tuple({"encoder_hidden_states": e, "pooled_projections": p} for e, p in zip(embeds, pooled, strict=True))

    def inputs(shrink: int) -> dict[str, Any]:
        side = 64 // shrink
        ids = diffusers.FluxPipeline._prepare_latent_image_ids(1, side, side, draw.device, draw.dtype)
        return {"hidden_states": draw(1, side**2, 64), "img_ids": ids, "txt_ids": ids.new_zeros(512, 3)}

    return Denoiser(
        _pipeline(diffusers.FluxPipeline, diffusers.FlowMatchEulerDiscreteScheduler(), transformer=transformer),
        f"Flux.1, width 3072, {double} double + {single} single blocks, "
        f"{(64 // draw.shrink) ** 2} image + 512 text tokens",
        inputs,
        draw.shrink,
        (prompts[0], prompts[1]),
        {"negative_prompt_embeds": embeds[1], "negative_pooled_prompt_embeds": pooled[1]},
        timestep_unit=1e-3,
    )


def sd3(draw: Draw, full: bool) -> Denoiser:
    blocks = 38 if full else 2
    transformer = draw.build(
        diffusers.SD3Transformer2DModel,
        num_layers=blocks,
        num_attention_heads=38,
        attention_head_dim=64,
        caption_projection_dim=2432,
        pos_embed_max_size=192,
        qk_norm="rms_norm",
        out_channels=16,
    )
    pooled, embeds = draw(1, 2048), (draw(1, 333, 4096), draw(1, 333, 4096))

    def inputs(shrink: int) -> dict[str, Any]:
        return {"hidden_states": draw(1, 16, 128 // shrink, 128 // shrink), "pooled_projections": pooled}

    return Denoiser(
        _pipeline(
            diffusers.StableDiffusion3Pipeline, diffusers.FlowMatchEulerDiscreteScheduler(), transformer=transformer
        ),
        f"SD3.5-Large, width 2432, {blocks} blocks, {(64 // draw.shrink) ** 2} image + 333 text tokens",
        inputs,
        draw.shrink,
        ({"encoder_hidden_states": embeds[0]}, {"encoder_hidden_states": embeds[1]}),
        {"negative_prompt_embeds": embeds[1]},
    )


def qwen_image(draw: Draw, full: bool) -> Denoiser:
    blocks = 60 if full else 2
    transformer = draw.build(diffusers.QwenImageTransformer2DModel, num_layers=blocks)
    embeds = (draw(1, 128, 3584), draw(1, 128, 3584))

    def inputs(shrink: int) -> dict[str, Any]:
        side = 64 // shrink
        return {"hidden_states": draw(1, side**2, 64), "img_shapes": [[(1, side, side)]]}

    return Denoiser(
        _pipeline(diffusers.QwenImagePipeline, diffusers.FlowMatchEulerDiscreteScheduler(), transformer=transformer),
        f"Qwen-Image, width 3072, {blocks} blocks, {(64 // draw.shrink) ** 2} image + 128 text tokens",
        inputs,
        draw.shrink,
        ({"encoder_hidden_states": embeds[0]}, {"encoder_hidden_states": embeds[1]}),
        {"negative_prompt_embeds": embeds[1]},
        timestep_unit=1e-3,
    )


def sdxl(draw: Draw, full: bool) -> Denoiser:
    depth = (1, 2, 10) if full else (1, 1, 2)
    unet = draw.build(
        diffusers.UNet2DConditionModel,
        sample_size=128,
        block_out_channels=(320, 640, 1280),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=depth,
        layers_per_block=2 if full else 1,
        attention_head_dim=(5, 10, 20),
        cross_attention_dim=2048,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )
    embeds, side = (draw(1, 77, 2048), draw(1, 77, 2048)), 128 // draw.shrink
    more = {"text_embeds": draw(1, 1280), "time_ids": draw(1, 6)}
    return Denoiser(
        _pipeline(diffusers.StableDiffusionXLPipeline, diffusers.EulerDiscreteScheduler(), unet=unet),
        f"SDXL, true widths, transformer depths {depth}, {side}×{side} latents, 77 text tokens",
        lambda shrink: {"sample": draw(1, 4, 128 // shrink, 128 // shrink), "added_cond_kwargs": more},
        draw.shrink,
        ({"encoder_hidden_states": embeds[0]}, {"encoder_hidden_states": embeds[1]}),
        {"negative_prompt_embeds": embeds[1]},
    )


def sana(draw: Draw, full: bool) -> Denoiser:
    blocks = 20 if full else 4
    transformer = draw.build(diffusers.SanaTransformer2DModel, num_layers=blocks)
    embeds = (draw(1, 300, 2304), draw(1, 300, 2304))
    mask = torch.ones(1, 300, device=draw.device, dtype=draw.dtype)
    prompts = tuple({"encoder_hidden_states": prompt, "encoder_attention_mask": mask} for prompt in embeds)
    return Denoiser(
        _pipeline(diffusers.SanaPipeline, diffusers.FlowMatchEulerDiscreteScheduler(), transformer=transformer),
        f"SANA 1.6B, width 2240, {blocks} blocks, {(32 // draw.shrink) ** 2} image + 300 text tokens",
        lambda shrink: {"hidden_states": draw(1, 32, 32 // shrink, 32 // shrink)},
        draw.shrink,
        (prompts[0], prompts[1]),
        {"negative_prompt_embeds": embeds[1], "negative_prompt_attention_mask": mask},
    )


def wan(draw: Draw, full: bool, large: bool = False) -> Denoiser:
    blocks = (40 if large else 30) if full else 1
    heads, inner = (40, 13824) if large else (12, 8960)
    transformer = draw.build(
        diffusers.WanTransformer3DModel, num_layers=blocks, num_attention_heads=heads, ffn_dim=inner
    )
    embeds = (draw(1, 512, 4096), draw(1, 512, 4096))

    def size(shrink: int) -> tuple[int, int, int]:
        return math.ceil(21 / shrink), 60 // shrink // 2 * 2, 104 // shrink // 2 * 2  # patches are 2 latents a side

    frames, height, width = size(draw.shrink)
    return Denoiser(
        _pipeline(diffusers.WanPipeline, diffusers.UniPCMultistepScheduler(), transformer=transformer),
        f"Wan 2.1 {'14B' if large else '1.3B'}, width {heads * 128}, {blocks} blocks, "
        f"{frames * height * width // 4} video ({height * 8}p, {frames * 4 - 3} frames) + 512 text tokens",
        lambda shrink: {"hidden_states": draw(1, 16, *size(shrink))},
        draw.shrink,
        ({"encoder_hidden_states": embeds[0]}, {"encoder_hidden_states": embeds[1]}),
        {"negative_prompt_embeds": embeds[1]},
    )


def wan_14b(draw: Draw, full: bool) -> Denoiser:
    return wan(draw, full, large=True)


MAKERS: dict[str, Maker] = {
    "flux": flux,
    "sd3": sd3,
    "sdxl": sdxl,
    "sana": sana,
    "wan": wan,
    "wan-14b": wan_14b,
    "qwen-image": qwen_image,
}

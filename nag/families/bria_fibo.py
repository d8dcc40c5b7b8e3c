"""Bria FIBO: joint attention, text first at the rotary origin; each block also reads a layer of the text encoder.

Where prompts are of unequal length a mask over text and image reaches the denoiser, and the negative's goes between.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch

from nag.families.arguments import ROWS, Argument
from nag.families.flux_like import FluxLike
from nag.guidance_state import GuidanceState
from nag.negative import NegativeEmbeds, pad_prompts
from nag.pipelines import Arguments, encode_prompts

__all__ = ["BriaFibo"]

LAYERS, OPTIONS, MASK = "text_encoder_layers", "joint_attention_kwargs", "attention_mask"


class BriaFibo(FluxLike):
    name = "Bria FIBO"
    models = "FIBO, Edit, lite"
    denoiser_types = ("BriaFiboTransformer2DModel",)
    processors = ("BriaFiboAttnProcessor", "BriaAttnProcessor")
    negative_mask_arg = "negative_prompt_attention_mask"
    timestep_unit = 1.0
    arguments: ClassVar[dict[str, Argument]] = {"text_encoder_layers": ROWS}
    cfg = "batched"
    #: All hidden states of the text encoder with the prompts ahead of the layers, (N, layers, L, C).
    extra_negative_inputs: ClassVar[dict[str, str]] = {"negative_prompt_layers": LAYERS}

    def encode(self, encode_prompt: Callable[..., Any], prompts: Sequence[str], arguments: Arguments) -> NegativeEmbeds:
        # One at a time: together with longer prompts an empty one would be padded to their length.
        alone = [encode_prompts(encode_prompt, [prompt], arguments | {"guidance_scale": 1.0}) for prompt in prompts]
        negative = pad_prompts([embeds[0] for embeds, *_ in alone])
        layers = [pad_prompts([encoded[5][layer][0] for encoded in alone]).embeds for layer in range(len(alone[0][5]))]
        return NegativeEmbeds(negative.embeds, mask=negative.mask, extra={LAYERS: torch.stack(layers, dim=1)})

    def rows(self, pipe: Any, state: GuidanceState, call: dict[str, Any]) -> slice | None:
        pipeline_call = state.pipeline_call
        if pipeline_call is not None and state.inside_pipeline_call:
            pipeline_call.in_cfg = pipe.guidance_scale > 1
        return super().rows(pipe, state, call)

    def pack(self, call: dict[str, Any], negative: NegativeEmbeds) -> dict[str, Any]:
        packed = super().pack(call, negative)
        of_negative = list(negative.extra[LAYERS].unbind(1))
        blocks = len(call[LAYERS])
        # As the pipelines do: the last layers if there are more than blocks, the last again if there are fewer.
        of_negative = of_negative[-blocks:] + [of_negative[-1]] * (blocks - len(of_negative))
        pairs = zip(call[LAYERS], of_negative, strict=True)
        packed[LAYERS] = [torch.cat(pair, dim=1) for pair in pairs]
        embeds, options = call["encoder_hidden_states"], call.get(OPTIONS) or {}
        mask = options.get(MASK)
        if mask is not None or negative.mask is not None:
            text, image = embeds.shape[1], call["hidden_states"].shape[1]
            ones = torch.ones(len(embeds), 1, 1, text + image, dtype=torch.bool, device=embeds.device)
            mask = ones if mask is None else mask
            extra = negative.mask[:, None, None] if negative.mask is not None else ones[..., :1]
            extra = extra.to(mask.dtype).expand(-1, 1, 1, negative.embeds.shape[1])
            mask = torch.cat([mask[..., :text], extra, mask[..., text:]], dim=-1)
            packed[OPTIONS] = options | {MASK: mask}
        return packed

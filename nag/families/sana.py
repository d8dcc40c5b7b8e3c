"""SANA and SANA-Sprint: cross attention to masked Gemma tokens, which are the same at every step.

The pipelines put a long instruction ahead of the prompt and none ahead of a negative one; neither does guidance.
SANA-WM attends under a camera's path. Its refiner, LTX-2's denoiser without sound, is the denoiser of a pipeline of its
own. That pipeline reads each finished block of frames once more to keep its keys, and the first frames likewise.
Nothing is denoised there, so those calls stay plain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from nag._diffusers import REFINER_ENCODE_PROMPT
from nag.families.arguments import ROWS, SHARED, Argument
from nag.families.family import Family
from nag.families.ltx import LTXVideo, MaskedCrossAttention
from nag.guidance_state import GuidanceState
from nag.negative import NegativeEmbeds
from nag.pipelines import Arguments
from nag.processor_swap import original

__all__ = ["Sana", "SanaVideo", "SanaWM", "SanaWMRefiner"]


class Sana(MaskedCrossAttention):
    name = "SANA"
    models = "SANA, SANA-Sprint, with ControlNet or PAG"
    source = "arXiv 2505.21179, table 5"
    denoiser_types = ("SanaTransformer2DModel",)
    processors = ("SanaAttnProcessor2_0",)
    encode_arguments: ClassVar[dict[str, Any]] = {"complex_human_instruction": None}

    def timestep(self, pipe: Any, call: dict[str, Any]) -> float:
        timestep = self.scheduler_timestep(pipe, call)
        # Sprint's scheduler counts an angle, of which its denoiser gets the share of noise.
        if pipe.scheduler.config.get("prediction_type") == "trigflow":
            return timestep * 1000
        return timestep / float(original(pipe.transformer).config.get("timestep_scale", 1.0))


class SanaVideo(Sana):
    name = "SANA-Video"
    models = "SANA-Video, text or image to video"
    source = "as SANA, not tuned"
    denoiser_types = ("SanaVideoTransformer3DModel",)


class SanaWM(Sana):
    name = "SANA-WM"
    models = "SANA-WM, its first stage"
    source = "as SANA, not tuned"
    denoiser_types = ("SanaWMTransformer3DModel",)
    attention_modules = ("blocks.*.cross_attn",)
    processors = ("SanaWMCrossAttnProcessor",)
    denoiser_mask_arg = "mask"
    arguments: ClassVar[dict[str, Argument]] = {
        **dict.fromkeys(
            ("camera_conditions", "chunk_plucker", "raymats", "frame_valid_mask", "image_vae_embeds"), ROWS
        ),
        **dict.fromkeys(("encoder_hidden_states", "mask"), ROWS),  # tokens are their third axis: not padded
        "data_info": SHARED,
    }

    def encode(self, encode_prompt: Callable[..., Any], prompts: Sequence[str], arguments: Arguments) -> NegativeEmbeds:
        own = {"negative_prompt_embeds": None, "negative_prompt_attention_mask": None}
        encoded = [
            encode_prompt(**(arguments | own | {"prompt": prompt, "negative_prompt": prompt}))[2:] for prompt in prompts
        ]
        embeds, masks = zip(*encoded, strict=True)
        return NegativeEmbeds(torch.cat(embeds)[:, 0], mask=torch.cat(masks))

    def embeds(self, call: dict[str, Any]) -> Tensor:
        embeds: Tensor = call["encoder_hidden_states"][:, 0]
        return embeds

    def pack(self, call: dict[str, Any], negative: NegativeEmbeds) -> dict[str, Any]:
        mask = call["mask"] if call.get("mask") is not None else call.get("encoder_attention_mask")
        packed = super().pack(call | {"encoder_hidden_states": self.embeds(call), "mask": mask}, negative)
        return packed | {"encoder_hidden_states": packed["encoder_hidden_states"][:, None]}

    def timestep(self, pipe: Any, call: dict[str, Any]) -> float:
        return Family.timestep(self, pipe, call)


class SanaWMRefiner(LTXVideo):
    name = "SANA-WM refiner"
    models = "SANA-WM, its second stage: `SanaWMLTX2Refiner`"
    source = "as LTX-Video, not tuned"
    denoiser_types = ("SanaWMLTX2RefinerTransformer3DModel",)
    processors = ("SanaWMLTX2AudioVideoAttnProcessor", "SanaWMLTX2PerturbedAttnProcessor")
    arguments: ClassVar[dict[str, Argument]] = {"video_rotary_emb": ROWS}
    join_note = "not of its pipeline, whose cache is state of one request"
    cfg = "separate"
    encoders = (REFINER_ENCODE_PROMPT,)
    split_error = None

    def encode(self, encode_prompt: Callable[..., Any], prompts: Sequence[str], arguments: Arguments) -> NegativeEmbeds:
        encoded = [encode_prompt(**(arguments | {"prompt": prompt})) for prompt in prompts]
        embeds, masks = zip(*encoded, strict=True)
        return NegativeEmbeds(torch.cat(embeds), mask=torch.cat(masks))

    def rows(self, pipe: Any, state: GuidanceState, call: dict[str, Any]) -> slice | None:
        if call.get("kv_cache") is not None and call.get("kv_cache_mode") != "inject":
            return None
        return super().rows(pipe, state, call)

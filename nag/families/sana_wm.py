"""SANA-WM: SANA's masked cross attention under a camera's path; its refiner is LTX-2's denoiser without sound.

The pipeline puts a long instruction ahead of the prompt and none ahead of a negative one; neither does guidance. The
refiner is not the pipeline's denoiser, so `nag.guide` leaves it plain; `nag.attach` takes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from nag.encoding import Arguments
from nag.families.arguments import ROWS, SHARED, Argument
from nag.families.family import Family
from nag.families.ltx import LTXVideo
from nag.families.sana import Sana
from nag.negative import NegativeEmbeds

__all__ = ["SanaWM", "SanaWMRefiner"]


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
    models = "SANA-WM, its second stage"
    source = "as LTX-Video, not tuned"
    denoiser_types = ("SanaWMLTX2RefinerTransformer3DModel",)
    processors = ("SanaWMLTX2AudioVideoAttnProcessor", "SanaWMLTX2PerturbedAttnProcessor")
    arguments: ClassVar[dict[str, Argument]] = {"video_rotary_emb": ROWS}

"""LTX-2: video and audio streams, each of which attends to its own form of the prompt under one mask.

Between encode_prompt and the denoiser the pipelines' connectors make both forms; a negative given as embeddings is what
they return. Newer models modulate the text by the noise level, so its keys are made anew at each step. Calls with
perturbed or isolated attention, which other guidances compare with, stay plain.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch

from nag.encoding import Arguments, encode_alone
from nag.families.arguments import NUMBERS, PADDED, ROWS, Argument
from nag.families.family import Family
from nag.negative import NegativeEmbeds
from nag.params import NAGParams

__all__ = ["LTX2"]

AUDIO = "audio_encoder_hidden_states"


class LTX2(Family):
    name = "LTX-2"
    models = "2.0, 2.3, 2.5: T2V, I2V, conditions, IC-LoRA; Echo"
    defaults = NAGParams(scale=11.0, tau=2.5, alpha=0.25)
    source = "ports of the method, not the paper"
    attention = "cross"
    denoiser_types = ("LTX2VideoTransformer3DModel",)
    attention_modules = ("transformer_blocks.*.attn2", "transformer_blocks.*.audio_attn2")
    processors = ("LTX2AudioVideoAttnProcessor", "LTX2PerturbedAttnProcessor")
    denoiser_mask_arg = "encoder_attention_mask"
    negative_mask_arg = "negative_prompt_attention_mask"
    arguments: ClassVar[dict[str, Argument]] = {
        **dict.fromkeys((AUDIO, "audio_encoder_attention_mask"), PADDED),
        **dict.fromkeys(("audio_timestep", "sigma", "audio_sigma"), NUMBERS),
        **dict.fromkeys(("video_self_attention_mask", "video_keyframes_mask"), ROWS),
    }
    extra_negative_inputs = {"negative_audio_prompt_embeds": AUDIO}  # noqa: RUF012 (a constant of the class)
    cfg = "batched"
    prompt_arguments: ClassVar[dict[str, str]] = {
        "encoder_hidden_states": "connector_prompt_embeds",
        AUDIO: "connector_audio_prompt_embeds",
        "encoder_attention_mask": "connector_attention_mask",
    }

    def encode(self, encode_prompt: Callable[..., Any], prompts: Sequence[str], arguments: Arguments) -> NegativeEmbeds:
        embeds, mask, *_ = encode_alone(encode_prompt, prompts, arguments)
        pipe = inspect.unwrap(encode_prompt).__self__
        side = getattr(getattr(pipe, "tokenizer", None), "padding_side", "left")
        video, audio, mask = pipe.connectors(embeds, mask, padding_side=side)
        return NegativeEmbeds(video, mask=mask, more={AUDIO: audio})

    def negative_embeds(self, encoded: Mapping[str, Any]) -> NegativeEmbeds:
        video, audio, mask = (
            encoded[f"connector_{name}"] for name in ("prompt_embeds", "audio_prompt_embeds", "attention_mask")
        )
        return NegativeEmbeds(video, mask=mask, more={AUDIO: audio})

    def pack(self, call: dict[str, Any], negative: NegativeEmbeds) -> dict[str, Any]:
        packed = super().pack(call, negative)
        packed[AUDIO] = torch.cat([call[AUDIO], negative.more[AUDIO]], dim=1)
        masks = {"encoder_attention_mask": call.get("audio_encoder_attention_mask")}
        packed["audio_encoder_attention_mask"] = super().pack(call | masks, negative).get("encoder_attention_mask")
        return packed

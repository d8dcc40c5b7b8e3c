"""LTX-2: video and audio streams, each of which attends to its own form of the prompt under one mask.

Between encode_prompt and the denoiser the pipelines' connectors make both forms; a negative given as embeddings is what
they return. The sound may have a negative prompt of its own. Newer models modulate the text by the noise level, so its
keys are computed at each step. Calls with perturbed or isolated attention, which other guidances compare with, stay
plain.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from nag.errors import InvalidParameter
from nag.families.arguments import NUMBERS, PADDED, ROWS, Argument
from nag.families.family import Family
from nag.families.ltx import TEXT_MASK_ERROR
from nag.negative import NegativeEmbeds
from nag.params import NAGParams
from nag.pipelines import Arguments, encode_prompts

__all__ = ["LTX2"]

AUDIO, AUDIO_MASK = "audio_encoder_hidden_states", "audio_encoder_attention_mask"


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
        **dict.fromkeys((AUDIO, AUDIO_MASK), PADDED),
        **dict.fromkeys(("audio_timestep", "sigma", "audio_sigma"), NUMBERS),
        **dict.fromkeys(("video_self_attention_mask", "video_keyframes_mask"), ROWS),
    }
    extra_negative_inputs: ClassVar[dict[str, str]] = {
        "negative_audio_prompt_embeds": AUDIO,
        "negative_audio_prompt_attention_mask": AUDIO_MASK,
    }
    extra_negative_prompts = ("negative_audio_prompt",)
    split_error = f"{TEXT_MASK_ERROR}; it does not split the video's positions in attention to sound"
    cfg = "batched"
    prompt_arguments: ClassVar[dict[str, str]] = {
        "encoder_hidden_states": "connector_prompt_embeds",
        AUDIO: "connector_audio_prompt_embeds",
        "encoder_attention_mask": "connector_attention_mask",
    }

    def encode(
        self,
        encode_prompt: Callable[..., Any],
        prompts: Sequence[str],
        arguments: Arguments,
        *,
        negative_audio_prompt: Sequence[str] | None = None,
    ) -> NegativeEmbeds:
        pipe = inspect.unwrap(encode_prompt).__self__
        side = getattr(getattr(pipe, "tokenizer", None), "padding_side", "left")

        def forms(prompts: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
            embeds, mask, *_ = encode_prompts(encode_prompt, prompts, arguments)
            video, audio, mask = pipe.connectors(embeds, mask, padding_side=side)
            return video, audio, mask

        if negative_audio_prompt is None:
            video, audio, mask = forms(prompts)
            return NegativeEmbeds(video, mask=mask, extra={AUDIO: audio})
        count = max(len(prompts), len(negative_audio_prompt))
        of_video, of_audio = (
            list(texts) * count if len(texts) == 1 else texts for texts in (prompts, negative_audio_prompt)
        )
        video, _, mask = forms(of_video)
        _, audio, audio_mask = forms(of_audio)
        return NegativeEmbeds(video, mask=mask, extra={AUDIO: audio, AUDIO_MASK: audio_mask})

    def negative_embeds(self, encoded: Mapping[str, Any]) -> NegativeEmbeds:
        video, audio, mask = (
            encoded[f"connector_{name}"] for name in ("prompt_embeds", "audio_prompt_embeds", "attention_mask")
        )
        return NegativeEmbeds(video, mask=mask, extra={AUDIO: audio})

    def pack(self, call: dict[str, Any], negative: NegativeEmbeds) -> dict[str, Any]:
        of_audio = NegativeEmbeds(negative.extra[AUDIO], mask=negative.extra.get(AUDIO_MASK, negative.mask))
        if of_audio.embeds.shape[1] != negative.embeds.shape[1]:
            raise InvalidParameter(
                "negative_audio_prompt_embeds",
                f"must have as many tokens as negative_prompt_embeds, {negative.embeds.shape[1]}, "
                f"got {of_audio.embeds.shape[1]}",
            )
        audio_call = {"encoder_hidden_states": call[AUDIO], "encoder_attention_mask": call.get(AUDIO_MASK)}
        audio = super().pack(audio_call, of_audio)
        return super().pack(call, negative) | {
            AUDIO: audio["encoder_hidden_states"],
            AUDIO_MASK: audio["encoder_attention_mask"],
        }

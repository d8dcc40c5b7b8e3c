"""AudioLDM 2: a UNet whose blocks attend to T5's text and, by attention of their own, to what GPT-2 makes of it.

The two texts differ in channels, by which an attention module is told which of them it reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from nag.errors import UnsupportedPipeline
from nag.families.arguments import PADDED, Argument
from nag.families.plain_cross import PlainCrossAttention
from nag.guided_step import GuidedStep
from nag.negative import NegativeEmbeds, pad_prompts
from nag.params import NAGParams
from nag.pipelines import Arguments, encode_prompts
from nag.processor_swap import class_names
from nag.processors import CrossAttentionProcessor
from nag.token_layout import TokenLayout

__all__ = ["AudioLDM2"]

#: The denoiser's arguments for the two texts and the mask of T5's.
GENERATED, T5, MASK = "encoder_hidden_states", "encoder_hidden_states_1", "encoder_attention_mask_1"


class _OneOfTwoTextsProcessor(CrossAttentionProcessor):
    def run(
        self, step: GuidedStep, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, **kwargs: Any
    ) -> Any:
        generated, count = step.negative.extra[GENERATED], encoder_hidden_states.shape[1]
        if attn.cross_attention_dim == generated.shape[-1]:
            negative = generated.shape[1]
            step = replace(step, layout=TokenLayout(count - negative, negative), text_keys=count)
        return super().run(step, attn, hidden_states, encoder_hidden_states=encoder_hidden_states, **kwargs)


class AudioLDM2(PlainCrossAttention):
    name = "AudioLDM 2"
    models = "AudioLDM 2, large, music"
    defaults = NAGParams(scale=3.0, tau=2.5, alpha=0.375)
    source = "as Stable Diffusion 1.5, not tuned"
    denoiser_types = ("AudioLDM2UNet2DConditionModel",)
    caches_text_kv = False  # of two texts, one padded
    processor_class = _OneOfTwoTextsProcessor
    text_argument = T5
    denoiser_mask_arg = MASK
    negative_mask_arg = "negative_prompt_attention_mask"
    extra_negative_inputs: ClassVar[dict[str, str]] = {"negative_generated_prompt_embeds": GENERATED}
    arguments: ClassVar[dict[str, Argument]] = dict.fromkeys((T5, MASK), PADDED)
    cfg = "batched"
    tells_copies = False

    def check_denoiser(self, denoiser: Any) -> None:
        channels = {module.cross_attention_dim for module in self.attentions(denoiser)}
        if len(channels) == 1:
            raise UnsupportedPipeline("this UNet has both of its texts in as many channels, or one text alone")

    def check(self, pipe: Any) -> None:
        super().check(pipe)
        if "VitsModel" in class_names(pipe.text_encoder_2):
            raise UnsupportedPipeline("this AudioLDM 2 speaks a transcript, of which there is no negative")

    def encode(self, encode_prompt: Callable[..., Any], prompts: Sequence[str], arguments: Arguments) -> NegativeEmbeds:
        # One at a time: GPT-2 counts the padding to the longest of a batch as tokens.
        alone = [encode_prompts(encode_prompt, [prompt], arguments) for prompt in prompts]
        generated = torch.cat([encoded[2] for encoded in alone])
        return replace(pad_prompts([encoded[0][0] for encoded in alone]), extra={GENERATED: generated})

    def pack(self, call: dict[str, Any], negative: NegativeEmbeds) -> dict[str, Any]:
        generated = torch.cat([call[GENERATED], negative.extra[GENERATED]], dim=1)
        return super().pack(call, negative) | {GENERATED: generated}

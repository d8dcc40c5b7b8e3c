"""Models of sound: cross attention to the prompt's tokens.

Stable Audio puts tokens for the time span behind the prompt's; the negative's get the same ones. LongCat-Audio
embeds its text and mixes neighbouring tokens ahead of its blocks, each prompt by itself, and modulates by the mean of
the positive's. ACE-Step reads lyrics and timbre together with the prompt, and the same ones with the negative prompt.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from nag.errors import UnsupportedPipeline
from nag.families.arguments import ROWS, SHARED, Argument
from nag.families.family import Family
from nag.guidance_state import GuidanceState, PipelineCall
from nag.guided_step import GuidedStep
from nag.negative import NegativeEmbeds, scatter_rows
from nag.pipelines import calling_pipeline
from nag.processors.cross import MaskedNegativeProcessor
from nag.processors.differential import DifferentialCrossProcessor
from nag.step_hooks import ChangeArguments, StepHooks
from nag.token_layout import TokenLayout

__all__ = ["AceStep", "LongCatAudio", "StableAudio", "StableAudio3"]


class _Audio(Family):
    source = "as Wan 2.1, not tuned"
    attention = "cross"
    caches_text_kv: ClassVar[bool] = True
    cfg: ClassVar[Literal["batched", "separate"]] = "batched"


class StableAudio(_Audio):
    """Stable Audio Open, and the base of Stable Audio 3.

    Attributes:
        span: tokens for the sound's length behind those of the prompt.

    """

    name = "Stable Audio"
    models = "Stable Audio Open 1.0"
    denoiser_types = ("StableAudioDiTModel",)
    attention_modules = ("transformer_blocks.*.attn2",)
    processors = ("StableAudioAttnProcessor2_0",)
    caches_text_kv = False  # for the time span is a call's own
    arguments: ClassVar[dict[str, Argument]] = {"global_hidden_states": ROWS, "rotary_embedding": SHARED}
    tells_copies = False
    span: ClassVar[int] = 2

    def layout(self, call: dict[str, Any], negative: NegativeEmbeds) -> TokenLayout:
        return TokenLayout(self.embeds(call).shape[1], negative.embeds.shape[1] + self.span)

    def pack(self, call: dict[str, Any], negative: NegativeEmbeds) -> dict[str, Any]:
        embeds = torch.cat([negative.embeds, self.embeds(call)[:, -self.span :]], dim=1)
        mask = None if negative.mask is None else F.pad(negative.mask, (0, self.span), value=1)
        return super().pack(call, replace(negative, embeds=embeds, mask=mask))


class StableAudio3(StableAudio):
    name = "Stable Audio 3"
    models = "Stable Audio 3, text to sound, sound to sound, inpainting"
    denoiser_types = ("StableAudio3DiTModel",)
    attention_modules = ("transformer_blocks.*.cross_attn",)
    processor_class = DifferentialCrossProcessor
    processors = ("StableAudio3CrossAttnProcessor",)
    denoiser_mask_arg = "encoder_attention_mask"
    negative_mask_arg = "negative_prompt_attention_mask"
    arguments: ClassVar[dict[str, Argument]] = dict.fromkeys(
        ("encoder_hidden_states", "encoder_attention_mask", "global_hidden_states", "local_add_cond"), ROWS
    )
    span = 1
    has_mask = False  # a learned token stands for each padding, and is read

    def check_denoiser(self, denoiser: Any) -> None:
        if not denoiser.config.use_differential_attention:
            raise UnsupportedPipeline("this Stable Audio 3 takes no difference of two attentions, as all released do")


class LongCatAudio(_Audio):
    name = "LongCat-Audio"
    models = "LongCat-AudioDiT"
    denoiser_types = ("LongCatAudioDiTTransformer",)
    attention_modules = ("blocks.*.cross_attn",)
    processor_class = MaskedNegativeProcessor
    processors = ("AudioDiTCrossAttnProcessor",)
    negative_mask_arg = "negative_prompt_attention_mask"
    timestep_unit = 1000.0
    timestep_rises = True
    arguments: ClassVar[dict[str, Argument]] = {"latent_cond": ROWS}
    cfg = "separate"
    notes = "equation 7, the positive's mean text"
    is_packed = False
    encodes_one_by_one = True

    def hooks(self, denoiser: Any, hooks: StepHooks) -> None:
        def text(embeds: Tensor) -> Tensor:
            embedded: Tensor = denoiser.text_embed.forward(embeds)
            return denoiser.text_conv_layer(embedded) if denoiser.text_conv else embedded

        def refine(step: GuidedStep, args: Any, output: Any) -> Any:  # noqa: ARG001 (a hook's signature)
            embeds, mask = step.negative.embeds, step.negative.mask
            step.scratch["rope"] = denoiser.rotary_embed(embeds, embeds.shape[1])
            if mask is None:
                step.scratch["text"] = text(embeds)
                return output
            step.scratch["text"] = refined = embeds.new_zeros(*embeds.shape[:2], denoiser.config.dit_dim)
            for row, own in enumerate(mask.bool()):
                refined[row, own] = text(embeds[row : row + 1, own])[0]
            return output

        hooks.after(denoiser.text_embed, refine)
        for block in denoiser.blocks:
            hooks.before(block.cross_attn, _append_text(block.cross_attn_norm_c))


class AceStep(_Audio):
    name = "ACE-Step"
    models = "ACE-Step 1.5 base, SFT, turbo"
    denoiser_types = ("AceStepTransformer1DModel",)
    attention_modules = ("layers.*.cross_attn",)
    processor_class = MaskedNegativeProcessor
    processors = ("AceStepAttnProcessor2_0",)
    arguments: ClassVar[dict[str, Argument]] = {"context_latents": ROWS}
    encode_arguments: ClassVar[dict[str, Any]] = {"lyrics": "", "vocal_language": "en"}
    negative_mask_arg = "negative_prompt_attention_mask"
    encodes_one_by_one = True

    def watch_conditions(self, pipe: Any, state: GuidanceState, stack: ExitStack) -> None:
        completed: PipelineCall | None = None

        def complete(encoder: Any, args: Any, kwargs: dict[str, Any], output: Any) -> None:  # noqa: ARG001
            nonlocal completed
            call = state.pipeline_call
            if call is None or call is completed or calling_pipeline() is not pipe:
                return
            text = kwargs["text_hidden_states"]
            row = torch.arange(len(text)) if len(call.negative.embeds) > 1 else torch.zeros(len(text), dtype=torch.long)
            negative = call.negative.to(text).at(row)
            of_negative = {"text_hidden_states": negative.embeds, "text_attention_mask": negative.token_mask.bool()}
            tokens, mask = encoder.forward(**(kwargs | of_negative))
            call.negative, completed = NegativeEmbeds(tokens, mask=mask), call

        stack.callback(pipe.condition_encoder.register_forward_hook(complete, with_kwargs=True).remove)

    def rows(self, pipe: Any, state: GuidanceState, call: dict[str, Any]) -> slice | None:  # noqa: ARG002
        # Under CFG the unconditional rows come last, and at some steps not at all.
        if state.inside_pipeline_call and state.pipeline_call is not None:
            return slice(0, state.pipeline_call.prompts)
        return slice(0, len(self.embeds(call)))


def _append_text(norm: Any) -> ChangeArguments:
    """Returns the hook that puts the negative's tokens, mask and positions behind the positive's."""

    def append(step: GuidedStep, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        text, mask = kwargs["encoder_hidden_states"], kwargs["attention_mask"]
        negative = scatter_rows(norm(step.scratch["text"]), step.rows, len(text))
        pairs = zip(kwargs["prompt_rotary_emb"], step.scratch["rope"], strict=True)
        return args, kwargs | {
            "encoder_hidden_states": torch.cat([text, negative], dim=1),
            "attention_mask": torch.cat([mask, mask.new_ones(negative.shape[:2])], dim=1),
            "prompt_rotary_emb": tuple(torch.cat(pair) for pair in pairs),
        }

    return append

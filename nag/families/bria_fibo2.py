"""Bria FIBO 2: a resampler makes gist tokens of the text; these and the image share one stream, which also reads text.

The gist stands ahead of the image, or behind it where prompts of a batch have unequal counts of it. The negative's is
resampled on its own and follows the positive's in all layers; each reads its own prompt in the injection layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from nag.attention import AttentionCall
from nag.errors import InvalidParameter
from nag.families.arguments import PADDED_LAYERS, ROWS, Argument
from nag.families.family import Family
from nag.guided_step import GuidedStep
from nag.negative import NegativeEmbeds, scatter_rows
from nag.processors.joint import guide_image, two_call_attention
from nag.processors.masked_joint import MaskedJointProcessor, masked_layout
from nag.step_hooks import ChangeArguments, StepHooks
from nag.token_layout import TokenLayout

__all__ = ["BriaFibo2"]


class _GistProcessor(MaskedJointProcessor):
    """Guides the attention of gist and image to each other, and in injection layers that of both to the text."""

    reads_text = False

    def run(
        self, step: GuidedStep, attn: Any, hidden_states: Tensor, encoder_hidden_states: Any = None, *args: Any
    ) -> Any:
        self.reads_text = encoder_hidden_states is not None
        step = replace(step, layout=step.scratch["layout"])
        return super().run(step, attn, hidden_states, encoder_hidden_states, *args)

    def should_intercept(self, call: AttentionCall, step: GuidedStep) -> bool:
        return self.reads_text or super().should_intercept(call, step)

    def guided_attention(self, call: AttentionCall, step: GuidedStep) -> Tensor:
        if not self.reads_text:
            return super().guided_attention(call, step)
        negative = step.negative.embeds.shape[1]
        text = TokenLayout(call.key.shape[2] - negative, negative)
        return guide_image(two_call_attention(call, step.token_layout, step.rows, text), step)


class BriaFibo2(Family):
    name = "Bria FIBO 2"
    models = "FIBO 2.0, with images given or without"
    attention = "joint"
    denoiser_types = ("BriaFibo2Transformer2DModel",)
    attention_modules = ("layers.*.attention", "layers.*.cross_attention")
    processor_class = _GistProcessor
    processors = ("BriaFibo2AttnProcessor",)
    denoiser_mask_arg = "encoder_attention_mask"
    negative_mask_arg = "negative_prompt_embeds_mask"
    timestep_unit = 1000.0
    arguments: ClassVar[dict[str, Argument]] = {"encoder_hidden_states": PADDED_LAYERS, "context_latents": ROWS}
    cfg = "separate"
    is_packed = False
    #: Images of the text that the positive's caption asks for are no part of the negative.
    encode_arguments: ClassVar[dict[str, Any]] = {"text_images": None}

    def negative_embeds(self, encoded: Mapping[str, Any]) -> NegativeEmbeds:
        return NegativeEmbeds(encoded["embeds"].transpose(1, 2), mask=encoded["mask"])

    def embeds(self, call: dict[str, Any]) -> Tensor:
        """Returns the prompt's tokens with the text encoder's layers as third dimension, (B, L, layers, C)."""
        embeds: Tensor = call["encoder_hidden_states"]
        return embeds.transpose(1, 2)

    def layout(self, call: dict[str, Any], negative: NegativeEmbeds) -> TokenLayout:
        if negative.embeds.shape[2:] != self.embeds(call).shape[2:]:
            raise InvalidParameter("negative_prompt_embeds", "must be (prompts, tokens, layers, channels)")
        return super().layout(call, negative)

    def hooks(self, denoiser: Any, hooks: StepHooks) -> None:
        from diffusers.models.transformers.transformer_bria_fibo2 import compute_gist_count  # not in every release

        config = denoiser.config
        limits = (
            config.min_num_gist_tokens,
            config.max_num_gist_tokens,
            config.gist_step,
            config.gist_min_text_len,
            config.gist_max_text_len,
        )

        def resample(step: GuidedStep, args: tuple[Any, ...], output: Tensor) -> Tensor:
            _, positive, _, seen = args
            embeds, mask = step.negative.embeds, step.negative.mask
            lengths = [embeds.shape[1]] * len(embeds) if mask is None else mask.sum(dim=1).tolist()
            counts = compute_gist_count(lengths, *limits)
            count, device = max(counts), embeds.device
            own = None
            if min(counts) < count:
                own = torch.arange(count, device=device) < torch.tensor(counts, device=device)[:, None]
            gist = denoiser.perceiver.forward(embeds[:, :, 0], count, None if mask is None else mask.bool(), own)
            every = NegativeEmbeds(gist, mask=own).scatter_rows(step.rows, len(output))
            plain = TokenLayout(positive, count, text_last=seen is not None)
            places = denoiser.create_coordinate_grid((count, 1, 1), (1, 0, 0), device).flatten(0, 2)
            step.scratch["gist"], step.scratch["layout"] = every.embeds, masked_layout(plain, seen, every)
            step.scratch["gist_freqs"] = denoiser.rope_embedder(places)[None]
            return output

        def begin(step: GuidedStep, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            tokens, _, freqs = args
            scratch, noisy = step.scratch, kwargs["noise_mask"]
            layout, gist = scratch["layout"], scratch["gist"]
            scratch["freqs"] = _with_negative(layout, freqs, scratch["gist_freqs"])
            scratch["noise_mask"] = _with_negative(layout, noisy, noisy.new_zeros(gist.shape[:2]))
            return (_with_negative(layout, tokens, gist), None, freqs), kwargs

        def place(step: GuidedStep, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            return (args[0], None, step.scratch["freqs"]), kwargs | {"noise_mask": step.scratch["noise_mask"]}

        def end(step: GuidedStep, args: Any, output: Tensor) -> Any:  # noqa: ARG001 (a hook's signature)
            return step.scratch["layout"].of_one(output, 1, negative=False)

        def inject(bundle: int) -> ChangeArguments:
            def add_text(step: GuidedStep, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
                text, mask = kwargs["encoder_hidden_states"], kwargs["encoder_attention_mask"]
                negative = scatter_rows(step.negative.embeds[:, :, bundle], step.rows, len(text))
                if mask is not None or step.negative.mask is not None:
                    mask = mask if mask is not None else text.new_ones(text.shape[:2], dtype=torch.bool)
                    own = scatter_rows(step.negative.token_mask.bool(), step.rows, len(text))
                    mask = torch.cat([mask.bool(), own], dim=1)
                return args, kwargs | {
                    "encoder_hidden_states": torch.cat([text, negative], dim=1),
                    "encoder_attention_mask": mask,
                }

            return add_text

        hooks.after(denoiser.perceiver, resample)
        hooks.before(denoiser.layers[0], begin)
        for layer in denoiser.layers:
            hooks.before(layer, place)
        # The first of the text encoder's layers is the resampler's.
        for bundle, number in enumerate(config.injection_layer_ids, start=1):
            hooks.before(denoiser.layers[number], inject(bundle))
        hooks.after(denoiser.layers[-1], end)


def _with_negative(layout: TokenLayout, sequence: Tensor, negative: Tensor) -> Tensor:
    """Appends the negative's gist to the positive's in a sequence of gist and image tokens."""
    shared, positive, _, image = replace(layout, negative=0).split(sequence, 1)
    return layout.join(shared, positive, negative, image, 1)

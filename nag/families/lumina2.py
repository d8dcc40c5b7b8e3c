"""Lumina 2: rows of `[text | image | padding]`; an image's rotary positions begin where its text ends.

The image keeps the places that the positive gives it, and the negative's tokens start at the origin as the positive's
do. They pass the text refiner on their own, follow the padding from the first block on, and are told by role.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from nag._diffusers import lumina2_rotary
from nag.families.family import Family
from nag.guided_step import GuidedStep
from nag.negative import NegativeEmbeds
from nag.pipelines import Arguments
from nag.processors.per_row_mask import IMAGE, NEGATIVE, NOBODY, POSITIVE, TokenRoleProcessor, TokenRoles
from nag.step_hooks import StepHooks

__all__ = ["Lumina2"]


class Lumina2(Family):
    name = "Lumina 2"
    models = "Lumina-Image 2.0"
    attention = "joint"
    denoiser_types = ("Lumina2Transformer2DModel",)
    attention_modules = ("layers.*.attn",)
    processor_class = TokenRoleProcessor
    processors = ("Lumina2AttnProcessor2_0",)
    negative_mask_arg = "negative_prompt_attention_mask"
    timestep_unit = 1000.0
    timestep_rises = True
    cfg = "separate"
    is_packed = False
    compiled = "in parts"

    def encode(self, encode_prompt: Callable[..., Any], prompts: Sequence[str], arguments: Arguments) -> NegativeEmbeds:
        # As CFG's negative prompt, which gets no system prompt; nothing is encoded for the positive.
        nothing = {
            "prompt_embeds": torch.zeros(len(prompts), 1, 1),
            "prompt_attention_mask": torch.zeros(len(prompts), 1),
        }
        changed: dict[str, Any] = {
            "prompt": None,
            "negative_prompt": list(prompts),
            "negative_prompt_embeds": None,
        } | nothing
        changed |= {"num_images_per_prompt": 1, "do_classifier_free_guidance": True}
        *_, embeds, mask = encode_prompt(**(arguments | changed))
        return NegativeEmbeds(embeds, mask=mask)

    def hooks(self, denoiser: Any, hooks: StepHooks) -> None:
        def place(step: GuidedStep, args: Any, output: tuple[Any, ...]) -> tuple[Any, ...]:  # noqa: ARG001
            *others, rotary, text_lengths, lengths = output
            hooks.current.step = replace(step, layout=_make_roles(step, text_lengths, lengths))
            of_negative = _rotary(denoiser, step.negative)[:1].expand(len(rotary), -1, -1)
            return (*others, torch.cat([rotary, of_negative], dim=1), text_lengths, lengths)

        def tokens(step: GuidedStep) -> Tensor:
            negative = step.negative
            text: Tensor = denoiser.time_caption_embed.caption_embedder(negative.embeds)
            for layer in denoiser.context_refiner:
                text = layer(text, negative.token_mask, _rotary(denoiser, negative))
            return text

        hooks.after(denoiser.rope_embedder, place)
        hooks.append_text(denoiser.layers[0], 0, "hidden_states", tokens)


def _rotary(denoiser: Any, negative: NegativeEmbeds) -> Tensor:
    """Returns the rotary positions (N, L, D) of a text that begins at the origin."""
    places = torch.zeros(*negative.embeds.shape[:2], 3, dtype=torch.int32, device=negative.embeds.device)
    places[..., 0] = torch.arange(places.shape[1], device=places.device)
    return lumina2_rotary(denoiser, places)


def _make_roles(step: GuidedStep, text_lengths: list[int], lengths: list[int]) -> TokenRoles:
    """Returns the roles of tokens in rows `[text | image | padding | negative]`."""
    device = step.negative.embeds.device
    mask = torch.zeros(len(lengths), step.negative.embeds.shape[1], dtype=torch.bool, device=device)
    mask[step.rows] = step.negative.token_mask.bool()
    place = torch.arange(max(lengths), device=device)
    text_end, end = (torch.tensor(ends, device=device)[:, None] for ends in (text_lengths, lengths))
    of = torch.where(place < text_end, POSITIVE, torch.where(place < end, IMAGE, NOBODY))
    return TokenRoles(max(text_lengths), mask.shape[1], of=torch.cat([of, torch.where(mask, NEGATIVE, NOBODY)], dim=1))

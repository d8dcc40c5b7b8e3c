"""Flux.1: joint attention, text first. The negative prompt's T5 tokens travel behind the positive's.

The pooled CLIP prompt stays the positive one, which is equation (7) to the letter: the same Q against K+ and K−.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch

from nag.families.composing import refuse_what_does_not_compose
from nag.families.entering import encode_alone
from nag.families.family import Family
from nag.families.flux_reference import enter_reference
from nag.families.swapping import Processors, original
from nag.params import NAGParams
from nag.processors import LanesAttentionProcessor
from nag.session import Negative, Session

__all__ = ["Flux"]


class Flux(Family):
    name = "Flux.1"
    models = "dev, schnell, Kontext, Fill, Control, Redux"
    defaults = NAGParams(scale=5.0, tau=2.5, alpha=0.25)
    source = "arXiv 2505.21179, table 5"
    attention = "joint"
    denoiser_types = ("FluxTransformer2DModel",)
    processors = ("FluxAttnProcessor", "FluxIPAdapterAttnProcessor")
    timestep_unit = 1000.0
    cfg = "separate"
    exact = "equation 7, the positive's pooled prompt; `reference=True` is the authors' form"
    has_reference = True

    def attentions(self, denoiser: Any) -> list[Any]:
        return [block.attn for block in (*denoiser.transformer_blocks, *denoiser.single_transformer_blocks)]

    def encode(self, encode_prompt: Callable[..., Any], prompts: Sequence[str], arguments: dict[str, Any]) -> Negative:
        embeds, pooled, _ = encode_alone(encode_prompt, prompts, arguments)
        return Negative(embeds, pooled)

    def pack(self, call: dict[str, Any], negative: Negative) -> dict[str, Any]:
        # Flux puts every text token at the origin, so the negative's positions start where the positive's do.
        ids = call["txt_ids"]
        negative_ids = ids.new_zeros(negative.embeds.shape[1], ids.shape[-1])
        return super().pack(call, negative) | {"txt_ids": torch.cat([ids, negative_ids])}

    def enter(self, pipe: Any, session: Session, stack: ExitStack, reference: bool) -> None:
        if not reference:
            super().enter(pipe, session, stack, reference)
            return
        denoiser = original(pipe.transformer)
        refuse_what_does_not_compose(denoiser)
        processors = Processors(
            self.attentions(denoiser), lambda plain: LanesAttentionProcessor(session, plain), ("FluxAttnProcessor",)
        )
        enter_reference(pipe.transformer, session, stack, processors, lambda call: self.step(pipe, session, call))

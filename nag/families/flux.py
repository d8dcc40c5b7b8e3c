"""Flux.1: joint attention, text first. The negative prompt's T5 tokens travel behind the positive's.

The pooled CLIP prompt stays the positive one, which is equation (7) to the letter: the same Q against K+ and K−.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from diffusers import FluxTransformer2DModel
from diffusers.models.transformers.transformer_flux import FluxAttnProcessor
from torch import Tensor, nn

from nag.families.family import Family, encode_alone, on_denoiser, swap_processors
from nag.families.flux_reference import enter_reference
from nag.packing import Packing
from nag.params import NAGParams
from nag.processors import JointAttentionProcessor, LanesAttentionProcessor
from nag.session import Negative, Session, Step

__all__ = ["FAMILY"]


def _matches(pipe: Any) -> bool:
    return isinstance(getattr(pipe, "transformer", None), FluxTransformer2DModel)


def _denoiser(pipe: Any) -> nn.Module:
    transformer: nn.Module = pipe.transformer
    return transformer


def _encode(encode_prompt: Callable[..., Any], prompts: Sequence[str], arguments: dict[str, Any]) -> Negative:
    embeds, pooled, _ = encode_alone(encode_prompt, prompts, arguments)
    return Negative(embeds, pooled)


def _enter(pipe: Any, session: Session, stack: ExitStack, reference: bool) -> None:
    transformer = pipe.transformer
    kind = LanesAttentionProcessor if reference else JointAttentionProcessor
    modules = [block.attn for block in (*transformer.transformer_blocks, *transformer.single_transformer_blocks)]
    swap_processors(modules, lambda plain: kind(session, plain), (FluxAttnProcessor,), stack)

    def plan(call: dict[str, Any]) -> Step | None:
        embeds: Tensor = call["encoder_hidden_states"]
        if not session.conditional(embeds):
            return None
        return session.plan(embeds, slice(0, len(embeds)), lambda: _timestep(pipe, call))

    if reference:
        enter_reference(transformer, session, stack, plan)
        return

    def pack(call: dict[str, Any]) -> dict[str, Any]:
        step = plan(call)
        if step is None:
            return call
        positive, negative = call["encoder_hidden_states"], step.negative.embeds
        session.step = replace(step, packing=Packing(positive.shape[1], negative.shape[1]))
        # Flux puts every text token at the origin, so the negative's positions start where the positive's do.
        negative_ids = call["txt_ids"].new_zeros(negative.shape[1], call["txt_ids"].shape[-1])
        return call | {
            "encoder_hidden_states": torch.cat([positive, negative], dim=1),
            "txt_ids": torch.cat([call["txt_ids"], negative_ids]),
        }

    on_denoiser(transformer, session, stack, pack)


def _timestep(pipe: Any, call: dict[str, Any]) -> float:
    """The pipeline's own timestep where it tells it: the denoiser's copy may have been rounded to half precision."""
    told = getattr(pipe, "_current_timestep", None)
    return float(told) if told is not None else float(call["timestep"].flatten()[0]) * 1000


FAMILY = Family(
    name="Flux.1",
    defaults=NAGParams(scale=5.0, tau=2.5, alpha=0.25),
    source="arXiv 2505.21179, table 5",
    matches=_matches,
    denoiser=_denoiser,
    encode=_encode,
    enter=_enter,
    has_reference=True,
)

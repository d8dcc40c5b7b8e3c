"""PRX: the image attends to masked Gemma tokens and to itself in one softmax; the text attends to nothing."""

from __future__ import annotations

from typing import Any

from nag.families.family import Family
from nag.params import NAGParams
from nag.processors.beside import BesideAttentionProcessor
from nag.session import Session

__all__ = ["PRX"]


class PRX(Family):
    name = "PRX"
    models = "PRX, PRXPixel"
    defaults = NAGParams(scale=5.0, tau=2.5, alpha=0.25)
    source = "as Flux.1, not tuned"
    attention = "joint"
    denoiser_types = ("PRXTransformer2DModel",)
    processors = ("PRXAttnProcessor2_0",)
    mask_argument = "attention_mask"
    mask_name = "negative_prompt_attention_mask"
    timestep_unit = 1000.0
    cfg = "batched"

    def attentions(self, denoiser: Any) -> list[Any]:
        return [block.attention for block in denoiser.blocks]

    def processor(self, session: Session, plain: Any) -> BesideAttentionProcessor:
        return BesideAttentionProcessor(session, plain)

"""AuraFlow: joint attention, text first, with learned registers ahead of the text; no mask, no rotary positions.

Registers read the prompt that they lead, so the negative gets registers of its own between the two prompts.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from nag.errors import UnsupportedPipeline
from nag.families.family import Family
from nag.families.swapping import original
from nag.packing import Packing
from nag.params import NAGParams
from nag.session import Negative, Session

__all__ = ["AuraFlow"]

REGISTERS = 8


class AuraFlow(Family):
    name = "AuraFlow"
    models = "AuraFlow, Pony v7"
    defaults = NAGParams(scale=5.0, tau=2.5, alpha=0.25)
    source = "as Flux.1, not tuned"
    attention = "joint"
    denoiser_types = ("AuraFlowTransformer2DModel",)
    processors = ("AuraFlowAttnProcessor2_0", "FusedAuraFlowAttnProcessor2_0")
    timestep_unit = 1000.0
    cfg = "batched"

    def attentions(self, denoiser: Any) -> list[Any]:
        return [block.attn for block in (*denoiser.joint_transformer_blocks, *denoiser.single_transformer_blocks)]

    def check(self, pipe: Any) -> None:
        found = original(pipe.transformer).register_tokens.shape[1]
        if found != REGISTERS:
            raise UnsupportedPipeline(f"this AuraFlow has {found} register tokens, not {REGISTERS}")

    def packing(self, call: dict[str, Any], negative: Negative) -> Packing:
        plain = super().packing(call, negative)
        return Packing(REGISTERS + plain.positive, REGISTERS + plain.negative)

    def hooks(self, denoiser: Any, session: Session, stack: ExitStack) -> None:
        def lead_the_negative(module: Any, args: Any, text: Tensor) -> Tensor:  # noqa: ARG001 (torch's signature)
            step = session.step
            if step is None or step.packing is None:
                return text
            registers = denoiser.register_tokens.to(text).expand(len(text), -1, -1)
            positive = step.packing.positive - REGISTERS
            return torch.cat([text[:, :positive], registers, text[:, positive:]], dim=1)

        stack.callback(denoiser.context_embedder.register_forward_hook(lead_the_negative).remove)

"""AuraFlow: joint attention, text first, with learned registers ahead of the text; no mask, no rotary positions.

Registers read the prompt that they lead, so the negative gets registers of its own between the two prompts.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nag.errors import UnsupportedPipeline
from nag.families.family import Family
from nag.guided_step import GuidedStep
from nag.negative import NegativeEmbeds
from nag.step_hooks import StepHooks
from nag.token_layout import TokenLayout

__all__ = ["AuraFlow"]

REGISTERS = 8


class AuraFlow(Family):
    name = "AuraFlow"
    models = "AuraFlow, Pony v7"
    attention = "joint"
    denoiser_types = ("AuraFlowTransformer2DModel",)
    attention_modules = ("joint_transformer_blocks.*.attn", "single_transformer_blocks.*.attn")
    processors = ("AuraFlowAttnProcessor2_0", "FusedAuraFlowAttnProcessor2_0")
    timestep_unit = 1000.0
    cfg = "batched"

    def check_denoiser(self, denoiser: Any) -> None:
        registers = denoiser.register_tokens.shape[1]
        if registers != REGISTERS:
            raise UnsupportedPipeline(f"this AuraFlow has {registers} register tokens, not {REGISTERS}")

    def layout(self, call: dict[str, Any], negative: NegativeEmbeds) -> TokenLayout:
        plain = super().layout(call, negative)
        return TokenLayout(REGISTERS + plain.positive, REGISTERS + plain.negative)

    def hooks(self, denoiser: Any, hooks: StepHooks) -> None:
        def lead_negative(step: GuidedStep, args: Any, text: Tensor) -> Tensor:  # noqa: ARG001 (a hook's signature)
            registers = denoiser.register_tokens.to(text).expand(len(text), -1, -1)
            positive = step.token_layout.positive - REGISTERS
            return torch.cat([text[:, :positive], registers, text[:, positive:]], dim=1)

        hooks.after(denoiser.context_embedder, lead_negative)

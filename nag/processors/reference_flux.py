"""The authors' Flux layout, for reference: a text stream a prompt, and a second copy of the image in single blocks.

Text travels as 2B rows, positive first. In double blocks the image is one stream of B rows; in single blocks it is 2B
rows, each lane with its own modulation, and both lanes take the guided image output.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from torch import Tensor

from nag._diffusers import processor_backend
from nag.formula import normalized_attention_guidance
from nag.processors.flux_projections import QKV, join, project_image, project_text, rotate
from nag.processors.guided import GuidedProcessor
from nag.state import GuidedStep

__all__ = ["ReferenceFluxProcessor"]


class ReferenceFluxProcessor(GuidedProcessor):
    """For the double and single blocks of Flux, with prompts of one length."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Any:
        step = self.current.step
        if step is None:
            return self.plain(attn, hidden_states, encoder_hidden_states, attention_mask, image_rotary_emb)
        qkv = project_image(attn, hidden_states)
        if encoder_hidden_states is not None:
            two_lanes = QKV(*(torch.cat([part, part]) for part in qkv))
            qkv = join(project_text(attn, encoder_hidden_states), two_lanes)
        query, key = rotate(qkv.query, image_rotary_emb), rotate(qkv.key, image_rotary_emb)
        out = dispatch_attention_fn(query, key, qkv.value, backend=processor_backend(self.plain)).flatten(2)
        text, image = self._guide(out, step)
        if encoder_hidden_states is None:
            return torch.cat([text, torch.cat([image, image])], dim=1)
        return attn.to_out[1](attn.to_out[0](image)), attn.to_add_out(text)

    @staticmethod
    def _guide(out: Tensor, step: GuidedStep) -> tuple[Tensor, Tensor]:
        """Text of both lanes (2B, L, C) and the guided image (B, T, C)."""
        length = step.negative.embeds.shape[1]
        text, image = out[:, :length], out[:, length:]
        z_positive, z_negative = image.chunk(2)
        numbers = step.numbers
        return text, normalized_attention_guidance(z_positive, z_negative, numbers.scale, numbers.tau, numbers.alpha)

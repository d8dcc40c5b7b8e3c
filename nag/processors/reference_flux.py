"""The authors' Flux layout, for reference: one text stream per prompt, and a second copy of the image in single blocks.

Text travels as 2B rows, positive first. In double blocks the image is one stream of B rows; in single blocks it is 2B
rows, each lane with its own modulation, and both lanes take the guided image output.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.embeddings import apply_rotary_emb
from torch import Tensor

from nag._diffusers import processor_backend
from nag.formula import normalized_attention_guidance
from nag.guided_step import GuidedStep
from nag.processors.guided import GuidedProcessor

__all__ = ["ReferenceFluxProcessor"]


class ReferenceFluxProcessor(GuidedProcessor):
    """Guides the double and single blocks of Flux, with prompts of one length."""

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
            return self.original(attn, hidden_states, encoder_hidden_states, attention_mask, image_rotary_emb)
        query, key, value = _project(attn, hidden_states)
        if encoder_hidden_states is not None:
            of_text = _project(attn, encoder_hidden_states, added=True)
            query, key, value = (
                torch.cat([text, torch.cat([image, image])], dim=1)
                for text, image in zip(of_text, (query, key, value), strict=True)
            )
        if image_rotary_emb is not None:
            query, key = (apply_rotary_emb(states, image_rotary_emb, sequence_dim=1) for states in (query, key))
        out = dispatch_attention_fn(query, key, value, backend=processor_backend(self.original)).flatten(2)
        text, image = self._guide(out, step)
        if encoder_hidden_states is None:
            return torch.cat([text, torch.cat([image, image])], dim=1)
        return attn.to_out[1](attn.to_out[0](image)), attn.to_add_out(text)

    @staticmethod
    def _guide(out: Tensor, step: GuidedStep) -> tuple[Tensor, Tensor]:
        """Returns the text of both lanes (2B, L, C) and the guided image (B, T, C)."""
        length = step.negative.embeds.shape[1]
        text, image = out[:, :length], out[:, length:]
        z_positive, z_negative = image.chunk(2)
        numbers = step.numbers
        image = normalized_attention_guidance(
            z_positive, z_negative, numbers.scale, numbers.tau, numbers.alpha, sum_heads=step.sum_heads
        )
        return text, image


def _project(attn: Any, states: Tensor, *, added: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Returns query, key and value, (B, T, H, D) each.

    Args:
        attn: a double or single block's attention.
        states: of the image in a double block, or the whole sequence in a single one, (B, T, C).
        added: whether they are of the text in a double block.

    """
    if attn.fused_projections:
        parts = (attn.to_added_qkv if added else attn.to_qkv)(states).chunk(3, dim=-1)
    else:
        names = ("add_q_proj", "add_k_proj", "add_v_proj") if added else ("to_q", "to_k", "to_v")
        parts = [getattr(attn, name)(states) for name in names]
    query, key, value = (part.unflatten(-1, (-1, attn.head_dim)) for part in parts)
    if added:
        return attn.norm_added_q(query), attn.norm_added_k(key), value
    return attn.norm_q(query), attn.norm_k(key), value

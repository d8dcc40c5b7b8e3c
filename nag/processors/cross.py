"""Cross attention of a UNet: image queries against the text of one prompt; the negative is a second set of keys."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nag.processors.guided import GuidedProcessor, guided

__all__ = ["CrossAttentionProcessor"]


class CrossAttentionProcessor(GuidedProcessor):
    """For `attn2` of SD and SDXL. Rows outside the step's `rows` (CFG's unconditional ones) keep Z+."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        step = self.session.step
        if step is None:
            plain: Tensor = self.plain(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
            return plain
        assert encoder_hidden_states is not None
        residual = hidden_states
        if attn.spatial_norm is not None:
            hidden_states = attn.spatial_norm(hidden_states, temb)
        is_map = hidden_states.ndim == 4
        if is_map:
            hidden_states = hidden_states.flatten(2).transpose(1, 2)  # (B, C, H, W) → (B, H·W, C)
        if attn.group_norm is not None:
            hidden_states = attn.group_norm(hidden_states.transpose(1, 2)).transpose(1, 2)

        query = self._heads(attn, attn.to_q(hidden_states), attn.norm_q)
        mask = self._mask(attn, attention_mask, encoder_hidden_states)
        z_positive = self._attend(attn, query, encoder_hidden_states, mask)
        # The negative prompt's padding is attended to as the positive's is: the pipelines of these models mask neither.
        z_negative = self._attend(attn, query[step.rows], step.negative.embeds, None)
        z = guided(z_positive[step.rows], z_negative, step)
        if len(z) < len(z_positive):
            z = torch.cat([z_positive[: step.rows.start], z, z_positive[step.rows.stop :]])

        out: Tensor = attn.to_out[1](attn.to_out[0](z))
        if is_map:
            out = out.transpose(1, 2).reshape(residual.shape)
        if attn.residual_connection:
            out = out + residual
        scaled: Tensor = out / attn.rescale_output_factor
        return scaled

    def _attend(self, attn: Any, query: Tensor, text: Tensor, mask: Tensor | None) -> Tensor:
        """(B, T, C): `query` (B, H, T, D) against the keys and values of `text` (B, L, C)."""
        if attn.norm_cross:
            text = attn.norm_encoder_hidden_states(text)
        key, value = self._heads(attn, attn.to_k(text), attn.norm_k), self._heads(attn, attn.to_v(text), None)
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2).flatten(2)

    @staticmethod
    def _heads(attn: Any, states: Tensor, norm: Any) -> Tensor:
        """(B, T, C) → (B, H, T, D), normalized where the module does so."""
        states = states.reshape(*states.shape[:-1], attn.heads, -1).transpose(1, 2)
        normed: Tensor = states if norm is None else norm(states)
        return normed

    @staticmethod
    def _mask(attn: Any, mask: Tensor | None, text: Tensor) -> Tensor | None:
        if mask is None:
            return None
        prepared: Tensor = attn.prepare_attention_mask(mask, text.shape[1], len(text))
        return prepared.view(len(text), attn.heads, -1, prepared.shape[-1])

"""Joint attention over `[positive | negative | image]`: both prompts' text, one image stream."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from torch import Tensor

from nag.attention import attention_with_lse, gives_lse, merge
from nag.packing import Packing
from nag.processors.flux_projections import QKV, join, project_image, project_text, rotate
from nag.processors.guided import GuidedProcessor, guided
from nag.session import Session

__all__ = ["JointAttentionProcessor", "merged_attention", "two_call_attention"]


class JointAttentionProcessor(GuidedProcessor):
    """For the double blocks (text apart from image) and the single blocks (one sequence) of Flux.

    `merge_by_lse` computes image × image once; without it, or where a backend was chosen or no kernel returns the
    log-sum-exp, two attention calls give the same result.
    """

    def __init__(self, session: Session, plain: Any, *, merge_by_lse: bool = True) -> None:
        super().__init__(session, plain)
        self.merge_by_lse = merge_by_lse

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Any:
        step = self.session.step
        if step is None:
            return self.plain(attn, hidden_states, encoder_hidden_states, attention_mask, image_rotary_emb)
        assert step.packing is not None
        qkv = project_image(attn, hidden_states)
        if encoder_hidden_states is not None:
            qkv = join(project_text(attn, encoder_hidden_states), qkv)
        qkv = QKV(rotate(qkv.query, image_rotary_emb), rotate(qkv.key, image_rotary_emb), qkv.value)

        positive, negative, z_positive, z_negative = (part.flatten(2) for part in self._attend(qkv, step.packing))
        image = guided(z_positive, z_negative, step)
        if encoder_hidden_states is None:
            return torch.cat([positive, negative, image], dim=1)
        text = torch.cat([positive, negative], dim=1)
        return attn.to_out[1](attn.to_out[0](image)), attn.to_add_out(text)

    def _attend(self, qkv: QKV, packing: Packing) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        chosen = self._attention_backend is not None or self._parallel_config is not None
        if self.merge_by_lse and not chosen and gives_lse(qkv.query):
            return merged_attention(qkv, packing)
        return two_call_attention(qkv, packing, self._attention_backend, self._parallel_config)


def merged_attention(qkv: QKV, packing: Packing) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Outputs of the positive text, the negative text, and the image as Z+ and Z−; each (B, tokens, H, D)."""
    pos, neg, image = (QKV(*parts) for parts in zip(*(packing.split(part) for part in qkv), strict=True))
    # Every query against the image, once; then each against the one prompt it may see.
    out, lse = attention_with_lse(qkv.query, image.key, image.value)
    pos_out, neg_out, image_out = packing.split(out)
    pos_lse, neg_lse, image_lse = packing.split(lse)
    return (
        merge(pos_out, pos_lse, *attention_with_lse(pos.query, pos.key, pos.value)),
        merge(neg_out, neg_lse, *attention_with_lse(neg.query, neg.key, neg.value)),
        merge(image_out, image_lse, *attention_with_lse(image.query, pos.key, pos.value)),
        merge(image_out, image_lse, *attention_with_lse(image.query, neg.key, neg.value)),
    )


def two_call_attention(
    qkv: QKV, packing: Packing, backend: Any = None, parallel_config: Any = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same by attending twice, `[positive | image]` and `[negative | image]`, through diffusers' dispatch."""
    pos, neg, image = (QKV(*parts) for parts in zip(*(packing.split(part) for part in qkv), strict=True))
    outs = []
    for text in (pos, neg):
        query, key, value = join(text, image)
        out = dispatch_attention_fn(query, key, value, backend=backend, parallel_config=parallel_config)
        outs.append((out[:, : text.query.shape[1]], out[:, text.query.shape[1] :]))
    (pos_out, z_positive), (neg_out, z_negative) = outs
    return pos_out, neg_out, z_positive, z_negative

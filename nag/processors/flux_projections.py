"""Queries, keys and values of a Flux attention module, in the order its blocks put text and image."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from diffusers.models.embeddings import apply_rotary_emb
from torch import Tensor

__all__ = ["QKV", "join", "project_image", "project_text", "rotate"]


class QKV(NamedTuple):
    """Each (B, T, H, D)."""

    query: Tensor
    key: Tensor
    value: Tensor


def project_image(attn: Any, states: Tensor) -> QKV:
    """The image stream of a double block, or the whole sequence of a single block. states: (B, T, C)."""
    if attn.fused_projections:
        query, key, value = attn.to_qkv(states).chunk(3, dim=-1)
    else:
        query, key, value = attn.to_q(states), attn.to_k(states), attn.to_v(states)
    query, key, value = (_heads(attn, part) for part in (query, key, value))
    return QKV(attn.norm_q(query), attn.norm_k(key), value)


def project_text(attn: Any, states: Tensor) -> QKV:
    """The text stream of a double block. states: (B, L, C)."""
    if attn.fused_projections:
        query, key, value = attn.to_added_qkv(states).chunk(3, dim=-1)
    else:
        query, key, value = attn.add_q_proj(states), attn.add_k_proj(states), attn.add_v_proj(states)
    query, key, value = (_heads(attn, part) for part in (query, key, value))
    return QKV(attn.norm_added_q(query), attn.norm_added_k(key), value)


def rotate(states: Tensor, rotary: tuple[Tensor, Tensor] | None) -> Tensor:
    """Rotary position embedding of (B, T, H, D) by (cos, sin), each (T, D)."""
    if rotary is None:
        return states
    rotated: Tensor = apply_rotary_emb(states, rotary, sequence_dim=1)
    return rotated


def join(first: QKV, second: QKV) -> QKV:
    """One sequence of two."""
    return QKV(*(torch.cat(pair, dim=1) for pair in zip(first, second, strict=True)))


def _heads(attn: Any, states: Tensor) -> Tensor:
    return states.reshape(*states.shape[:-1], -1, attn.head_dim)

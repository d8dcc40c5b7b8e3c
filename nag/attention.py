"""One attention call as torch sees it, the log-sum-exp that some kernels return, and the exact merge it allows.

A softmax over a union of key sets is the mean of the softmaxes over each set, weighted by their exponentiated
log-sum-exps. So attention of the image to itself, the bulk of the work, is computed once and shared by both prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nag._diffusers import NATIVE_FLASH

__all__ = ["AttentionCall", "attention_with_lse", "lse_kernel", "merge_by_lse", "supports_lse"]

#: The CPU's kernel takes keys in blocks, and in bfloat16 twice as long for one that its tiles do not fill. The few keys
#: of a prompt often do not: they are filled up with keys that a mask leaves out.
CPU_BLOCK, CPU_TILE = 512, 16


@dataclass(frozen=True)
class AttentionCall:
    """Arguments of `torch.nn.functional.scaled_dot_product_attention`, under its names.

    query (B, H, T, D), key and value (B, H', S, D), attn_mask broadcastable to (B, H, T, S) or None; H' is H, or a
    divisor of it with `enable_gqa`.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    attn_mask: Tensor | None = None
    dropout_p: float = 0.0
    is_causal: bool = False
    scale: float | None = None
    enable_gqa: bool = False
    backend: Any = None  # of diffusers' dispatch; None computes with torch's own

    def __call__(self) -> Tensor:
        """Computes the output, (B, H, T, D)."""
        if self.backend is not None:
            return self._dispatch()
        return F.scaled_dot_product_attention(
            self.query,
            self.key,
            self.value,
            self.attn_mask,
            self.dropout_p,
            self.is_causal,
            scale=self.scale,
            enable_gqa=self.enable_gqa,
        )

    def _dispatch(self) -> Tensor:
        from diffusers.models.attention_dispatch import dispatch_attention_fn

        query, key, value = (states.transpose(1, 2) for states in (self.query, self.key, self.value))
        out: Tensor = dispatch_attention_fn(
            query,
            key,
            value,
            attn_mask=self.attn_mask,
            dropout_p=self.dropout_p,
            is_causal=self.is_causal,
            scale=self.scale,
            enable_gqa=self.enable_gqa,
            backend=self.backend,
        )
        return out.transpose(1, 2)

    def with_kv(self, key: Tensor, value: Tensor, attn_mask: Tensor | None = None) -> AttentionCall:
        """Returns the call with the same queries and other keys."""
        return replace(self, key=key, value=value, attn_mask=attn_mask)

    def with_more_kv(self, key: Tensor, value: Tensor, attn_mask: Tensor | None = None) -> AttentionCall:
        """Returns the call whose queries attend to these keys too, by one softmax."""
        counts = self.key.shape[2], key.shape[2]
        return self.with_kv(
            torch.cat([self.key, key], 2),
            torch.cat([self.value, value], 2),
            _join_masks((self.attn_mask, attn_mask), counts),
        )

    def for_rows(self, rows: slice) -> AttentionCall:
        """Returns the call for some rows of the batch."""
        mask = self.attn_mask
        if mask is not None and mask.ndim == 4 and mask.shape[0] > 1:
            mask = mask[rows]
        return replace(self, query=self.query[rows], key=self.key[rows], value=self.value[rows], attn_mask=mask)


def _join_masks(masks: Sequence[Tensor | None], counts: Sequence[int]) -> Tensor | None:
    """Returns the mask over groups of keys, `counts` in each, from their masks; None if all keys are seen."""
    present = [mask for mask in masks if mask is not None]
    if not present:
        return None
    like = next((mask for mask in present if mask.is_floating_point()), present[0])

    def alike(mask: Tensor | None, count: int) -> Tensor:
        if mask is None:
            mask = torch.ones(1, 1, 1, count, dtype=torch.bool, device=like.device)
        if mask.dtype == like.dtype:
            return mask
        return torch.zeros_like(mask, dtype=like.dtype).masked_fill(~mask, -torch.inf)

    parts = [alike(mask, count) for mask, count in zip(masks, counts, strict=True)]
    shape = [max(sizes) for sizes in zip(*(part.shape[:-1] for part in parts), strict=True)]
    return torch.cat([part.expand(*shape, -1) for part in parts], -1)


def supports_lse(call: AttentionCall) -> bool:
    """Whether a kernel that returns the log-sum-exp exists for this call's device, dtype, backend and settings."""
    kernel = _kernel(call.query)
    is_chosen = call.backend is None or (call.backend == NATIVE_FLASH and kernel in (_cpu_flash, _cuda_flash))
    return is_chosen and call.attn_mask is None and not call.is_causal and kernel is not None


def attention_with_lse(query: Tensor, key: Tensor, value: Tensor, scale: float | None = None) -> tuple[Tensor, Tensor]:
    """Computes softmax(scale · Q Kᵀ) V and the log of its denominator; scale is 1/√D unless given.

    Args:
        query: (B, H, T, D).
        key: (B, H', S, D), where H' divides H.
        value: (B, H', S, D).
        scale: of the logits.

    Returns:
        Output (B, H, T, D) and log-sum-exp (B, H, T), in float32 or wider.

    Raises:
        NotImplementedError: no kernel returns the log-sum-exp for this device and dtype.

    """
    kernel = _kernel(query)
    if kernel is None:
        raise NotImplementedError(f"no attention kernel returns the log-sum-exp on {query.device} in {query.dtype}")
    if not query.shape[2]:  # a rank of a split sequence may have none of a part; torch's kernel for CPUs divides by it
        return torch.empty_like(query), query.new_empty(
            query.shape[:3], dtype=torch.promote_types(query.dtype, torch.float32)
        )
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    out, lse = kernel(query, key, value, scale)
    # Some kernels pad the query axis of the log-sum-exp to a multiple of their tile.
    return out, lse[:, :, : query.shape[2]]


def merge_by_lse(out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor) -> Tensor:
    """Merges attention over keys A and over keys B; shapes as `attention_with_lse` returns them."""
    weight_b = torch.sigmoid(lse_b - lse_a).unsqueeze(-1)
    return torch.lerp(out_a, out_b, weight_b.to(out_a.dtype))


_Kernel = Callable[[Tensor, Tensor, Tensor, float | None], tuple[Tensor, Tensor]]


def lse_kernel(device: str, dtype: torch.dtype, channels: int) -> _Kernel | None:
    """Returns the attention kernel that also returns the log-sum-exp, or None if there is none.

    Args:
        device: the type of the device.
        dtype: of query, key and value.
        channels: of a head.

    """
    half = dtype in (torch.float16, torch.bfloat16)
    if device == "cpu" and dtype != torch.float16:
        return _cpu_flash
    if device == "cuda" and half and channels % 8 == 0:
        return _cuda_flash
    if device == "cuda" and dtype == torch.float32:
        return _cuda_efficient
    return None


def _kernel(query: Tensor) -> _Kernel | None:
    return lse_kernel(query.device.type, query.dtype, query.shape[-1])


def _cpu_flash(query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> tuple[Tensor, Tensor]:
    mask, beyond = None, -key.shape[2] % CPU_TILE
    if beyond and query.dtype == torch.bfloat16 and key.shape[2] < CPU_BLOCK:
        mask = query.new_zeros(1, 1, 1, key.shape[2] + beyond)
        mask[..., -beyond:] = -torch.inf
        key, value = (F.pad(states, (0, 0, 0, beyond)) for states in (key, value))
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, attn_mask=mask, scale=scale
    )
    return out, lse


def _cuda_flash(query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> tuple[Tensor, Tensor]:
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention(query, key, value, scale=scale)[:2]
    return out, lse


def _cuda_efficient(query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> tuple[Tensor, Tensor]:
    out, lse = torch.ops.aten._scaled_dot_product_efficient_attention(query, key, value, None, True, scale=scale)[:2]
    return out, lse

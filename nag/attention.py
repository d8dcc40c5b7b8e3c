"""Attention that also returns its log-sum-exp, and the exact merge of attentions over parts of the keys.

A softmax over a union of key sets is the mean of the softmaxes over each set, weighted by their exponentiated
log-sum-exps. So attention of the image to itself, the bulk of the work, is computed once and shared by both prompts.
Tensors are (B, T, H, D), as in diffusers' processors; a log-sum-exp is (B, T, H) in float32 or wider.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["attention_with_lse", "gives_lse", "merge"]

_Kernel = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def gives_lse(query: Tensor) -> bool:
    """Whether a kernel that returns the log-sum-exp exists for this device and dtype."""
    return _kernel(query) is not None


def attention_with_lse(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """softmax(Q Kᵀ / √D) V and the log of its denominator.

    Args:
        query: (B, T, H, D).
        key: (B, S, H, D).
        value: (B, S, H, D).

    Returns:
        Output (B, T, H, D) and log-sum-exp (B, T, H).

    Raises:
        NotImplementedError: `gives_lse(query)` is false.

    """
    kernel = _kernel(query)
    if kernel is None:
        raise NotImplementedError(f"no attention kernel returns the log-sum-exp on {query.device} in {query.dtype}")
    out, lse = kernel(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2))
    # Some kernels pad the query axis of the log-sum-exp to a multiple of their tile.
    return out.transpose(1, 2), lse[:, :, : query.shape[1]].transpose(1, 2)


def merge(out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor) -> Tensor:
    """Attention over keys A ∪ B from attention over A and over B; shapes as `attention_with_lse` returns them."""
    weight_b = torch.sigmoid(lse_b - lse_a).unsqueeze(-1)
    return torch.lerp(out_a, out_b, weight_b.to(out_a.dtype))


def _kernel(query: Tensor) -> _Kernel | None:
    half = query.dtype in (torch.float16, torch.bfloat16)
    if query.device.type == "cpu" and query.dtype != torch.float16:
        return _cpu_flash
    if query.device.type == "cuda" and half and query.shape[-1] % 8 == 0:
        return _cuda_flash
    if query.device.type == "cuda" and query.dtype == torch.float32:
        return _cuda_efficient
    return None


def _cpu_flash(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value)
    return out, lse


def _cuda_flash(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention(query, key, value)[:2]
    return out, lse


def _cuda_efficient(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    out, lse = torch.ops.aten._scaled_dot_product_efficient_attention(query, key, value, None, True)[:2]
    return out, lse

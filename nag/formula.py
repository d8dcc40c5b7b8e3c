"""Guidance of attention outputs, each rule written once in its paper's symbols.

Normalized Attention Guidance (NAG): equations 7 to 10 of arXiv 2505.21179. Orthogonal negative guidance: arXiv
2605.29390. Value sign flip (VSF): arXiv 2508.10931.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["decay_scale", "flip_sign", "normalized_attention_guidance", "orthogonalize"]

#: The paper has no ε; a token whose attention output is all zero must not become NaN.
EPSILON = torch.finfo(torch.float32).tiny


def normalized_attention_guidance(
    z_positive: Tensor,
    z_negative: Tensor,
    scale: float | Tensor,
    tau: float | Tensor,
    alpha: float | Tensor,
    *,
    sum_heads: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Guides the attention output of the positive prompt away from that of the negative one.

    Args:
        z_positive: Z+, attention output before the output projection, (B, T, C) with all heads in C.
        z_negative: Z−, same shape, same queries against the negative prompt's keys and values.
        scale: s ≥ 1, where φ = s − 1 is the paper's scale; s = 1 returns Z+ exactly.
        tau: τ ≥ 1, the largest growth of a token's L1 norm.
        alpha: α in [0, 1], the share of the guided output; α = 0 returns Z+ exactly.
        sum_heads: adds up what each rank has summed over C, if C is this rank's part of a token's heads.

    Numbers may differ by row: tensors that broadcast against (B, T, 1).

    Returns:
        Z_NAG, with the shape and dtype of z_positive.

    """
    dtype = z_positive.dtype
    if dtype == torch.float16:
        # Extrapolation can leave float16's range before normalization brings it back.
        z_positive, z_negative = z_positive.float(), z_negative.float()
    scale, tau, alpha = (_like(value, z_positive) for value in (scale, tau, alpha))

    # (7) extrapolation, Z~ = Z+ + φ (Z+ − Z−): the line through Z− and Z+ at s = 1 + φ, in one pass over memory.
    z_tilde = torch.lerp(z_negative, z_positive, scale)
    norm_tilde, norm_positive = _whole((_l1(z_tilde), _l1(z_positive)), sum_heads)
    # (8) R = ‖Z~‖₁ / ‖Z+‖₁ and (9) min(R, τ) / R, as one factor that stays finite where a norm is zero.
    factor = (tau.float() * norm_positive / norm_tilde.clamp_min(EPSILON)).clamp_max(1)
    z_hat = factor.to(z_tilde.dtype) * z_tilde
    return torch.lerp(z_positive, z_hat, alpha).to(dtype)  # (10) refinement


def orthogonalize(
    z_positive: Tensor, z_negative: Tensor, *, sum_heads: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Returns what takes the place of Z− in equation 7 if only its part orthogonal to Z+ is subtracted.

    Z−⊥ = Z− − (Z−·Z+ / Z+·Z+) Z+ for each token, over all heads together (arXiv 2605.29390). Equation 7 of Z+ + Z−⊥ is
    Z~ = Z+ − φ Z−⊥. Equations 8 to 10 follow, which that paper does not have.

    Args:
        z_positive: Z+, (B, T, C) with all heads in C.
        z_negative: Z−, same shape.
        sum_heads: as `normalized_attention_guidance` takes it.

    Returns:
        Z+ + Z−⊥, (B, T, C), in the dtype of z_positive.

    """
    plus, minus = (z.to(torch.promote_types(z.dtype, torch.float32)) for z in (z_positive, z_negative))
    product, square = _whole(((minus * plus).sum(-1, keepdim=True), plus.square().sum(-1, keepdim=True)), sum_heads)
    return torch.addcmul(minus, plus, 1 - product / square.clamp_min(EPSILON)).to(z_positive.dtype)


def flip_sign(value: Tensor, scale: Tensor) -> Tensor:
    """Returns the negative prompt's values as VSF attends to them: −φ V−.

    The image attends to both prompts by one softmax: softmax(Q [K+, K−]ᵀ / √d) [V+, −φ V−] (arXiv 2508.10931, without
    its bias on the logits of K−).

    Args:
        value: V−, (B, H, L, D).
        scale: s = 1 + φ, (B, 1, 1).

    """
    return value * (1 - scale).to(value.dtype).unsqueeze(-1)


def decay_scale(scale: float, decay: float, passed: float) -> float:
    """Returns s after a share `passed` ∈ [0, 1] of the guided timesteps: φ loses the share `decay` of it in all.

    Not in the paper, whose φ is constant until θ. High noise decides what an image shows, low noise how well it is
    drawn; figures in benchmarks/README.md.
    """
    return 1 + (scale - 1) * (1 - decay * passed)


def _whole(sums: tuple[Tensor, Tensor], sum_heads: Callable[[Tensor], Tensor] | None) -> tuple[Tensor, Tensor]:
    """Returns two sums over all heads of a token."""
    if sum_heads is None:
        return sums
    first, second = sum_heads(torch.stack(sums))
    return first, second


def _l1(z: Tensor) -> Tensor:
    """Computes ‖Z[i]‖₁ of each token in float32, since half precision overflows over thousands of channels."""
    dtype = torch.promote_types(z.dtype, torch.float32)
    norm: Tensor = torch.linalg.vector_norm(z, 1, -1, keepdim=True, dtype=dtype)
    return norm


def _like(value: float | Tensor, z: Tensor) -> Tensor:
    return torch.as_tensor(value, dtype=z.dtype, device=z.device)

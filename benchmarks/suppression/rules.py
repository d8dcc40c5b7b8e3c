"""The rivals of equations 7 to 10, in the same symbols: each takes Z+ and Z− to the attention output.

They stand in for the library's one formula; whatever surrounds it is the same for all.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["Rule", "clip_rate", "l2_norm", "nasa", "without_normalization"]

Rule = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
SCALE_MAX = 30.0


def nasa(z_positive: Tensor, z_negative: Tensor, scale: Tensor, tau: Tensor, alpha: Tensor) -> Tensor:
    """Z+ − φ Z− (arXiv 2412.02687): no difference, no norm, no mixing."""
    del tau, alpha
    return z_positive - (scale - 1) * z_negative


def without_normalization(z_positive: Tensor, z_negative: Tensor, scale: Tensor, tau: Tensor, alpha: Tensor) -> Tensor:
    """Equations 7 and 10 alone."""
    del tau
    return torch.lerp(z_positive, torch.lerp(z_negative, z_positive, scale), alpha.to(z_positive.dtype))


def l2_norm(z_positive: Tensor, z_negative: Tensor, scale: Tensor, tau: Tensor, alpha: Tensor) -> Tensor:
    """Returns the Euclidean norm in equations 8 and 9."""
    z_tilde = torch.lerp(z_negative, z_positive, scale)
    return _refined(z_positive, z_tilde, tau, alpha, order=2)


def clip_rate(share: float) -> Rule:
    """NAG with a scale of each row's own: the one at which about `share` of its tokens reach τ, at every attention.

    For a scale well above 1, R grows by ‖Z+ − Z−‖₁ / ‖Z+‖₁ a unit of it, so one quantile of that gives the scale.
    """

    def rule(z_positive: Tensor, z_negative: Tensor, scale: Tensor, tau: Tensor, alpha: Tensor) -> Tensor:
        del scale
        growth = _norm(z_positive - z_negative, 1) / _norm(z_positive, 1).clamp_min(1e-12)  # (B, T, 1)
        reached = torch.quantile(growth, 1 - share, dim=1, keepdim=True).clamp_min(1e-6)
        own = (tau / reached).clamp(1.0, SCALE_MAX)
        return _refined(z_positive, torch.lerp(z_negative, z_positive, own), tau, alpha, order=1)

    return rule


def _refined(z_positive: Tensor, z_tilde: Tensor, tau: Tensor, alpha: Tensor, order: int) -> Tensor:
    """Equations 8 to 10 with a norm of the given order."""
    factor = (tau * _norm(z_positive, order) / _norm(z_tilde, order).clamp_min(1e-12)).clamp_max(1)
    return torch.lerp(z_positive, factor * z_tilde, alpha.to(z_positive.dtype))


def _norm(z: Tensor, order: int) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(z, ord=order, dim=-1, keepdim=True)
    return norm

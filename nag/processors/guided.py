"""What every guiding processor shares: it wraps the one it found, and is that one while nothing is guided."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from nag.formula import normalized_attention_guidance
from nag.session import Session, Step

__all__ = ["GuidedProcessor", "guided"]


class GuidedProcessor:
    """Wraps `plain`, the processor found on the attention module, and carries over its backend settings."""

    def __init__(self, session: Session, plain: Any) -> None:
        self.session = session
        self.plain = plain

    @property
    def _attention_backend(self) -> Any:
        return getattr(self.plain, "_attention_backend", None)

    @_attention_backend.setter
    def _attention_backend(self, backend: Any) -> None:
        self.plain._attention_backend = backend  # set_attention_backend() reaches the processor that stays

    @property
    def _parallel_config(self) -> Any:
        return getattr(self.plain, "_parallel_config", None)

    @_parallel_config.setter
    def _parallel_config(self, config: Any) -> None:
        self.plain._parallel_config = config


def guided(z_positive: Tensor, z_negative: Tensor, step: Step) -> Tensor:
    """The formula on (B, T, C) with the step's numbers for each row."""
    return normalized_attention_guidance(z_positive, z_negative, step.scale, step.tau, step.alpha)

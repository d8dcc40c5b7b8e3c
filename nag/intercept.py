"""Takes over the attention call inside a processor of diffusers, and leaves everything around it to diffusers.

Projections, norms, rotary embeddings, masks, fused or adapted weights: the processor found on the module does them all
on the packed tokens. Only `scaled_dot_product_attention` is answered here, and only inside the `with` block.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from nag.attention import AttentionCall

__all__ = ["Interception"]


class Interception(TorchFunctionMode):
    """Hands the first attention calls that `should_intercept` selects, one or `count`, to `guided_attention`.

    Every other call runs as it is.
    """

    def __init__(
        self,
        should_intercept: Callable[[AttentionCall], bool],
        guided_attention: Callable[[AttentionCall], Tensor],
        count: int = 1,
    ) -> None:
        super().__init__()
        self.should_intercept = should_intercept
        self.guided_attention = guided_attention
        self.answered, self._left = False, count

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention and not self.answered:
            call = AttentionCall(*args, **kwargs)
            if self.should_intercept(call):
                self._left -= 1
                self.answered = self._left <= 0
                return self.guided_attention(call)
        if func is torch.Tensor.unflatten:
            # The method cannot be traced into a full graph from here; the function of the same name can.
            return torch.unflatten(*args, **kwargs)
        return func(*args, **kwargs)

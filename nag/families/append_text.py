"""Text that a model embeds, refines or reorders ahead of its blocks: the negative's joins it at the first of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from nag.current import CurrentStep
from nag.negative import scatter_rows

__all__ = ["append_to_block", "changed"]


def append_to_block(
    block: nn.Module, place: int, name: str, tokens: Callable[[], Tensor], current: CurrentStep, stack: ExitStack
) -> None:
    """Puts `tokens()` (of the guided rows) behind those that `block` takes as its argument `name`, at `place`."""

    def before(module: nn.Module, args: Any, kwargs: Any) -> Any:  # noqa: ARG001 (torch's signature)
        step = current.step
        if step is None:
            return args, kwargs
        rows = step.rows
        return changed(
            args, kwargs, place, name, lambda text: torch.cat([text, scatter_rows(tokens(), rows, len(text))], dim=1)
        )

    stack.callback(block.register_forward_pre_hook(before, with_kwargs=True).remove)


def changed(args: Any, kwargs: Any, place: int, name: str, change: Callable[[Any], Any]) -> Any:
    """Arguments of a call with one of them changed, whichever way it was passed."""
    if len(args) > place:
        return (*args[:place], change(args[place]), *args[place + 1 :]), kwargs
    return args, kwargs | {name: change(kwargs[name])}

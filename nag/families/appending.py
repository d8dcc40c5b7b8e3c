"""Text that a model embeds, refines or reorders ahead of its blocks: the negative's joins it at the first of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from nag.session import Negative, Session

__all__ = ["append_to_block", "changed", "mask_of", "to_all_rows"]


def append_to_block(
    block: nn.Module, place: int, name: str, tokens: Callable[[], Tensor], session: Session, stack: ExitStack
) -> None:
    """Puts `tokens()` (of the guided rows) behind those that `block` takes as its argument `name`, at `place`."""

    def before(module: nn.Module, args: Any, kwargs: Any) -> Any:  # noqa: ARG001 (torch's signature)
        step = session.step
        if step is None:
            return args, kwargs
        return changed(args, kwargs, place, name, lambda text: torch.cat([text, filled(text)], dim=1))

    def filled(text: Tensor) -> Tensor:
        assert session.step is not None
        return to_all_rows(tokens(), session.step.rows, len(text))

    stack.callback(block.register_forward_pre_hook(before, with_kwargs=True).remove)


def changed(args: Any, kwargs: Any, place: int, name: str, change: Callable[[Any], Any]) -> Any:
    """Arguments of a call with one of them changed, whichever way it was passed."""
    if len(args) > place:
        return (*args[:place], change(args[place]), *args[place + 1 :]), kwargs
    return args, kwargs | {name: change(kwargs[name])}


def to_all_rows(guided: Tensor, rows: slice, count: int) -> Tensor:
    """As `rows` of `count`; the others are zero."""
    if len(guided) == count:
        return guided
    every = guided.new_zeros(count, *guided.shape[1:])
    every[rows] = guided
    return every


def mask_of(negative: Negative) -> Tensor:
    """1 at the negative's tokens, (N, L); given embeddings without a mask have no padding."""
    if negative.mask is not None:
        return negative.mask
    return torch.ones(negative.embeds.shape[:2], dtype=torch.long, device=negative.embeds.device)

"""Padding of negative prompts that differ in length."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nag.negative import NegativeEmbeds

__all__ = ["padded"]


def padded(rows: Sequence[Tensor]) -> NegativeEmbeds:
    """Stacks the tokens (L, C) of prompts, with a mask if they differ in number."""
    embeds = nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
    lengths = torch.tensor([len(row) for row in rows], device=embeds.device)
    mask = torch.arange(embeds.shape[1], device=embeds.device) < lengths[:, None]
    return NegativeEmbeds(embeds, mask=None if len({len(row) for row in rows}) == 1 else mask)

"""Denoiser calls in the shapes that modular pipelines make them, for what no classic pipeline does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nag import NegativeEmbeds
from tests.tiny.common import WIDTH


@dataclass(frozen=True)
class DenoiserCall:
    """A small random denoiser and one call of it.

    Attributes:
        name: of the family or of a form of it.
        make: the denoiser, from a seed.
        arguments: of the call, by name: from the prompts' tokens and from how many tokens the rest of the sequence
            counts its places, where these follow from the positive's length.
        attention: where the image's queries stand, as `Case.attention`.
        rows: of the call.
        text: draws prompts of so many rows and tokens.
        text_tokens: as attention counts them, where that is not as many as were drawn.
        negative: a negative prompt of such tokens.

    """

    name: str
    make: Callable[[int], Any]
    arguments: Callable[[Tensor, int], dict[str, Any]]
    attention: str
    rows: int = 2
    text: Callable[[int, int], Tensor] = lambda rows, tokens: torch.randn(rows, tokens, WIDTH)
    text_tokens: int | None = None
    negative: Callable[[Tensor], NegativeEmbeds] = NegativeEmbeds

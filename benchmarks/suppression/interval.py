"""CFG in the noisiest steps alone (arXiv 2404.07724): the rival of a guidance that ends early."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

__all__ = ["ending"]


@contextmanager
def ending(denoiser: nn.Module, end: float, images: int) -> Iterator[None]:
    """Below (1 − end)·T the answer to the negative prompt is replaced by the caption's, which leaves CFG no difference.

    T is the first timestep of a pipeline call. The pipelines ask for both in one call, the negative's rows first, or in
    two, the caption's first.
    """
    total: float | None = None
    latest: tuple[float, torch.Tensor] | None = None

    def replace(_: nn.Module, args: tuple[Any, ...], given: dict[str, Any], output: tuple[torch.Tensor]) -> Any:
        nonlocal total, latest
        timestep = float(torch.as_tensor(given["timestep"] if "timestep" in given else args[1]).flatten()[0])
        if total is None or timestep > total:
            total = timestep
        if len(output[0]) == 2 * images:
            caption = output[0][images:]
            both = torch.cat([caption, caption])
        elif latest is None or latest[0] != timestep:
            latest = timestep, output[0]
            return output
        else:
            both = latest[1]
        return output if timestep >= (1 - end) * total else (both,)

    handle = denoiser.register_forward_hook(replace, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()

"""Lets diffusers split a denoiser over processes on a CPU; on its own it splits over accelerators only."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import torch
import torch.distributed as dist
from diffusers.hooks import tensor_parallel
from diffusers.models._modeling_parallel import ContextParallelConfig, ParallelConfig
from torch import Tensor

__all__ = ["allow_cpu_ranks"]

#: Implementations that this process adds to torch's operators, for as long as the library lives.
_OPERATORS = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]


def allow_cpu_ranks(denoiser: Any) -> None:
    """Makes `enable_parallelism` of this denoiser work on a CPU, with a configuration that has its mesh."""
    _extend_libraries()
    # diffusers' own method also finds out the number of accelerators, and divides by it.
    denoiser._resolve_parallel_config = partial(_set_config, denoiser)


def _set_config(denoiser: Any, config: Any) -> ParallelConfig:
    is_context = isinstance(config, ContextParallelConfig)
    whole = ParallelConfig(**{"context_parallel_config" if is_context else "tensor_parallel_config": config})
    whole.setup(dist.get_rank(), dist.get_world_size(), torch.device("cpu"), mesh=config.mesh)
    denoiser._parallel_config = whole
    return whole


@cache
def _extend_libraries() -> None:
    """Adds the CPU to the devices of tensor parallelism, and its attention kernel by the name of that of GPUs."""
    tensor_parallel._SUPPORTED_TP_DEVICES = (*tensor_parallel._SUPPORTED_TP_DEVICES, "cpu")
    _OPERATORS.impl("_scaled_dot_product_flash_attention", _flash_attention, "CPU")  # type: ignore[no-untyped-call]


def _flash_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    return_debug_mask: bool = False,  # noqa: ARG001 - torch's signature
    *,
    scale: float | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, int, int, Tensor, Tensor, Tensor]:
    """Computes attention and its log-sum-exp, by which a ring of ranks merges its parts."""
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, dropout_p, is_causal, scale=scale
    )
    none = query.new_empty(0)
    return out, lse, none, none, query.shape[2], key.shape[2], none, none, none

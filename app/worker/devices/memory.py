"""How much memory models take, how much there is, and what its end looks like."""

from __future__ import annotations

import gc
import itertools
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from app.catalog.profiles import DEVICE_SHARE

__all__ = [
    "LORAS_SHARE",
    "CallMemory",
    "budget_bytes",
    "free",
    "held_bytes",
    "is_out_of_memory",
    "lock_pages",
    "move",
    "unlock_pages",
    "used_bytes",
    "weights",
]

#: Of the device's memory, for the loaded models; the rest is for what their work needs.
MODELS_SHARE = {"cuda": DEVICE_SHARE, "cpu": 0.5}
#: And for the LoRAs of requests.
LORAS_SHARE = {"cuda": 0.05, "cpu": 0.05}
#: Of the memory that is free, for one denoiser call: what the allocator has reserved is in pieces.
CALL_SHARE = 0.8
#: As torch's CPU allocators say it; that is a plain RuntimeError.
NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")


class CallMemory:
    """Bytes that the denoiser calls of each model take per unit of cost, the most so far.

    Only CUDA's allocator tells; on a CPU nothing is known, and nothing bounded.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._bytes_per_cost: dict[str, float] = {}

    @contextmanager
    def measured(self, model: str, cost: int) -> Iterator[None]:
        """Measures the denoiser call inside the block."""
        if self._device.type != "cuda":
            yield
            return
        torch.cuda.reset_peak_memory_stats(self._device)
        before = torch.cuda.memory_allocated(self._device)
        yield
        taken = torch.cuda.max_memory_allocated(self._device) - before
        self._bytes_per_cost[model] = max(self._bytes_per_cost.get(model, 0.0), taken / cost)

    def cost_max(self, model: str) -> float:
        """The cost of a denoiser call that what is free now suffices for; infinite if nothing is known."""
        bytes_per_cost = self._bytes_per_cost.get(model)
        if not bytes_per_cost:
            return math.inf
        unused = torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)
        return CALL_SHARE * (torch.cuda.mem_get_info(self._device)[0] + unused) / bytes_per_cost


def budget_bytes(device: torch.device, share: Mapping[str, float] = MODELS_SHARE) -> int:
    """What the models together, or by another `share` the LoRAs, may take where the settings do not say."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[1] * share["cuda"])
    return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * share["cpu"])


def weights(pipe: Any) -> list[torch.Tensor]:
    """Returns the parameters and buffers of all parts of a pipeline, those they share once."""
    tensors: dict[int, torch.Tensor] = {}
    for part in pipe.components.values():
        if isinstance(part, nn.Module):
            tensors |= {id(tensor): tensor for tensor in itertools.chain(part.parameters(), part.buffers())}
    return list(tensors.values())


def held_bytes(pipe: Any) -> int:
    """Bytes of the weights of a pipeline."""
    return sum(map(_stored_bytes, weights(pipe)))


def _stored_bytes(tensor: torch.Tensor) -> int:
    """What a tensor takes; one that is made of others, such as a quantized weight, is as large as these together."""
    if not is_traceable_wrapper_subclass(tensor):
        return tensor.nbytes
    parts = (getattr(tensor, name) for name in tensor.__tensor_flatten__()[0])
    return sum(_stored_bytes(part) for part in parts if isinstance(part, torch.Tensor))


def move(pipe: Any, device: torch.device) -> None:
    """Moves the weights of all parts of a pipeline."""
    for part in pipe.components.values():
        if isinstance(part, nn.Module):
            part.to(device)


def lock_pages(tensor: torch.Tensor) -> str:
    """Locks the pages of a tensor in main memory, from which a GPU copies fast. Returns what CUDA says against it."""
    error = torch.cuda.cudart().cudaHostRegister(tensor.data_ptr(), tensor.nbytes, 0)  # type: ignore[no-untyped-call]
    if int(error) == 0:
        return ""
    with suppress(RuntimeError):  # CUDA tells of the failed call once more, at the next kernel of this thread
        torch.ones(1, device="cuda")
    return str(error)


def unlock_pages(tensor: torch.Tensor) -> None:
    """Unlocks what `lock_pages` locked. The tensor must not have been freed."""
    torch.cuda.cudart().cudaHostUnregister(tensor.data_ptr())  # type: ignore[no-untyped-call]


def used_bytes(device: torch.device) -> int:
    """Bytes that this process has of the device's memory; on a CPU its resident memory, 0 where Linux is not there."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0


def free(device: torch.device) -> None:
    """Give back what nothing refers to any more. Raises where the device itself has failed for good."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.current_stream(device).synchronize()


def is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(each in str(error) for each in NO_MEMORY)
